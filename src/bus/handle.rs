//! What doors reach the message bus by, wherever it is.

use std::sync::{Arc, Weak};

use prometheus::proto::MetricFamily;

use super::front::{Front, Names, Status};
use super::{Alone, Bus, ClaimError, Health, Party, Published, Settings, Turns};
use crate::proto::bus::{MailboxId, Owner, Submission, Subscription, To};
use crate::store::Store;
use crate::wire::name::Realm;

/// The message bus, as doors reach it.
#[derive(Clone, Debug)]
pub enum Handle {
    /// It is this relay's, on its own disk.
    Local(Arc<Bus>),
    /// It is this relay's, in NATS, once that can be used.
    Alone(Arc<Alone>),
    /// It is a cluster's, at whichever relay leads.
    Cluster(Arc<Front>),
}

/// A name that a credential has claimed.
#[derive(Clone, Debug)]
pub struct Address {
    realm: Realm,
    name: Arc<str>,
    owner: Owner,
    /// Where it is known: at the relay that has the bus.
    mailbox: MailboxId,
}

impl Address {
    /// The name.
    #[must_use]
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whose it is.
    #[must_use]
    pub const fn owner(&self) -> Owner {
        self.owner
    }
}

/// No mailbox has it: in a cluster the leader knows which one it is.
const ELSEWHERE: MailboxId = MailboxId(u64::MAX);

/// What a session that has claimed a name talks to.
enum Reached<'a> {
    Bus(&'a Bus),
    Front(&'a Front),
}

impl Handle {
    /// What a session that has claimed a name talks to.
    fn reached(&self) -> Reached<'_> {
        match self {
            Self::Local(bus) => Reached::Bus(bus),
            Self::Alone(alone) => {
                Reached::Bus(alone.bus().expect("the bus of a name that was claimed has begun"))
            }
            Self::Cluster(front) => Reached::Front(front),
        }
    }

    /// For a thread of sessions that takes turns of the bus, where that writes to a disk of this relay.
    #[must_use]
    pub fn turns(&self) -> Option<Arc<Turns>> {
        match self {
            Self::Local(bus) => Some(bus.turns()),
            // Each turn waits for NATS.
            Self::Alone(_) | Self::Cluster(_) => None,
        }
    }

    /// Has a name belong to who is first to claim it, also while that is offline and after a restart.
    ///
    /// # Errors
    /// It is another's, there are too many, or the bus does not say.
    pub async fn claim(
        &self,
        realm: Realm,
        name: Arc<str>,
        owner: Owner,
    ) -> Result<Address, ClaimError> {
        let mailbox = match self {
            Self::Local(bus) => bus.claim(realm, &name, owner).await?,
            Self::Alone(alone) => alone.begun().await?.claim(realm, &name, owner).await?,
            Self::Cluster(front) => {
                front.claim(realm, &name, owner).await?;
                ELSEWHERE
            }
        };
        Ok(Address { realm, name, owner, mailbox })
    }

    /// Has these names of a realm, and no others, be known although their owners have not come yet.
    pub fn reserve(&self, realm: Realm, names: Vec<String>) {
        match self {
            Self::Local(bus) => bus.reserve(realm, names),
            Self::Alone(alone) => alone.reserve(realm, names),
            Self::Cluster(front) => front.reserve(realm, names),
        }
    }

    /// Has the door of a realm hear of the names that have a session at another relay, where there
    /// are others.
    pub fn watch_names(&self, realm: Realm, names: Weak<dyn Names>) {
        match self {
            Self::Local(_) | Self::Alone(_) => {}
            Self::Cluster(front) => front.watch_names(realm, names),
        }
    }

    /// A peer can be reached: what waits for it is delivered from here on.
    pub fn open(&self, address: &Address, party: &Arc<dyn Party>) {
        let Address { realm, name, owner, mailbox } = address;
        match self.reached() {
            Reached::Bus(bus) => bus.open(*mailbox, *owner, Arc::clone(party)),
            Reached::Front(front) => front.open(*realm, name, *owner, party),
        }
    }

    /// A peer that was open is gone.
    pub fn close(&self, address: &Address, generation: u64) {
        match self.reached() {
            Reached::Bus(bus) => bus.close(address.mailbox, generation),
            Reached::Front(front) => front.close(generation),
        }
    }

    /// Takes a message of a peer: to whom, its id, its body. It is answered, where it wants that,
    /// when it is committed or refused.
    pub fn submit(
        &self,
        address: &Address,
        from: &Arc<dyn Party>,
        (to, id, body): (To, Arc<str>, Arc<[u8]>),
        wants_receipt: bool,
    ) {
        match self.reached() {
            Reached::Bus(bus) => {
                let submission = Submission { from: address.mailbox, to, id, body };
                bus.submit(from, submission, wants_receipt);
            }
            Reached::Front(front) => {
                front.submit(from.generation(), (to, id, body), wants_receipt);
            }
        }
    }

    /// Takes records of a peer for channels, in this order; each is answered when it is committed or
    /// refused. What came in one batch costs one wake-up of the bus, and most often one commit.
    pub fn publish(&self, address: &Address, from: &Arc<dyn Party>, records: Vec<Published>) {
        match self.reached() {
            Reached::Bus(bus) => bus.publish(from, address.mailbox, records),
            Reached::Front(front) => front.publish(from.generation(), records),
        }
    }

    /// A peer has a message, it says.
    pub fn acknowledge(&self, address: &Address, from: &Arc<dyn Party>, key: &str) {
        match self.reached() {
            Reached::Bus(bus) => bus.acknowledge(from, address.mailbox, key),
            Reached::Front(front) => front.acknowledge(from.generation(), key),
        }
    }

    /// A peer that was opened is subscribed to these channels, and to no others: from its cursors on,
    /// or from the end of a channel where it has none. Its connection ends
    /// ([`Party::withdraw`]) where there are too many channels or cursors.
    pub fn subscribe(&self, address: &Address, from: &Arc<dyn Party>, subscription: Subscription) {
        match self.reached() {
            Reached::Bus(bus) => {
                bus.subscribe(address.mailbox, from.generation(), subscription);
            }
            Reached::Front(front) => front.subscribe(from.generation(), subscription),
        }
    }

    /// A peer has the records of the batch of this number ([`Party::records`]), it says. Any but the
    /// last one has no effect.
    pub fn acknowledge_records(&self, address: &Address, from: &Arc<dyn Party>, batch: u64) {
        match self.reached() {
            Reached::Bus(bus) => bus.acknowledge_records(from, address.mailbox, batch),
            Reached::Front(front) => front.acknowledge_records(from.generation(), batch),
        }
    }

    /// Goes on by these settings.
    pub fn update(&self, settings: Settings) {
        match self {
            Self::Local(bus) => bus.update(settings),
            Self::Alone(alone) => alone.update(settings),
            Self::Cluster(front) => front.update(settings),
        }
    }

    /// The bus, where it is at this relay at the moment.
    #[must_use]
    pub fn leading(&self) -> Option<Arc<Bus>> {
        match self {
            Self::Local(bus) => Some(Arc::clone(bus)),
            Self::Alone(alone) => alone.bus().cloned(),
            Self::Cluster(front) => front.leading(),
        }
    }

    /// What is stored, as far as this relay has it.
    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Local(bus) => bus.store(),
            Self::Alone(alone) => alone.store(),
            Self::Cluster(front) => front.store(),
        }
    }

    /// Waits until a thread of the bus, or what says who leads, has ended.
    pub async fn ended(&self) {
        match self {
            Self::Local(bus) => bus.ended().await,
            Self::Alone(alone) => alone.ended().await,
            Self::Cluster(front) => front.ended().await,
        }
    }

    /// Commits what has come so far, and ends.
    pub async fn stop(&self) {
        match self {
            Self::Local(bus) => bus.stop().await,
            Self::Alone(alone) => alone.stop().await,
            Self::Cluster(front) => front.stop().await,
        }
    }

    /// Whether messages are taken.
    #[must_use]
    pub fn health(&self) -> Health {
        match self {
            Self::Local(bus) => bus.health(),
            Self::Alone(alone) => alone.health(),
            Self::Cluster(front) => front.health(),
        }
    }

    /// The bus in NATS, as this relay sees it; nothing where it is on the relay's own disk.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        match self {
            Self::Local(_) => None,
            Self::Alone(alone) => Some(alone.status()),
            Self::Cluster(front) => Some(front.status()),
        }
    }

    /// Appends the families of a scrape.
    pub fn families(&self, families: &mut Vec<MetricFamily>) {
        match self {
            Self::Local(bus) => bus.families(families),
            Self::Alone(alone) => match alone.bus() {
                Some(bus) => bus.families(families),
                None => alone.store().families(families),
            },
            Self::Cluster(front) => front.families(families),
        }
    }
}

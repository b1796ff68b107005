//! Many relays that serve as one: which relay has which peer, and packets between relays.
//!
//! A packet for a peer that is not here goes through [`Cluster::forward`]: its location is known
//! (`locations`), or the peer's home is asked and the packet waits. It leaves in a batch of
//! the outbox (`outbox`) towards a [`Member`], carried by a [`Fabric`]: the QUIC `mesh`, or
//! `nats`. At its relay, [`Cluster::receive`] hands it to [`Local::deliver`].
//!
//! Who has which peer is decided by [`Presence`], without IO. Locks are taken in this order:
//! presence, then locations or members, then an outbox; nobody waits for another relay.

mod channel;
mod clock;
mod clone;
mod counters;
mod fabric;
mod forward;
mod identity;
mod line;
mod links;
mod locations;
mod lost;
mod member;
pub mod mesh;
pub mod nats;
mod outbox;
mod status;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod time;
mod watching;
mod whereabouts;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::ids::RelayId;
use crate::metrics::Traffic;
use crate::proto::presence::{Event, Here, MAX_ENTRIES, Now, Presence};
use crate::wire::cluster::{About, Frame, Location, Ownership, Packets, Run};
use crate::wire::name::Name;

pub use channel::ChannelOwner;
use clock::Notice;
pub use counters::{Counters, Forward, LookupResult, PacketLane, Reject, WatchFrame};
pub use fabric::Fabric;
pub use forward::{Circular, Outward};
pub use identity::{Identity, IdentityError, identity_file, load_or_create, relay_id};
pub use line::{Channel, Said};
use locations::Locations;
use lost::Lost;
pub use lost::LostMember;
pub use member::Member;
pub use outbox::{Batch, Outbox};
pub use status::{MemberStatus, Status};
pub use watching::{Change, Watch};
pub use whereabouts::Elsewhere;

/// A member that was silent for so many keep-alives is lost.
pub const DEAD_AFTER: u32 = 3;

/// How often time is looked at: look-ups and repetitions are due in steps of this.
const TICK: Duration = Duration::from_millis(10);

/// Repairs of what homes believe that packets may cause in one [`TICK`]: packets are many,
/// and a relay that sends them at random must not make us talk.
const MAX_REPAIRS: usize = 256;

/// Tells two runs of one relay apart.
pub type Boot = [u8; 16];

/// What the cluster asks of the relay that it belongs to.
pub trait Local: Send + Sync {
    /// Delivers packets that another relay forwarded to peers that are here. Those for peers
    /// that are not are dropped, and named to `not_here` with a number that is higher than
    /// that of whatever was here before.
    fn deliver(
        &self,
        from: RelayId,
        packets: &[Packets<'_, Name>],
        now: Instant,
        not_here: &mut dyn FnMut(&Run<Name>, u64),
    );

    /// Ends a peer's session here, and forgets its endpoint, since a newer one is elsewhere;
    /// what came after `serial` stays. It was taken over if it `was_granted`, and refused if not.
    fn superseded(&self, peer: Name, serial: u64, was_granted: bool, now: Instant);
}

/// This relay's part in the cluster.
pub struct Cluster {
    identity: Identity,
    traffic: Arc<Traffic>,
    counters: Arc<Counters>,
    members: Mutex<BTreeMap<RelayId, Arc<Member>>>,
    presence: Mutex<Presence<Name>>,
    locations: Locations,
    local: OnceLock<Weak<dyn Local>>,
    asks: Mutex<Vec<Name>>,
    repairs: Mutex<Vec<(Name, u64)>>,
    asking: Notify,
    watching: watching::Watching,
    /// The doors that talk over channels.
    channels: RwLock<channel::Owners>,
    /// Hash of what peers are told that all relays have to tell alike; 0 for nothing.
    told_alike: AtomicU64,
    draining: AtomicBool,
    clock_notice: Notice,
    clone: clone::Clone,
    lost: Lost,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Cluster {
    /// A cluster of one.
    #[must_use]
    pub fn new(identity: Identity, traffic: Arc<Traffic>) -> Arc<Self> {
        Arc::new(Self {
            presence: Mutex::new(Presence::new(identity.relay, MAX_ENTRIES, Instant::now())),
            identity,
            locations: Locations::new(Arc::clone(&traffic)),
            traffic,
            counters: Arc::default(),
            members: Mutex::default(),
            local: OnceLock::new(),
            asks: Mutex::default(),
            repairs: Mutex::default(),
            asking: Notify::new(),
            watching: watching::Watching::default(),
            channels: RwLock::default(),
            told_alike: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            clock_notice: Notice::default(),
            clone: clone::Clone::default(),
            lost: Lost::default(),
        })
    }

    /// Notes a hash of what peers are told that all relays of the cluster should tell alike.
    pub fn tell_alike(&self, told: u64) {
        self.told_alike.store(told, Ordering::Relaxed);
    }

    /// What other relays are told of this one.
    fn about(&self) -> About {
        let realms = self.channel_realms();
        let talks = if realms.is_some() { About::CHANNELS } else { 0 };
        let told = self.told_alike.load(Ordering::Relaxed);
        About { features: About::WATCHES | talks, told, channels: realms }
    }

    /// Names the relay that this is a part of; the first call counts.
    pub fn serve(&self, local: Weak<dyn Local>) {
        self.local.get_or_init(|| local);
    }

    /// Who we are.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What is counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The other relays that have a link to us, in the order of their ids.
    #[must_use]
    pub fn members(&self) -> Vec<Arc<Member>> {
        self.members.lock().values().cloned().collect()
    }

    /// Keeps links through `fabric`, asks and repeats what is due, until `stopping`.
    pub async fn run(self: Arc<Self>, fabric: impl Fabric, stopping: CancellationToken) {
        let links = fabric.run(Arc::clone(&self), stopping);
        tokio::select! {
            () = links => {}
            () = self.keep_time() => {}
        }
    }

    /// Notes that another relay has this one's key.
    pub fn cloned(&self, from: &dyn Display) {
        self.counters.rejects.of(Reject::Clone).increment();
        if self.clone.heard(Instant::now()) {
            tracing::error!(
                relay = %self.identity.relay,
                from = %from,
                "another relay has this relay's key: remove cluster.key of one, and restart it"
            );
        }
    }

    fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let unix_ms = u64::try_from(unix.as_millis()).unwrap_or(u64::MAX);
        Now { at: Instant::now(), unix_ms }
    }

    /// Carries out what presence has decided.
    fn settle(&self, mut presence: MutexGuard<'_, Presence<Name>>, now: Now) {
        while let Some(event) = presence.poll_event() {
            self.apply(event, &presence, now);
        }
        let members = self.members.lock();
        while let Some((relay, frame)) = presence.poll_transmit() {
            if let Some(kind) = WatchFrame::of(&frame) {
                self.counters.watch_frames.of(kind).increment();
            }
            let said = members.get(&relay).is_some_and(|m| m.outbox.say(&frame, now.at));
            if !said {
                // What matters is repeated.
                self.counters.rejects.of(Reject::NoRoom).increment();
            }
        }
    }

    fn apply(&self, event: Event<Name>, presence: &Presence<Name>, now: Now) {
        match event {
            Event::Located { id, location, asked } => {
                self.note_lookup(LookupResult::Found, asked, now);
                if presence.is_here(id) {
                    // It has come in the meantime.
                    self.is_here(id, now.at);
                } else {
                    self.located(id, &location, asked, now);
                }
            }
            Event::Missing { id, asked } => {
                self.note_lookup(LookupResult::Missing, Some(asked), now);
                if presence.is_here(id) {
                    self.is_here(id, now.at);
                } else {
                    self.missing(id, now);
                }
            }
            Event::Gone { id, owner, epoch } => self.locations.gone(id, owner, epoch),
            Event::RelayGone { relay } => self.locations.relay_gone(relay),
            Event::Watched { id: peer, number, is_elsewhere } => {
                self.watching.tell(Change { peer, number, is_elsewhere });
            }
            Event::Superseded { id, serial, location, was_granted } => {
                if let Some(local) = self.local.get().and_then(Weak::upgrade) {
                    local.superseded(id, serial, was_granted, now.at);
                }
                if let Some(location) = location {
                    self.located(id, &location, None, now);
                }
            }
        }
    }

    fn located(&self, id: Name, location: &Location, asked: Option<Instant>, now: Now) {
        let member = self.members.lock().get(&location.owner).cloned();
        match member {
            Some(member) => self.locations.located(id, &member, location, asked, now.at),
            // It has just left: as if nobody had the peer.
            None => self.missing(id, now),
        }
    }

    fn missing(&self, id: Name, now: Now) {
        let dropped = self.locations.missing(id, now.at);
        self.counters.forwards.of(Forward::Unknown).add(dropped);
    }

    fn is_here(&self, id: Name, now: Instant) {
        let dropped = self.locations.arrived(id, now);
        self.counters.forwards.of(Forward::Overtaken).add(dropped);
    }

    fn note_lookup(&self, result: LookupResult, asked: Option<Instant>, now: Now) {
        if let Some(asked) = asked {
            self.counters.lookups.of(result).increment();
            self.counters.lookup_time.observe(now.at.saturating_duration_since(asked));
        }
    }
}

/// What the relay tells the cluster, and asks of it.
impl Cluster {
    /// A peer came, or is reached in another way than before.
    pub fn arrived(&self, peer: Name, here: Here) {
        let now = self.now();
        let mut presence = self.presence.lock();
        presence.arrived(peer, here, now);
        // Where it was before says nothing any more, and would be held against it.
        self.is_here(peer, now.at);
        self.settle(presence, now);
    }

    /// A peer is no longer here; whatever comes later has a higher number than `serial`.
    pub fn departed(&self, peer: Name, serial: u64) {
        let now = self.now();
        let mut presence = self.presence.lock();
        presence.departed(peer, serial, now);
        self.settle(presence, now);
    }

    /// The same of a peer that has ended its session itself.
    pub fn released(&self, peer: Name, serial: u64) {
        let now = self.now();
        let mut presence = self.presence.lock();
        presence.released(peer, serial, now);
        self.settle(presence, now);
    }

    /// Waits until the others have answered whatever was said to them, `time` at most.
    pub async fn settled(&self, time: Duration) {
        let answered = async {
            while self.presence.lock().stats().outstanding > 0 {
                sleep(TICK).await;
            }
        };
        // Who does not answer learns it from our silence.
        let _ = timeout(time, answered).await;
    }

    /// Takes no new peers from here on, and tells the others.
    pub fn drain(&self) {
        let now = self.now();
        let mut presence = self.presence.lock();
        self.draining.store(true, Ordering::Relaxed);
        presence.draining(self.identity.relay, now);
        for member in self.members.lock().values() {
            member.outbox.say(&Frame::Draining, now.at);
        }
        self.settle(presence, now);
    }

    /// Whether a peer is known to have a session at another relay than `except`. Asks nobody.
    #[must_use]
    pub fn has_session_elsewhere(&self, peer: Name, except: Option<RelayId>, now: Instant) -> bool {
        self.locations.known(peer).is_some_and(|remote| {
            remote.ownership == Ownership::Session
                && Some(remote.member.relay) != except
                && remote.is_believed(now)
        })
    }

    /// Whether a peer is known to be at another relay itself, and not behind a foreign server.
    #[must_use]
    pub fn is_known_elsewhere(&self, peer: Name) -> bool {
        self.locations.known(peer).is_some_and(|remote| remote.ownership > Ownership::Gateway)
    }
}

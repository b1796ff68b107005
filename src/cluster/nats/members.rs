//! Who is a member, by the beats of the other relays.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use async_nats::Client;
use parking_lot::Mutex;
use tokio::sync::{Notify, SetOnce, watch};
use tokio_util::task::TaskTracker;

use super::message::Beat;
use super::refusals::Refusals;
use super::subjects::Subjects;
use super::terms::{Heard, Terms};
use crate::cluster::{Boot, Cluster, Member, Reject};
use crate::ids::RelayId;

/// Most relays besides this one: each costs its outbox, up to 8 MiB.
const MOST: usize = 256;

/// All members, and what their tasks share.
///
/// `table` may be locked while the cluster is told who joins and who leaves, so that it hears
/// of each in the order that it happens; the cluster never calls back.
#[derive(Debug)]
pub(super) struct Members {
    pub(super) cluster: Arc<Cluster>,
    pub(super) subjects: Subjects,
    pub(super) refusals: Refusals,
    /// The connection, while one is up.
    pub(super) client: watch::Sender<Option<Client>>,
    table: Mutex<Table>,
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct Table {
    seats: HashMap<RelayId, Seat>,
    last_term: u64,
}

#[derive(Debug)]
struct Seat {
    member: Arc<Member>,
    boot: Boot,
    terms: Terms,
    signals: Arc<Signals>,
}

/// A relay that has become a member: whoever is told writes to it.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) member: Arc<Member>,
    pub(super) signals: Arc<Signals>,
}

/// What the table has to say to the task of a member.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// The member asks for our terms.
    pub(super) asked: Notify,
    /// The member has told its terms.
    pub(super) paired: SetOnce<()>,
}

impl Members {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        let identity = cluster.identity();
        Self {
            subjects: Subjects::new(identity.name.clone(), identity.relay),
            refusals: Refusals::new(Arc::clone(&cluster)),
            client: watch::Sender::new(None),
            table: Mutex::default(),
            tasks: TaskTracker::new(),
            cluster,
        }
    }

    /// The relay as a member.
    pub(super) fn of(&self, relay: RelayId) -> Option<Arc<Member>> {
        self.table.lock().seats.get(&relay).map(|seat| Arc::clone(&seat.member))
    }

    /// Takes in a batch of a member.
    pub(super) fn receive(&self, member: &Arc<Member>, batch: &[u8]) {
        if let Err(error) = self.cluster.receive(member, batch, Instant::now()) {
            tracing::debug!(relay = %member.relay, %error, "a batch is malformed");
            self.refusals.count(Reject::Malformed, Some(member.relay));
        }
    }

    /// Takes in a sign of life: its sender is a member from here on, and tells who has become
    /// one.
    #[must_use]
    pub(super) fn beat(&self, relay: RelayId, beat: &Beat) -> Option<Joined> {
        let identity = self.cluster.identity();
        if relay == identity.relay {
            // Our own may come back through an older connection.
            if beat.boot != identity.boot {
                self.cluster.cloned(&beat.address);
            }
            return None;
        }
        let mut table = self.table.lock();
        if let Some(seat) = table.seats.get_mut(&relay) {
            let over = if seat.boot == beat.boot {
                match seat.hear(beat) {
                    Heard::Agreed => return None,
                    Heard::Answer => {
                        seat.signals.asked.notify_one();
                        return None;
                    }
                    Heard::Anew => "it had lost us",
                }
            } else {
                "it has restarted"
            };
            let member = Arc::clone(&seat.member);
            self.end_locked(&mut table, &member, over);
        }
        if table.seats.len() >= MOST {
            drop(table);
            self.refusals.count(Reject::TooMany, Some(relay));
            return None;
        }
        Some(self.join(&mut table, relay, beat))
    }

    /// Takes in that a run of a relay is over.
    pub(super) fn goodbye(&self, relay: RelayId, boot: Boot) {
        let mut table = self.table.lock();
        if let Some(seat) = table.seats.get(&relay).filter(|seat| seat.boot == boot) {
            let member = Arc::clone(&seat.member);
            self.end_locked(&mut table, &member, "it stopped");
        }
    }

    /// Ends a membership, if it has not ended.
    pub(super) fn end(&self, member: &Arc<Member>, reason: &'static str) {
        self.end_locked(&mut self.table.lock(), member, reason);
    }

    /// Ends all of them.
    pub(super) fn end_all(&self) {
        let mut table = self.table.lock();
        for (_, seat) in table.seats.drain() {
            self.cluster.left(&seat.member, "this relay stops");
        }
    }

    /// Runs the task of a member.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Waits until the tasks of all members have ended; nobody may join any more.
    pub(super) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// What this relay says about itself to all others.
    pub(super) fn beat_to_all(&self, client: &Client) -> Beat {
        // People look for a relay by the address that the server sees.
        let address = client.server_info().client_ip;
        Beat { boot: self.cluster.identity().boot, term: 0, seen: 0, asks: false, address }
    }

    /// What this relay says to a member; `None` once it is no member.
    pub(super) fn beat_to(&self, member: &Arc<Member>, client: &Client) -> Option<Beat> {
        let table = self.table.lock();
        let seat = table.seats.get(&member.relay)?;
        let Terms { mine, theirs, known } =
            Arc::ptr_eq(&seat.member, member).then_some(seat.terms)?;
        Some(Beat { term: mine, seen: theirs, asks: !known, ..self.beat_to_all(client) })
    }

    fn join(&self, table: &mut Table, relay: RelayId, beat: &Beat) -> Joined {
        table.last_term += 1;
        let member = self.cluster.joined(relay, beat.address.clone());
        let terms = Terms::new(table.last_term);
        let mut seat = Seat { member, boot: beat.boot, terms, signals: Arc::default() };
        // A new member is told our terms in any case.
        let _ = seat.hear(beat);
        let joined =
            Joined { member: Arc::clone(&seat.member), signals: Arc::clone(&seat.signals) };
        table.seats.insert(relay, seat);
        joined
    }

    fn end_locked(&self, table: &mut Table, member: &Arc<Member>, reason: &'static str) {
        let is_seated = |seat: &Seat| Arc::ptr_eq(&seat.member, member);
        if table.seats.get(&member.relay).is_some_and(is_seated) {
            table.seats.remove(&member.relay);
            self.cluster.left(member, reason);
        }
    }
}

impl Seat {
    fn hear(&mut self, beat: &Beat) -> Heard {
        let heard = self.terms.hear(beat.term, beat.seen, beat.asks);
        if self.terms.theirs != 0 {
            // Only the first time is news.
            let _ = self.signals.paired.set(());
        }
        heard
    }
}

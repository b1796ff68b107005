//! Who has taken over from whom of late, and the logins that wait for it: one for each peer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tokio::sync::Notify;

use super::Table;
use crate::proto::takeover::{Pace, Takeovers};
use crate::wire::name::Name;

/// Peers whose takeovers are remembered. Where there are as many, no login of a further one is
/// delayed: it takes so many proved identities, all of them in use twice.
const PEERS: usize = 16_384;

/// How often a full table is searched for what is over.
const SEARCH_INTERVAL: Duration = Duration::from_secs(1);

/// Takeovers of each peer, and its login that waits.
#[derive(Debug, Default)]
pub(super) struct Delays {
    peers: HashMap<Name, Peer, RandomState>,
    waiting: usize,
    searched: Option<Instant>,
}

#[derive(Debug, Default)]
struct Peer {
    takeovers: Takeovers,
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    generation: u64,
    since: Instant,
    superseded: Arc<Notify>,
}

/// What is known of a peer's takeovers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TakeoverLook {
    /// How fast they follow each other.
    pub pace: Pace,
    /// For how long a login has waited.
    pub waits: Option<Duration>,
}

/// Why a login does not even wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotDelayed {
    /// A login of a later connection waits already.
    #[error("a newer login waits")]
    Superseded,
    /// As many logins wait as may.
    #[error("too many logins wait")]
    Crowded,
}

/// A login that waits; dropping it ends that.
#[derive(Debug)]
pub struct Delay {
    table: Arc<Table>,
    id: Name,
    generation: u64,
    /// When it may take over.
    pub due: Instant,
    superseded: Arc<Notify>,
}

impl Delay {
    /// Waits until a newer login has come.
    pub async fn superseded(&self) {
        self.superseded.notified().await;
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.table.delays.lock().end(self.id, |waiting| waiting.generation == self.generation);
    }
}

impl Delays {
    /// A session has taken over from another. True where logins begin to wait for it.
    pub(super) fn note(&mut self, id: Name, now: Instant) -> bool {
        if self.peers.len() >= PEERS && !self.peers.contains_key(&id) {
            let searched = |at: Instant| now < at + SEARCH_INTERVAL;
            if self.searched.is_none_or(|at| !searched(at)) {
                self.searched = Some(now);
                self.sweep(now);
            }
            if self.peers.len() >= PEERS {
                return false;
            }
        }
        self.peers.entry(id).or_default().takeovers.note(now)
    }

    /// Forgets what is over.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.peers.retain(|_, peer| peer.waiting.is_some() || !peer.takeovers.is_over(now));
    }

    /// Ends the wait of a peer's login where that is the one.
    fn end(&mut self, id: Name, is_it: impl FnOnce(&Waiting) -> bool) {
        let waiting = self.peers.get_mut(&id).map(|peer| &mut peer.waiting);
        if let Some(waiting) = waiting.and_then(|waiting| waiting.take_if(|it| is_it(it))) {
            self.waiting -= 1;
            waiting.superseded.notify_one();
        }
    }
}

impl Table {
    /// When a login may take over from the session that serves its peer, here or elsewhere:
    /// `None` for at once. An older login that waits gives up for it. No more than `most` wait.
    ///
    /// # Errors
    /// It is not even to wait.
    pub fn delay(
        self: &Arc<Self>,
        id: Name,
        generation: u64,
        is_served: bool,
        most: usize,
        now: Instant,
    ) -> Result<Option<Delay>, NotDelayed> {
        let mut delays = self.delays.lock();
        let waits = delays.peers.get(&id).and_then(|peer| peer.waiting.as_ref());
        if waits.is_some_and(|waiting| waiting.generation > generation) {
            return Err(NotDelayed::Superseded);
        }
        delays.end(id, |_| true);
        let is_full = delays.waiting >= most;
        let Some(peer) = delays.peers.get_mut(&id).filter(|_| is_served) else { return Ok(None) };
        let Some(due) = peer.takeovers.due(now) else { return Ok(None) };
        if is_full {
            return Err(NotDelayed::Crowded);
        }
        let superseded = Arc::new(Notify::new());
        let told = Arc::clone(&superseded);
        peer.waiting = Some(Waiting { generation, since: now, superseded: told });
        delays.waiting += 1;
        drop(delays);
        Ok(Some(Delay { table: Arc::clone(self), id, generation, due, superseded }))
    }

    /// How many logins wait.
    #[must_use]
    pub fn delayed(&self) -> usize {
        self.delays.lock().waiting
    }

    /// How many peers have sessions that take over from each other again and again.
    #[must_use]
    pub fn contested(&self, now: Instant) -> usize {
        let delays = self.delays.lock();
        delays.peers.values().filter(|peer| peer.takeovers.pace(now).is_contested).count()
    }

    /// What is known of a peer's takeovers, where there were any of late.
    #[must_use]
    pub fn takeovers(&self, id: Name, now: Instant) -> Option<TakeoverLook> {
        let delays = self.delays.lock();
        let peer = delays.peers.get(&id).filter(|peer| !peer.takeovers.is_over(now))?;
        let waits = peer.waiting.as_ref().map(|it| now.saturating_duration_since(it.since));
        Some(TakeoverLook { pace: peer.takeovers.pace(now), waits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::name::testing::name as id;

    /// A table whose first peers are taken over again and again.
    fn contested(peers: u32, now: Instant) -> Arc<Table> {
        let table = Arc::new(Table::new(10, 10));
        for number in 1..=peers {
            (0..4).for_each(|_| _ = table.delays.lock().note(id(number), now));
        }
        table
    }

    fn delay(table: &Arc<Table>, number: u32, generation: u64, now: Instant) -> Outcome {
        table.delay(id(number), generation, true, 2, now)
    }

    type Outcome = Result<Option<Delay>, NotDelayed>;

    #[tokio::test]
    async fn one_login_of_a_peer_waits_and_that_is_the_newest() {
        let now = Instant::now();
        let table = contested(1, now);
        let first = delay(&table, 1, 11, now).unwrap().unwrap();
        let second = delay(&table, 1, 12, now).unwrap().unwrap();
        first.superseded().await;
        assert_eq!(delay(&table, 1, 10, now).unwrap_err(), NotDelayed::Superseded);
        drop(first);
        assert_eq!(table.delayed(), 1, "the older one leaves the place to the newer");
        assert_eq!(table.takeovers(id(1), now).unwrap().waits, Some(Duration::ZERO));
        drop(second);
        assert_eq!((table.delayed(), table.takeovers(id(1), now).unwrap().waits), (0, None));
    }

    #[test]
    fn logins_that_wait_are_bounded() {
        let now = Instant::now();
        let table = contested(3, now);
        let _waiting = [1, 2].map(|number| delay(&table, number, 1, now).unwrap().unwrap());
        assert_eq!(delay(&table, 3, 1, now).unwrap_err(), NotDelayed::Crowded);
        assert!(delay(&table, 4, 1, now).unwrap().is_none(), "a peer that is at peace");
        assert!(table.delay(id(3), 1, false, 2, now).unwrap().is_none(), "nobody serves it");
        let _newer = delay(&table, 2, 2, now).unwrap().expect("in the place of the one before");
        assert_eq!((table.delayed(), table.contested(now)), (2, 3));
    }

    #[test]
    fn remembered_peers_are_bounded_and_what_is_over_makes_room() {
        let now = Instant::now();
        let table = Arc::new(Table::new(10, 10));
        let note = |number, at| table.delays.lock().note(id(number), at);
        let most = u32::try_from(PEERS).unwrap();
        (1..=most + 1_000).for_each(|number| _ = note(number, now));
        assert_eq!(table.delays.lock().peers.len(), PEERS);
        assert!(table.takeovers(id(most + 1), now).is_none());
        let later = now + Duration::from_secs(90);
        note(most + 1, later);
        assert!(table.takeovers(id(most + 1), later).is_some());
        assert_eq!(table.delays.lock().peers.len(), 1);
    }
}

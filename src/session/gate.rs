//! Who may come in at all: limits for clients, capacity, and the crowd that has not logged
//! in.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Counters, Outcome, Settings};
use crate::peers::Table;
use crate::proto::crowd::Crowd;
use crate::proto::limit::{Bucket, Places, Rate};
use crate::proto::network::{Client, Network};

/// Client addresses that have a bucket at a time.
const CLIENTS: usize = 16_384;

/// Longest time that clients are told to stay away: the longest wait of daemons between two
/// dials, by themselves. Another relay may have taken over the name long before.
const MOST_STAY_AWAY: Duration = Duration::from_secs(30);

/// What a request has to pass before it becomes a WebSocket.
#[derive(Debug)]
pub struct Gate {
    clients: Mutex<Places<Bucket>>,
    table: Arc<Table>,
    counters: Arc<Counters>,
    /// Seconds that who comes during a drain is told to stay away for; 0 before one.
    stay_away: AtomicU32,
    drain_begun: CancellationToken,
    warned: AtomicBool,
    waiting: Mutex<Waiting>,
    next: AtomicU64,
}

/// Connections that have not logged in.
#[derive(Debug, Default)]
struct Waiting {
    crowd: Crowd<u64>,
    evictions: HashMap<u64, Arc<Notify>, RandomState>,
}

impl Gate {
    pub(super) fn new(table: Arc<Table>, counters: Arc<Counters>) -> Self {
        Self {
            clients: Mutex::new(Places::new(CLIENTS)),
            table,
            counters,
            stay_away: AtomicU32::new(0),
            drain_begun: CancellationToken::new(),
            warned: AtomicBool::new(false),
            waiting: Mutex::default(),
            next: AtomicU64::new(0),
        }
    }

    /// Counts how an attempt to connect ended.
    pub(super) fn count(&self, outcome: Outcome) -> Outcome {
        self.counters.connections.of(outcome).increment();
        outcome
    }

    /// Takes no new peer from here on, over a drain of this length.
    ///
    /// Who is sent away dials again at once, and again when it was told to: a whole drain
    /// later, those come in the order in which they went, and as slowly.
    pub(super) fn drain(&self, time: Duration) {
        let seconds = time.min(MOST_STAY_AWAY).as_secs_f64().ceil();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 30 at most
        let seconds = (seconds as u32).max(1);
        // The first stays: the end, which comes after the drain, has no time of its own.
        let _first =
            self.stay_away.compare_exchange(0, seconds, Ordering::SeqCst, Ordering::SeqCst);
        self.drain_begun.cancel();
    }

    /// While it drains, the seconds after which to try again.
    pub(super) fn draining(&self) -> Option<u32> {
        Some(self.stay_away.load(Ordering::SeqCst)).filter(|seconds| *seconds > 0)
    }

    /// Waits until it drains.
    pub(super) async fn drain_begins(&self) {
        self.drain_begun.cancelled().await;
    }

    pub(super) fn is_full(&self) -> bool {
        self.table.is_full()
    }

    /// Whether a client may upgrade once more.
    pub(super) fn admits(&self, ip: IpAddr, settings: &Settings, now: Instant) -> bool {
        let upgrades = Rate::per_second(settings.upgrade_rate.into())
            .with_burst(settings.upgrade_burst.into());
        let client = Client::of(ip, &settings.translators);
        self.clients.lock().of(&client, now).take(upgrades, 1, now)
    }

    /// Counts a request of a trusted proxy that names no client, and warns of it once.
    pub(super) fn note_unnamed(&self) {
        self.counters.not_forwarded.increment();
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a trusted proxy passes requests on without X-Forwarded-For: limits for clients \
                 count all of them as one; have the proxy set the header"
            );
        }
    }

    /// Lets a connection wait for its login; where as many wait as may, the oldest of the
    /// network that has the most is evicted for it.
    pub(super) fn enter(self: &Arc<Self>, remote: IpAddr, settings: &Settings) -> Place {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // Behind a proxy all would be one network, and several clients in the same moment
        // the largest, until each has said for whom it comes.
        let network = if settings.is_proxy(remote) {
            Network::alone(number)
        } else {
            Network::of(remote, &settings.translators)
        };
        let evicted = Arc::new(Notify::new());
        // Logins that are delayed have the same descriptors.
        let most = settings.max_waiting.saturating_sub(self.table.delayed());
        let mut waiting = self.waiting.lock();
        if waiting.crowd.len() >= most
            && let Some(oldest) = waiting.crowd.pop()
            && let Some(evicted) = waiting.evictions.remove(&oldest)
        {
            evicted.notify_one();
        }
        waiting.crowd.add(number, network);
        waiting.evictions.insert(number, Arc::clone(&evicted));
        drop(waiting);
        Place { gate: Arc::clone(self), number, evicted }
    }

    /// How many connections have not logged in.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.lock().crowd.len()
    }
}

/// A connection's place among those that have not logged in; dropping it makes room.
#[derive(Debug)]
pub(super) struct Place {
    gate: Arc<Gate>,
    number: u64,
    evicted: Arc<Notify>,
}

impl Place {
    /// Counts the connection among those of its client, once that is known.
    pub(super) fn belongs_to(&self, ip: IpAddr, settings: &Settings) {
        let network = Network::of(ip, &settings.translators);
        self.gate.waiting.lock().crowd.reassign(self.number, network);
    }

    /// Waits until the connection is evicted.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.gate.waiting.lock();
        waiting.crowd.withdraw(self.number);
        waiting.evictions.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::translators;

    #[test]
    fn connections_behind_one_translator_wait_in_networks_of_their_own() {
        let counters = Arc::<Counters>::default();
        let gate = Arc::new(Gate::new(Arc::new(Table::new(1, 0)), counters));
        let settings = Settings {
            max_waiting: 4,
            translators: translators(),
            ..Settings::new(([127, 0, 0, 1], 0).into())
        };
        let behind = |ip: &str| format!("2001:db8:64::{ip}").parse::<IpAddr>().unwrap();
        let is_waiting = |place: &Place| gate.waiting.lock().evictions.contains_key(&place.number);

        // One comes by itself, and one by a proxy that says for whom.
        let alone = gate.enter(behind("198.51.100.1"), &settings);
        let forwarded = gate.enter([127, 0, 0, 1].into(), &settings);
        forwarded.belongs_to(behind("203.0.113.1"), &settings);
        let crowd: Vec<_> =
            (1..=4).map(|host| gate.enter(behind(&format!("192.0.2.{host}")), &settings)).collect();

        assert!(is_waiting(&alone) && is_waiting(&forwarded));
        let waiting: Vec<_> = crowd.iter().map(is_waiting).collect();
        assert_eq!(waiting, [false, false, true, true]);
    }
}

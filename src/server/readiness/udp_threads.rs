//! Whether the threads that receive over UDP still do, by how often they look.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::udp::Turns;

/// Time without a turn after which a thread hangs: a turn takes 100 ms where nothing comes.
const HANGS: Duration = Duration::from_secs(10);

/// The threads, and when each was last seen to turn.
#[derive(Debug)]
pub(super) struct UdpThreads {
    turns: Vec<Turns>,
    seen: Mutex<Vec<Seen>>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    turns: u64,
    at: Instant,
}

impl UdpThreads {
    /// The threads of all of these.
    pub(super) fn new(turns: Vec<Turns>) -> Self {
        let at = Instant::now();
        let seen = turns.iter().flat_map(Turns::now).map(|turns| Seen { turns, at }).collect();
        Self { turns, seen: Mutex::new(seen) }
    }

    /// Notes who has turned since the look before.
    pub(super) fn look(&self, now: Instant) {
        let turns = self.turns.iter().flat_map(Turns::now);
        let mut seen = self.seen.lock();
        for (seen, turns) in seen.iter_mut().zip(turns) {
            if seen.turns != turns {
                *seen = Seen { turns, at: now };
            }
        }
    }

    /// How many hang.
    pub(super) fn hung(&self, now: Instant) -> usize {
        self.look(now);
        let hangs = |seen: &&Seen| now.saturating_duration_since(seen.at) > HANGS;
        self.seen.lock().iter().filter(hangs).count()
    }
}

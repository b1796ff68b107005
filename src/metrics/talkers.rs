//! Who sends and receives most, from a sample: one of 64 runs of packets is looked at.
//!
//! Each thread keeps the heaviest of the last seconds in a small table (Metwally's space
//! saving): a newcomer takes the place of the lightest and its weight, so that a heavy
//! talker is never missed.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::sampling;
use crate::wire::name::Name;

/// Of so many runs one is looked at.
const RATE: u32 = 64;

/// Peers that a table holds.
const PLACES: usize = 64;

/// Time that one table covers; the one before it counts as well.
const WINDOW: Duration = Duration::from_secs(10);

/// What a peer sent or received in a second, estimated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Talker {
    /// The peer.
    pub peer: Name,
    /// Packets a second.
    pub packets: u64,
    /// Bytes of payload a second.
    pub bytes: u64,
}

/// Who talks most.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Talkers {
    /// Those that send most bytes, the first most of all.
    pub senders: Vec<Talker>,
    /// Those that are sent most.
    pub receivers: Vec<Talker>,
}

/// The sample of one thread.
#[derive(Debug, Default)]
pub(super) struct Sample(Mutex<Option<Windows>>);

#[derive(Debug)]
struct Windows {
    began: Instant,
    current: Tables,
    /// With the time that it covered.
    before: Option<(Tables, Duration)>,
}

#[derive(Debug, Default)]
struct Tables {
    senders: Vec<Weight>,
    receivers: Vec<Weight>,
}

#[derive(Clone, Copy, Debug)]
struct Weight {
    peer: Name,
    packets: u64,
    bytes: u64,
}

thread_local! {
    /// Runs that this thread leaves out before the next.
    static GAP: Cell<u32> = const { Cell::new(0) };
}

impl Sample {
    /// A run of so many packets and bytes goes its way.
    pub(super) fn passed(&self, sender: Name, dest: Name, run: (u64, u64), now: Instant) {
        let gap = GAP.get();
        if gap > 0 {
            return GAP.set(gap - 1);
        }
        GAP.set(sampling::gap(RATE));
        let Some(mut windows) = self.0.try_lock() else { return };
        let windows = windows.get_or_insert_with(|| Windows::new(now));
        windows.turn(now);
        let (packets, bytes) = (run.0 * u64::from(RATE), run.1 * u64::from(RATE));
        add(&mut windows.current.senders, Weight { peer: sender, packets, bytes });
        add(&mut windows.current.receivers, Weight { peer: dest, packets, bytes });
    }
}

impl Windows {
    const fn new(now: Instant) -> Self {
        let current = Tables { senders: Vec::new(), receivers: Vec::new() };
        Self { began: now, current, before: None }
    }

    /// Begins a new table where the current one is old enough.
    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.began);
        if age >= 2 * WINDOW {
            *self = Self::new(now);
        } else if age >= WINDOW {
            self.before = Some((std::mem::take(&mut self.current), age));
            self.began = now;
        }
    }

    /// The time that the tables cover: a second at least, or a single run would look like
    /// a flood.
    fn time(&self, now: Instant) -> Duration {
        let before = self.before.as_ref().map_or(Duration::ZERO, |(_, time)| *time);
        let current = now.saturating_duration_since(self.began);
        (before + current).max(Duration::from_secs(1))
    }
}

fn add(table: &mut Vec<Weight>, run: Weight) {
    if let Some(known) = table.iter_mut().find(|known| known.peer == run.peer) {
        known.packets += run.packets;
        known.bytes += run.bytes;
    } else if table.len() < PLACES {
        table.push(run);
    } else if let Some(lightest) = table.iter_mut().min_by_key(|known| known.bytes) {
        let (packets, bytes) = (lightest.packets + run.packets, lightest.bytes + run.bytes);
        *lightest = Weight { packets, bytes, ..run };
    }
}

/// The `count` heaviest of several samples.
pub(super) fn heaviest<'a>(
    samples: impl Iterator<Item = &'a Sample>,
    count: usize,
    now: Instant,
) -> Talkers {
    let (mut senders, mut receivers) = (Rates::default(), Rates::default());
    for sample in samples {
        let mut windows = sample.0.lock();
        let Some(windows) = &mut *windows else { continue };
        windows.turn(now);
        let time = windows.time(now);
        let before = windows.before.as_ref().map(|(tables, _)| tables);
        for tables in before.into_iter().chain([&windows.current]) {
            senders.add(&tables.senders, time);
            receivers.add(&tables.receivers, time);
        }
    }
    Talkers { senders: senders.heaviest(count), receivers: receivers.heaviest(count) }
}

/// Rates of peers, summed over threads.
#[derive(Default)]
struct Rates(HashMap<Name, (f64, f64)>);

impl Rates {
    #[allow(clippy::cast_precision_loss)] // an estimate
    fn add(&mut self, table: &[Weight], time: Duration) {
        for weight in table {
            let (packets, bytes) = self.0.entry(weight.peer).or_default();
            *packets += weight.packets as f64 / time.as_secs_f64();
            *bytes += weight.bytes as f64 / time.as_secs_f64();
        }
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // of an estimate
    fn heaviest(self, count: usize) -> Vec<Talker> {
        let talker = |(peer, (packets, bytes)): (Name, (f64, f64))| Talker {
            peer,
            packets: packets.round() as u64,
            bytes: bytes.round() as u64,
        };
        let mut talkers: Vec<_> = self.0.into_iter().map(talker).collect();
        talkers.sort_by_key(|talker| (std::cmp::Reverse(talker.bytes), talker.peer));
        talkers.truncate(count);
        talkers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::testing::name;

    fn talk(sample: &Sample, sender: u32, runs: u32, now: Instant) {
        for _ in 0..runs {
            sample.passed(name(sender), name(1_000), (2, 200), now);
        }
    }

    fn top(sample: &Sample, count: usize, now: Instant) -> Talkers {
        heaviest(std::iter::once(sample), count, now)
    }

    #[test]
    fn flood_is_first_with_about_its_rate() {
        let (sample, start) = (Sample::default(), Instant::now());
        for round in 0..1_000 {
            talk(&sample, 7, 90, start);
            talk(&sample, 8, 10, start);
            talk(&sample, 100 + round, 1, start);
        }
        let found = top(&sample, 2, start + Duration::from_secs(1));
        let peers: Vec<_> = found.senders.iter().map(|talker| talker.peer).collect();
        assert_eq!(peers, [name(7), name(8)]);
        // 90,000 runs of two packets and 200 bytes in a second.
        let bytes = found.senders[0].bytes;
        assert!((13_500_000..22_500_000).contains(&bytes), "{found:?}");
        assert_eq!(found.receivers.len(), 1);
        assert_eq!(found.receivers[0].peer, name(1_000));
    }

    #[test]
    fn who_falls_silent_is_forgotten() {
        let (sample, start) = (Sample::default(), Instant::now());
        talk(&sample, 7, 10_000, start);
        assert_eq!(top(&sample, 9, start + WINDOW).senders.len(), 1);
        assert_eq!(top(&sample, 9, start + 3 * WINDOW), Talkers::default());
    }

    #[test]
    fn table_is_bounded_and_keeps_the_heaviest() {
        let (sample, start) = (Sample::default(), Instant::now());
        for round in 0..20_000 {
            talk(&sample, 100 + round, 1, start);
            talk(&sample, 7, 5, start);
        }
        let found = top(&sample, 1_000, start + Duration::from_secs(1));
        assert!(found.senders.len() <= PLACES);
        assert_eq!(found.senders[0].peer, name(7));
    }
}

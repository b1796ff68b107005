//! Who sends and receives most in the last seconds, from a sample of the runs of packets.
//!
//! While a thread has few runs it looks at each; the more it has, the fewer, so that the sample
//! stays as large and its cost as small. Each thread keeps the heaviest in a small table
//! (Metwally's space saving): a newcomer takes the place of the lightest and its rank, so that a
//! heavy talker is never missed. What it is said to send is only what was counted of itself.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::sampling;
use crate::wire::name::Name;

/// Peers that a table holds.
const PLACES: usize = 64;

/// Time that one table covers; the one before it counts as well. All threads turn at once.
const WINDOW: Duration = Duration::from_secs(2);

/// Runs that a thread looks at in one [`WINDOW`], about: who has a tenth of them is then known to
/// 5 % in 19 of 20 samples. At 0.3 µs each that is 0.1 % of a core.
const NOTES: u32 = 8_192;

/// Of so many runs at least one is looked at, however many there are.
const MAX_RATE: u32 = 4_096;

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
pub(super) struct Sample(Mutex<Windows>);

#[derive(Debug)]
struct Windows {
    /// Which window `current` is of, counted from the first of this process.
    number: u128,
    current: Tables,
    before: Tables,
    /// Of so many runs one is looked at.
    rate: u32,
    /// Runs that were looked at since `rate` was set.
    noted: u32,
    /// Runs in the current window, by estimate.
    runs: u64,
}

#[derive(Debug, Default)]
struct Tables {
    senders: Vec<Entry>,
    receivers: Vec<Entry>,
}

/// What one table has of a peer.
#[derive(Clone, Copy, Debug)]
struct Entry {
    peer: Name,
    /// When its first run in this table passed.
    since: Instant,
    first: Load,
    /// With the first run.
    all: Load,
    /// Bytes by which the lightest is found: its own, and those of who had its place before.
    rank: u64,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
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
        // Whoever reads the tables is done soon: the next run is looked at instead.
        let Some(mut windows) = self.0.try_lock() else { return };
        windows.turn(now);
        let rate = windows.note();
        GAP.set(sampling::gap(rate));
        let load = Load { packets: run.0 * u64::from(rate), bytes: run.1 * u64::from(rate) };
        add(&mut windows.current.senders, sender, load, now);
        add(&mut windows.current.receivers, dest, load, now);
    }
}

impl Default for Windows {
    fn default() -> Self {
        let (current, before) = Default::default();
        Self { number: 0, current, before, rate: 1, noted: 0, runs: 0 }
    }
}

impl Windows {
    /// Begins a new table where the time of the current one is over.
    fn turn(&mut self, now: Instant) {
        let number = window(now);
        if number <= self.number {
            return;
        }
        let (current, runs) = (std::mem::take(&mut self.current), std::mem::take(&mut self.runs));
        let is_next = number == self.number + 1;
        self.before = if is_next { current } else { Tables::default() };
        let runs = if is_next { runs } else { 0 };
        let rate = u32::try_from(runs / u64::from(NOTES)).unwrap_or(MAX_RATE);
        self.rate = rate.clamp(1, MAX_RATE);
        (self.number, self.noted) = (number, 0);
    }

    /// Counts a run that is looked at; the number of runs that it stands for.
    fn note(&mut self) -> u32 {
        let rate = sampling::fixed_rate().unwrap_or(self.rate);
        self.runs += u64::from(rate);
        self.noted += 1;
        // Far more than in the window before.
        if self.noted == 2 * NOTES {
            self.rate = (2 * self.rate).min(MAX_RATE);
            self.noted = NOTES;
        }
        rate
    }
}

/// The number of the window that a moment is in.
fn window(now: Instant) -> u128 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let first = *FIRST.get_or_init(Instant::now);
    now.saturating_duration_since(first).as_millis() / WINDOW.as_millis()
}

fn add(table: &mut Vec<Entry>, peer: Name, load: Load, now: Instant) {
    if let Some(known) = table.iter_mut().find(|known| known.peer == peer) {
        known.all.packets += load.packets;
        known.all.bytes += load.bytes;
        known.rank += load.bytes;
        return;
    }
    let newcomer = Entry { peer, since: now, first: load, all: load, rank: load.bytes };
    if table.len() < PLACES {
        table.push(newcomer);
    } else if let Some(lightest) = table.iter_mut().min_by_key(|known| known.rank) {
        *lightest = Entry { rank: lightest.rank + load.bytes, ..newcomer };
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
        windows.turn(now);
        for tables in [&windows.before, &windows.current] {
            senders.add(&tables.senders);
            receivers.add(&tables.receivers);
        }
    }
    let heaviest = |rates: Rates| rates.heaviest(count, now);
    Talkers { senders: heaviest(senders), receivers: heaviest(receivers) }
}

/// What peers sent or received, summed over tables and threads: a session moves between those.
#[derive(Default)]
struct Rates(HashMap<Name, Entry>);

impl Rates {
    fn add(&mut self, table: &[Entry]) {
        for entry in table {
            let merge = |known: &mut Entry| {
                known.all.packets += entry.all.packets;
                known.all.bytes += entry.all.bytes;
                if entry.since < known.since {
                    (known.since, known.first) = (entry.since, entry.first);
                }
            };
            self.0.entry(entry.peer).and_modify(merge).or_insert(*entry);
        }
    }

    fn heaviest(self, count: usize, now: Instant) -> Vec<Talker> {
        let mut talkers: Vec<_> = self.0.into_values().map(|entry| entry.talker(now)).collect();
        talkers.retain(|talker| talker.packets > 0);
        talkers.sort_by_key(|talker| (std::cmp::Reverse(talker.bytes), talker.peer));
        talkers.truncate(count);
        talkers
    }
}

impl Entry {
    /// What came after the first run, over the time since: with the first, a rate would be too
    /// high, by half where there are two. Over a second at least, or two runs of one burst would
    /// look like a flood.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)] // an estimate
    fn talker(&self, now: Instant) -> Talker {
        let time = now.saturating_duration_since(self.since).max(Duration::from_secs(1));
        let rate =
            |all: u64, first: u64| ((all - first) as f64 / time.as_secs_f64()).round() as u64;
        Talker {
            peer: self.peer,
            packets: rate(self.all.packets, self.first.packets),
            bytes: rate(self.all.bytes, self.first.bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::testing::name;

    const RECEIVER: u32 = 1_000_000;

    fn talk(sample: &Sample, sender: u32, runs: u32, now: Instant) {
        for _ in 0..runs {
            sample.passed(name(sender), name(RECEIVER), (2, 200), now);
        }
    }

    /// So many runs a second of each sender, evenly, from one moment to another.
    fn steadily(sample: &Sample, senders: &[(u32, u32)], from: Instant, to: Instant) {
        const STEPS: u32 = 100;
        let steps = u32::try_from((to - from).as_millis()).unwrap() * STEPS / 1_000;
        for step in 0..steps {
            let now = from + Duration::from_secs(1) * step / STEPS;
            for (sender, rate) in senders {
                talk(sample, *sender, rate * (step + 1) / STEPS - rate * step / STEPS, now);
            }
        }
    }

    fn top(sample: &Sample, count: usize, now: Instant) -> Talkers {
        heaviest(std::iter::once(sample), count, now)
    }

    #[track_caller]
    fn assert_near(talker: Talker, peer: u32, runs: u64) {
        assert_eq!(talker.peer, name(peer));
        let is_near = |found: u64, real: u64| found.abs_diff(real) * 10 <= real;
        assert!(is_near(talker.packets, 2 * runs), "{} runs/s are {talker:?}", runs);
        assert!(is_near(talker.bytes, 200 * runs), "{} runs/s are {talker:?}", runs);
    }

    #[test]
    fn rate_is_right_within_a_tenth_from_the_first_second_on() {
        // Of 20 runs a second each is looked at, of 400,000 one of some hundred. Whatever the
        // part of a window that has passed.
        for (runs, offset_ms) in
            [(20, 0), (500, 700), (500, 1_900), (10_000, 300), (400_000, 1_100)]
        {
            let sample = Sample::default();
            let idle = Instant::now() + Duration::from_millis(offset_ms);
            // A talker begins while another is there for long.
            let began = idle + Duration::from_secs(7);
            steadily(&sample, &[(8, runs / 2)], idle, began);
            for seconds in 1..6 {
                let from = began + Duration::from_secs(seconds - 1);
                let now = from + Duration::from_secs(1);
                steadily(&sample, &[(7, runs), (8, runs / 2)], from, now);
                let found = top(&sample, 9, now);
                assert_near(found.senders[0], 7, runs.into());
                assert_near(found.senders[1], 8, (runs / 2).into());
            }
        }
    }

    #[test]
    fn talker_that_was_idle_before_had_its_rate_spread_over_that_time() {
        let (sample, start) = (Sample::default(), Instant::now());
        talk(&sample, 8, 1, start);
        let began = start + 19 * WINDOW / 2;
        steadily(&sample, &[(7, 1_000)], began, began + Duration::from_secs(1));
        let found = top(&sample, 1, began + Duration::from_secs(1));
        assert_near(found.senders[0], 7, 1_000);
    }

    #[test]
    fn session_that_moved_to_another_thread_had_twice_its_rate() {
        let (samples, start) = ([Sample::default(), Sample::default()], Instant::now());
        let second = |number| start + Duration::from_secs(number);
        for number in 0..5 {
            let sample = &samples[usize::from(number % 2 == 1)];
            steadily(sample, &[(7, 1_000)], second(number), second(number + 1));
            let found = heaviest(samples.iter(), 1, second(number + 1));
            assert_near(found.senders[0], 7, 1_000);
        }
    }

    #[test]
    fn sample_stays_small_however_many_runs_there_are() {
        let (sample, start) = (Sample::default(), Instant::now());
        for round in 0..2 {
            talk(&sample, 7, 2_000_000, start + round * WINDOW);
            let rate = sample.0.lock().rate;
            // One of 244 makes 8,192.
            assert!((128..=512).contains(&rate), "one of {rate} in round {round}");
        }
        // A window without runs, and each is looked at again.
        sample.0.lock().turn(start + 5 * WINDOW);
        assert_eq!(sample.0.lock().rate, 1);
    }

    #[test]
    fn flood_is_first_among_thousands_with_its_rate() {
        let (sample, start) = (Sample::default(), Instant::now());
        let now = start + Duration::from_secs(1);
        for step in 0..1_000 {
            let at = start + Duration::from_millis(step);
            talk(&sample, 7, 90, at);
            talk(&sample, 8, 10, at);
            talk(&sample, 100 + u32::try_from(step).unwrap(), 1, at);
        }
        let found = top(&sample, 2, now);
        assert_near(found.senders[0], 7, 90_000);
        assert_eq!(found.senders[1].peer, name(8));
        assert_eq!(found.receivers.len(), 1);
        assert_near(found.receivers[0], RECEIVER, 101_000);
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

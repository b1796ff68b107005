//! A closed loop: a window of packets in flight, and what those that arrive cost the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::process::Usage;

/// Before the measurement, so that buffers and caches are as they will be.
const WARM_UP: Duration = Duration::from_millis(500);

/// A window that makes no progress for so long has lost its packets.
const LOST_AFTER: Duration = Duration::from_millis(200);

/// The window of one pair: the sender takes from it, the receiver gives back.
#[derive(Debug)]
pub struct Window {
    free: Mutex<u64>,
    freed: Condvar,
    size: u64,
    delivered: AtomicU64,
    lost: AtomicU64,
}

impl Window {
    /// A window of so many packets.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self {
            free: Mutex::new(size),
            freed: Condvar::new(),
            size,
            delivered: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    /// How many packets may be in flight.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Takes at most `most` places, waiting for one.
    ///
    /// When nothing comes back any more, what is in flight is lost.
    pub fn take(&self, most: u64) -> u64 {
        let mut free = self.free.lock();
        let end = Instant::now() + LOST_AFTER;
        while *free == 0 {
            if self.freed.wait_until(&mut free, end).timed_out() {
                self.lost.fetch_add(self.size, Ordering::Relaxed);
                *free = self.size;
            }
        }
        let taken = (*free).min(most);
        *free -= taken;
        taken
    }

    /// Gives places back whose packets have arrived.
    pub fn give(&self, places: u64) {
        self.delivered.fetch_add(places, Ordering::Relaxed);
        let mut free = self.free.lock();
        // What was taken for lost may still come.
        *free = (*free + places).min(self.size);
        self.freed.notify_one();
    }
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Packets delivered a second.
    pub packets_per_second: f64,
    /// CPU time of the server for each delivered packet, in microseconds.
    pub cpu_us_per_packet: f64,
    /// Context switches of the server for each delivered packet.
    pub switches_per_packet: f64,
    /// Packets sent and not delivered, of a hundred.
    pub loss_percent: f64,
    /// Anonymous resident memory of the server at the end, in MB.
    pub memory_mb: f64,
}

/// Watches pairs that are at work, for `time` after the warm-up, and what they cost the server.
///
/// # Errors
/// The server has ended.
#[allow(clippy::cast_precision_loss)] // far below 2^53
pub fn watch(
    windows: &[Arc<Window>],
    usage: impl Fn() -> anyhow::Result<Usage>,
    time: Duration,
) -> anyhow::Result<Figures> {
    let count = |counter: fn(&Window) -> &AtomicU64| -> u64 {
        windows.iter().map(|window| counter(window).load(Ordering::Relaxed)).sum()
    };
    thread::sleep(WARM_UP);
    let began = Instant::now();
    let before = usage()?;
    let delivered_before = count(|window| &window.delivered);
    let lost_before = count(|window| &window.lost);
    thread::sleep(time);
    let time = began.elapsed();
    let after = usage()?;
    let delivered = count(|window| &window.delivered) - delivered_before;
    let lost = count(|window| &window.lost) - lost_before;
    let each = |value: f64| value / delivered.max(1) as f64;
    Ok(Figures {
        packets_per_second: delivered as f64 / time.as_secs_f64(),
        cpu_us_per_packet: each((after.cpu - before.cpu).as_secs_f64() * 1e6),
        switches_per_packet: each(after.switches.saturating_sub(before.switches) as f64),
        loss_percent: 100.0 * lost as f64 / (delivered + lost).max(1) as f64,
        memory_mb: after.anonymous as f64 / 1e6,
    })
}

/// The run whose key is in the middle.
///
/// # Panics
/// There is no run.
pub fn median<T>(runs: &[T], key: impl Fn(&T) -> f64) -> &T {
    let mut sorted: Vec<_> = runs.iter().collect();
    sorted.sort_by(|a, b| key(a).total_cmp(&key(b)));
    sorted.get(sorted.len() / 2).expect("everything is measured once at least")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_is_taken_until_it_is_given_back() {
        let window = Window::new(10);
        assert_eq!((window.take(4), window.take(10)), (4, 6));
        window.give(3);
        assert_eq!(window.take(10), 3);
        assert_eq!(window.lost.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn window_that_makes_no_progress_has_lost_its_packets() {
        let window = Window::new(10);
        assert_eq!((window.take(10), window.take(10)), (10, 10));
        assert_eq!(window.lost.load(Ordering::Relaxed), 10);
        // They were only late: the window grows no larger than it was.
        window.give(15);
        assert_eq!((window.take(20), window.delivered.load(Ordering::Relaxed)), (10, 15));
    }

    #[test]
    fn median_is_the_run_in_the_middle() {
        assert_eq!(median(&[("c", 3.0), ("a", 1.0), ("b", 2.0)], |run| run.1).0, "b");
    }
}

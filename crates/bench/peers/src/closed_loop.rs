//! Pairs in a closed loop with a window of packets in flight, and what they cost the server:
//! as `beacon-relay bench` does it, for any server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::process::Usage;

/// Before the measurement, so that buffers and caches are as they will be.
const WARM_UP: Duration = Duration::from_millis(500);

/// A window that makes no progress for so long has lost its packets.
const LOST_AFTER: Duration = Duration::from_millis(200);

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) pairs: u32,
    /// Bytes of each payload.
    pub(crate) size: usize,
    /// Packets of each pair in flight.
    pub(crate) window: u64,
    pub(crate) time: Duration,
}

/// A sender and its receiver; each gets a thread of its own.
pub(crate) struct Pair {
    /// Sends so many packets.
    pub(crate) send: Box<dyn FnMut(u64) -> anyhow::Result<()> + Send>,
    /// Most packets that one call sends.
    pub(crate) most: u64,
    /// Waits a moment for packets, takes what is there, and says how many packets that were.
    pub(crate) receive: Box<dyn FnMut() -> anyhow::Result<u64> + Send>,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// Packets delivered a second.
    pub(crate) packets_per_second: f64,
    /// CPU time of the server for each delivered packet, in microseconds.
    pub(crate) cpu_us_per_packet: f64,
    /// Context switches of the server for each delivered packet.
    pub(crate) switches_per_packet: f64,
    /// Packets sent and not delivered, of a hundred.
    pub(crate) loss_percent: f64,
    /// Anonymous resident memory of the server at the end, in MB.
    pub(crate) memory_mb: f64,
}

/// The window of one pair: the sender takes from it, the receiver gives back.
#[derive(Debug)]
struct Window {
    free: Mutex<u64>,
    freed: Condvar,
    size: u64,
    delivered: AtomicU64,
    lost: AtomicU64,
}

impl Window {
    fn new(size: u64) -> Self {
        let (delivered, lost) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { free: Mutex::new(size), freed: Condvar::new(), size, delivered, lost }
    }

    /// Takes at most `most` places, waiting for one.
    ///
    /// When nothing comes back any more, what is in flight is lost.
    fn take(&self, most: u64) -> u64 {
        let mut free = self.free.lock();
        if *free == 0 {
            let waited = self.freed.wait_for(&mut free, LOST_AFTER);
            if waited.timed_out() && *free == 0 {
                self.lost.fetch_add(self.size, Ordering::Relaxed);
                *free = self.size;
            }
        }
        let taken = (*free).min(most);
        *free -= taken;
        taken
    }

    fn give(&self, places: u64) {
        self.delivered.fetch_add(places, Ordering::Relaxed);
        let mut free = self.free.lock();
        // What was taken for lost may still come.
        *free = (*free + places).min(self.size);
        self.freed.notify_one();
    }
}

/// Runs the pairs against the server whose process is `id`.
///
/// # Errors
/// The server or one of the pairs has failed.
pub(crate) fn measure(id: u32, pairs: Vec<Pair>, load: &Load) -> anyhow::Result<Figures> {
    let stop = Arc::new(AtomicBool::new(false));
    let (mut windows, mut threads) = (Vec::new(), Vec::new());
    for Pair { mut send, most, mut receive } in pairs {
        let window = Arc::new(Window::new(load.window));
        let (giving, stopped) = (Arc::clone(&window), Arc::clone(&stop));
        threads.push(thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                giving.give(receive()?);
            }
            Ok::<_, anyhow::Error>(())
        }));
        let (taking, stopped) = (Arc::clone(&window), Arc::clone(&stop));
        threads.push(thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                send(taking.take(most))?;
            }
            Ok(())
        }));
        windows.push(window);
    }
    let count = |counter: fn(&Window) -> &AtomicU64| -> u64 {
        windows.iter().map(|window| counter(window).load(Ordering::Relaxed)).sum()
    };
    thread::sleep(WARM_UP);
    let (began, before) = (Instant::now(), Usage::of(id)?);
    let (delivered_before, lost_before) = (count(|w| &w.delivered), count(|w| &w.lost));
    thread::sleep(load.time);
    let (time, after) = (began.elapsed(), Usage::of(id)?);
    let delivered = count(|w| &w.delivered) - delivered_before;
    let lost = count(|w| &w.lost) - lost_before;
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("no thread of the load panics")?;
    }
    let each = |value: f64| value / delivered.max(1) as f64;
    Ok(Figures {
        packets_per_second: delivered as f64 / time.as_secs_f64(),
        cpu_us_per_packet: each((after.cpu - before.cpu).as_secs_f64() * 1e6),
        switches_per_packet: each(after.switches.saturating_sub(before.switches) as f64),
        loss_percent: 100.0 * lost as f64 / (delivered + lost).max(1) as f64,
        memory_mb: after.anonymous as f64 / 1e6,
    })
}

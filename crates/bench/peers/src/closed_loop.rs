//! Pairs in a closed loop with a window of packets in flight, and what they cost the server:
//! as `beacon-bench` does it, for any server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use beacon_bench::closed_loop::{Figures, Window, watch};
use beacon_bench::process::Usage;

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
    let usage = || Ok(Usage::of(id)?);
    let figures = watch(&windows, usage, load.time)?;
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("no thread of the load panics")?;
    }
    Ok(figures)
}

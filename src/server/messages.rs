//! The thread of the sessions whose messages go to the bus.
//!
//! One thread decides, commits and sends for all of them ([`Bus`](crate::bus::Bus)), often this one
//! itself ([`Turns`]). Several that read would only wake each other for each message.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use crate::bus::Turns;

/// How long a shutdown waits for the thread: it may be in a turn whose disk does not answer.
const STOP_TIME: Duration = Duration::from_secs(1);

/// The thread, until it is stopped.
#[derive(Debug)]
pub(super) struct MessageThread {
    runtime: Handle,
    stopping: CancellationToken,
    ended: CancellationToken,
    /// What ends with the thread.
    alive: Mutex<Receiver<()>>,
}

impl MessageThread {
    /// Starts it; it takes turns of the bus, where this relay has one of its own.
    ///
    /// # Errors
    /// The system has no room for it.
    pub(super) fn start(turns: Option<Arc<Turns>>) -> io::Result<Self> {
        let rest = |turns: &Option<Arc<Turns>>| turns.iter().for_each(|turns| turns.rest());
        let [parking, unparking] = [turns.clone(), turns.clone()];
        let runtime = Builder::new_current_thread()
            .enable_all()
            .on_thread_unpark(move || rest(&unparking))
            .on_thread_park(move || {
                rest(&parking);
                // Who waits for this core runs first: what comes of it needs no wake-up of its own.
                std::thread::yield_now();
            })
            .build()?;
        let handle = runtime.handle().clone();
        let stopping = CancellationToken::new();
        let ended = CancellationToken::new();
        let ending = ended.clone().drop_guard();
        let stopped = stopping.clone();
        let (life, alive) = channel();
        std::thread::Builder::new().name("messages".to_owned()).spawn(move || {
            let (_life, _ending) = (life, ending);
            let runtime = match turns {
                Some(turns) => turns.serve(runtime, &stopped),
                None => {
                    runtime.block_on(stopped.cancelled());
                    runtime
                }
            };
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, stopping, ended, alive: Mutex::new(alive) })
    }

    /// What runs on it.
    pub(super) const fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Waits until it has ended.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Ends it, and all that runs there; at the latest with the process, where its disk hangs.
    pub(super) fn stop(&self) {
        self.stopping.cancel();
        // Nothing is ever sent.
        let _ = self.alive.lock().recv_timeout(STOP_TIME);
    }
}

impl Drop for MessageThread {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

//! The thread of the sessions whose messages go to the bus.
//!
//! One thread decides, commits and sends for all of them ([`Bus`](crate::bus::Bus)). Several that
//! read would only wake each other for each message.

use std::io;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// The thread, until it is stopped.
#[derive(Debug)]
pub(super) struct MessageThread {
    runtime: Handle,
    stopping: CancellationToken,
    ended: CancellationToken,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl MessageThread {
    /// Starts it.
    ///
    /// # Errors
    /// The system has no room for it.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            // Who waits for this core runs first: what comes of it needs no wake-up of its own.
            .on_thread_park(std::thread::yield_now)
            .build()?;
        let handle = runtime.handle().clone();
        let stopping = CancellationToken::new();
        let ended = CancellationToken::new();
        let ending = ended.clone().drop_guard();
        let stopped = stopping.clone();
        let thread = std::thread::Builder::new().name("messages".to_owned()).spawn(move || {
            let _ending = ending;
            runtime.block_on(stopped.cancelled());
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, stopping, ended, thread: Mutex::new(Some(thread)) })
    }

    /// What runs on it.
    pub(super) const fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Waits until it has ended.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Ends it, and all that runs there.
    pub(super) fn stop(&self) {
        self.stopping.cancel();
        if let Some(thread) = self.thread.lock().take() {
            // It has nothing to tell.
            let _ = thread.join();
        }
    }
}

impl Drop for MessageThread {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

//! Which thread takes a turn of the bus.
//!
//! The bus's thread does, unless there is a thread of sessions ([`Turns::serve`]) and turns are many
//! and short: that one then takes them itself between its reads, since a switch of threads for each
//! message costs as much as all decisions on it. Where that is more than one core does and there are
//! others, both threads share the work again for a second. Who takes a turn holds the worker.
//!
//! A commit may hang. The bus's thread then serves the sessions meanwhile, so that a disk which does
//! not answer stops none of them.

use std::future::{Future as _, poll_fn};
use std::num::NonZero;
use std::sync::Arc;
use std::task::Poll;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Shared;
use super::meters::Thread;
use super::worker::{After, Worker};

/// A turn on the thread of sessions that takes longer keeps them waiting.
const LATE: Duration = Duration::from_millis(20);

/// After one that takes so long, on either thread, sessions are served apart from turns for twice as
/// long. On a disk that is always slow they then wait for it a small share of the time ([`LATE`]); a
/// store that now and then has more to write costs little.
const LONG: Duration = Duration::from_millis(10);
const APART: u32 = 2;

/// How long the thread of sessions waits for a turn of the bus's thread: most are shorter.
const SHORT: Duration = Duration::from_micros(200);

/// What takes the turns of a bus.
pub struct Turns {
    shared: Arc<Shared>,
    /// Gone once the bus has ended.
    worker: Mutex<Option<Box<Worker>>>,
    /// A turn on the thread of sessions has ended.
    ended: Notify,
    /// The sessions whose thread takes turns.
    sessions: Mutex<Option<Arc<Runtime>>>,
}

impl std::fmt::Debug for Turns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turns").finish_non_exhaustive()
    }
}

/// Tells at its end that a turn has ended.
struct Ended<'a>(&'a Notify);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

impl Turns {
    pub(super) fn new(shared: Arc<Shared>, worker: Worker) -> Arc<Self> {
        Arc::new(Self {
            shared,
            worker: Mutex::new(Some(Box::new(worker))),
            ended: Notify::new(),
            sessions: Mutex::default(),
        })
    }

    /// Takes the turns that nobody else takes, until the bus is closed.
    pub(super) fn run(&self) {
        let mut after = After::Wait(Instant::now());
        loop {
            if let After::Wait(until) = after {
                self.shared.inbox.wait(until);
            }
            let mut slot = self.lock();
            // A turn that panics takes it along.
            let Some(mut worker) = slot.take() else { return };
            let began = Instant::now();
            if worker.is_whole() {
                self.shared.meters.taken(Thread::Bus);
                after = worker.take_turn(|spare| Ok(self.shared.inbox.take(spare)));
            }
            let took = began.elapsed();
            if took >= LONG {
                self.shared.inbox.share(took * APART);
            }
            if !worker.is_whole() || after == After::End {
                drop(slot);
                worker.finish();
                info!("the message bus is closed");
                return;
            }
            *slot = Some(worker);
        }
    }

    /// The worker, once the thread of sessions has no turn.
    fn lock(&self) -> MutexGuard<'_, Option<Box<Worker>>> {
        loop {
            if let Some(slot) = self.worker.try_lock_for(LATE) {
                return slot;
            }
            if let Some(sessions) = &*self.sessions.lock() {
                sessions.block_on(self.ended());
            }
        }
    }

    /// Waits until the turn on the thread of sessions has ended.
    async fn ended(&self) {
        let ended = self.ended.notified();
        tokio::pin!(ended);
        ended.as_mut().enable();
        if self.worker.is_locked() {
            ended.await;
        }
    }

    /// Tells that the thread of sessions has nothing to do at this moment.
    pub fn rest(&self) {
        self.shared.inbox.rest();
    }

    /// Serves the sessions of a runtime on this thread, and takes small turns, until that is
    /// cancelled. Returns the runtime, which nobody else has.
    pub fn serve(&self, sessions: Runtime, stopping: &CancellationToken) -> Runtime {
        let runtime = Arc::new(sessions);
        *self.sessions.lock() = Some(Arc::clone(&runtime));
        self.shared.inbox.set_sessions(Some(available_parallelism().map_or(1, NonZero::get)));
        let wait = || async {
            tokio::select! {
                () = stopping.cancelled() => false,
                () = self.called() => true,
            }
        };
        while runtime.block_on(wait()) {
            self.take_small_turn();
        }
        self.shared.inbox.set_sessions(None);
        // The bus's thread has it only while this one takes a turn.
        *self.sessions.lock() = None;
        Arc::into_inner(runtime).expect("the bus's thread has no share of its own")
    }

    /// Waits for a small turn.
    async fn called(&self) {
        let called = self.shared.inbox.called();
        tokio::pin!(called);
        if poll_fn(|cx| Poll::Ready(called.as_mut().poll(cx).is_ready())).await {
            // Somebody else has called since the last turn: what sessions have to do comes first.
            yield_now().await;
        } else {
            called.await;
        }
    }

    fn take_small_turn(&self) {
        let inbox = &self.shared.inbox;
        // Behind the slot, also where the turn panics.
        let _ended = Ended(&self.ended);
        let Some(mut slot) = self.worker.try_lock_for(SHORT) else { return inbox.hand_over() };
        let Some(mut worker) = slot.take() else { return };
        let began = Instant::now();
        let after = if worker.has_rest() || worker.is_much_untold() {
            After::Rest
        } else {
            worker.take_turn(|spare| {
                let batch = inbox.take_small(spare)?;
                self.shared.meters.taken(Thread::Sessions);
                Ok(batch)
            })
        };
        *slot = Some(worker);
        drop(slot);
        let took = began.elapsed();
        match after {
            _ if took >= LONG => {
                inbox.share(took * APART);
                inbox.hand_over();
            }
            After::Wait(until) => inbox.note_due(until),
            After::Rest | After::End => inbox.hand_over(),
        }
    }
}

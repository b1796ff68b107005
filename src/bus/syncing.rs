//! Threads that have the disk take what was committed.
//!
//! The bus's thread goes on meanwhile. Several sync at a time, each for all that was committed
//! before it began: a disk often takes as long for one as for all of them. After one that failed
//! nobody knows what the disk has, whatever those say that ran at the same time: the bus's thread then
//! commits again what nobody was told about, and lets them go on.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::health::Call;
use super::inbox::Item;
use super::{Durable, Shared};

/// Syncs at a time, where somebody waits for each commit.
pub(super) const MOST: usize = 3;

/// The first and the longest wait behind one that failed.
const RETRY: Duration = Duration::from_millis(50);
const MOST_RETRY: Duration = Duration::from_secs(2);

/// What the disk has of the commits, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Syncing {
    state: Mutex<State>,
    changed: Condvar,
    /// Some sync has ended.
    moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The last commit that the disk is to have.
    wanted: u64,
    /// The last that a sync has begun for.
    begun: u64,
    progress: Progress,
    /// Failures that the bus's thread has answered.
    answered: u64,
    is_closed: bool,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Progress {
    /// The last commit that the disk has.
    pub(super) done: u64,
    /// How often it has failed.
    pub(super) failures: u64,
}

impl Syncing {
    /// Has the disk take all up to a commit.
    pub(super) fn want(&self, commit: u64) {
        let mut state = self.state.lock();
        state.wanted = state.wanted.max(commit);
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn progress(&self) -> Progress {
        self.state.lock().progress
    }

    /// Waits until it is further than this.
    pub(super) fn wait(&self, seen: Progress, until: Instant) {
        let mut state = self.state.lock();
        if state.progress == seen {
            self.moved.wait_until(&mut state, until);
        }
    }

    /// Goes on after so many failures, for all that was wanted.
    pub(super) fn resume(&self, failures: u64) {
        let mut state = self.state.lock();
        state.answered = failures;
        state.begun = state.progress.done;
        drop(state);
        self.changed.notify_all();
    }

    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Waits for something to do: the last commit of it, and the failures before it.
    fn begin(&self) -> Option<(u64, u64)> {
        let mut state = self.state.lock();
        loop {
            let failures = state.progress.failures;
            if state.is_closed {
                return None;
            }
            if state.begun < state.wanted && state.answered == failures {
                state.begun = state.wanted;
                return Some((state.begun, failures));
            }
            self.changed.wait(&mut state);
        }
    }

    /// The disk has all up to a commit, says a sync that began behind so many failures.
    fn succeeded(&self, commit: u64, failures: u64) {
        let progress = &mut self.state.lock().progress;
        if progress.failures == failures {
            progress.done = progress.done.max(commit);
        }
        self.moved.notify_all();
    }

    /// True where it is the first that failed since they went on.
    fn failed(&self, failures: u64) -> bool {
        let progress = &mut self.state.lock().progress;
        let is_first = progress.failures == failures;
        progress.failures += u64::from(is_first);
        self.moved.notify_all();
        is_first
    }
}

/// Starts the threads.
pub(super) fn start(
    shared: &Arc<Shared>,
    durable: Durable,
    ended: &CancellationToken,
) -> io::Result<Vec<JoinHandle<()>>> {
    let count = match durable {
        Durable::Each => MOST,
        Durable::Every(_) => 1,
        Durable::Never => 0,
    };
    let start = |number: usize| {
        let shared = Arc::clone(shared);
        let ending = ended.clone();
        let thread = std::thread::Builder::new().name(format!("bus-sync-{}", number + 1));
        thread.spawn(move || {
            let _ending = ending.drop_guard();
            run(&shared, number);
        })
    };
    (0..count).map(start).collect()
}

fn run(shared: &Shared, number: usize) {
    let watch = &shared.meters.syncs[number];
    let mut wait = RETRY;
    while let Some((commit, failures)) = shared.syncing.begin() {
        watch.begin(Instant::now());
        let synced = shared.store.sync();
        watch.end();
        match synced {
            Ok(()) => {
                if wait != RETRY {
                    info!("the disk takes what is committed again");
                }
                wait = RETRY;
                shared.meters.succeeded(Call::Sync);
                shared.syncing.succeeded(commit, failures);
            }
            Err(error) => {
                shared.meters.failed(Call::Sync, &error);
                if wait == RETRY {
                    warn!(%error, "the disk does not take what was committed");
                }
                let is_first = shared.syncing.failed(failures);
                std::thread::sleep(wait);
                wait = (wait * 2).min(MOST_RETRY);
                if !is_first {
                    continue;
                }
            }
        }
        shared.inbox.put(Item::Synced);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sync_is_for_all_that_was_committed_before_it() {
        let syncing = Syncing::default();
        syncing.want(3);
        syncing.want(5);
        assert_eq!(syncing.begin(), Some((5, 0)));
        syncing.want(7);
        assert_eq!(syncing.begin(), Some((7, 0)), "beside the first");
        syncing.succeeded(7, 0);
        assert_eq!(syncing.progress(), Progress { done: 7, failures: 0 });
        syncing.succeeded(5, 0);
        assert_eq!(syncing.progress().done, 7);
    }

    #[test]
    fn after_a_failure_what_ran_beside_it_says_nothing() {
        let syncing = Syncing::default();
        syncing.want(1);
        let first = syncing.begin().unwrap();
        syncing.want(2);
        let second = syncing.begin().unwrap();
        assert!(syncing.failed(first.1));
        syncing.succeeded(second.0, second.1);
        assert!(!syncing.failed(second.1), "it was told before");
        assert_eq!(syncing.progress(), Progress { done: 0, failures: 1 });

        syncing.resume(1);
        let (commit, failures) = syncing.begin().unwrap();
        assert_eq!((commit, failures), (2, 1));
        syncing.succeeded(commit, failures);
        assert_eq!(syncing.progress(), Progress { done: 2, failures: 1 });
    }

    #[test]
    fn nothing_begins_once_it_is_closed() {
        let syncing = Syncing::default();
        syncing.want(1);
        syncing.close();
        assert_eq!(syncing.begin(), None);
    }
}

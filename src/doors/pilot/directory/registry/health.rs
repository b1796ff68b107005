//! What the connections to the registry know together: whether it can be reached, how it
//! speaks, and what was said about it in the log.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::Failure;
use crate::metrics::{Labelled, Word as _};
use crate::wire::registry::Mode;

/// How long the same failure is not worth another warning.
const QUIET: Duration = Duration::from_secs(60);

/// Longest wait for an answer, so that a connection that died is found out.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How long a registry that was asked nothing more counts as silent. No request is outstanding
/// then: none waits for longer than [`LONGEST_WAIT`].
const SILENCE: Duration = Duration::from_secs(60);

/// The load of a connection that is not there.
const NOT_CONNECTED: usize = usize::MAX;

#[derive(Debug)]
pub(super) struct Health {
    address: String,
    /// The last attempt to reach the registry failed: questions are not worth a wait.
    down: AtomicBool,
    /// The last look-up that was answered was answered with an error.
    refuses: AtomicBool,
    /// When something was asked for last, where a request was not answered in time and nothing
    /// was answered since.
    silent: Mutex<Option<Instant>>,
    /// How long an answer is awaited, in milliseconds.
    wait: AtomicU64,
    /// Requests without an answer on each connection.
    loads: Box<[AtomicUsize]>,
    /// Held while a connection comes or the last one goes, so that `down` is what came last.
    changing: Mutex<()>,
    agreed: Mutex<Agreed>,
    said: Mutex<Said>,
    pub(super) failures: Labelled<Failure>,
}

/// How the registry speaks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agreed {
    pub(super) mode: Mode,
    /// It has answered in this mode.
    pub(super) confirmed: bool,
}

const TRIAL: Agreed = Agreed { mode: Mode::Binary, confirmed: false };

#[derive(Debug, Default)]
struct Said {
    /// The log's last word is that the registry answers.
    well: bool,
    warned: Option<(Failure, Instant)>,
}

impl Health {
    pub(super) fn new(address: String, connections: usize, patience: Duration) -> Self {
        let health = Self {
            address,
            down: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            silent: Mutex::default(),
            wait: AtomicU64::new(0),
            loads: (0..connections).map(|_| AtomicUsize::new(NOT_CONNECTED)).collect(),
            changing: Mutex::default(),
            agreed: Mutex::new(TRIAL),
            said: Mutex::default(),
            failures: Labelled::default(),
        };
        health.set_patience(patience);
        health
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    pub(super) fn refuses(&self) -> bool {
        self.refuses.load(Ordering::Relaxed)
    }

    pub(super) fn set_refuses(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::Relaxed);
    }

    /// How long an answer is awaited.
    pub(super) fn wait(&self) -> Duration {
        Duration::from_millis(self.wait.load(Ordering::Relaxed))
    }

    /// Sets how long a login may take: an answer is awaited for nine tenths of that, so that the
    /// login ends with the reason.
    pub(super) fn set_patience(&self, login: Duration) {
        let wait = (login * 9 / 10).min(LONGEST_WAIT);
        self.wait.store(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How many connections there may be.
    pub(super) const fn connections(&self) -> usize {
        self.loads.len()
    }

    /// Whether the registry was reached, and is not silent.
    pub(super) fn is_up(&self) -> bool {
        !self.is_down() && !self.is_silent()
    }

    /// Whether it does not answer in time. After a minute in which nobody asked it anything, that
    /// is not known any more.
    fn is_silent(&self) -> bool {
        self.silent.lock().is_some_and(|asked| Instant::now() < asked + SILENCE)
    }

    /// A request was not answered in time.
    pub(super) fn unanswered(&self) {
        *self.silent.lock() = Some(Instant::now());
    }

    /// A request was answered.
    pub(super) fn answered(&self) {
        *self.silent.lock() = None;
    }

    /// A request goes out: a silent registry is silent until that is answered.
    pub(super) fn asked(&self, now: Instant) {
        if let Some(asked) = &mut *self.silent.lock() {
            *asked = now;
        }
    }

    pub(super) fn connected(&self, index: usize) {
        let _changing = self.changing.lock();
        self.set_load(index, 0);
        self.down.store(false, Ordering::Relaxed);
    }

    pub(super) fn disconnected(&self, index: usize) {
        self.set_load(index, NOT_CONNECTED);
    }

    /// Whether no connection is there.
    pub(super) fn is_cut_off(&self) -> bool {
        self.loads.iter().all(|load| load.load(Ordering::Relaxed) == NOT_CONNECTED)
    }

    /// A connection has ended or was not made, without an answer: the registry is down unless
    /// another one is there, which fails in its turn if that is of no use. Returns whether it is.
    pub(super) fn fail(&self) -> bool {
        let _changing = self.changing.lock();
        let down = self.is_cut_off();
        if down {
            self.down.store(true, Ordering::Relaxed);
            self.said.lock().well = false;
        }
        down
    }

    pub(super) fn set_load(&self, index: usize, load: usize) {
        if let Some(at) = self.loads.get(index) {
            at.store(load, Ordering::Relaxed);
        }
    }

    /// How much the least busy connection has to do, and whether all are there.
    pub(super) fn least_load(&self) -> (usize, bool) {
        let loads = self.loads.iter().map(|load| load.load(Ordering::Relaxed));
        loads.fold((NOT_CONNECTED, true), |(least, all), load| {
            (least.min(load), all && load != NOT_CONNECTED)
        })
    }

    pub(super) fn agreed(&self) -> Agreed {
        *self.agreed.lock()
    }

    pub(super) fn agree(&self, mode: Mode) {
        *self.agreed.lock() = Agreed { mode, confirmed: true };
    }

    /// Goes from binary mode to JSON, since the registry refused or closed a connection on which
    /// we spoke like this; whether there is another mode to try.
    pub(super) fn fall_back(&self, spoke: Agreed) -> bool {
        let mut agreed = self.agreed.lock();
        if spoke.confirmed || agreed.mode != spoke.mode {
            return !spoke.confirmed;
        }
        let can = agreed.mode == Mode::Binary && !agreed.confirmed;
        if can {
            agreed.mode = Mode::Json;
        }
        can
    }

    /// Begins with binary mode again.
    pub(super) fn forget_mode(&self) {
        *self.agreed.lock() = TRIAL;
    }

    pub(super) fn well(&self, mode: Mode) {
        let mut said = self.said.lock();
        if !said.well {
            *said = Said { well: true, warned: None };
            drop(said);
            info!(registry = self.address, ?mode, "the registry answers");
        }
    }

    /// Counts a failure, and warns of it unless the last warning said the same just now.
    pub(super) fn report(&self, failure: Failure, error: &str) {
        self.failures.of(failure).increment();
        let (registry, reason) = (&self.address, failure.word());
        let now = Instant::now();
        let mut said = self.said.lock();
        if said.warned.is_some_and(|(last, at)| last == failure && now < at + QUIET) {
            drop(said);
            debug!(registry, reason, error, "the registry failed again");
        } else {
            said.warned = Some((failure, now));
            drop(said);
            warn!(registry, reason, error, "the registry failed; known keys stay in use");
        }
    }
}

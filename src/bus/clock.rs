//! The clock of the bus, and what the operator is told of the system's.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tracing::{info, warn};

use crate::proto::bus::{self, Millis};

/// How far the system's clock is off when the operator is told.
const OFF: Duration = Duration::from_secs(60);

/// How near it is when all is well again.
const NEAR: Duration = Duration::from_secs(10);

/// The clock that ages and redeliveries go by.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    clock: bus::Clock,
    /// The operator knows that the system's clock is off.
    is_off: bool,
}

impl Clock {
    /// One that goes on from the newest time of the store.
    pub(super) fn start(newest: Option<Millis>, retention: u64) -> Self {
        let clock = bus::Clock::start(system(), newest, retention);
        Self { started: Instant::now(), state: Mutex::new(State { clock, is_off: false }) }
    }

    pub(super) fn now(&self) -> Millis {
        self.state.lock().clock.read(system(), self.started.elapsed())
    }

    /// Tells the operator if the system's clock has become wrong, or was it; returns by how many
    /// seconds it is ahead.
    pub(super) fn watch(&self) -> f64 {
        let mut state = self.state.lock();
        let system = system();
        state.clock.read(system, self.started.elapsed());
        let at = state.clock.last();
        let off = system.abs_diff(at);
        let seconds = off.as_secs();
        let is_ahead = system > at;
        if off < NEAR && std::mem::take(&mut state.is_off) {
            info!("the system's clock is that of the message bus again");
        } else if off > OFF && !std::mem::replace(&mut state.is_off, true) {
            if is_ahead {
                warn!(
                    seconds,
                    "the system's clock has jumped ahead, or the relay was off for long: messages \
                     age only a quarter faster until they have caught up; if the clock is wrong, \
                     set it right soon"
                );
            } else {
                warn!(
                    seconds,
                    "the system's clock is behind what messages were stored with: they age on from \
                     there; if the clock is wrong, set it right"
                );
            }
        }
        if is_ahead { off.as_secs_f64() } else { -off.as_secs_f64() }
    }
}

/// What the system's clock says.
fn system() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The time by the system's clock: for what others compare with their own.
pub(super) fn system_now() -> Millis {
    system().into()
}

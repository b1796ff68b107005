//! Where hubs stand, for operators.

use parking_lot::Mutex;
use prometheus::proto::MetricFamily;

use crate::metrics::{Counter, Word as _, family};
use crate::words;

words! {
    /// Where a hub stands.
    pub(super) enum State {
        /// Another relay of the cluster has the connection.
        Standby => "standby",
        /// It is dialled.
        Connecting => "connecting",
        /// There is a session.
        Connected => "connected",
        /// It could not be reached, and will be dialled again.
        Waiting => "waiting",
        /// It does not let us in, and will be asked again after some minutes.
        Refused => "refused",
    }
}

/// What is counted of hubs.
#[derive(Debug)]
pub(super) struct Meters {
    states: Mutex<Vec<State>>,
    /// Records that came from hubs.
    pub(super) taken: Counter,
    /// Records that hubs have acknowledged.
    pub(super) published: Counter,
}

impl Meters {
    pub(super) fn new(hubs: usize) -> Self {
        Self {
            states: Mutex::new(vec![State::Standby; hubs]),
            taken: Counter::default(),
            published: Counter::default(),
        }
    }

    pub(super) fn note(&self, hub: usize, state: State) {
        if let Some(known) = self.states.lock().get_mut(hub) {
            *known = state;
        }
    }

    pub(super) fn state(&self, hub: usize) -> State {
        self.states.lock().get(hub).copied().unwrap_or(State::Standby)
    }

    pub(super) fn families(&self, families: &mut Vec<MetricFamily>) {
        let states = self.states.lock().clone();
        let count = |state: &State| {
            let hubs = states.iter().filter(|other| *other == state).count();
            #[allow(clippy::cast_precision_loss)] // the exposition format is f64
            let hubs = hubs as f64;
            ([state.word()], hubs)
        };
        let counts: Vec<_> = State::ALL.iter().map(count).collect();
        families.extend([
            family::gauge_values(
                "beacon_relay_keyop_hubs",
                "Other hubs that this one is a client of, by where they stand.",
                &["state"],
                counts.iter().map(|(labels, hubs)| (labels.as_slice(), *hubs)),
            ),
            family::counter(
                "beacon_relay_keyop_hub_records_taken_total",
                "Records that other hubs have sent for the channels of this one.",
                &self.taken,
            ),
            family::counter(
                "beacon_relay_keyop_hub_records_published_total",
                "Records of this hub that other hubs have acknowledged.",
                &self.published,
            ),
        ]);
    }
}

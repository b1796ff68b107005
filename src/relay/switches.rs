//! What operators can switch off while the relay runs.
//!
//! All is on at the start, and a reload leaves it as it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus::proto::MetricFamily;

use crate::metrics::family;

/// A kind of traffic that can be switched off.
#[derive(Debug, Eq, PartialEq)]
pub struct SwitchKind {
    /// Its name for operators, also as a label of metrics.
    pub name: &'static str,
    /// What the record of events says when it is switched on.
    pub on: &'static str,
    /// What it says when it is switched off.
    pub off: &'static str,
}

/// Packets are relayed, whatever they came and would go over.
pub const RELAY: SwitchKind = SwitchKind { name: "relay", on: "relay_on", off: "relay_off" };

/// Whether one kind of traffic is served.
#[derive(Debug)]
pub struct Switch {
    /// Which.
    pub kind: &'static SwitchKind,
    is_off: AtomicBool,
}

impl Switch {
    /// It is served.
    #[must_use]
    pub fn new(kind: &'static SwitchKind) -> Arc<Self> {
        Arc::new(Self { kind, is_off: AtomicBool::new(false) })
    }

    /// Whether this kind of traffic is served.
    #[must_use]
    pub fn is_on(&self) -> bool {
        // Nothing else depends on when a thread sees the change.
        !self.is_off.load(Ordering::Relaxed)
    }

    /// Serves this kind of traffic from here on, or drops it; whether it was served before.
    pub fn set(&self, on: bool) -> bool {
        !self.is_off.swap(!on, Ordering::Relaxed)
    }
}

/// All switches of a relay: the router's, and those of its doors.
#[derive(Clone, Debug, Default)]
pub struct Switches(pub Vec<Arc<Switch>>);

impl Switches {
    /// The switch of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Arc<Switch>> {
        self.0.iter().find(|switch| switch.kind.name == name)
    }

    /// Each switch by its name, with whether it is on.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, bool)> + '_ {
        self.0.iter().map(|switch| (switch.kind.name, switch.is_on()))
    }

    /// Appends the gauges to a scrape.
    pub fn families(&self, families: &mut Vec<MetricFamily>) {
        let samples: Vec<_> = self.iter().map(|(name, on)| ([name], f64::from(on))).collect();
        families.push(family::gauge_values(
            "pilot_beacon_switch_on",
            "Whether this kind of traffic is served: 0 where an operator has switched it off.",
            &["switch"],
            samples.iter().map(|(name, on)| (name.as_slice(), *on)),
        ));
    }
}

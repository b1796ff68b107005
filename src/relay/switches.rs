//! What operators can switch off while the relay runs: punches, relayed packets, Discovers.
//!
//! All are on at the start, and a reload leaves them as they are.

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus::proto::MetricFamily;

use crate::metrics::{Word as _, family};
use crate::words;

words! {
    /// One kind of traffic that can be switched off.
    pub enum Switch {
        /// Punches are arranged.
        Punch => "punch",
        /// Packets are relayed, whatever they came and would go over.
        Relay => "relay",
        /// Discovers are answered, and endpoints made and moved.
        Discover => "discover",
    }
}

/// A text names no switch.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is none of punch, relay, discover")]
pub struct NoSwitch(String);

impl FromStr for Switch {
    type Err = NoSwitch;

    fn from_str(text: &str) -> Result<Self, NoSwitch> {
        let named = |switch: &&Self| switch.word() == text;
        Self::ALL.iter().find(named).copied().ok_or_else(|| NoSwitch(text.to_owned()))
    }
}

/// The switches of a relay.
#[derive(Debug, Default)]
pub struct Switches {
    off: [AtomicBool; Switch::ALL.len()],
}

#[allow(clippy::indexing_slicing)] // `Word::index` is below the array's length
impl Switches {
    /// Whether this kind of traffic is served.
    #[must_use]
    pub fn is_on(&self, switch: Switch) -> bool {
        // Nothing else depends on when a thread sees the change.
        !self.off[switch.index()].load(Ordering::Relaxed)
    }

    /// Serves this kind of traffic from here on, or drops it; whether it was served before.
    pub fn set(&self, switch: Switch, on: bool) -> bool {
        !self.off[switch.index()].swap(!on, Ordering::Relaxed)
    }

    /// Each switch by its name, with whether it is on.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, bool)> + '_ {
        Switch::ALL.iter().map(|switch| (switch.word(), self.is_on(*switch)))
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

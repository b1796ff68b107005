//! What a front counts.

use std::time::Duration;

use prometheus::proto::MetricFamily;

use crate::metrics::{Counter, family};

/// What a front counts.
#[derive(Debug, Default)]
pub(super) struct Meters {
    pub(super) delivered: Counter,
    pub(super) replaced: Counter,
    pub(super) led: Counter,
}

/// What there is at the moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) epoch: u64,
    pub(super) is_leading: bool,
    pub(super) leaders: usize,
    pub(super) unanswered: usize,
    pub(super) unanswered_for: Duration,
    pub(super) sessions: usize,
    pub(super) names: usize,
    pub(super) seats: usize,
}

impl Meters {
    /// Appends the families of a scrape.
    pub(super) fn families(&self, seen: Seen, families: &mut Vec<MetricFamily>) {
        let Seen { epoch, is_leading, leaders, unanswered, sessions, names, seats, .. } = seen;
        let gauges = [
            ("leading", "1 where this relay leads the message bus.", u64::from(is_leading)),
            ("leaders", "Relays that say to this one that they lead.", leaders as u64),
            ("epoch", "The epoch of the leader that this relay listens to; 0 for none.", epoch),
            (
                "unanswered_bytes",
                "What sessions here have said that the leader has not answered.",
                unanswered as u64,
            ),
            ("sessions", "Sessions here.", sessions as u64),
            ("names", "Names with a session at some relay.", names as u64),
            ("seats", "Sessions of all relays, at the one that leads.", seats as u64),
        ];
        for (name, help, value) in gauges {
            #[allow(clippy::cast_precision_loss)] // the exposition format is f64
            let value = value as f64;
            families.push(family::gauge_value(
                &format!("beacon_relay_bus_front_{name}"),
                help,
                value,
            ));
        }
        families.push(family::gauge_value(
            "beacon_relay_bus_front_unanswered_seconds",
            "For how long the leader has answered nothing although something waits.",
            seen.unanswered_for.as_secs_f64(),
        ));
        let counters = [
            ("delivered_total", "Messages of the leader for sessions here.", &self.delivered),
            (
                "replaced_total",
                "Sessions here that ended since a younger one at another relay has their name.",
                &self.replaced,
            ),
            ("led_total", "How often this relay has begun to lead.", &self.led),
        ];
        for (name, help, counter) in counters {
            families.push(family::counter(
                &format!("beacon_relay_bus_front_{name}"),
                help,
                counter,
            ));
        }
    }
}

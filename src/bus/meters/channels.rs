//! What is shown of channels: totals, and who is furthest behind.

use std::sync::Arc;
use std::time::Duration;

use prometheus::proto::MetricFamily;

use crate::metrics::{Word as _, family};
use crate::proto::bus::{Bus, ChannelTotals, CursorPeer, CursorView, Millis};
use crate::words;

/// Cursors that have series of their own, those first that are furthest behind: a scrape does not grow
/// with the peers.
const MOST_LAGS: usize = 200;

/// What a series shows of a cursor.
type Value = fn(&Lag) -> f64;

words! {
    /// How a record left its channel.
    enum Way {
        /// All cursors have passed it.
        Consumed => "consumed",
        /// It was too old, or its channel had too much.
        Expired => "expired",
        /// An operator has purged it.
        Purged => "purged",
    }
}

/// How far a peer is behind in a channel.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
pub struct Lag {
    /// The channel.
    pub channel: Arc<str>,
    /// The peer.
    pub peer: Arc<str>,
    /// Whether the peer is not subscribed at the moment.
    pub is_away: bool,
    /// Records that it has not acknowledged.
    pub records: u64,
    /// What those count as, in bytes.
    pub bytes: u64,
    /// The age of the first of them.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub age: Duration,
}

fn seconds<S: serde::Serializer>(age: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(age.as_secs_f64())
}

impl Lag {
    fn of((channel, view): (Arc<str>, CursorView)) -> Self {
        Self {
            channel,
            peer: view.name,
            is_away: matches!(view.state, CursorPeer::AwaySince(_)),
            records: view.records,
            bytes: view.bytes,
            age: Duration::from_millis(view.age),
        }
    }
}

/// What the bus's thread saw of channels when it last looked.
#[derive(Debug, Default)]
pub(super) struct Channels {
    totals: ChannelTotals,
    behind: Vec<Lag>,
}

impl Channels {
    pub(super) fn of(bus: &Bus, now: Millis) -> Self {
        let behind = bus.behind(MOST_LAGS, now).into_iter().map(Lag::of).collect();
        Self { totals: bus.channel_totals(), behind }
    }

    /// Those that are furthest behind; nothing where there is no channel.
    pub(super) fn behind(&self, most: usize) -> Option<Vec<Lag>> {
        let behind = self.behind.iter().take(most).filter(|lag| lag.records > 0);
        (self.totals.channels > 0).then(|| behind.cloned().collect())
    }

    pub(super) fn families(&self, families: &mut Vec<MetricFamily>) {
        let ChannelTotals { consumed, expired, purged, .. } = self.totals;
        let ways = [
            ([Way::Consumed.word()], consumed),
            ([Way::Expired.word()], expired),
            ([Way::Purged.word()], purged),
        ];
        families.push(family::counts(
            "beacon_relay_channel_removed_total",
            "Records that channels have no more, by the reason.",
            &["reason"],
            ways.iter().map(|(way, count)| (way.as_slice(), *count)),
        ));
        self.counters(families);
        self.gauges(families);
        self.lags(families);
    }

    fn counters(&self, families: &mut Vec<MetricFamily>) {
        let totals = &self.totals;
        let counters = [
            ("stored_total", "Records accepted and kept for who subscribes.", totals.stored),
            ("unread_total", "Records accepted while nobody was to get them.", totals.unread),
            (
                "delivered_total",
                "Records handed to peers, those that were repeated among them.",
                totals.delivered,
            ),
            ("acknowledged_total", "Records that peers have acknowledged.", totals.acknowledged),
            (
                "redelivered_total",
                "Records handed over again since they stayed without an acknowledgement.",
                totals.redelivered,
            ),
            ("skipped_total", "Records that were removed before a peer had them.", totals.skipped),
            ("lost_total", "Records that cannot be read any more.", totals.lost),
            ("dead_letters_total", "Records that were given up for a peer.", totals.dead),
            (
                "cursors_forgotten_total",
                "Cursors whose peer was away for too long.",
                totals.forgotten,
            ),
        ];
        for (name, help, value) in counters {
            #[allow(clippy::cast_precision_loss)] // the exposition format is f64
            let value = value as f64;
            let name = format!("beacon_relay_channel_{name}");
            families.push(family::counter_value(&name, help, value));
        }
    }

    fn gauges(&self, families: &mut Vec<MetricFamily>) {
        let totals = &self.totals;
        let gauges = [
            ("channels", "Channels.", totals.channels),
            ("channel_records", "Records that wait for somebody.", totals.kept),
            ("channel_bytes", "What those count as.", totals.bytes),
            ("channel_cursors", "Cursors of peers, connected or away.", totals.cursors),
            (
                "channel_cursors_away",
                "Cursors of peers that are not subscribed at the moment.",
                totals.cursors.saturating_sub(totals.live),
            ),
            ("channel_lag", "Records that the last of all cursors has not passed.", totals.lag),
        ];
        for (name, help, value) in gauges {
            #[allow(clippy::cast_precision_loss)] // the exposition format is f64
            let value = value as f64;
            families.push(family::gauge_value(&format!("beacon_relay_{name}"), help, value));
        }
    }

    /// A series for each cursor that is behind.
    fn lags(&self, families: &mut Vec<MetricFamily>) {
        #[allow(clippy::cast_precision_loss)] // the exposition format is f64
        let kinds: [(&str, &str, Value); 3] = [
            ("records", "Records that a peer has not acknowledged.", |lag| lag.records as f64),
            ("bytes", "What the records count as that a peer has not acknowledged.", |lag| {
                lag.bytes as f64
            }),
            ("seconds", "Age of the first record that a peer has not acknowledged.", |lag| {
                lag.age.as_secs_f64()
            }),
        ];
        let labels: Vec<_> = self
            .behind
            .iter()
            .map(|lag| {
                let state = if lag.is_away { "away" } else { "connected" };
                ([&*lag.channel, &*lag.peer, state], lag)
            })
            .collect();
        if labels.is_empty() {
            // A family without a sample cannot be written.
            return;
        }
        for (name, help, value) in kinds {
            families.push(family::gauge_values(
                &format!("beacon_relay_channel_lag_{name}"),
                help,
                &["channel", "peer", "state"],
                labels.iter().map(|(labels, lag)| (labels.as_slice(), value(lag))),
            ));
        }
    }
}

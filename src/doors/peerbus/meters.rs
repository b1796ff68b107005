//! What the door counts, beside what every door's packets are counted by.

use prometheus::proto::MetricFamily;

use crate::metrics::{Counter, Labelled, Sharded, family};
use crate::wire::peerbus::Refusal;
use crate::words;

words! {
    /// What messages of peers were.
    pub(super) enum Handled {
        /// A message for the bus.
        Envelope => "envelope",
        /// An acknowledgement.
        Ack => "ack",
        /// A request for the names of those that are connected.
        Peers => "peers",
        /// A frame that means nothing after the login.
        Ignored => "ignored",
    }
}

words! {
    for Refusal {
        TooLarge => "too_large",
        NotText => "not_text",
        Malformed => "malformed",
        NotRegister => "not_register",
        Version => "version",
        NoName => "no_name",
        LongName => "long_name",
        Token => "token",
        TooMany => "too_many",
        NotStored => "not_stored",
        Claimed => "claimed",
        NotBound => "not_bound",
    }
}

/// The meters.
#[derive(Debug, Default)]
pub(super) struct Meters {
    pub(super) handled: Sharded<Handled>,
    pub(super) refused: Labelled<Refusal>,
    /// Messages that were stored and are too long for any client.
    pub(super) undeliverable: Counter,
}

impl Meters {
    /// Appends the families; so many peers are connected.
    pub(super) fn families(&self, connected: usize, families: &mut Vec<MetricFamily>) {
        #[allow(clippy::cast_precision_loss)] // the exposition format is f64
        let connected = connected as f64;
        families.extend([
            family::sharded(
                "beacon_relay_peerbus_handled_total",
                "Messages of peers that were good, by what they were.",
                "kind",
                &self.handled,
            ),
            family::labelled(
                "beacon_relay_peerbus_refused_total",
                "Registrations that were refused, by what the peer was told.",
                "reason",
                &self.refused,
            ),
            family::counter(
                "beacon_relay_peerbus_undeliverable_total",
                "Stored messages that were not delivered since no client takes their length.",
                &self.undeliverable,
            ),
            family::gauge_value(
                "beacon_relay_peerbus_peers",
                "Names that are connected.",
                connected,
            ),
        ]);
    }
}

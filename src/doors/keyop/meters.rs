//! What the door counts, beside what every door's messages are counted by.

use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus::proto::MetricFamily;

use super::drops::Taken;
use crate::metrics::{Counter, Gauge, Labelled, Sharded, family};
use crate::words;

words! {
    /// What a session speaks.
    pub(super) enum Speaks {
        /// gRPC, of v1.5.0 and later.
        Grpc => "grpc",
        /// WebSocket, of those up to v1.4.1.
        WebSocket => "websocket",
    }
}

words! {
    /// Why a login was refused.
    pub(super) enum Refused {
        /// Its certificate shows no name: the listener asks for none.
        NoCertificate => "no_certificate",
        /// The peer is not on the allow list.
        NotAllowed => "not_allowed",
        /// Its first message is no hello.
        Hello => "hello",
        /// The bus does not know whose the name is.
        NotClaimed => "not_claimed",
    }
}

/// The meters.
#[derive(Debug, Default)]
pub(super) struct Meters {
    pub(super) taken: Sharded<Taken>,
    pub(super) refused: Labelled<Refused>,
    pub(super) delivered: Counter,
    /// Records that were left out of batches, since their route has the peer.
    pub(super) left_out: Counter,
    /// Batches that peers have acknowledged.
    pub(super) acknowledged: Counter,
    /// Acknowledgements of nothing that was delivered.
    pub(super) stray: Counter,
    /// Lines that the audit file has no room for.
    pub(super) audit_lost: Counter,
    /// Sessions, by what they speak.
    pub(super) peers: [AtomicUsize; 2],
    /// Those that are subscribed to something.
    pub(super) subscribers: Gauge,
}

impl Meters {
    /// The sessions of one kind.
    pub(super) fn peers_of(&self, speaks: Speaks) -> &AtomicUsize {
        let [grpc, websocket] = &self.peers;
        match speaks {
            Speaks::Grpc => grpc,
            Speaks::WebSocket => websocket,
        }
    }

    /// All sessions.
    pub(super) fn sessions(&self) -> usize {
        self.peers.iter().map(|peers| peers.load(Ordering::Relaxed)).sum()
    }

    /// Appends the families.
    pub(super) fn families(&self, families: &mut Vec<MetricFamily>) {
        let words = [Speaks::Grpc, Speaks::WebSocket].map(|speaks| {
            let peers = self.peers_of(speaks).load(Ordering::Relaxed);
            #[allow(clippy::cast_precision_loss)] // the exposition format is f64
            let peers = peers as f64;
            ([crate::metrics::Word::word(speaks)], peers)
        });
        families.extend([
            family::sharded(
                "beacon_relay_keyop_records_total",
                "Records that peers have published, by what became of them.",
                "outcome",
                &self.taken,
            ),
            family::labelled(
                "beacon_relay_keyop_refused_total",
                "Logins of peers that were refused, by why.",
                "reason",
                &self.refused,
            ),
            family::counter(
                "beacon_relay_keyop_delivered_total",
                "Records that were sent to peers, those that were sent again among them.",
                &self.delivered,
            ),
            family::counter(
                "beacon_relay_keyop_left_out_total",
                "Records that were not sent to a peer since their route has it.",
                &self.left_out,
            ),
            family::counter(
                "beacon_relay_keyop_acknowledged_total",
                "Batches that peers have acknowledged.",
                &self.acknowledged,
            ),
            family::gauge(
                "beacon_relay_keyop_subscribers",
                "Peers that are connected and subscribed to something.",
                &self.subscribers,
            ),
            family::counter(
                "beacon_relay_keyop_stray_acks_total",
                "Acknowledgements of nothing that was delivered, which change nothing.",
                &self.stray,
            ),
            family::counter(
                "beacon_relay_keyop_audit_lost_total",
                "Lines that the audit file had no room for.",
                &self.audit_lost,
            ),
            family::gauge_values(
                "beacon_relay_keyop_peers",
                "Peers that are connected, by what they speak.",
                &["transport"],
                words.iter().map(|(labels, peers)| (labels.as_slice(), *peers)),
            ),
        ]);
    }
}

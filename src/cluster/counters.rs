//! What the cluster counts.

use std::time::Duration;

use crate::metrics::{Buckets, Counter, Gauge, Histogram, Labelled};
use crate::wire::cluster::Frame;
use crate::wire::name::Name;
use crate::words;

words! {
    /// Why something that another relay, or a stranger, sent was not taken.
    pub enum Reject {
        /// A key that is not on the list, or a signature that does not hold.
        Stranger => "stranger",
        /// A hello that is none.
        BadHello => "bad_hello",
        /// A hello that was not made for this link with our secret.
        WrongSecret => "wrong_secret",
        /// A relay of another cluster, or of another version.
        OtherCluster => "other_cluster",
        /// No hello in time.
        Timeout => "timeout",
        /// More strangers at a time than are listened to.
        TooMany => "too_many",
        /// This relay itself.
        Itself => "itself",
        /// Another relay that has this one's key.
        Clone => "clone",
        /// A batch over the limit.
        Oversized => "oversized",
        /// A batch that is none.
        Malformed => "malformed",
        /// Words of a relay that is no member.
        NoMember => "no_member",
        /// Words, packets or questions that found no room.
        NoRoom => "no_room",
    }
}

words! {
    /// What became of packets for peers that are not here.
    pub enum Forward {
        /// Sent to the relay that has the peer.
        Sent => "sent",
        /// Waiting for the answer of a look-up.
        Parked => "parked",
        /// Nobody has the peer.
        Unknown => "unknown",
        /// The peer is reached by a foreign server, and the packet came from one.
        Loop => "loop",
        /// No room to wait.
        LookupFull => "lookup_full",
        /// No answer in time.
        LookupExpired => "lookup_expired",
        /// The peer came to this relay while they waited: later ones would overtake them.
        Overtaken => "overtaken",
        /// The relay that has the peer answered that it has not.
        Nack => "nack",
    }
}

words! {
    /// How a look-up ended.
    pub enum LookupResult {
        /// A relay has the peer.
        Found => "found",
        /// No home knows of it, or none answered.
        Missing => "missing",
    }
}

words! {
    /// What carries packets to another relay of the mesh.
    pub enum PacketLane {
        /// A stream of the QUIC connection.
        Quic => "quic",
        /// A TLS connection beside it.
        Tcp => "tcp",
    }
}

words! {
    /// Control messages about watches that this relay sent.
    pub enum WatchFrame {
        /// To a home: tell who has a peer, or no longer.
        Watch => "watch",
        /// As a home: who has it.
        Locate => "locate",
        /// To a home: that is known.
        Heard => "heard",
    }
}

impl WatchFrame {
    /// What a frame is of them.
    pub(super) const fn of(frame: &Frame<'_, Name>) -> Option<Self> {
        if matches!(frame, Frame::Watch { .. }) {
            Some(Self::Watch)
        } else if matches!(frame, Frame::Locate { .. }) {
            Some(Self::Locate)
        } else if matches!(frame, Frame::Heard { .. }) {
            Some(Self::Heard)
        } else {
            None
        }
    }
}

/// All counters of the cluster.
#[derive(Debug)]
pub struct Counters {
    /// What was refused.
    pub rejects: Labelled<Reject>,
    /// Packets for peers elsewhere.
    pub forwards: Labelled<Forward>,
    /// Look-ups that ended.
    pub lookups: Labelled<LookupResult>,
    /// How long look-ups took.
    pub lookup_time: Histogram,
    /// NACKs that we sent.
    pub nacks_sent: Counter,
    /// Relays that became members.
    pub joined: Counter,
    /// Members that were lost.
    pub lost: Counter,
    /// Panics that ended one link, or one connection.
    pub panics: Counter,
    /// Addresses that are dialled or wait for their next turn.
    pub dialling: Gauge,
    /// Links that have not said hello yet.
    pub greeting: Gauge,
    /// Batches of packets that the links took.
    pub batches: Counter,
    /// Packets in them.
    pub batched_packets: Counter,
    /// Packets that the links of a mesh took, by lane.
    pub lane_packets: Labelled<PacketLane>,
    /// Control messages about watches that we sent.
    pub watch_frames: Labelled<WatchFrame>,
}

/// 200 µs is a round trip on one machine; 200 ms is how long packets wait.
const LOOKUP_TIME: Buckets = &[
    Duration::from_micros(200),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(60),
    Duration::from_millis(200),
    Duration::from_secs(1),
];

impl Default for Counters {
    fn default() -> Self {
        Self {
            rejects: Labelled::default(),
            forwards: Labelled::default(),
            lookups: Labelled::default(),
            lookup_time: Histogram::new(LOOKUP_TIME),
            nacks_sent: Counter::default(),
            joined: Counter::default(),
            lost: Counter::default(),
            panics: Counter::default(),
            dialling: Gauge::default(),
            greeting: Gauge::default(),
            batches: Counter::default(),
            batched_packets: Counter::default(),
            lane_packets: Labelled::default(),
            watch_frames: Labelled::default(),
        }
    }
}

//! What NetBird's dashboards read, under the names that the original's metrics have.
//!
//! Next to the relay's own metrics, which count packets more exactly: these are sums for each read
//! of a session and each flow to one.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use prometheus::proto::MetricFamily;

use super::REALM;
use crate::metrics::{Buckets, Histogram, Sharded, Transport, family};
use crate::peers::{Session, Table};
use crate::words;

/// Time without a packet after which a peer counts as idle.
const IDLE: u32 = 30;

/// The bounds of the original: 0.1 ms to 10 s.
const TIME: Buckets = &[
    Duration::from_micros(100),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

words! {
    /// The directions of transfers.
    enum Bytes {
        Received => "received",
        Sent => "sent",
    }
}

/// The meters.
#[derive(Debug)]
pub(super) struct Meters {
    began: Instant,
    /// Seconds since then at the last packet.
    second: AtomicU32,
    bytes: Sharded<Bytes>,
    over_websocket: AtomicI64,
    over_quic: AtomicI64,
    login_time: Histogram,
    store_time: Histogram,
}

impl Meters {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            second: AtomicU32::new(0),
            bytes: Sharded::default(),
            over_websocket: AtomicI64::new(0),
            over_quic: AtomicI64::new(0),
            login_time: Histogram::new(TIME),
            store_time: Histogram::new(TIME),
        }
    }

    /// A peer has logged in, and the others were told of it since `began`.
    pub(super) fn came(&self, session: &Session, began: Instant) {
        if session.is_hidden {
            return;
        }
        self.peers(session).fetch_add(1, Ordering::Relaxed);
        self.login_time.observe(began.saturating_duration_since(session.accepted));
        self.store_time.observe(began.elapsed());
        session.stirred.store(self.second(began), Ordering::Relaxed);
    }

    /// It has gone.
    pub(super) fn gone(&self, session: &Session) {
        if !session.is_hidden {
            self.peers(session).fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A peer has sent packets of so many bytes together.
    pub(super) fn received(&self, session: &Session, bytes: usize, now: Instant) {
        if bytes == 0 || session.is_hidden {
            return;
        }
        self.bytes.add(Bytes::Received, bytes as u64);
        let second = self.second(now);
        session.stirred.store(second, Ordering::Relaxed);
        // All threads read it: written once a second.
        if self.second.load(Ordering::Relaxed) != second {
            self.second.store(second, Ordering::Relaxed);
        }
    }

    /// Packets of so many bytes together are in a peer's outbox.
    pub(super) fn sent(&self, session: &Session, bytes: u64) {
        self.bytes.add(Bytes::Sent, bytes);
        session.stirred.store(self.second.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    fn second(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.began).as_secs()).unwrap_or(u32::MAX)
    }

    fn peers(&self, session: &Session) -> &AtomicI64 {
        if session.transport() == Transport::Wss { &self.over_websocket } else { &self.over_quic }
    }

    /// Appends the families; so many logins have taken a peer's session over.
    pub(super) fn families(&self, table: &Table, taken: u64, families: &mut Vec<MetricFamily>) {
        #[allow(clippy::cast_precision_loss)] // the exposition format is f64
        let peers = |peers: &AtomicI64| peers.load(Ordering::Relaxed) as f64;
        families.push(family::gauge_values(
            "relay_peers",
            "Connected peers, under the name of NetBird's relay.",
            &["transport"],
            [(&["ws"][..], peers(&self.over_websocket)), (&["quic"], peers(&self.over_quic))],
        ));
        let now = self.second(Instant::now());
        let (mut active, mut idle) = (0_u32, 0_u32);
        for session in table.sessions().filter(|session| session.id().realm() == REALM) {
            let silence = now.saturating_sub(session.stirred.load(Ordering::Relaxed));
            *if silence < IDLE { &mut active } else { &mut idle } += 1;
        }
        families.extend([
            family::gauge_value(
                "relay_peers_active",
                "Peers with packets in the last 30 s, under the name of NetBird's relay.",
                active.into(),
            ),
            family::gauge_value(
                "relay_peers_idle",
                "Peers without, under the name of NetBird's relay.",
                idle.into(),
            ),
        ]);
        let total = |name: &str, help: &str, total: u64| {
            family::counts(name, help, &[], [(&[][..], total)])
        };
        families.extend([
            total(
                "relay_transfer_received_bytes_total",
                "Bytes of packets of peers, under the name of NetBird's relay.",
                self.bytes.value(Bytes::Received),
            ),
            total(
                "relay_transfer_sent_bytes_total",
                "Bytes of packets for peers, under the name of NetBird's relay.",
                self.bytes.value(Bytes::Sent),
            ),
        ]);
        // As with the original, there is none before the first.
        if taken > 0 {
            families.push(total(
                "relay_peer_reconnections_total",
                "Logins of peers that have a session, under the name of NetBird's relay.",
                taken,
            ));
        }
        families.extend([
            self.login_time.family_ms(
                "relay_peer_authentication_time_milliseconds",
                "Time from a connection to its login, under the name of NetBird's relay.",
            ),
            self.store_time.family_ms(
                "relay_peer_store_time_milliseconds",
                "Time to tell others of a login, under the name of NetBird's relay.",
            ),
        ]);
    }
}

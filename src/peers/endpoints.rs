//! UDP endpoints of nodes.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::ids::PublicKey;
use crate::proto::endpoint::QUIET_AFTER;

/// Where a node is reached over UDP.
#[derive(Debug)]
pub struct Endpoint {
    /// The node's address as it was observed.
    pub(super) address: SocketAddr,
    /// The address of ours that the node talks to.
    pub(super) local: Option<IpAddr>,
    /// When the endpoint was registered or last moved.
    pub(super) moved: Instant,
    /// The key that the node itself showed first.
    pub(super) key: Option<PublicKey>,
    heard_ns: AtomicU64,
    extended: AtomicBool,
    repeated: AtomicBool,
}

/// A copy of what matters of an endpoint at one moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EndpointView {
    /// The node's address as it was observed.
    pub address: SocketAddr,
    /// The address of ours that packets to the node must leave from.
    pub local: Option<IpAddr>,
    /// Whether deliveries name their destination (0x09 instead of 0x06).
    pub names_destination: bool,
    /// Whether the address has been silent for two heartbeats.
    pub quiet: bool,
    /// The key that the node itself showed first.
    pub key: Option<PublicKey>,
}

impl Endpoint {
    pub(super) fn new(address: SocketAddr, local: Option<IpAddr>, now: Instant) -> Self {
        Self {
            address,
            local,
            moved: now,
            key: None,
            heard_ns: AtomicU64::new(0),
            extended: AtomicBool::new(false),
            repeated: AtomicBool::new(false),
        }
    }

    /// A sign of life, `uptime` after the table began.
    pub(super) fn heard(&self, uptime: Duration, extended: bool) {
        let ns = u64::try_from(uptime.as_nanos()).unwrap_or(u64::MAX);
        self.heard_ns.store(ns, Ordering::Relaxed);
        // Written only when it changes: a heartbeat shares the line with the readers.
        if extended && !self.extended.load(Ordering::Relaxed) {
            self.extended.store(true, Ordering::Relaxed);
        }
    }

    /// Notes that the node came back; true the first time.
    pub(super) fn repeat(&self) -> bool {
        !self.repeated.load(Ordering::Relaxed) && !self.repeated.swap(true, Ordering::Relaxed)
    }

    pub(super) fn is_repeated(&self) -> bool {
        self.repeated.load(Ordering::Relaxed)
    }

    /// For how long nothing was heard.
    pub(super) fn silence(&self, uptime: Duration) -> Duration {
        uptime.saturating_sub(Duration::from_nanos(self.heard_ns.load(Ordering::Relaxed)))
    }

    pub(super) fn view(&self, uptime: Duration) -> EndpointView {
        EndpointView {
            address: self.address,
            local: self.local,
            names_destination: self.extended.load(Ordering::Relaxed),
            quiet: self.silence(uptime) > QUIET_AFTER,
            key: self.key,
        }
    }
}

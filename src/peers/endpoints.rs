//! UDP endpoints: the datagram addresses of peers that have no session.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Capabilities, Credential};
use crate::proto::crowd::Ticket;
use crate::proto::endpoint::QUIET_AFTER;

/// Where a peer is reached over UDP.
#[derive(Debug)]
pub struct Endpoint {
    /// The peer's address as it was observed.
    pub(super) address: SocketAddr,
    /// The address of ours that the peer talks to.
    pub(super) local: Option<IpAddr>,
    /// When the endpoint was registered or last moved.
    pub(super) moved: Instant,
    /// The credential that the peer itself showed first.
    pub(super) credential: Option<Credential>,
    /// Where it stands among those that never came back; it may have left them since.
    pub(super) newcomer: Option<Ticket>,
    heard_ns: AtomicU64,
    capabilities: AtomicU32,
    repeated: AtomicBool,
}

/// A copy of what matters of an endpoint at one moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EndpointView {
    /// The peer's address as it was observed.
    pub address: SocketAddr,
    /// The address of ours that packets to the peer must leave from.
    pub local: Option<IpAddr>,
    /// What the peer can, by what it said.
    pub capabilities: Capabilities,
    /// Whether the address has been silent for two heartbeats.
    pub quiet: bool,
    /// The credential that the peer itself showed first.
    pub credential: Option<Credential>,
}

impl EndpointView {
    /// Whether the peer has all of these.
    #[must_use]
    pub const fn has(&self, wanted: Capabilities) -> bool {
        self.capabilities.contain(wanted)
    }
}

impl Endpoint {
    pub(super) fn new(address: SocketAddr, local: Option<IpAddr>, now: Instant) -> Self {
        Self {
            address,
            local,
            moved: now,
            credential: None,
            newcomer: None,
            heard_ns: AtomicU64::new(0),
            capabilities: AtomicU32::new(0),
            repeated: AtomicBool::new(false),
        }
    }

    /// A sign of life, `uptime` after the table began.
    pub(super) fn heard(&self, uptime: Duration) {
        let ns = u64::try_from(uptime.as_nanos()).unwrap_or(u64::MAX);
        self.heard_ns.store(ns, Ordering::Relaxed);
    }

    /// Adds these to what the peer can.
    pub(super) fn gain(&self, gained: Capabilities) {
        // Written only when it changes: a heartbeat shares the line with the readers.
        if !self.capabilities().contain(gained) {
            self.capabilities.fetch_or(gained.0, Ordering::Relaxed);
        }
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        Capabilities(self.capabilities.load(Ordering::Relaxed))
    }

    /// Notes that the peer came back; true the first time.
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
            capabilities: self.capabilities(),
            quiet: self.silence(uptime) > QUIET_AFTER,
            credential: self.credential,
        }
    }
}

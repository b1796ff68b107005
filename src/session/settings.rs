//! What a listener is told.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::config::{IpNet, Routes};
use crate::peers::Limits;
use crate::proto::translators::Translators;

/// The times of a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timing {
    /// From an accepted connection to its accepted login.
    pub auth_timeout: Duration,
    /// Without any frame of the peer.
    pub idle_timeout: Duration,
    /// Between pings to the peer.
    pub ping_interval: Duration,
    /// For the answer to a ping.
    pub pong_timeout: Duration,
    /// For the kernel to take a byte of what is in flight.
    pub write_timeout: Duration,
}

/// Which web pages may connect, by their Origin. A program that sends none always may.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origins {
    /// Those that the door lets in unasked, and these.
    DoorAnd(Vec<String>),
    /// These alone.
    Only(Vec<String>),
    /// All of them.
    Any,
}

/// Everything that a listener is told; [`Settings::new`] has the defaults of SPEC §9.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where a door listens that serves itself; whoever makes a [`super::Spec`] has a listener
    /// already.
    pub bind: SocketAddr,
    /// The times of a session.
    pub timing: Timing,
    /// Most peers.
    pub max_peers: usize,
    /// Most connections that have not logged in.
    pub max_waiting: usize,
    /// Upgrades a second for each client address; 0 is no limit.
    pub upgrade_rate: u32,
    /// Upgrades that a client address may make at once.
    pub upgrade_burst: u32,
    /// The paths of the doors.
    pub routes: Routes,
    /// Proxies whose X-Forwarded-For counts.
    pub trusted_proxies: Vec<IpNet>,
    /// Those that clients may come through, for what counts client addresses.
    pub translators: Translators,
    /// Origins of web pages that may connect.
    pub allow_origins: Origins,
    /// The bounds of each peer's outbox; how long a message may be, the peer's login says.
    pub outbox: Limits,
}

impl Settings {
    /// Whether a request from this address says for whom it comes.
    #[must_use]
    pub fn is_proxy(&self, remote: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(remote))
    }

    /// The defaults, listening on `bind`; proxies on loopback are trusted if that is where
    /// it listens.
    #[must_use]
    pub fn new(bind: SocketAddr) -> Self {
        let loopback = ["127.0.0.0/8", "::1"].iter().filter_map(|network| network.parse().ok());
        Self {
            bind,
            timing: Timing {
                auth_timeout: Duration::from_secs(10),
                idle_timeout: Duration::from_secs(90),
                ping_interval: Duration::from_secs(30),
                pong_timeout: Duration::from_secs(10),
                write_timeout: Duration::from_secs(5),
            },
            max_peers: 50_000,
            max_waiting: 1_024,
            upgrade_rate: 10,
            upgrade_burst: 100,
            routes: Routes::default(),
            trusted_proxies: if bind.ip().is_loopback() { loopback.collect() } else { Vec::new() },
            translators: Translators::default(),
            allow_origins: Origins::DoorAnd(Vec::new()),
            outbox: Limits {
                bytes: 262_144,
                age: Duration::from_secs(2),
                message: super::MAX_MESSAGE,
            },
        }
    }
}

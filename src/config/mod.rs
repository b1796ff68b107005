//! Every setting of the relay, and the checks that come before the first bind.
//!
//! A setting is declared once, in [`Config`] or, for the registry and the cluster, in
//! `registry` and `cluster`; its flag, its key in the file and its environment variable
//! come from there. Text is collected by [`Layers`] and read by the types of `value`. What
//! a running relay can take over is marked `live`, and told from the rest by [`Loaded`].

mod acme;
mod bus;
mod bus_nats;
mod certificate;
mod client_trust;
mod cluster;
mod contradictions;
mod doors;
mod error;
mod file;
mod flag_binds;
mod flag_listener;
mod flags;
mod given;
mod hidden;
mod keyop;
mod keyop_hubs;
mod keys;
mod layers;
mod listener;
mod loaded;
mod middleman;
mod netbird;
mod paths;
mod peerbus;
mod registry;
mod secret;
mod small_file;
mod surroundings;
mod table;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tokens;
mod unreadable;
mod value;
mod warning;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use acme::Acme;
pub use bus::Bus;
pub use bus_nats::BusNats;
use bus_nats::BusNatsFlags;
pub use certificate::{TlsPair, UnusablePair};
pub use client_trust::{ClientTrust, TrustedAuthorities};
use cluster::ClusterFlags;
pub use cluster::{Cluster, ClusterFabric};
pub use doors::{
    DoorKind, DoorPaths, DoorTaken, KEYOP, MIDDLEMAN, NETBIRD, PEERBUS, PILOT, Routes,
};
use error::Mistakes;
pub use error::{Error, Invalid, Origin, Place};
pub use flag_listener::FlagListener;
pub use flags::Flags;
use keyop::KeyopFlags;
pub use keyop::{Keyop, KeyopPeer, MOST_RECORD as MOST_KEYOP_RECORD};
pub use keyop_hubs::{HubFiles, KeyopHub, KeyopTransport};
pub use keys::{KeyDigest, Keys, LONGEST_KEY};
pub use layers::Layers;
pub use listener::{Listener, ListenerTable};
pub use loaded::{Change, Difference, Loaded, Source, live_settings};
pub use middleman::Middleman;
use middleman::MiddlemanFlags;
pub use netbird::Netbird;
use netbird::NetbirdFlags;
pub use peerbus::Peerbus;
use peerbus::PeerbusFlags;
use registry::RegistryFlags;
pub use registry::{Registry, RegistryTrust};
pub use secret::Secret;
pub(crate) use secret::shown;
pub use surroundings::{Surroundings, create_state_dir, max_operators, max_waiting};
use table::{Setting, settings};
pub use tokens::{LONGEST_TOKEN, NamePattern, Token, Tokens, owner_of_label};
pub use unreadable::remedy;
pub use value::{
    AcmeContact, AcmeDirectory, AcmeName, AllowOrigins, AuditPolicy, BusDurability, ClusterName,
    ExposedAddress, Fingerprint, HostName, HostPort, HubName, IpNet, ListenerName, LogFilter,
    LogFormat, NatsServers, NetbirdTakeover, PathPrefix, PathPrefixes, PunchAllow, RelayName,
    UdpSenderCheck, WebOrigin, WssBind,
};
pub use warning::Warning;
pub(crate) use warning::is_readable;

use crate::ids::BeaconId;
use crate::proto::translators::Translators;

/// Shortest time that can be written, other than none.
const MOMENT: Duration = Duration::from_millis(1);

/// Longest time that a setting takes, far below what a clock can add without overflow.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Smallest bound of an outbox, in bytes: below 131_072, the largest frames (65_546 bytes
/// with their header) find no room behind one that is in flight, and are dropped.
const LEAST_OUTBOX_BYTES: usize = 16_384;

/// Largest bound of an outbox, in bytes: 1 GiB.
const MOST_OUTBOX_BYTES: usize = 1_073_741_824;

/// Most bytes a second that can be asked for: 1 TB.
const MOST_RELAY_BYTES: u64 = 1_000_000_000_000;

/// Most nodes that the endpoint table can be made for.
const MOST_NODES: usize = 10_000_000;

settings! {
    /// Everything that the relay can be told, checked.
    #[derive(Clone, Debug, Eq, PartialEq)]
    pub struct Config {
        "Files" {
            /// Folder of what the relay keeps [default: where systemd or the platform says]
            state_dir: PathBuf ["DIR"];
            /// JSON file of public keys, from node id to base64 key; watched
            keys: Option<PathBuf> ["FILE"];
        }
        "Listeners" {
            /// For WebSocket peers, behind a TLS proxy or with --wss-tls-cert: IP:PORT or unix:/PATH
            ///
            /// With `acme`, the default is `[::]:443`.
            wss_bind: WssBind ["ADDRESS"] or "127.0.0.1:8443";
            /// Certificate of --wss-bind, with its chain, as PEM: the relay then speaks TLS there
            wss_tls_cert: Option<PathBuf> ["FILE"];
            /// Private key of --wss-tls-cert, as PEM
            wss_tls_key: Option<PathBuf> ["FILE"];
            /// Names of --wss-bind to get and renew a certificate for, by ACME; its port is 443 then
            acme: Vec<AcmeName> ["NAME"];
            /// Where the authority of --acme may write to, as mailto:NAME@HOST
            acme_contact: Vec<AcmeContact> ["MAILTO"];
            /// Directory of the authority of --acme
            acme_directory: AcmeDirectory ["URL"] or "https://acme-v02.api.letsencrypt.org/directory";
            /// Authorities, as PEM, that the directory's TLS may be trusted by, besides the system's
            acme_directory_ca: Option<PathBuf> ["FILE"];
            /// For the datagrams of nodes and beacons
            ///
            /// The default needs IPv6; see `udp_bind_default`.
            udp_bind: SocketAddr ["IP:PORT"] or "[::]:9001";
            /// Where clients over UDP are told their own address (STUN); several; nowhere without it
            stun_bind: Vec<SocketAddr> ["IP:PORT"];
            /// For operators: metrics and health
            admin_bind: SocketAddr ["IP:PORT"] or "127.0.0.1:9464";
            /// More host names that --admin-bind answers to, besides its address and localhost
            admin_hosts as "admin_host": Vec<HostName> ["NAME"];
            /// File with the token for actions over HTTP, 16 bytes or more; none without it
            admin_token_file: Option<PathBuf> ["FILE"];
            /// Actions that cannot be written to the audit log: best-effort (done) or required (refused)
            audit: AuditPolicy ["POLICY"; live] or "best-effort";
            /// Time to wait at the start for an address that this machine does not have yet
            bind_wait: Duration ["TIME"] or "1m" in Duration::ZERO..=DAY;
            /// Bind to addresses that this machine does not have (IP_FREEBIND)
            free_bind: bool ["BOOL"] or "false";
            /// Allow listeners without TLS that other machines can reach
            public_plaintext: bool ["BOOL"] or "false";
            /// Proxies whose X-Forwarded-For counts [default: loopback for a local --wss-bind]
            trusted_proxies as "trusted_proxy": Vec<IpNet> ["IP[/N]"; live];
            /// NAT64 prefixes, besides 64:ff9b::/96, whose clients count by the IPv4 addresses in them
            translators as "nat64_prefix": Translators ["PREFIX"];
            /// Origins of web pages that may connect; none otherwise
            allow_origins as "allow_origin": Vec<WebOrigin> ["ORIGIN"; live];
        }
        "Login" {
            /// Public host name of this relay: logins signed for it are of no use to another relay
            relay_name: Option<RelayName> ["NAME"; live];
            /// Refuse logins of earlier generations: 1 to 3; 3 needs --relay-name
            min_auth_generation: u8 ["N"; live] or "1" in 1..=3;
            /// Time from a connection to its login
            auth_timeout: Duration ["TIME"; live] or "10s" in MOMENT..=DAY;
            /// Most WebSocket peers [default: what the descriptor limit allows, at most 50000]
            max_peers: usize ["N"; live];
            /// Upgrades a second for each client address; 0 is no limit
            upgrade_rate: u32 ["N"; live] or "10";
            /// Upgrades that a client address may make at once
            upgrade_burst: u32 ["N"; live] or "100" in 1..=u32::MAX;
        }
        "Sessions" {
            /// End a session after this time without any frame
            idle_timeout: Duration ["TIME"; live] or "90s" in MOMENT..=DAY;
            /// Time between pings to a peer, shorter than --idle-timeout; 0s turns them off
            ping_interval: Duration ["TIME"; live] or "30s" in Duration::ZERO..=DAY;
            /// Time for a peer to answer a ping
            pong_timeout: Duration ["TIME"; live] or "10s" in MOMENT..=DAY;
            /// Time for a peer to take what is written to it
            write_timeout: Duration ["TIME"; live] or "5s" in MOMENT..=DAY;
            /// Time over which peers are closed at shutdown
            drain_time: Duration ["TIME"; live] or "5s" in Duration::ZERO..=DAY;
            /// Most bytes that wait for a peer, 16384 or more; then the oldest packets are dropped
            outbox_bytes: usize ["BYTES"; live] or "262144" in LEAST_OUTBOX_BYTES..=MOST_OUTBOX_BYTES;
            /// Longest time that a packet waits for a peer
            outbox_age: Duration ["TIME"; live] or "2s" in MOMENT..=DAY;
        }
        "Nodes" {
            /// Most UDP nodes whose endpoints are kept
            max_nodes: usize ["N"; live] or "500000" in 1..=MOST_NODES;
            /// Relayed packets a second for each source; 0 is no limit
            relay_rate: u32 ["N"; live] or "4000";
            /// Relayed bytes a second for each source; 0 is no limit
            relay_bytes: u64 ["BYTES"; live] or "0" in 0..=MOST_RELAY_BYTES;
            /// Discovers and punches a second for each client address over UDP; 0 is no limit
            discover_rate: u32 ["N"; live] or "200";
            /// Discovers and punches that a client address may send at once
            discover_burst: u32 ["N"; live] or "1000" in 1..=u32::MAX;
            /// Drop packets that are not from their sender's endpoint: off or observed
            udp_sender_check: UdpSenderCheck ["CHECK"; live] or "off";
            /// Punches a second, of all nodes together; 0 is no limit
            punch_rate: u32 ["N"; live] or "10";
            /// Addresses whose punches pass the limits, or *
            punch_allow: PunchAllow ["IP[/N]"; live];
            /// Drop punches without a grant by their target
            require_punch_grant: bool ["BOOL"; live] or "false";
        }
        "Beacons" {
            /// Number of this beacon; 0 stands alone
            beacon_id: BeaconId ["N"] or "0";
            /// Beacons to exchange nodes with
            peers: Vec<HostPort> ["HOST:PORT"; live];
            /// Address for the registry to hand out as this beacon's
            advertise_addr: Option<HostPort> ["HOST:PORT"];
            /// Believe gossip from beacons that nobody listed
            open_gossip: bool ["BOOL"; live] or "false";
        }
        "Readiness" {
            /// Time between the relay's own logins as a canary; 0s turns it off
            canary_interval: Duration ["TIME"; live] or "5s" in Duration::ZERO..=DAY;
        }
        "Log" {
            /// Level, or levels of parts, as in info,beacon_relay::udp=debug
            log_level: LogFilter ["FILTER"; live] or "info";
            /// Form of a line: text or json
            log_format: LogFormat ["FORMAT"] or "text";
        }
    }
    made of several {
        /// The certificate of the listener of `wss_bind`, where it speaks TLS itself.
        tls: Vec<TlsPair> = certificate::of_wss_bind;
        /// The registry, where there is one.
        registry: Option<Registry> = Registry::read;
        /// The cluster, where there is one.
        cluster: Option<Cluster> = Cluster::read;
        /// The NetBird door, where there is one.
        netbird: Option<Netbird> = Netbird::read;
        /// The peerbus door, where there is one.
        peerbus: Option<Peerbus> = Peerbus::read;
        /// The middleman door, where there is one.
        middleman: Option<Middleman> = Middleman::read;
        /// The keyop door, where there is one.
        keyop: Option<Keyop> = Keyop::read;
        /// How messages are kept, where a door has some.
        bus: Bus = Bus::read;
        /// The NATS system that has them, where it is not the state folder.
        bus_nats: Option<BusNats> = BusNats::read;
        /// The `[[listener]]` tables, in the order of the file.
        listeners: Vec<ListenerTable> = listener::tables;
        /// Whether there is a listener at `wss_bind`: not where nobody set it and a table has the
        /// Pilot door.
        serves_wss_bind: bool = |layers: &Layers| Ok::<_, Error>(layers.serves_wss_bind());
        /// Whether nobody chose `udp_bind`, so that a machine without IPv6 may use 0.0.0.0.
        udp_bind_default: bool = |layers: &Layers| Ok::<_, Error>(layers.is_default("udp_bind"));
        /// What whoever asks for an action over HTTP has to know.
        admin_token: Option<Secret> = admin_token;
        /// What is worth a line in the log.
        warnings: Vec<Warning> = Warning::all;
    }
}

impl Config {
    /// Checks what was said, and reads the small files that it names.
    ///
    /// # Errors
    /// All settings that are wrong; where each is good for itself, all that are wrong beside the
    /// others.
    pub fn new(layers: &Layers) -> Result<Self, Error> {
        let config = Self::read(layers)?;
        let mut mistakes = Mistakes::default();
        config.contradictions(layers, &mut mistakes);
        mistakes.take(acme::check(&config.acme, &config.tls, layers));
        mistakes.take(acme::check_directory_ca(layers));
        mistakes.take(listener::check_all(&config, layers));
        mistakes.end().map(|()| config)
    }

    /// Whether the listener of `wss_bind` speaks TLS itself.
    const fn speaks_tls(&self) -> bool {
        !self.tls.is_empty() || !self.acme.is_empty()
    }
}

/// Reads the token for actions over HTTP, where a file has one.
fn admin_token(layers: &Layers) -> Result<Option<Secret>, Error> {
    let path: Option<PathBuf> = layers.read("admin_token_file")?;
    let read = |path: PathBuf| {
        Secret::read_long(&path)
            .map_err(|error| layers.refuse_file("admin_token_file", &path, error))
    };
    path.map(read).transpose()
}

/// Reads a time as settings have it, such as `10s` or `1m30s`.
///
/// # Errors
/// The text is no time.
pub fn parse_duration(text: &str) -> Result<Duration, Invalid> {
    <Duration as value::Text>::parse(text)
}

/// Every setting, in the order of the help.
fn all_settings() -> impl Iterator<Item = &'static Setting> + Clone {
    let of_doors = NetbirdFlags::SETTINGS.iter().chain(PeerbusFlags::SETTINGS);
    let of_doors = of_doors.chain(MiddlemanFlags::SETTINGS).chain(KeyopFlags::SETTINGS);
    let of_doors = of_doors.chain(Bus::SETTINGS).chain(BusNatsFlags::SETTINGS);
    let settings = Config::SETTINGS.iter().chain(RegistryFlags::SETTINGS);
    settings.chain(ClusterFlags::SETTINGS).chain(of_doors)
}

/// Every setting of a `[[listener]]` table.
fn listener_settings() -> impl Iterator<Item = &'static Setting> + Clone {
    ListenerTable::SETTINGS.iter()
}

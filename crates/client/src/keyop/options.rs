//! What a client is told: where to dial, as whom, what it wants.

use std::path::PathBuf;
use std::time::Duration;

use crate::net::resolve::Resolver;
use crate::setters::setters;
use crate::wire::keyop::DEFAULT_MAX_RECORD;

/// How a hub is spoken to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// Hubs from v1.5.0 on; the feature `grpc`.
    Grpc,
    /// Hubs up to v1.4.1.
    WebSocket,
}

/// A certificate and its key, as PEM files. They are read for each connection, so that renewed ones
/// are used from then on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The certificate, with those between it and the authority, if there are any.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Identity {
    /// Names both files.
    #[must_use]
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self { certificate: certificate.into(), key: key.into() }
    }
}

/// Which name the hub's certificate must have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HubName {
    /// That of the host that is dialled, as clients over WebSocket check it.
    Host,
    /// This one.
    Is(String),
    /// Any that the authority signed, as clients over gRPC of the original have it.
    Any,
}

/// Where and how to connect. What is not said is as [`Self::new`] has it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// `host:port`.
    pub address: String,
    /// How the hub is spoken to.
    pub transport: Transport,
    /// The name of this peer: that of its certificate, or records will not be kept from coming back.
    pub name: String,
    /// What proves it.
    pub identity: Identity,
    /// The authorities that the hub's certificate must be of, as a PEM file.
    pub authorities: PathBuf,
    /// Which name the hub's certificate must have.
    pub hub_name: HubName,
    /// The channels that records are wanted of; the hub may allow fewer.
    pub subscribe: Vec<String>,
    /// The channels that are published to, as hubs are told over gRPC; nothing depends on it.
    pub publish: Vec<String>,
    /// Whether the hub keeps nothing while this client is away.
    pub is_ephemeral: bool,
    /// Longest record that is published, in bytes: hubs drop what is longer than theirs.
    pub max_record: usize,
    /// How the name of the hub is resolved: by the system, where nothing else is said.
    pub resolver: Resolver,
    /// How long to wait for what.
    pub timeouts: Timeouts,
}

impl Options {
    /// Options of a durable client over gRPC that subscribes to nothing.
    #[must_use]
    pub fn new(
        address: impl Into<String>,
        name: impl Into<String>,
        identity: Identity,
        authorities: impl Into<PathBuf>,
    ) -> Self {
        Self {
            address: address.into(),
            transport: Transport::Grpc,
            name: name.into(),
            identity,
            authorities: authorities.into(),
            hub_name: HubName::Host,
            subscribe: Vec::new(),
            publish: Vec::new(),
            is_ephemeral: false,
            max_record: DEFAULT_MAX_RECORD,
            resolver: Resolver::shared(),
            timeouts: Timeouts::default(),
        }
    }

    setters! {
        transport: Transport,
        hub_name: HubName,
        subscribe: Vec<String>,
        publish: Vec<String>,
        is_ephemeral: bool,
        max_record: usize,
        resolver: Resolver,
        timeouts: Timeouts,
    }
}

/// How long a client waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Timeouts {
    /// For the name, its addresses, TLS, and what the transport begins with.
    pub connect: Duration,
    /// For the acknowledgement of what was published, before it is published again in another
    /// session.
    pub acknowledgement: Duration,
    /// Between two pings.
    pub ping_interval: Duration,
    /// From a ping to a sign of life.
    pub pong: Duration,
}

impl Timeouts {
    setters! {
        connect: Duration,
        acknowledgement: Duration,
        ping_interval: Duration,
        pong: Duration,
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            // A hub may wait for its disk.
            acknowledgement: Duration::from_secs(60),
            ping_interval: Duration::from_secs(30),
            pong: Duration::from_secs(10),
        }
    }
}

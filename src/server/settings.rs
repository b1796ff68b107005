//! Turns the configuration into what each part is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use rustix::process::{Resource, getrlimit};

use crate::admin;
use crate::cluster::{Identity, IdentityError};
use crate::config::{
    self, AllowOrigins, Config, DoorKind, HostPort, RegistryTrust, UdpSenderCheck, WebOrigin,
    max_waiting,
};
use crate::doors::pilot::directory::{self, RegistrySettings};
use crate::doors::pilot::{PunchRules, Rules};
use crate::net::tls::Trust;
use crate::peers::Limits;
use crate::proto::bus::Owner;
use crate::proto::limit::{Rate, SourceRates};
use crate::session::{self, Door};
use crate::wire::auth::MaxMessage;

/// Between two pings where there are to be none: a century.
const NO_PINGS: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Times that a listed beacon may send what a node may: it relays for many.
const BEACON_SHARE: u64 = 25;

/// Where the keys are, as the configuration has it.
pub(crate) fn directory(config: &Config) -> directory::Settings {
    directory::Settings {
        keys: config.keys.clone(),
        registry: config.registry.as_ref().map(|registry| RegistrySettings {
            address: registry.address.to_string(),
            tls: registry.tls.as_ref().map(|trust| match trust {
                RegistryTrust::System => Trust::System,
                RegistryTrust::CaFile(path) => Trust::CaFile(path.clone()),
                RegistryTrust::Fingerprint(fingerprint) => Trust::Fingerprint(fingerprint.0),
            }),
            admin_token: registry.admin_token.as_ref().map(|token| token.expose().to_owned()),
            connections: registry.connections.into(),
            patience: config.auth_timeout,
            kept_keys: Some(config.state_dir.join("registry-keys")),
        }),
        state_dir: config.state_dir.clone(),
    }
}

/// Most connections of operators at once.
pub(super) fn max_operators() -> usize {
    config::max_operators(descriptors())
}

fn descriptors() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Those of these doors that a listener speaks.
pub(super) fn doors(listener: &config::Listener, doors: &[Arc<dyn Door>]) -> Vec<Arc<dyn Door>> {
    let of_kind = |kind: &&DoorKind| {
        let door = doors.iter().find(|door| door.name() == kind.name);
        Arc::clone(door.expect("the server has looked for each"))
    };
    listener.doors.iter().map(of_kind).collect()
}

/// What each of these listeners is told.
pub(super) fn listeners(config: &Config, listeners: &[config::Listener]) -> Vec<session::Settings> {
    listeners.iter().map(|listener| of_listener(config, listener)).collect()
}

fn of_listener(config: &Config, listener: &config::Listener) -> session::Settings {
    let texts = |origins: &[WebOrigin]| {
        origins.iter().map(|origin| origin.as_str().to_owned()).collect::<Vec<_>>()
    };
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    session::Settings {
        timing: session::Timing {
            auth_timeout: config.auth_timeout,
            idle_timeout: config.idle_timeout,
            ping_interval: match config.ping_interval {
                Duration::ZERO => NO_PINGS,
                interval => interval,
            },
            pong_timeout: config.pong_timeout,
            write_timeout: config.write_timeout,
        },
        max_peers: config.max_peers,
        max_waiting: max_waiting(descriptors()),
        upgrade_rate: config.upgrade_rate,
        upgrade_burst: config.upgrade_burst,
        routes: listener.routes.clone(),
        // No proxy stands in between where clients show a certificate of their own.
        trusted_proxies: match &listener.client_trust {
            Some(_) => Vec::new(),
            None => listener.trusted_proxies.clone(),
        },
        translators: config.translators.clone(),
        allow_origins: match &listener.allow_origins {
            AllowOrigins::DoorsAnd(origins) => session::Origins::DoorAnd(texts(origins)),
            AllowOrigins::Only(origins) => session::Origins::Only(texts(origins)),
            AllowOrigins::Any => session::Origins::Any,
        },
        outbox: Limits {
            bytes: config.outbox_bytes,
            age: config.outbox_age,
            message: MaxMessage::LEAST.bytes(),
        },
        // The listener is bound by the server; the rest is said above.
        ..session::Settings::new(nowhere)
    }
}

/// Who this relay, whose key was loaded, is in the cluster.
pub(super) fn cluster(
    cluster: &config::Cluster,
    key: &SigningKey,
) -> Result<Identity, IdentityError> {
    Identity::new(key, cluster.name.as_str().to_owned(), cluster.keepalive)
}

/// The names that the operators' listener is asked by.
pub(super) fn admin_hosts(config: &Config, bound: SocketAddr) -> Arc<admin::Hosts> {
    admin::Hosts::new(bound, config.admin_hosts.iter().map(|name| name.as_str().to_owned()))
}

/// So many times what a peer may send in a second.
pub(super) fn rates(config: &Config, times: u64) -> SourceRates {
    SourceRates {
        packets: Rate::per_second(u64::from(config.relay_rate) * times),
        bytes: Rate::per_second(config.relay_bytes.saturating_mul(times)),
    }
}

pub(super) fn rules(config: &Config, bound: SocketAddr) -> Rules {
    Rules {
        beacon: rates(config, BEACON_SHARE),
        discover: Rate::per_second(config.discover_rate.into())
            .with_burst(config.discover_burst.into()),
        translators: config.translators.clone(),
        observed_senders_only: config.udp_sender_check == UdpSenderCheck::Observed,
        loopback: bound.ip().is_loopback() || bound.ip().is_unspecified(),
        own: config.advertise_addr.iter().filter_map(literal).collect(),
        beacon_id: config.beacon_id,
        punch: PunchRules {
            rate: Rate::per_second(config.punch_rate.into()),
            allow: config.punch_allow.clone(),
            require_grant: config.require_punch_grant,
        },
    }
}

/// The configured beacons that need no look-up of a name.
pub(super) fn beacons(config: &Config) -> impl Iterator<Item = SocketAddr> + '_ {
    config.peers.iter().filter_map(literal)
}

/// The labels of the tokens file, each with the owner of the names that it has.
pub(super) fn labels(config: &Config) -> Vec<(String, Owner)> {
    let tokens = config.peerbus.iter().flat_map(|peerbus| peerbus.tokens.iter());
    let mut labels: Vec<_> = tokens
        .filter_map(|token| Some((token.label.as_deref()?.to_owned(), Owner(token.owner))))
        .collect();
    labels.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    labels.dedup_by(|(one, _), (other, _)| one == other);
    labels
}

/// The address, unless it has a name.
fn literal(address: &HostPort) -> Option<SocketAddr> {
    address.to_string().parse().ok()
}

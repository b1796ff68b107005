//! The settings of the NetBird door, and the file of its secrets.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::certificate::{self, PairOf};
use super::doors::NETBIRD;
use super::flag_binds::NETBIRD_BIND;
use super::small_file::contents;
use super::table::settings;
use super::{
    AcmeName, Config, Error, ExposedAddress, FlagListener, Layers, ListenerTable, MOST_RELAY_BYTES,
    NetbirdTakeover, Secret, WssBind, acme,
};

settings! {
    /// What the door's flags say, each for itself.
    #[derive(Debug)]
    pub(super) struct NetbirdFlags {
        "NetBird" {
            /// For clients of NetBird and openZro, IP:PORT or unix:/PATH; then --wss-bind has no listener unless set
            netbird_bind: Option<WssBind> ["ADDRESS"];
            /// Certificate of --netbird-bind, with its chain, as PEM: the relay then speaks TLS there
            netbird_tls_cert: Option<PathBuf> ["FILE"];
            /// Private key of --netbird-tls-cert, as PEM
            netbird_tls_key: Option<PathBuf> ["FILE"];
            /// Names of --netbird-bind to get and renew a certificate for, by ACME
            netbird_acme: Vec<AcmeName> ["NAME"];
            /// File with the secrets that make tokens, one a line: all are valid
            netbird_auth_secret_file: Option<PathBuf> ["FILE"; live];
            /// Where clients find this relay, as it tells them: HOST:PORT, rel:// or rels://HOST:PORT
            netbird_exposed_address: Option<ExposedAddress> ["ADDRESS"];
            /// For orchestrators: GET /health, as NetBird's relay has it at port 9000
            netbird_health_bind: Option<SocketAddr> ["IP:PORT"];
            /// Logins of a peer that has a session: always (they take over) or same-address
            netbird_takeover: NetbirdTakeover ["RULE"; live] or "always";
            /// Packets a second for each peer; 0 is no limit
            netbird_rate: u32 ["N"; live] or "0";
            /// Bytes a second for each peer; 0 is no limit
            netbird_bytes: u64 ["BYTES"; live] or "0" in 0..=MOST_RELAY_BYTES;
        }
    }
}

/// What the NetBird door is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Netbird {
    /// The secrets that make tokens, one at least; all are valid.
    pub secrets: Vec<Secret>,
    /// Where clients find this relay.
    pub exposed: ExposedAddress,
    /// The listener of `netbird_bind`, where there is one.
    pub listener: Option<FlagListener>,
    /// Where orchestrators ask for health, where they may.
    pub health: Option<SocketAddr>,
    /// What becomes of the session of a peer that logs in again.
    pub takeover: NetbirdTakeover,
    /// Packets that a peer may send in a second; 0 is no limit.
    pub rate: u32,
    /// Bytes that a peer may send in a second; 0 is no limit.
    pub bytes: u64,
}

/// Reads what is said of the listener of `netbird_bind`; nothing where nobody says where it is.
fn listener(flags: &NetbirdFlags, layers: &Layers) -> Result<Option<FlagListener>, Error> {
    let Some(bind) = flags.netbird_bind.clone() else {
        let NetbirdFlags { netbird_tls_cert, netbird_tls_key, netbird_acme, .. } = flags;
        let idle = [
            ("netbird_tls_cert", netbird_tls_cert.is_some()),
            ("netbird_tls_key", netbird_tls_key.is_some()),
            ("netbird_acme", !netbird_acme.is_empty()),
        ];
        return match idle.into_iter().find(|(_, is_set)| *is_set) {
            Some((key, _)) => Err(layers.refuse(key, "needs --netbird-bind as well")),
            None => Ok(None),
        };
    };
    let tls = certificate::of_files(&PairOf::NETBIRD_BIND, layers)?;
    let acme = flags.netbird_acme.clone();
    acme::check_of("netbird_acme", &acme, &tls, layers)?;
    FlagListener::read(&NETBIRD_BIND, bind, (tls, acme), layers).map(Some)
}

impl Netbird {
    /// Reads the door's settings, and the file that they name.
    pub(super) fn read(layers: &Layers) -> Result<Option<Self>, Error> {
        let flags = NetbirdFlags::read(layers)?;
        let listener = listener(&flags, layers)?;
        match (flags.netbird_auth_secret_file, flags.netbird_exposed_address) {
            (None, None) if listener.is_none() && flags.netbird_health_bind.is_none() => Ok(None),
            (None, None) if listener.is_none() => {
                let reason = "needs a listener of the door as well: --netbird-bind";
                Err(layers.refuse("netbird_health_bind", reason))
            }
            (None, None) => {
                let reason =
                    "needs --netbird-exposed-address and --netbird-auth-secret-file as well";
                Err(layers.refuse("netbird_bind", reason))
            }
            (Some(_), None) => {
                let reason = "needs --netbird-exposed-address as well: clients are told it";
                Err(layers.refuse("netbird_auth_secret_file", reason))
            }
            (None, Some(_)) => {
                let reason = "needs --netbird-auth-secret-file as well";
                Err(layers.refuse("netbird_exposed_address", reason))
            }
            (Some(path), Some(exposed)) => {
                let read = || {
                    let text = contents(&path)?;
                    Secret::lines(&text)
                };
                let secrets =
                    read().map_err(|e| layers.refuse_file("netbird_auth_secret_file", &path, e))?;
                let NetbirdFlags {
                    netbird_health_bind,
                    netbird_takeover,
                    netbird_rate,
                    netbird_bytes,
                    ..
                } = flags;
                Ok(Some(Self {
                    secrets,
                    exposed,
                    listener,
                    health: netbird_health_bind,
                    takeover: netbird_takeover,
                    rate: netbird_rate,
                    bytes: netbird_bytes,
                }))
            }
        }
    }
}

impl Config {
    /// Where clients of the NetBird door find this relay, as they are told: with TLS, where
    /// nothing is said of it, if a listener of the door speaks it.
    #[must_use]
    pub fn netbird_instance(&self) -> Option<String> {
        let mut listeners = self.all_listeners(false).into_iter();
        let has_tls = || {
            listeners.any(|listener| listener.doors.contains(&&NETBIRD) && listener.speaks_tls())
        };
        Some(self.netbird.as_ref()?.exposed.url(has_tls))
    }

    /// Takes over what a running relay can, where both have the door; true where the secrets are
    /// others.
    pub(super) fn take_netbird(&mut self, new: &Self) -> bool {
        let (Some(ours), Some(new)) = (&mut self.netbird, &new.netbird) else { return false };
        if let (Some(listener), Some(new)) = (&mut ours.listener, &new.listener) {
            listener.take_live(new);
        }
        ours.takeover = new.takeover;
        ours.rate = new.rate;
        ours.bytes = new.bytes;
        let are_others = ours.secrets != new.secrets;
        ours.secrets.clone_from(&new.secrets);
        are_others
    }

    /// What does not go together with the door, and why.
    pub(super) fn netbird_contradiction(&self) -> Option<(&'static str, String)> {
        let of_flag = self.netbird.as_ref().and_then(|netbird| netbird.listener.as_ref());
        let names_it = |table: &ListenerTable| table.doors.contains(&&NETBIRD);
        let is_named = of_flag.is_some() || self.listeners.iter().any(names_it);
        match (&self.netbird, is_named) {
            (None, true) => {
                let reason = "the netbird door of a [[listener]] needs it, and \
                              --netbird-exposed-address as well";
                Some(("netbird_auth_secret_file", reason.to_owned()))
            }
            (Some(_), false) => {
                let reason = "no listener has the netbird door; add --netbird-bind, or write \
                              doors = [\"netbird\"] in a [[listener]]";
                Some(("netbird_auth_secret_file", reason.to_owned()))
            }
            _ => None,
        }
    }
}

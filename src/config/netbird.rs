//! The settings of the NetBird door, and the file of its secrets.

use std::path::PathBuf;

use super::doors::NETBIRD;
use super::small_file::contents;
use super::table::settings;
use super::{Config, Error, ExposedAddress, Layers, ListenerTable, Secret};

settings! {
    /// What the door's flags say, each for itself.
    #[derive(Debug)]
    pub(super) struct NetbirdFlags {
        "NetBird" {
            /// File with the secrets that make tokens, one a line: all are valid
            netbird_auth_secret_file: Option<PathBuf> ["FILE"; live];
            /// Where clients find this relay, as it tells them: HOST:PORT, rel:// or rels://HOST:PORT
            netbird_exposed_address: Option<ExposedAddress> ["ADDRESS"];
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
}

impl Netbird {
    /// Reads the door's settings, and the file that they name.
    pub(super) fn read(layers: &Layers) -> Result<Option<Self>, Error> {
        let flags = NetbirdFlags::read(layers)?;
        match (flags.netbird_auth_secret_file, flags.netbird_exposed_address) {
            (None, None) => Ok(None),
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
                    let text = contents(&path);
                    let text = text.map_err(|error| format!("cannot be read: {error}"))?;
                    Secret::lines(&text)
                };
                let secrets =
                    read().map_err(|e| layers.refuse_file("netbird_auth_secret_file", &path, e))?;
                Ok(Some(Self { secrets, exposed }))
            }
        }
    }
}

impl Config {
    /// Where clients of the NetBird door find this relay, as they are told: with TLS, where
    /// nothing is said of it, if a listener of the door speaks it.
    #[must_use]
    pub fn netbird_instance(&self) -> Option<String> {
        let has_tls = || {
            let mut tables = self.listeners.iter();
            let speaks_tls =
                |table: &ListenerTable| !table.tls.is_empty() || !table.acme.is_empty();
            tables.any(|table| table.doors.contains(&&NETBIRD) && speaks_tls(table))
        };
        Some(self.netbird.as_ref()?.exposed.url(has_tls))
    }

    /// Takes over the secrets, where both have the door; true where they are others.
    pub(super) fn take_netbird_secrets(&mut self, new: &Self) -> bool {
        match (&mut self.netbird, &new.netbird) {
            (Some(ours), Some(new)) if ours.secrets != new.secrets => {
                ours.secrets.clone_from(&new.secrets);
                true
            }
            _ => false,
        }
    }

    /// What does not go together with the door, and why.
    pub(super) fn netbird_contradiction(&self) -> Option<(&'static str, String)> {
        let is_named = self.listeners.iter().any(|table| table.doors.contains(&&NETBIRD));
        match (&self.netbird, is_named) {
            (None, true) => {
                let reason = "the netbird door of a [[listener]] needs it, and \
                              --netbird-exposed-address as well";
                Some(("netbird_auth_secret_file", reason.to_owned()))
            }
            (Some(_), false) => {
                let reason = "no [[listener]] has the netbird door; write doors = [\"netbird\"]";
                Some(("netbird_auth_secret_file", reason.to_owned()))
            }
            (Some(_), true) if self.cluster.is_some() => {
                let reason = "the netbird door does not serve a cluster yet: peers of two relays \
                              would not see each other come; leave the cluster's settings out";
                Some(("netbird_auth_secret_file", reason.to_owned()))
            }
            _ => None,
        }
    }
}

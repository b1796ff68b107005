//! What is allowed, but worth a line in the log.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::layers::{OF_FLAG_LISTENERS, OF_WSS_BIND};
use super::{AcmeContact, AcmeName, Error, Layers, Place, TlsPair};

/// Settings that name files with secrets.
const SECRETS: [&str; 11] = [
    "wss_tls_key",
    "netbird_tls_key",
    "netbird_auth_secret_file",
    "peerbus_tokens_file",
    "peerbus_hmac_secret_file",
    "middleman_service_keys_file",
    "middleman_client_keys_file",
    "admin_token_file",
    "registry_admin_token_file",
    "cluster_secret_file",
    "cluster_nats_credentials",
];

/// What is allowed, but worth a line in the log.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// Every user of the machine can read a secret.
    #[error("{place} = {path:?}: every user of this machine can read the secret; chmod 600 it")]
    ReadableSecret {
        /// Who named the file.
        place: Place,
        /// The file.
        path: PathBuf,
    },
    /// Whoever reaches the operators' port sees who is connected.
    #[error(
        "{place} = {address}: the operators' pages have no password, and this address may be \
         public; bind loopback or an inner address, or close the port in the firewall"
    )]
    PublicAdmin {
        /// Who set it.
        place: Place,
        /// The address.
        address: SocketAddr,
    },
    /// A setting of the listener of `wss_bind`, which is not there.
    #[error(
        "{place} does nothing: {reason}, so that there is no listener at --wss-bind unless that \
         is set, or systemd hands over its socket; write it for the listener that there is"
    )]
    NoWssBind {
        /// Who set it.
        place: Place,
        /// Why it is not there.
        reason: &'static str,
    },
    /// A setting of certificates that nobody orders.
    #[error("{place} does nothing without --acme or --netbird-acme, or acme in a [[listener]]")]
    NoAcme {
        /// Who set it.
        place: Place,
    },
    /// A setting of a cluster that is not there.
    #[error("{place} does nothing without --cluster-bind or --cluster-nats: this relay is alone")]
    NoCluster {
        /// Who set it.
        place: Place,
    },
}

impl Warning {
    /// All that there is to say.
    pub(super) fn all(layers: &Layers) -> Result<Vec<Self>, Error> {
        let mut warnings = Vec::new();
        for key in SECRETS {
            let path: Option<PathBuf> = layers.read(key)?;
            let readable = path.filter(|path| is_readable(path));
            let place = layers.place(key);
            warnings.extend(readable.map(|path| Self::ReadableSecret { place, path }));
        }
        for listener in layers.listeners() {
            let pairs: Vec<TlsPair> = listener.read("tls")?;
            let readable = pairs.into_iter().map(|pair| pair.key).filter(|key| is_readable(key));
            let place = listener.place("tls");
            warnings
                .extend(readable.map(|path| Self::ReadableSecret { place: place.clone(), path }));
        }
        let address: SocketAddr = layers.read("admin_bind")?;
        if may_be_public(address.ip()) {
            warnings.push(Self::PublicAdmin { place: layers.place("admin_bind"), address });
        }
        if !layers.serves_wss_bind() {
            let shared = OF_FLAG_LISTENERS.iter().filter(|_| !layers.has_flag_bind());
            let idle = OF_WSS_BIND.iter().chain(shared).filter(|key| !layers.is_default(key));
            let reason = layers.reason_for_no_wss_bind();
            warnings.extend(idle.map(|key| Self::NoWssBind { place: layers.place(key), reason }));
        }
        warnings.extend(idle_acme(layers)?);
        if ["cluster_bind", "cluster_nats"].iter().all(|key| layers.is_default(key)) {
            let idle = ["cluster_name", "cluster_keepalive"].into_iter();
            let idle = idle.filter(|key| !layers.reads_as_default(key));
            warnings.extend(idle.map(|key| Self::NoCluster { place: layers.place(key) }));
        }
        Ok(warnings)
    }
}

/// The settings of certificates, where nobody orders any.
fn idle_acme(layers: &Layers) -> Result<Vec<Warning>, Error> {
    let tables = layers.listeners();
    let of_netbird: Vec<AcmeName> = layers.read("netbird_acme")?;
    let mut idle = Vec::new();
    for listener in std::iter::once(layers).chain(tables) {
        let names: Vec<AcmeName> = listener.read("acme")?;
        let contacts: Vec<AcmeContact> = listener.read("acme_contact")?;
        if !names.is_empty() || !of_netbird.is_empty() {
            return Ok(Vec::new());
        }
        if !contacts.is_empty() {
            idle.push(listener.place("acme_contact"));
        }
    }
    let of_relay = ["acme_directory", "acme_directory_ca"].into_iter();
    let of_relay = of_relay.filter(|key| !layers.reads_as_default(key));
    idle.extend(of_relay.map(|key| layers.place(key)));
    Ok(idle.into_iter().map(|place| Warning::NoAcme { place }).collect())
}

/// Whether every user of the machine can read a file.
pub(crate) fn is_readable(path: &Path) -> bool {
    const READABLE_BY_OTHERS: u32 = 0o004;
    fs::metadata(path).is_ok_and(|file| file.permissions().mode() & READABLE_BY_OTHERS != 0)
}

/// Whether an address may be reached from everywhere.
fn may_be_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => !(ip.is_loopback() || ip.is_private() || ip.is_link_local()),
        IpAddr::V6(ip) => !(ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_inner_networks_are_not_public() {
        for inner in ["127.0.0.1", "10.1.2.3", "192.168.0.1", "::1", "fd00::1", "::ffff:10.0.0.1"] {
            assert!(!may_be_public(inner.parse().unwrap()), "{inner}");
        }
        for public in ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1"] {
            assert!(may_be_public(public.parse().unwrap()), "{public}");
        }
    }
}

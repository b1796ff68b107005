//! What settings, each good for itself, do not allow beside each other or on this machine.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::error::Mistakes;
use super::flag_binds::WSS_WAY_OUT;
use super::value::Ordered as _;
use super::{ClusterFabric, Config, Error, Layers, WssBind};
use crate::ids::BeaconId;

/// A port of which there is one for each.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Transport {
    Tcp,
    Udp,
}

/// An address that the relay binds to.
struct Bind {
    /// The setting, as an operator writes it.
    said: String,
    /// Its key, unless it is a listener's: those are compared with each other elsewhere.
    key: Option<&'static str>,
    transport: Transport,
    address: SocketAddr,
}

impl Config {
    /// Keeps every setting that the others, or the machine, do not allow, and why.
    pub(super) fn contradictions(&self, layers: &Layers, mistakes: &mut Mistakes) {
        let is_registering = self.registry.is_some() && self.beacon_id != BeaconId(0);
        let most_peers = layers.most_peers();
        let mut refuse = |key: &str, reason: String| mistakes.add(layers.refuse(key, reason));
        if self.max_peers == 0 || self.max_peers > most_peers {
            let limit = "what the descriptor limit (ulimit -n) allows";
            refuse(
                "max_peers",
                format!("not from 1 to {most_peers}, which is {limit}; raise that for more"),
            );
        }
        if !self.wss_bind.is_local() && !self.public_plaintext && !self.speaks_tls() {
            let danger = "it is open to others than this machine, without TLS";
            refuse("wss_bind", format!("{danger}; {WSS_WAY_OUT}"));
        }
        if self.min_auth_generation == 3 && self.relay_name.is_none() {
            refuse("min_auth_generation", "generation 3 needs --relay-name as well".to_owned());
        }
        if is_registering && self.advertise_addr.is_none() {
            refuse("beacon_id", "to register, it needs --advertise-addr as well".to_owned());
        }
        if let Some((key, reason)) = self.rare_pings(layers) {
            refuse(key, reason);
        }
        let of_doors = [
            self.netbird_contradiction(),
            self.peerbus_contradiction(),
            self.middleman_contradiction(),
            self.keyop_contradiction(),
            self.bus_nats_contradiction(),
        ];
        for (key, reason) in of_doors.into_iter().flatten() {
            refuse(key, reason);
        }
        for (key, reason) in self.shared_addresses() {
            refuse(key, reason);
        }
        self.sockets_in_missing_folders(layers).into_iter().for_each(|error| mistakes.add(error));
    }

    /// Pings that come too late to keep a session: whoever only answers pings would be cut off.
    fn rare_pings(&self, layers: &Layers) -> Option<(&'static str, String)> {
        let (interval, timeout) = (self.ping_interval, self.idle_timeout);
        if interval == Duration::ZERO || interval < timeout {
            return None;
        }
        let harm = "peers that only answer pings would be cut off";
        Some(if layers.is_default("ping_interval") {
            let interval = interval.shown();
            let reason = format!("not longer than --ping-interval, which is {interval}: {harm}");
            ("idle_timeout", format!("{reason}; shorten that as well, or 0s turns pings off"))
        } else {
            let timeout = timeout.shown();
            let reason = format!("not shorter than --idle-timeout, which is {timeout}: {harm}");
            ("ping_interval", format!("{reason}; shorten it, or 0s turns pings off"))
        })
    }

    /// The addresses beside those of the listeners that another setting has already.
    fn shared_addresses(&self) -> Vec<(&'static str, String)> {
        let binds = self.binds();
        let canonical = |address: &SocketAddr| (address.ip().to_canonical(), address.port());
        let mut shared = Vec::new();
        for (index, bind) in binds.iter().enumerate() {
            let Some(key) = bind.key else { continue };
            let mut before = binds.iter().take(index);
            let is_same = |other: &&Bind| {
                other.transport == bind.transport
                    && bind.address.port() != 0
                    && canonical(&other.address) == canonical(&bind.address)
            };
            if let Some(other) = before.find(is_same) {
                let said = &other.said;
                let reason =
                    format!("that is the address of {said}; choose another for one of both");
                shared.push((key, reason));
            }
        }
        shared
    }

    /// All addresses, those of the listeners first.
    fn binds(&self) -> Vec<Bind> {
        let mut binds = Vec::new();
        for listener in self.all_listeners(false) {
            let WssBind::Tcp(address) = listener.bind else { continue };
            let is_of_a_table = listener.setting.contains('[');
            let said = if is_of_a_table {
                listener.setting.clone()
            } else {
                format!("--{}", listener.setting)
            };
            if !listener.quic_protocols().is_empty() {
                let (said, transport) = (said.clone(), Transport::Udp);
                binds.push(Bind { said, key: None, transport, address });
            }
            binds.push(Bind { said, key: None, transport: Transport::Tcp, address });
        }
        let mut add = |key: &'static str, transport, address| {
            let said = format!("--{}", key.replace('_', "-"));
            binds.push(Bind { said, key: Some(key), transport, address });
        };
        add("admin_bind", Transport::Tcp, self.admin_bind);
        if let Some(address) = self.netbird.as_ref().and_then(|netbird| netbird.health) {
            add("netbird_health_bind", Transport::Tcp, address);
        }
        add("udp_bind", Transport::Udp, self.udp_bind);
        for address in &self.stun_bind {
            add("stun_bind", Transport::Udp, *address);
        }
        let fabric = self.cluster.as_ref().map(|cluster| &cluster.fabric);
        if let Some(ClusterFabric::Mesh { bind, tcp, .. }) = fabric {
            add("cluster_bind", Transport::Udp, *bind);
            if *tcp {
                add("cluster_bind", Transport::Tcp, *bind);
            }
        }
        binds
    }

    /// Unix sockets that nobody could make.
    fn sockets_in_missing_folders(&self, layers: &Layers) -> Vec<Error> {
        let of_wss_bind = self.serves_wss_bind.then_some((layers, "wss_bind", &self.wss_bind));
        let of_flags = self.flag_listeners().map(|(of, listener)| (layers, of.key, &listener.bind));
        let tables = layers.listeners().iter().zip(&self.listeners);
        let of_tables = tables.map(|(layers, table)| (layers, "bind", &table.bind));
        let all = of_wss_bind.into_iter().chain(of_flags).chain(of_tables);
        let missing = all.filter_map(|(layers, key, bind)| {
            let WssBind::Unix(path) = bind else { return None };
            let folder = path.parent().filter(|folder| !folder.is_dir())?;
            Some(layers.refuse(key, missing(folder)))
        });
        missing.collect()
    }
}

fn missing(folder: &Path) -> String {
    let folder = folder.display();
    format!("there is no folder {folder}; make it, or have systemd make it by RuntimeDirectory=")
}

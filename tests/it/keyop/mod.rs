//! The keyop door: recorded conversations of the original hub on both transports, what it did worse,
//! and certificates.

mod audit;
mod certificates;
mod cluster;
mod command;
mod defects;
mod doctor;
mod grpc;
mod hostile;
mod hubs;
mod kills;
mod operators;
mod pki;
mod recordings;
mod sessions;
mod stranger;
mod websocket;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use self::grpc::Rpc;
use self::pki::{Authority, Identity};
use self::websocket::Ws;
use crate::harness::Relay;

/// The name of the relay, as its certificate has it.
const HUB: &str = "localhost";

/// A relay with the door, and who its peers can be.
pub(crate) struct Site {
    pub(crate) relay: Relay,
    pub(crate) address: SocketAddr,
    pub(crate) authority: Arc<Authority>,
    /// What outlives the relay.
    state: Arc<TempDir>,
    /// The files that its settings name.
    pub(crate) folder: TempDir,
    more: Vec<String>,
}

impl Site {
    /// A relay that lets everybody in who has a certificate.
    pub(crate) fn start(more: &[&str]) -> Self {
        Self::with_config("", more)
    }

    /// A relay with a configuration file.
    pub(crate) fn with_config(toml: &str, more: &[&str]) -> Self {
        Self::named(HUB, Arc::new(Authority::new("test CA")), toml, more)
    }

    /// A relay whose peers' certificates are of this authority, and its own as well.
    fn of(authority: Authority, more: &[&str]) -> Self {
        Self::named(HUB, Arc::new(authority), "", more)
    }

    /// A relay of this name, with a configuration file.
    fn named(name: &str, authority: Arc<Authority>, toml: &str, more: &[&str]) -> Self {
        let (state, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        authority.write(&folder.path().join("ca.crt"));
        let hub = authority.issue(name);
        hub.write(folder.path(), "hub");
        let config = folder.path().join("relay.toml");
        fs::write(&config, toml).unwrap();
        let state = Arc::new(state);
        let more: Vec<_> = more.iter().map(|flag| (*flag).to_owned()).collect();
        let relay = start(&state, folder.path(), "127.0.0.1:0", &more);
        Self { address: relay.wss, relay, authority, state, folder, more }
    }

    /// Ends the relay by this signal, and starts another in its place and at its address.
    pub(crate) fn restart(&mut self, signal: &str) {
        self.stop(signal);
        self.start_again();
    }

    /// Ends the relay by this signal.
    fn stop(&mut self, signal: &str) {
        self.relay.signal(signal);
        self.relay.wait_until_gone();
    }

    /// Starts a relay in the place of one that has ended, at its address.
    fn start_again(&mut self) {
        let bind = self.address.to_string();
        self.relay = start(&self.state, self.folder.path(), &bind, &self.more);
    }

    /// A peer of this name, over gRPC.
    pub(crate) async fn rpc(&self, name: &str) -> Rpc {
        Rpc::connect(self.address, &self.authority, &self.authority.issue(name)).await.unwrap()
    }

    /// A peer of this name, over WebSocket, that has not said hello.
    pub(crate) fn ws(&self, name: &str) -> Ws {
        self.ws_of(&self.authority.issue(name))
    }

    fn ws_of(&self, identity: &Identity) -> Ws {
        let mut ws = Ws::connect(self.address, &self.authority, identity).unwrap();
        assert_eq!(ws.upgrade("/any/path"), 101);
        ws
    }

    /// Waits until so many sessions are subscribed to something: who publishes from here on reaches
    /// them.
    pub(crate) fn wait_until_subscribed(&self, sessions: usize) {
        #[allow(clippy::cast_precision_loss)] // a few
        let sessions = sessions as f64;
        self.relay.wait_for_metric("beacon_relay_keyop_subscribers", sessions);
    }

    /// Waits until so many batches were acknowledged.
    pub(crate) fn wait_until_acknowledged(&self, batches: f64) {
        self.relay.wait_for_metric("beacon_relay_keyop_acknowledged_total", batches);
    }

    /// Waits for the value of a counter of records.
    pub(crate) fn wait_for_records(&self, outcome: &str, count: f64) {
        let name = format!("beacon_relay_keyop_records_total{{outcome=\"{outcome}\"}}");
        self.relay.wait_for_metric(&name, count);
    }
}

fn start(state: &Arc<TempDir>, folder: &Path, bind: &str, more: &[String]) -> Relay {
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let flags = [
        "--config".to_owned(),
        file("relay.toml"),
        "--keyop-bind".to_owned(),
        bind.to_owned(),
        "--keyop-cert".to_owned(),
        file("hub.crt"),
        "--keyop-key".to_owned(),
        file("hub.key"),
        "--keyop-client-ca".to_owned(),
        file("ca.crt"),
        "--upgrade-rate=0".to_owned(),
    ];
    let has_level = more.iter().any(|flag| flag.starts_with("--log-level"));
    let level = (!has_level).then(|| "--log-level=debug".to_owned());
    let has_drain = more.iter().any(|flag| flag.starts_with("--drain-time"));
    let drain = (!has_drain).then(|| "--drain-time=0s".to_owned());
    let command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    Relay::start_in(
        Arc::clone(state),
        command,
        flags.iter().chain(&drain).chain(&level).chain(more),
    )
}

/// A record, as a peer publishes it.
pub(crate) fn record(id: &str, channel: &str) -> Vec<u8> {
    record_by(id, channel, "raw", "")
}

/// The same, with a route of these names, each in quotes.
pub(crate) fn record_by(id: &str, channel: &str, origin: &str, route: &str) -> Vec<u8> {
    let route = if route.is_empty() { String::new() } else { format!("\"route\":[{route}],") };
    format!(
        "{{\"v\":1,\"id\":\"{id}\",\"ts\":\"2026-03-31T14:22:01.123456789Z\",\"channel\":\"{channel}\",\
         \"origin\":\"{origin}\",\"payload_type\":\"t\",{route}\"payload\":{{\"x\":1}}}}"
    )
    .into_bytes()
}

/// The ids of records.
pub(crate) fn ids(records: &[Vec<u8>]) -> Vec<String> {
    let id = |record: &Vec<u8>| {
        let value: serde_json::Value = serde_json::from_slice(record).unwrap();
        value["id"].as_str().unwrap().to_owned()
    };
    records.iter().map(id).collect()
}

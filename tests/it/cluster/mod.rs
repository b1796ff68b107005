//! Several relays as one beacon, as real processes on 127.0.0.2 and up, over both fabrics.

mod bridge;
mod cells;
mod clock;
mod crowd;
mod cut;
mod drain;
mod faults;
pub(crate) mod flow;
mod moves;
pub(crate) mod nats;
pub(crate) mod network;
mod soon;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use tempfile::TempDir;

use crate::control::ask;
use crate::harness::{Node, PATIENCE, Relay, look_until, write_directory};
use crate::ports::free_port;
use nats::NatsServer;

/// Runs a test once for each fabric.
macro_rules! on_both_fabrics {
    ($($name:ident),+ $(,)?) => {
        mod on_mesh {
            $(#[test]
            fn $name() {
                super::$name($crate::cluster::Fabric::Mesh);
            })+
        }
        mod on_nats {
            $(#[test]
            fn $name() {
                super::$name($crate::cluster::Fabric::Nats);
            })+
        }
    };
}
pub(crate) use on_both_fabrics;

/// What carries batches between the relays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fabric {
    Mesh,
    Nats,
}

/// A cluster of relays that all know the same nodes.
pub(crate) struct Cluster {
    /// The relays, that at 127.0.0.2 first.
    pub(crate) relays: Vec<Relay>,
    pub(crate) nats: Option<NatsServer>,
    /// Key file and secret, as long as the relays live.
    folder: TempDir,
    arguments: Vec<Vec<String>>,
}

impl Cluster {
    /// Three relays that have found each other.
    pub(crate) fn of_three(fabric: Fabric, nodes: &[&Node], more: &[&str]) -> Self {
        let cluster = Self::start(fabric, 3, nodes, |_| more.to_vec());
        cluster.wait_for_members(3);
        cluster
    }

    /// Starts relays that shall find each other; `more` are arguments for each.
    pub(crate) fn start<'a>(
        fabric: Fabric,
        count: usize,
        nodes: &[&Node],
        more: impl Fn(usize) -> Vec<&'a str>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_directory(folder.path(), nodes);
        let nats = (fabric == Fabric::Nats).then(NatsServer::start);
        let binds: Vec<_> = (0..count).map(|index| free_udp_address(&host(index))).collect();
        let arguments = (0..count).map(|index| {
            let mut words = arguments(folder.path(), &host(index), &more(index));
            words.extend(match &nats {
                Some(nats) => vec!["--cluster-nats".to_owned(), nats.url()],
                None => mesh_arguments(folder.path(), &binds[index], &binds),
            });
            words
        });
        let arguments: Vec<_> = arguments.collect();
        let relays = arguments.iter().map(Relay::start).collect();
        Self { relays, nats, folder, arguments }
    }

    /// Waits until each relay sees so many, itself included.
    pub(crate) fn wait_for_members(&self, count: usize) {
        self.relays.iter().for_each(|relay| wait_for_members(relay, count));
    }

    /// Starts a relay again that has ended, with the same arguments and a fresh state folder.
    pub(crate) fn restart(&mut self, index: usize) {
        self.relays[index] = Relay::start(&self.arguments[index]);
    }

    /// The folder of the key file, which all relays read.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Waits until a relay sees so many, itself included.
pub(crate) fn wait_for_members(relay: &Relay, count: usize) {
    #[allow(clippy::cast_precision_loss)] // a handful
    relay.wait_for_metric("pilot_beacon_cluster_members", count as f64);
}

/// Waits until a relay knows that another one has a node, under the epoch that it has there.
/// A packet for it has somewhere to go from here on.
pub(crate) fn wait_until_found(by: &Relay, node: u32, at: &Relay) {
    let explained = |relay| ask(relay, &["explain", &node.to_string()])["cluster"].take();
    let what = format!("{node} is found at {} by {}", at.wss, by.wss);
    wait_until(&what, || {
        let epoch = explained(at)["epoch_here"].as_u64();
        epoch.is_some() && explained(by)["elsewhere"]["epoch"].as_u64() == epoch
    });
}

/// Waits until a relay has so many nodes, and their homes know of them.
pub(crate) fn wait_until_claimed(relay: &Relay, nodes: u32) {
    let entries = |kind| format!("pilot_beacon_cluster_presence_entries{{kind=\"{kind}\"}}");
    relay.wait_for_metric(&entries("here"), f64::from(nodes));
    // A node is claimed in the moment in which it is here, until all its homes have answered.
    relay.wait_for_metric(&entries("outstanding"), 0.0);
}

/// The address of a relay by its position.
pub(crate) fn host(index: usize) -> String {
    format!("127.0.0.{}", index + 2)
}

/// What every relay of a cluster is started with.
pub(crate) fn arguments(folder: &Path, host: &str, more: &[&str]) -> Vec<String> {
    let keys = folder.join("keys.json");
    let any = format!("{host}:0");
    let words = ["--keys", keys.to_str().unwrap(), "--wss-bind", &any, "--udp-bind", &any];
    let rates = ["--admin-bind", &any, "--upgrade-rate", "0", "--relay-rate", "0"];
    words.iter().chain(&rates).chain(more).map(|word| (*word).to_owned()).collect()
}

/// What turns the mesh on.
pub(crate) fn mesh_arguments(folder: &Path, bind: &str, all: &[String]) -> Vec<String> {
    let secret = folder.join("secret");
    if !secret.exists() {
        fs::write(&secret, "a secret that only a test may have").unwrap();
        Command::new("chmod").arg("600").arg(&secret).status().unwrap();
    }
    let secret = secret.to_str().unwrap();
    let join = all.join(",");
    let words = ["--cluster-bind", bind, "--cluster-join", &join, "--cluster-secret-file", secret];
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// An address on which nobody listens at the moment.
pub(crate) fn free_udp_address(host: &str) -> String {
    format!("{host}:{}", free_port())
}

/// Waits until something holds.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let reached = look_until(Instant::now() + PATIENCE, || holds().then_some(()));
    reached.unwrap_or_else(|| panic!("never: {what}"));
}

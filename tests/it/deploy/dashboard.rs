//! The Grafana dashboard: every query of it, run against a real Prometheus that scraped relays
//! under load.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::deploy;
use crate::acme;
use crate::cluster::{Cluster, Fabric};
use crate::harness::{Node, PATIENCE, Relay, look_until};
use crate::middleman;
use crate::over::Over;
use crate::peer::{Peer, UdpNode};
use crate::peerbus::jetstream::Engine;
use crate::prometheus::Prometheus;
use crate::stopping::Stopping;

/// Between two rounds of the load.
const PACE: Duration = Duration::from_millis(20);

/// A query with the panel that it is of.
pub(super) fn queries() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(deploy("grafana/beacon-relay.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.push((title.to_owned(), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    queries
}

/// The arguments of what is served only where somebody asks for it.
pub(super) fn doors(secrets: &str) -> [&str; 8] {
    let exposed = ["--netbird-bind", "127.0.0.1:0", "--netbird-exposed-address", "rel://a.test:80"];
    let [a, b, c, d] = exposed;
    [a, b, c, d, "--netbird-auth-secret-file", secrets, "--stun-bind", "127.0.0.1:0"]
}

/// Every way that a packet can go, and every login, again and again until it is told to stop.
pub(super) fn load(cluster: &Cluster, stop: &AtomicBool) {
    let [first, second] = &cluster.relays[..] else { panic!("two relays") };
    let mut here = Peer::log_in(first.wss, &Node::new(1));
    let mut there = Peer::log_in(second.wss, &Node::new(2));
    let udp = UdpNode::register(first.udp, 10);
    let mut unknown = 1_000;
    while !stop.load(Ordering::Relaxed) {
        let mut comes_and_goes = Peer::log_in(first.wss, &Node::new(3));
        for dest in [1, 2, 3, 10] {
            comes_and_goes.relay(3, dest, b"a packet");
            udp.relay(dest, b"another");
        }
        // Each node that nobody knows is looked up.
        unknown += 1;
        here.relay(1, unknown, b"to nobody");
        there.relay(2, 1, b"over the cluster");
        here.delivery();
        udp.discover();
        thread::sleep(PACE);
    }
}

#[test]
fn every_query_of_the_dashboard_has_data_under_load() {
    // Only who orders certificates has numbers of them.
    acme::with_certificate(assert_data);
}

fn assert_data(certified: &Relay) {
    let nodes = [1, 2, 3].map(Node::new);
    // Without a registry there are no families of it: nobody answers at this one.
    let more = ["--registry", "127.0.0.1:1"];
    let cluster = Cluster::start(Fabric::Mesh, 2, &nodes.each_ref(), |_| more.to_vec());
    cluster.wait_for_members(2);
    // Only where there is a certificate has it an end.
    let secrets = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&secrets, "a secret of NetBird's").unwrap();
    let doors = doors(secrets.path().to_str().unwrap());
    let tls = Over::Tls.relay(&[], &[&["--wss-bind", "127.0.0.1:0"], &doors[..]].concat());
    let engine = Engine::start();
    let messages = engine.site_of_a_cluster();
    let topics = middleman::Site::start(&[]);
    let relays: Vec<_> =
        cluster.relays.iter().chain([&tls, certified, &messages.relay, &topics.relay]).collect();
    let prometheus = Prometheus::start(&relays);

    let stop = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        let stopping = Stopping(&stop);
        let loading = scope.spawn(|| load(&cluster, &stop));
        let carrying = scope.spawn(|| messages.carry(&stop, PACE));
        let talking = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _talking = topics.converse();
                thread::sleep(PACE);
            }
        });
        let mut missing = queries();
        assert!(missing.len() > 50, "{missing:?}");
        look_until(Instant::now() + PATIENCE, || {
            missing.retain(|(_, query)| !has_data(&prometheus, query));
            (missing.is_empty() || loading.is_finished()).then_some(())
        });
        drop(stopping);
        loading.join().unwrap();
        carrying.join().unwrap();
        talking.join().unwrap();
        assert!(missing.is_empty(), "no data: {missing:#?}");
    });
}

/// Whether a query has a number, with the variables of the dashboard as Grafana fills them in.
fn has_data(prometheus: &Prometheus, query: &str) -> bool {
    let query = query.replace("$instance", ".*").replace("$__rate_interval", "2s");
    assert!(!query.contains('$'), "an unknown variable: {query}");
    let values = prometheus.query(&query);
    values.iter().any(|value| value.parse::<f64>().is_ok_and(f64::is_finite))
}

#[test]
fn panels_do_not_cover_each_other() {
    let text = std::fs::read_to_string(deploy("grafana/beacon-relay.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut cells = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{panel}");
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(cells.insert((x, y)), "{}", panel["title"]);
            }
        }
    }
}

//! What an operator is called for: the shipped alerts in a real Prometheus, and relays in real
//! trouble.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;

use crate::cluster::{Cluster, Fabric};
use crate::deploy::nginx::write_certificates;
use crate::harness::{Node, Relay};
use crate::peer::{Peer, upgrade_request};
use crate::prometheus::Prometheus;
use crate::registry::{Answer, Registry};
use crate::tls;

/// What is to fire, and nothing of it before there is trouble.
const TROUBLE: [&str; 10] = [
    "BeaconRelayAtCapacity",
    "BeaconRelayCertificateNotRead",
    "BeaconRelayClusterIncomplete",
    "BeaconRelayClusterLinks",
    "BeaconRelayDown",
    "BeaconRelayKeysStale",
    "BeaconRelayKeysUnavailable",
    "BeaconRelayRegistryDown",
    "BeaconRelayReloadFailed",
    "BeaconRelayWrongTokens",
];

/// Wrong tokens that are too many.
const GUESSES: usize = 12;

/// The alerts as they are shipped, but for how long something has to last.
fn at_once(alerts: &str) -> String {
    let lines = alerts.lines().filter(|line| !line.trim_start().starts_with("for: "));
    lines.map(|line| format!("{line}\n")).collect()
}

fn text(path: &std::path::Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn twelve_shipped_alerts_fire_for_real_trouble() {
    // A certificate that ends in a minute is trouble from the beginning.
    let certificates = tempfile::tempdir().unwrap();
    write_certificates(certificates.path(), &["127.0.0.1".to_owned()], 0);
    let edge = tls::relay(certificates.path(), &[], &[]);
    let cluster = Cluster::start(Fabric::Mesh, 2, &[], |_| Vec::new());
    cluster.wait_for_members(2);
    let Cluster { mut relays, .. } = cluster;
    let folder = tempfile::tempdir().unwrap();
    let (settings, token) = (folder.path().join("relay.toml"), folder.path().join("token"));
    fs::write(&settings, "max_peers = 1").unwrap();
    fs::write(&token, "a token that nobody guesses").unwrap();
    let known = Node::new(11);
    let registry = Registry::start(|_| Answer::NotFound);
    let address = registry.address.to_string();
    let more =
        ["--config", text(&settings), "--registry", &address, "--admin-token-file", text(&token)];
    let relay = Relay::with_nodes(&[&known], &more);

    let prometheus = Prometheus::start_with(&[&edge, &relay, &relays[0], &relays[1]], at_once);
    let firing =
        |alert: &str| format!("group(ALERTS{{alertstate=\"firing\",alertname=\"{alert}\"}})");
    for alert in ["BeaconRelayCertificateEnds", "BeaconRelayCertificateOver"] {
        prometheus.wait_for(&["1"], &firing(alert));
    }
    // Each has been scraped, and more than once.
    prometheus.wait_for(&["4"], "count(count_over_time(up[1m]) > 2)");
    for alert in TROUBLE {
        assert_eq!(prometheus.query(&firing(alert)), [""; 0], "{alert}");
    }

    drop(registry);
    let mut unknown = Peer::upgrade(relay.wss);
    unknown.try_to_authenticate(&Node::new(12), 1);
    drop(unknown);
    let _first = Peer::log_in(relay.wss, &known);
    let mut second = Peer::connect(relay.wss);
    assert_eq!(second.ask(&upgrade_request("")).0, 503);
    let guesses: Vec<_> = (0..GUESSES)
        .map(|_| {
            let mut stream = TcpStream::connect(relay.admin).unwrap();
            let head = format!("POST /actions/status HTTP/1.1\r\nHost: {}\r\n", relay.admin);
            let rest = "Authorization: Bearer 0123456789abcdef\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(format!("{head}{rest}").as_bytes()).unwrap();
            stream
        })
        .collect();
    fs::write(relay.keys().join("keys.json"), "{").unwrap();
    fs::write(&settings, "max_peers = \"few\"").unwrap();
    fs::write(certificates.path().join("cert.pem"), "no certificate").unwrap();
    let mut lost = relays.remove(1);
    lost.signal("KILL");
    lost.wait_until_gone();

    for alert in TROUBLE {
        prometheus.wait_for(&["1"], &firing(alert));
    }
    drop(guesses);
}

//! What orchestrators are told, and that it is the truth.

use std::net::SocketAddr;

use serde_json::Value;
use tempfile::TempDir;

use super::flags::flags;
use super::{SECRET, auth, connect, frame, id, message, token, unix_now};
use crate::cells::assert_balance;
use crate::deploy::nginx::write_certificates;
use crate::harness::{Relay, http_get, look_until};

/// A relay with these further flags, and where its health is.
fn relay(home: &TempDir, more: &[&str]) -> (Relay, SocketAddr) {
    let mut all = flags(home.path());
    let own = ["--netbird-bind", "127.0.0.1:0", "--netbird-health-bind", "127.0.0.1:0"];
    all.extend(own.iter().chain(more).map(|flag| (*flag).to_owned()));
    let relay = Relay::start(&all);
    let line = relay.wait_for_line("answering health checks");
    let address = line.split_once("health=").unwrap().1.split(' ').next().unwrap();
    let address = address.parse().unwrap();
    (relay, address)
}

fn health(address: SocketAddr) -> (u16, Value) {
    let (status, body) = http_get(address, "/health");
    (status, serde_json::from_str(&body).unwrap())
}

#[test]
fn health_is_what_the_canary_found_and_ends_with_the_drain() {
    let home = TempDir::new().unwrap();
    let (relay, address) = relay(&home, &["--drain-time", "3s", "--canary-interval", "100ms"]);
    let (status, said) = health(address);
    assert_eq!(status, 200, "{said}");
    assert_eq!(said["status"], "healthy", "{said}");
    assert_eq!(said["listeners"], serde_json::json!(["ws"]), "{said}");
    assert_eq!(said["certificate_valid"], false, "it shows none: {said}");
    assert!(said["timestamp"].as_str().unwrap().ends_with('Z'), "{said}");
    assert_eq!(http_get(address, "/metrics").0, 404);

    // The canary came and went, and counts nowhere.
    let landed = "beacon_relay_netbird_canary_total{result=\"ok\"}";
    let flown = || (relay.metric(landed) >= 3.0).then_some(());
    let end = std::time::Instant::now() + crate::harness::PATIENCE;
    look_until(end, flown).unwrap_or_else(|| panic!("{}", relay.metrics()));
    assert_eq!(relay.metric("beacon_relay_sessions{door=\"netbird\"}"), 0.0);
    assert_eq!(relay.metric("beacon_relay_netbird_handled_total{kind=\"close\"}"), 0.0);
    let (_, ready) = http_get(relay.admin, "/readyz?verbose");
    let ready: Value = serde_json::from_str(&ready).unwrap();
    assert_eq!(ready["parts"]["netbird"]["condition"], "ok", "{ready}");
    assert_balance(&relay);

    let mut alice = connect(relay.wss);
    alice.send(2, &auth(id("alice"), &token(SECRET, unix_now() + 60)));
    assert!(alice.read().is_some());
    alice.send(2, &message(3, "alice", b"here"));
    assert_eq!(alice.read(), frame(3, "alice", b"here"));
    relay.signal("TERM");
    relay.wait_for_line("draining");
    let (status, said) = health(address);
    assert_eq!((status, &said["status"]), (503, &Value::from("unhealthy")), "{said}");
}

#[test]
fn certificate_that_has_ended_is_unhealthy() {
    for (days, status) in [(90, 200), (-1, 503)] {
        let (home, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        write_certificates(folder.path(), &["127.0.0.1".to_owned()], days);
        let pair = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
        let [cert, key] = pair.map(|path| path.display().to_string());
        let tls = ["--netbird-tls-cert", &cert, "--netbird-tls-key", &key];
        let (_relay, address) = relay(&home, &tls);
        let (answered, said) = health(address);
        assert_eq!(answered, status, "{said}");
        assert_eq!(said["certificate_valid"], status == 200, "{said}");
        assert_eq!(said["listeners"], serde_json::json!(["ws", "quic"]), "{said}");
    }
}

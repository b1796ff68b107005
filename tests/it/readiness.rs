//! Whether the relay says what it can do: its canary, which is no peer, and `/readyz`.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cells::assert_balance;
use crate::harness::{Node, PATIENCE, Relay, http_get, look_until, read_response};
use crate::peer::{Peer, UdpNode};

const FLOWN: &str = "pilot_beacon_canary_total{result=\"ok\"}";

/// Enough for a count that is not exact to show.
const FLIGHTS: f64 = 20.0;

fn wait_for_flights(relay: &Relay, flights: f64) {
    let flown = || (relay.metric(FLOWN) >= flights).then_some(());
    look_until(Instant::now() + PATIENCE, flown)
        .unwrap_or_else(|| panic!("{}\n{}", relay.log(), relay.metrics()));
}

/// All of `/readyz`, and its status.
fn readiness(relay: &Relay) -> (u16, Value) {
    let (status, body) = http_get(relay.admin, "/readyz?verbose");
    (status, serde_json::from_str(&body).unwrap())
}

/// The samples that peers make: none of them may move without one.
fn of_peers(metrics: &str) -> Vec<&str> {
    let prefixes = ["packets_", "bytes_", "wss_", "relay_bridge", "outbox_", "directory_lookups"];
    let of_peers = |line: &&str| {
        let name = line.strip_prefix("pilot_beacon_");
        name.is_some_and(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
    };
    metrics.lines().filter(of_peers).collect()
}

#[test]
fn canary_counts_nowhere() {
    let nodes = [11, 12].map(Node::new);
    let relay = Relay::with_nodes(&nodes.each_ref(), &["--canary-interval", "10ms"]);
    let before = relay.metrics();
    let zeros = of_peers(&before);
    assert!(zeros.len() > 100, "{before}");
    assert!(zeros.iter().all(|line| line.ends_with(" 0")), "{before}");
    wait_for_flights(&relay, FLIGHTS);
    assert_eq!(of_peers(&relay.metrics()), zeros);
    assert!(relay.metric("pilot_beacon_canary_seconds_count") >= FLIGHTS);
    let log = relay.log();
    assert!(!log.contains("peer connected") && !log.contains("X-Forwarded-For"), "{log}");

    // Nor does it when there are peers, whose counts stay exact.
    let mut peers = nodes.each_ref().map(|node| Peer::log_in(relay.wss, node));
    let flown = relay.metric(FLOWN);
    for _ in 0..10 {
        peers[0].relay(11, 12, b"packet");
        assert_eq!(peers[1].delivery(), (11, b"packet".to_vec()));
    }
    wait_for_flights(&relay, flown + FLIGHTS);
    assert_eq!(relay.metric("pilot_beacon_wss_frames_in_total"), 10.0);
    assert_eq!(relay.metric("pilot_beacon_wss_frames_out_total"), 10.0);
    assert_eq!(relay.metric("pilot_beacon_wss_active"), 2.0);
    assert_eq!(relay.metric("pilot_beacon_wss_connections_total{outcome=\"auth_ok\"}"), 2.0);
    assert_balance(&relay);
    // A peer may have any id.
    let everybody = Node::new(u32::MAX);
    assert_eq!(Peer::upgrade(relay.wss).try_to_authenticate(&everybody, 2).0, 8);
}

#[test]
fn canary_over_udp_is_served_wherever_the_sockets_are_and_its_id_is_anybodys() {
    const FLOWN: &str = "pilot_beacon_udp_canary_total{result=\"ok\"}";
    for bind in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
        let relay = Relay::start(["--udp-bind", bind, "--canary-interval=10ms"]);
        let flown = || (relay.metric(FLOWN) >= FLIGHTS).then_some(());
        look_until(Instant::now() + PATIENCE, flown).unwrap_or_else(|| panic!("{bind}"));
        let part = &readiness(&relay).1["parts"]["udp"];
        assert!(part["condition"] == "ok", "{bind}: {part}");
        assert!((relay.metric("pilot_beacon_udp_nodes")).abs() < f64::EPSILON);
        if bind.starts_with("127") {
            // A node of that id is a node like others, but for the moment in which the canary over
            // WebSocket, which has the same, is in the air.
            let node = UdpNode::silent(relay.udp, u32::MAX);
            let served = || {
                node.observed();
                node.relay(u32::MAX, b"to itself");
                (!node.is_silent(Duration::from_secs(1))).then_some(())
            };
            look_until(Instant::now() + PATIENCE, served).expect("it is served");
            assert!((relay.metric("pilot_beacon_udp_nodes") - 1.0).abs() < f64::EPSILON);
            assert_balance(&relay);
        }
    }
}

#[test]
fn canary_passes_the_limits_of_peers() {
    let (node, other) = (Node::new(11), Node::new(12));
    let limits = ["--max-peers=1", "--upgrade-rate=1", "--upgrade-burst=1", "--relay-rate=1"];
    let logins = ["--relay-name=relay.test", "--min-auth-generation=3", "--canary-interval=10ms"];
    let relay = Relay::with_nodes(&[&node, &other], &[limits.as_slice(), &logins].concat());
    let mut peer = Peer::upgrade(relay.wss);
    peer.authenticate(&node, 3);
    wait_for_flights(&relay, FLIGHTS);
    assert_eq!(readiness(&relay).0, 200);
    // The limit lets one in a second pass, which finds no place.
    let limited = || (Peer::request(relay.wss, "").1 == 429).then_some(());
    look_until(Instant::now() + PATIENCE, limited).expect("peers are limited");
}

#[test]
fn canary_finds_the_listener_wherever_it_is() {
    for bind in ["0.0.0.0:0", "[::]:0", "127.0.0.1:0"] {
        let relay =
            Relay::start(["--wss-bind", bind, "--public-plaintext", "--canary-interval=10ms"]);
        wait_for_flights(&relay, FLIGHTS);
    }
}

#[test]
fn readiness_names_each_part_with_its_reason() {
    let started = Instant::now();
    let relay = Relay::start([] as [&str; 0]);
    let (code, line) = http_get(relay.admin, "/readyz");
    // Other tests may keep the machine busy, which degrades the scheduler.
    assert!(code == 200 && (line == "ready\n" || line.contains("; scheduler: ")), "{line}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let (status, whole) = readiness(&relay);
    assert_eq!((status, &whole["ready"], &whole["phase"]), (200, &true.into(), &"running".into()));
    let parts = whole["parts"].as_object().unwrap();
    let names: Vec<_> = parts.keys().map(String::as_str).collect();
    let others = ["acme", "audit", "certificates", "control", "keys", "reload", "switches", "udp"];
    let mut expected =
        vec!["canary", "cluster", "descriptors", "drain", "memory", "registry", "scheduler"];
    expected.extend(others);
    expected.sort_unstable();
    assert_eq!(names, expected);
    for (name, part) in parts {
        // Other tests may keep the machine busy.
        assert!(part["condition"] == "ok" || name == "scheduler", "{name}: {part}");
        assert!(!part["reason"].as_str().unwrap().is_empty(), "{name}");
    }
    let reason = |name: &str| parts[name]["reason"].as_str().unwrap().to_owned();
    assert!(reason("canary").starts_with("back after "), "{parts:?}");
    assert!(reason("descriptors").contains(" of "), "{parts:?}");
    assert_eq!(relay.metric("pilot_beacon_ready"), 1.0);
    let looked = || relay.metric("pilot_beacon_scheduler_lag_seconds_count") > 0.0;
    assert!(look_until(Instant::now() + PATIENCE, || looked().then_some(())).is_some());

    let mut stream = TcpStream::connect(relay.admin).unwrap();
    let request = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let json: Value = serde_json::from_str(&read_response(&mut stream).1).unwrap();
    assert_eq!(json["ready"], true);
}

#[test]
fn relay_whose_listener_cannot_be_reached_is_not_ready_until_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, away) = (folder.path().join("wss.sock"), folder.path().join("away.sock"));
    let bind = format!("unix:{}", socket.display());
    let relay = Relay::start(["--wss-bind", &bind, "--canary-interval", "10ms"]);
    wait_for_flights(&relay, FLIGHTS);
    assert_eq!(readiness(&relay).0, 200);

    fs::rename(&socket, &away).unwrap();
    relay.wait_for_metric("pilot_beacon_ready", 0.0);
    let (status, text) = http_get(relay.admin, "/readyz");
    assert_eq!(status, 503);
    assert!(text.starts_with("not ready; canary: cannot connect to the listener"), "{text}");
    let (status, whole) = readiness(&relay);
    assert_eq!((status, &whole["parts"]["canary"]["condition"]), (503, &"failed".into()));
    assert!(relay.metric("pilot_beacon_canary_total{result=\"connect\"}") >= 2.0);
    assert_eq!(http_get(relay.admin, "/healthz").0, 200);

    fs::rename(&away, &socket).unwrap();
    relay.wait_for_metric("pilot_beacon_ready", 1.0);
    relay.wait_for_line("the canary is served again");
}

#[test]
fn canary_that_a_reload_turns_on_flies_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relay.toml");
    fs::write(&file, "canary_interval = \"0s\"").unwrap();
    let relay = Relay::start(["--config", file.to_str().unwrap()]);
    assert_eq!(readiness(&relay).1["parts"]["canary"]["reason"], "off");
    fs::write(&file, "canary_interval = \"1h\"").unwrap();
    relay.signal("HUP");
    wait_for_flights(&relay, 1.0);
    // The one over UDP may be back a moment later.
    let flown = || {
        let (status, whole) = readiness(&relay);
        let reason = whole["parts"]["udp"]["reason"].as_str().unwrap();
        (status == 200 && reason.starts_with("back after ")).then_some(())
    };
    look_until(Instant::now() + PATIENCE, flown).unwrap_or_else(|| panic!("{}", relay.log()));
}

//! Each command: what it answers, in words and as JSON, and what it does.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::{Duration, Instant};

use super::{ask, audit, fail, run, say};
use crate::harness::{Node, PATIENCE, Relay, http_get, look_until, write_directory};
use crate::peer::{Peer, UdpNode};

#[test]
fn status_and_peers_tell_who_is_here() {
    let node = Node::new(11);
    let relay = Relay::with_nodes(&[&node], &[]);
    let _peer = Peer::log_in(relay.wss, &node);
    let udp = UdpNode::register(relay.udp, 21);

    let status = ask(&relay, &["status"]);
    assert_eq!((&status["phase"], &status["wss_peers"]), (&"running".into(), &1.into()));
    assert!(say(&relay, &["status"]).contains("udp_nodes"), "no such line");

    let peers = ask(&relay, &["peers"]);
    assert_eq!(peers["total"], 2);
    let [wss, other] = peers["peers"].as_array().unwrap().as_slice() else { panic!("{peers}") };
    assert_eq!((&wss["node"], &wss["over"]), (&11.into(), &"wss".into()));
    assert!(wss["session"]["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{wss}");
    assert_eq!(wss["session"]["waiting"], 0);
    assert_eq!((&other["node"], &other["over"]), (&21.into(), &"udp".into()));
    assert_eq!(other["endpoint"]["address"], udp.address().to_string());

    let table = say(&relay, &["peers", "--limit", "1"]);
    assert!(table.starts_with("NODE  OVER"), "{table}");
    assert!(table.contains("1 of 2; more with --limit"), "{table}");
    let again = ask(&relay, &["peer", "21"]);
    assert_eq!((&again["over"], &again["node"]), (&other["over"], &other["node"]));
    assert_eq!(again["endpoint"]["address"], other["endpoint"]["address"]);
    assert!(say(&relay, &["peer", "11"]).starts_with("session    from 127.0.0.1:"));
    let (code, error) = fail(relay.state_dir(), &["peer", "99"]);
    assert_eq!((code, error.contains("node 99 is neither connected nor known")), (1, true));
}

/// How `status` with these words ends, and what it prints.
fn status(relay: &Relay, words: &[&str]) -> (i32, String) {
    let output = run(relay.state_dir(), &[&["status"], words].concat());
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

/// How `status --ready` ends, and what it prints; `/readyz` has to come to the same.
fn health(relay: &Relay) -> (i32, String) {
    let (code, line) = status(relay, &["--ready"]);
    let (http, said) = http_get(relay.admin, "/readyz");
    assert_eq!((code, http), if code == 0 { (0, 200) } else { (4, 503) }, "{line}{said}");
    (code, line)
}

#[test]
fn status_exits_0_ready_3_degraded_and_4_not_ready_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("wss.sock");
    let bind = format!("unix:{}", socket.display());
    let relay = Relay::start(["--wss-bind", &bind, "--canary-interval", "10ms"]);
    // Other tests may keep the machine busy, which degrades the scheduler.
    let is_ready = || Some(status(&relay, &[])).filter(|(code, _)| *code == 0);
    let (_, text) = look_until(Instant::now() + PATIENCE, is_ready).expect("nothing is wrong");
    assert!(text.starts_with("relay    ready\nreload   the last, at 2"), "{text}");
    let (code, line) = health(&relay);
    assert_eq!((code, line.starts_with("ready")), (0, true), "{line}");

    say(&relay, &["switch", "punch", "off"]);
    let (code, text) = status(&relay, &[]);
    assert!(text.starts_with("relay    ready, but degraded\n"), "{text}");
    let why = "         switches degraded: switched off by an operator: punch\n";
    let remedy = "         -> `beacon-relay switch punch on`\n";
    assert!(text.contains(&format!("{why}{remedy}")), "{text}");
    let (probed, line) = health(&relay);
    assert_eq!((code, probed), (3, 0));
    assert!(line.starts_with("ready, but degraded; ") && line.contains("punch"), "{line}");

    fs::rename(&socket, folder.path().join("away.sock")).unwrap();
    relay.wait_for_metric("pilot_beacon_ready", 0.0);
    let answer = ask(&relay, &["status"]);
    assert_eq!((&answer["phase"], &answer["verdict"]), (&"running".into(), &"not ready".into()));
    let first = &answer["reasons"][0];
    assert_eq!((&first["part"], &first["condition"]), (&"canary".into(), &"failed".into()));
    assert!(first["remedy"].as_str().unwrap().starts_with("let the relay's user connect"));
    let (code, text) = status(&relay, &[]);
    assert!(
        text.starts_with("relay    not ready\n         canary failed: cannot connect"),
        "{text}"
    );
    let (probed, line) = health(&relay);
    assert_eq!((code, probed), (4, 4));
    assert!(line.starts_with("not ready; canary: cannot connect to the listener"), "{line}");
    // A health check all day long fills no log.
    let asked = audit(&relay);
    assert!(asked.iter().all(|line| line["action"] != "readiness"), "{asked:?}");
}

#[test]
fn status_tells_the_last_reload_and_what_waits_for_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relay.toml");
    fs::write(&file, "max_nodes = 1000\n").unwrap();
    let relay = Relay::start(["--config", file.to_str().unwrap()]);

    fs::write(&file, "max_nodes = 1000\nbind_wait = \"2m\"\n").unwrap();
    say(&relay, &["reload"]);
    assert_eq!(ask(&relay, &["status"])["needs_restart"], serde_json::json!(["bind_wait"]));
    assert!(say(&relay, &["status"]).contains("restart  needed by bind_wait\n"));

    fs::write(&file, "max_nodes = 0\n").unwrap();
    fail(relay.state_dir(), &["reload"]);
    let text = say(&relay, &["status"]);
    assert!(text.contains("reload degraded: not reloaded, everything is as it was"), "{text}");
    assert!(text.contains(", failed: ") && text.contains("max_nodes"), "{text}");
    assert!(text.contains("restart  needed by bind_wait\n"), "{text}");
}

#[test]
fn kick_ends_that_session_and_forgets_that_endpoint_and_no_other() {
    let nodes = [11, 12, 13].map(Node::new);
    let relay = Relay::with_nodes(&nodes.each_ref(), &[]);
    let [mut a, mut b, mut kicked] = nodes.each_ref().map(|node| Peer::log_in(relay.wss, node));
    let (stays, goes) = (UdpNode::register(relay.udp, 21), UdpNode::register(relay.udp, 22));

    let answer = ask(&relay, &["kick", "13"]);
    assert_eq!(answer, serde_json::json!({ "node": 13, "session": true, "endpoint": false }));
    assert_eq!(kicked.read_close(), (1008, "kicked".to_owned()));
    relay.wait_for_metric("pilot_beacon_wss_sessions_ended_total{reason=\"kicked\"}", 1.0);
    assert_eq!(say(&relay, &["kick", "22"]), "kicked node 22: its endpoint is gone\n");

    a.relay(11, 22, b"nobody has it");
    relay.wait_for_dropped("unknown_destination", 1);
    a.relay(11, 12, b"there");
    assert_eq!(b.delivery(), (11, b"there".to_vec()));
    b.relay(12, 21, b"and over UDP");
    assert_eq!(stays.delivery(), (12, b"and over UDP".to_vec()));
    assert!(goes.is_silent(Duration::from_millis(50)));

    // It is no ban.
    let _again = Peer::log_in(relay.wss, &nodes[2]);
    assert_eq!(goes.observed(), goes.address());
    assert_eq!(fail(relay.state_dir(), &["kick", "99"]).0, 1);
}

#[test]
fn reload_takes_keys_in_and_says_how_many() {
    let nodes = [11, 12].map(Node::new);
    let relay = Relay::with_nodes(&[&nodes[0]], &[]);
    write_directory(relay.keys(), &nodes.each_ref());
    let answer = ask(&relay, &["reload"]);
    assert!(answer.to_string().contains("\"added\":1"), "{answer}");
    let _accepted = Peer::log_in(relay.wss, &nodes[1]);

    fs::write(relay.keys().join("keys.json"), "{").unwrap();
    let (code, error) = fail(relay.state_dir(), &["reload"]);
    assert_eq!((code, error.contains("keys.json")), (1, true), "{error}");
}

#[test]
fn reload_that_takes_most_keys_away_needs_force() {
    let nodes: Vec<_> = (1..=20).map(Node::new).collect();
    let relay = Relay::with_nodes(&nodes.iter().collect::<Vec<_>>(), &[]);
    let (mut stays, mut goes) =
        (Peer::log_in(relay.wss, &nodes[0]), Peer::log_in(relay.wss, &nodes[19]));
    write_directory(relay.keys(), &[&nodes[0]]);
    let (code, error) = fail(relay.state_dir(), &["reload"]);
    assert_eq!(code, 1);
    assert!(error.contains("remove 19") && error.contains("--force"), "{error}");
    stays.relay(1, 20, b"nobody is thrown out");
    assert_eq!(goes.delivery(), (1, b"nobody is thrown out".to_vec()));

    let answer = ask(&relay, &["reload", "--force"]);
    assert!(answer.to_string().contains("\"removed\":19"), "{answer}");
    assert_eq!(goes.read_close().0, 1008);
    stays.relay(1, 1, b"to itself");
    assert_eq!(stays.delivery(), (1, b"to itself".to_vec()));
}

#[test]
fn log_level_changes_what_is_logged() {
    let node = Node::new(11);
    let relay = Relay::with_nodes(&[&node], &[]);
    say(&relay, &["log-level", "warn"]);
    drop(Peer::log_in(relay.wss, &node));
    relay.wait_for_metric("pilot_beacon_wss_active", 0.0);
    assert_eq!(ask(&relay, &["log-level", "debug"])["filter"], "debug");
    let _peer = Peer::log_in(relay.wss, &node);
    relay.wait_for_line("peer connected");
    assert_eq!(relay.log().matches("peer connected").count(), 1);

    let (code, error) = fail(relay.state_dir(), &["log-level", "loud"]);
    assert_eq!((code, error.contains("`loud` is no level")), (64, true), "{error}");
}

#[test]
fn drain_ends_the_relay_as_sigterm_does() {
    let node = Node::new(11);
    let mut relay = Relay::with_nodes(&[&node], &["--drain-time", "100ms"]);
    let mut peer = Peer::log_in(relay.wss, &node);
    assert!(say(&relay, &["drain"]).contains("drains"));
    assert_eq!(peer.read_close().0, 1001);
    assert_eq!(relay.wait_for_end(), 0);
    assert!(!relay.state_dir().join("control.sock").exists(), "the socket stayed");
    let lines = audit(&relay);
    assert_eq!((&lines[0]["action"], &lines[0]["result"]), (&"drain".into(), &"ok".into()));
}

#[test]
fn top_names_the_busiest_by_an_estimate() {
    let nodes = [11, 12, 13].map(Node::new);
    let relay = Relay::with_nodes(&nodes.each_ref(), &["--relay-rate", "0"]);
    let [mut busy, mut lazy, mut reader] =
        nodes.each_ref().map(|node| Peer::log_in(relay.wss, node));
    lazy.relay(12, 13, b"x");
    for _ in 0..1_000 {
        busy.relay(11, 13, &[0; 1_000]);
        while reader.delivery().0 != 11 {}
    }
    let top = ask(&relay, &["top", "--count", "1"]);
    assert_eq!(top["senders"][0]["node"], 11);
    assert_eq!(top["receivers"][0]["node"], 13);
    assert_eq!(top["senders"].as_array().unwrap().len(), 1);
    assert!(top["senders"][0]["bytes"].as_u64().unwrap() > 10_000, "{top}");
    assert!(say(&relay, &["top"]).contains("RECEIVER  PACKETS/S  BYTES/S"));
}

#[test]
fn audit_log_says_who_did_what_and_only_its_owner_reads_it() {
    let relay = Relay::start::<&str>([]);
    say(&relay, &["status"]);
    fail(relay.state_dir(), &["kick", "7"]);
    say(&relay, &["log-level", "debug"]);

    let path = relay.state_dir().join("audit.jsonl");
    let file = fs::metadata(&path).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    let by = format!("uid {}", file.uid());
    let lines = audit(&relay);
    let of = |line: &serde_json::Value| (line["action"].clone(), line["argument"].clone());
    assert_eq!(of(&lines[0]), ("status".into(), serde_json::json!({})));
    assert_eq!(of(&lines[1]), ("kick".into(), serde_json::json!({ "node": 7 })));
    assert_eq!(
        lines[1]["result"],
        "node 7 is neither connected nor known here; `beacon-relay explain 7` says where it is"
    );
    assert_eq!(of(&lines[2]), ("log-level".into(), serde_json::json!({ "filter": "debug" })));
    for line in &lines {
        assert_eq!(line["by"], by);
        assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    }
    relay.wait_for_metric("pilot_beacon_control_actions_total{result=\"ok\"}", 2.0);
    relay.wait_for_metric("pilot_beacon_control_actions_total{result=\"failed\"}", 1.0);
}

#[test]
fn kicked_node_is_kept_out_for_the_time_and_let_in_again() {
    let node = Node::new(11);
    let relay = Relay::with_nodes(&[&node], &[]);
    let mut peer = Peer::log_in(relay.wss, &node);
    let udp = UdpNode::register(relay.udp, 21);

    assert_eq!(
        say(&relay, &["kick", "11", "--for", "1h"]),
        "kicked node 11: its session ends, it is kept out for 1h\n"
    );
    assert_eq!(peer.read_close(), (1008, "kicked".to_owned()));
    let mut again = Peer::upgrade(relay.wss);
    let (opcode, payload) = again.try_to_authenticate(&node, 2);
    assert_eq!(
        (opcode, &payload[..2], &payload[2..]),
        (8, &1008_u16.to_be_bytes()[..], &b"kicked"[..])
    );
    relay.wait_for_metric("pilot_beacon_wss_connections_total{outcome=\"kicked\"}", 1.0);
    assert!(say(&relay, &["peer", "11"]).contains("it is kept out for 60m more"));

    say(&relay, &["kick", "21", "--for", "90s"]);
    udp.discover();
    relay.wait_for_dropped("kicked", 1);
    assert_eq!(relay.metric("pilot_beacon_udp_nodes"), 0.0);

    assert_eq!(say(&relay, &["kick", "11", "--for", "0s"]), "node 11 may come in again\n");
    let _back = Peer::log_in(relay.wss, &node);
    let (code, error) = fail(relay.state_dir(), &["kick", "11", "--for", "soon"]);
    assert_eq!((code, error.contains("not a duration")), (64, true), "{error}");
}

#[test]
fn peers_are_sorted_and_listed_page_by_page() {
    let nodes = [11, 12, 13].map(Node::new);
    let relay = Relay::with_nodes(&nodes.each_ref(), &[]);
    let _peers = [1, 0, 2].map(|index: usize| Peer::log_in(relay.wss, &nodes[index]));
    let _udp = UdpNode::register(relay.udp, 21);
    let listed = |words: &[&str]| {
        let answer = ask(&relay, &[&["peers"], words].concat());
        let peers = answer["peers"].as_array().unwrap().iter();
        peers.map(|peer| peer["node"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(listed(&[]), [11, 12, 13, 21]);
    assert_eq!(listed(&["--after", "11", "--limit", "2"]), [12, 13]);
    assert_eq!(listed(&["--after", "21"]), [0; 0]);
    // The last to come is the first.
    assert_eq!(listed(&["--sort", "age"]), [21, 13, 11, 12]);
    assert_eq!(listed(&["--sort", "silence", "--limit", "1"]), [21]);
    assert_eq!(listed(&["--sort", "waiting"])[3], 21, "it has no outbox");
}

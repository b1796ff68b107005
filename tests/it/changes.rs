//! What changes while the relay runs: keys, reloads, and its end (SPEC §3.8, §5.6).

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::control::say;
use crate::harness::{Node, PATIENCE, Relay, http_get, look_until, write_directory};
use crate::peer::Peer;

const LAST_GOOD: &str = "pilot_beacon_keys_last_reload_success";

/// When the keys and the settings were last read well, in whole seconds.
const LAST_READ: [&str; 2] = [
    "pilot_beacon_keys_last_reload_timestamp_seconds",
    "pilot_beacon_last_reload_timestamp_seconds",
];

/// In which the peers are sent away.
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// What a loaded machine may add to a time that is held to an upper bound.
const SLACK: Duration = Duration::from_millis(800);

fn reads(result: &str) -> String {
    format!("pilot_beacon_keys_reload_total{{result=\"{result}\"}}")
}

fn reloads(result: &str) -> String {
    format!("pilot_beacon_reloads_total{{result=\"{result}\"}}")
}

fn assert_connected(a: &mut Peer, b: &mut Peer, [to_b, to_a]: [(u32, u32); 2]) {
    a.relay(to_b.0, to_b.1, b"there");
    assert_eq!(b.delivery(), (to_b.0, b"there".to_vec()));
    b.relay(to_a.0, to_a.1, b"and back");
    assert_eq!(a.delivery(), (to_a.0, b"and back".to_vec()));
}

#[test]
fn spec_3_8_withdrawn_or_changed_key_ends_that_session_and_no_other() {
    let nodes = [11, 12, 13, 14].map(Node::new);
    let relay = Relay::with_nodes(&nodes.each_ref(), &[]);
    let [mut a, mut b, mut removed, mut changed] =
        nodes.each_ref().map(|node| Peer::log_in(relay.wss, node));

    let rekeyed = Node { id: 14, key: Node::new(99).key };
    write_directory(relay.keys(), &[&nodes[0], &nodes[1], &rekeyed]);
    assert_eq!(removed.read_close().0, 1008);
    assert_eq!(changed.read_close().0, 1008);

    assert_connected(&mut a, &mut b, [(11, 12), (12, 11)]);
    relay.wait_for_metric("pilot_beacon_wss_active", 2.0);
    let withdrawn = "pilot_beacon_wss_sessions_ended_total{reason=\"key_withdrawn\"}";
    relay.wait_for_metric(withdrawn, 2.0);
    assert_eq!(Peer::upgrade(relay.wss).try_to_authenticate(&nodes[2], 2).0, 8);
    assert_eq!(Peer::upgrade(relay.wss).try_to_authenticate(&nodes[3], 2).0, 8);
    let _lives = Peer::log_in(relay.wss, &rekeyed);
}

#[test]
fn broken_key_file_keeps_the_keys_and_is_named_with_line_and_column() {
    let (a, b) = (Node::new(11), Node::new(12));
    let relay = Relay::with_nodes(&[&a], &[]);
    let mut peer = Peer::log_in(relay.wss, &a);
    assert_eq!(relay.metric(LAST_GOOD), 1.0);

    fs::write(relay.keys().join("keys.json"), "{\n  \"11\": oops\n}\n").unwrap();
    let line = relay.wait_for_line("the key file is broken, its keys stay");
    assert!(line.contains("line=2") && line.contains("column=9"), "{line}");
    relay.wait_for_metric(LAST_GOOD, 0.0);
    relay.wait_for_metric(&reads("invalid"), 1.0);
    peer.send(9, b"still there?");
    assert_eq!(peer.read(), Some((10, b"still there?".to_vec())));
    let _again = Peer::log_in(relay.wss, &a);

    write_directory(relay.keys(), &[&a, &b]);
    relay.wait_for_metric(LAST_GOOD, 1.0);
    let _new = Peer::log_in(relay.wss, &b);
}

#[test]
fn key_file_with_other_keys_for_all_nodes_disconnects_nobody_until_it_is_forced() {
    let nodes: Vec<_> = (11..31).map(Node::new).collect();
    let nodes: Vec<_> = nodes.iter().collect();
    let relay = Relay::with_nodes(&nodes, &[]);
    let mut peers: Vec<_> = nodes.iter().map(|node| Peer::log_in(relay.wss, node)).collect();

    let other = |node: &&Node| Node { id: node.id, key: Node::new(node.id + 1_000).key };
    let others: Vec<_> = nodes.iter().map(other).collect();
    write_directory(relay.keys(), &others.iter().collect::<Vec<_>>());
    let line = relay.wait_for_line("the key file lost or changed more than half of its keys");
    assert!(line.contains("removed=0 changed=20 entries=20"), "{line}");
    relay.wait_for_metric(&reads("refused"), 1.0);
    relay.wait_for_metric("pilot_beacon_wss_active", 20.0);
    let _again = Peer::log_in(relay.wss, nodes[19]);

    say(&relay, &["reload", "--force"]);
    assert_eq!(peers[0].read_close().0, 1008);
    relay.wait_for_metric("pilot_beacon_wss_active", 0.0);
    let _lives = Peer::log_in(relay.wss, &others[0]);
}

#[test]
fn hangup_reloads_the_keys_and_says_what_came_of_it() {
    let (a, b) = (Node::new(11), Node::new(12));
    let relay = Relay::with_nodes(&[&a], &[]);
    write_directory(relay.keys(), &[&a, &b]);
    relay.signal("HUP");
    relay.wait_for_metric(&reloads("ok"), 1.0);
    let line = relay.wait_for_line("reloaded");
    assert!(line.contains("removed=0"), "{line}");
    let _peer = Peer::log_in(relay.wss, &b);
    let read = LAST_READ.map(|name| relay.metric(name));
    let later = look_until(Instant::now() + PATIENCE, || {
        relay.signal("HUP");
        let mut both = LAST_READ.iter().zip(read);
        both.all(|(name, before)| relay.metric(name) > before).then_some(())
    });
    later.expect("a second passes");

    fs::write(relay.keys().join("keys.json"), "{").unwrap();
    relay.signal("HUP");
    relay.wait_for_line("not reloaded: everything stays as it was");
    relay.wait_for_metric(&reloads("failed"), 1.0);
    let _peer = Peer::log_in(relay.wss, &b);
}

#[test]
fn changed_configuration_file_is_taken_over_and_the_difference_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relay.toml");
    fs::write(&file, "upgrade_burst = 1\nupgrade_rate = 1\nmax_peers = 9").unwrap();
    let relay = Relay::start(["--config", file.to_str().unwrap()]);
    let refused = |relay: &Relay| (0..3).any(|_| Peer::request(relay.wss, "").1 == 429);
    assert!(refused(&relay));

    // In place, as an editor may: it is read once it is still.
    fs::write(&file, "upgrade_burst = 50\nupgrade_rate = 50\nmax_peers = 9\nbeacon_id = 4")
        .unwrap();
    relay.wait_for_metric(&reloads("ok"), 1.0);
    assert!(!refused(&relay));
    let line = relay.wait_for_line("a setting has changed");
    assert!(line.contains("setting=\"upgrade_rate\" old=1 new=50"), "{line}");
    let line = relay.wait_for_line("a changed setting needs a restart");
    assert!(line.contains("setting=\"beacon_id\" old=0 new=4"), "{line}");
    let line = relay.wait_for_line("reloaded");
    assert!(line.contains("applied=2") && line.contains("needs_restart=1"), "{line}");

    // A mistake changes nothing, not even what is right beside it.
    fs::write(&file, "upgrade_burst = 1\nidle_timeout = \"9\"").unwrap();
    relay.wait_for_metric(&reloads("failed"), 1.0);
    relay.wait_for_metric("pilot_beacon_last_reload_success", 0.0);
    let line = relay.wait_for_line("not reloaded: everything stays as it was");
    assert!(line.contains("relay.toml: line 2: idle_timeout = \"9\": not a duration"), "{line}");
    assert!(!refused(&relay));

    // A signal does not wait; the key file that is broken keeps the settings as well.
    fs::write(&file, "upgrade_burst = 1\nupgrade_rate = 1").unwrap();
    fs::write(relay.state_dir().join("keys.json"), "{").unwrap();
    relay.signal("HUP");
    relay.wait_for_metric(&reloads("failed"), 2.0);
    assert!(!refused(&relay));
    fs::write(relay.state_dir().join("keys.json"), "{}").unwrap();
    relay.signal("HUP");
    relay.wait_for_metric(&reloads("ok"), 2.0);
    relay.wait_for_metric("pilot_beacon_last_reload_success", 1.0);
    assert!(refused(&relay));
}

#[test]
fn level_of_the_log_is_changed_by_a_reload() {
    let folder = tempfile::tempdir().unwrap();
    let (file, node) = (folder.path().join("relay.toml"), Node::new(11));
    fs::write(&file, "log_level = \"info\"").unwrap();
    let relay = Relay::with_nodes(&[&node], &["--config", file.to_str().unwrap()]);
    drop(Peer::log_in(relay.wss, &node));
    // The relay logs a peer after it has answered it.
    relay.wait_for_metric("beacon_relay_sessions{door=\"pilot\"}", 0.0);
    fs::write(&file, "log_level = \"debug\"").unwrap();
    relay.signal("HUP");
    relay.wait_for_line("reloaded");
    assert!(!relay.log().contains("peer connected"), "{}", relay.log());
    drop(Peer::log_in(relay.wss, &node));
    relay.wait_for_line("peer connected");
}

#[test]
fn level_that_an_operator_has_set_outlives_a_reload_of_something_else() {
    let folder = tempfile::tempdir().unwrap();
    let (file, node) = (folder.path().join("relay.toml"), Node::new(11));
    fs::write(&file, "max_nodes = 10").unwrap();
    let relay = Relay::with_nodes(&[&node], &["--config", file.to_str().unwrap()]);
    say(&relay, &["log-level", "debug"]);
    fs::write(&file, "max_nodes = 20").unwrap();
    relay.signal("HUP");
    relay.wait_for_line("reloaded");
    drop(Peer::log_in(relay.wss, &node));
    relay.wait_for_line("peer connected");

    // One that hides what a reload has to say comes after that.
    fs::write(&file, "max_nodes = 30\nlog_level = \"warn\"").unwrap();
    relay.signal("HUP");
    relay.wait_for_line("setting=\"log_level\" old=info new=warn");
    let reloaded = || (relay.log().matches("reloaded").count() == 2).then_some(());
    look_until(Instant::now() + PATIENCE, reloaded).expect("it is told");
}

#[test]
fn node_enrolled_while_the_relay_runs_logs_in() {
    let node = Node::new(11);
    let relay = Relay::start([] as [&str; 0]);
    assert_eq!(Peer::upgrade(relay.wss).try_to_authenticate(&node, 2).0, 8);

    let key = STANDARD.encode(node.key.verifying_key().to_bytes());
    let mut enroll = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    enroll.args(["enroll", "11", &key, "--state-dir"]).arg(relay.state_dir());
    assert!(enroll.output().unwrap().status.success());
    relay.wait_for_metric("pilot_beacon_keys_entries", 1.0);
    let _peer = Peer::log_in(relay.wss, &node);
}

#[test]
fn spec_5_6_shutdown_closes_all_with_1001_and_waits_for_nobody() {
    let nodes: Vec<_> = (11..21).map(Node::new).collect();
    let nodes: Vec<_> = nodes.iter().collect();
    let mut relay = Relay::with_nodes(&nodes, &["--drain-time", "2s"]);
    let mut peers: Vec<_> = nodes.iter().map(|node| Peer::log_in(relay.wss, node)).collect();
    assert_eq!(http_get(relay.admin, "/readyz").0, 200);
    // These do not answer: one that reads its close, and one in the midst of its login.
    let mut deaf = peers.pop().unwrap();
    let _half = Peer::upgrade(relay.wss);

    let began = Instant::now();
    relay.signal("TERM");
    relay.wait_for_line("draining");
    // Soon after that line, and long before the end.
    let refuses = |status: fn(&Relay) -> u16| {
        let refused = look_until(began + DRAIN_TIME, || (status(&relay) == 503).then_some(()));
        assert!(refused.is_some(), "{}", relay.log());
    };
    refuses(|relay| http_get(relay.admin, "/readyz").0);
    refuses(|relay| Peer::request(relay.wss, "").1);
    for peer in &mut peers {
        assert_eq!(peer.read_close().0, 1001);
    }
    let (opcode, payload) = deaf.read().unwrap();
    assert_eq!((opcode, &payload[..2]), (8, &1001_u16.to_be_bytes()[..]));

    assert_eq!(relay.wait_for_end(), 0);
    let took = began.elapsed();
    let most = DRAIN_TIME + Duration::from_secs(1);
    assert!(took <= most + SLACK, "{took:?} for a drain time of {DRAIN_TIME:?}");
    relay.wait_for_line("stopped");
}

#[test]
fn second_signal_ends_the_relay_at_once() {
    let nodes = [11, 12, 13].map(Node::new);
    for second in ["TERM", "INT"] {
        let mut relay = Relay::with_nodes(&nodes.each_ref(), &["--drain-time", "1h"]);
        let _peers = nodes.each_ref().map(|node| Peer::log_in(relay.wss, node));
        relay.signal("TERM");
        relay.wait_for_line("draining");
        // Half a second later it is another one.
        assert_eq!(relay.signal_until_gone(second), 1);
    }
}

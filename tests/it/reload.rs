//! Ten thousand peers, and a reload of everything that can be reloaded: nobody notices but the
//! one whose key went.

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::time::Instant;

use beacon_relay::config::live_settings;

use crate::cells::assert_balance;
use crate::descriptors::Descriptors;
use crate::harness::{Node, Relay, write_directory};
use crate::peer::{Peer, upgrade_request};

const PEERS: u32 = 10_000;

/// Who loses its key, and who gets one.
const REMOVED: u32 = 5_000;
const ADDED: u32 = PEERS + 1;

/// Every n-th peer exchanges packets with its neighbour.
const SAMPLE: usize = 100;

/// Each setting that a running relay takes over, before and after the reload.
const SETTINGS: [(&str, &str, &str); 32] = [
    ("audit", "\"best-effort\"", "\"required\""),
    ("trusted_proxy", "[\"127.0.0.1\"]", "[\"127.0.0.1\", \"10.0.0.0/8\"]"),
    ("allow_origin", "[]", "[\"https://a.test\"]"),
    ("relay_name", "\"before.test\"", "\"after.test\""),
    ("min_auth_generation", "1", "2"),
    ("auth_timeout", "\"10s\"", "\"9s\""),
    ("max_peers", "10500", "10000"),
    ("upgrade_rate", "0", "1000"),
    ("upgrade_burst", "1", "1000"),
    ("idle_timeout", "\"20m\"", "\"19m\""),
    ("ping_interval", "\"10m\"", "\"9m\""),
    ("pong_timeout", "\"1m\"", "\"50s\""),
    ("write_timeout", "\"5s\"", "\"4s\""),
    ("drain_time", "\"5s\"", "\"0s\""),
    ("outbox_bytes", "262144", "131072"),
    ("outbox_age", "\"2s\"", "\"3s\""),
    ("max_nodes", "1000", "999"),
    ("relay_rate", "1", "0"),
    ("relay_bytes", "1000", "0"),
    ("discover_rate", "1000", "500"),
    ("discover_burst", "1000", "500"),
    ("udp_sender_check", "\"off\"", "\"observed\""),
    ("punch_rate", "10", "11"),
    ("punch_allow", "[]", "\"*\""),
    ("require_punch_grant", "false", "true"),
    ("peers", "[]", "[\"127.0.0.1:1\"]"),
    ("open_gossip", "false", "true"),
    ("canary_interval", "\"5s\"", "\"1s\""),
    ("log_level", "\"info\"", "\"warn,beacon_relay::server=info\""),
    ("bus_retention", "\"7d\"", "\"8d\""),
    ("audit_retention", "\"90d\"", "\"91d\""),
    ("audit_max_bytes", "1073741824", "2147483648"),
];

fn file(value: fn(&(&str, &'static str, &'static str)) -> &'static str) -> String {
    let mut text = String::new();
    for setting in &SETTINGS {
        writeln!(text, "{} = {}", setting.0, value(setting)).unwrap();
    }
    text
}

/// Whether nothing has come, neither a packet nor the end.
fn is_undisturbed(peer: &Peer) -> bool {
    peer.stream.set_nonblocking(true).unwrap();
    let peeked = peer.stream.peek(&mut [MaybeUninit::uninit()]);
    peer.stream.set_nonblocking(false).unwrap();
    peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn ten_thousand_peers_notice_nothing_of_a_reload() {
    // Those of a door are there with it: tests/it/netbird.
    let doors = ["netbird_", "peerbus_", "middleman_", "keyop_"];
    let is_of_door = |key: &&str| doors.iter().any(|door| key.starts_with(door));
    let live = live_settings().filter(|key| !is_of_door(key));
    assert!(live.eq(SETTINGS.iter().map(|(key, ..)| *key)), "a setting is missing here");
    // A connection's other end is in the relay, which inherits the limit.
    let _descriptors = Descriptors::take(u64::from(PEERS));
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("relay.toml");
    fs::write(&config, file(|(_, before, _)| before)).unwrap();
    let nodes: Vec<_> = (1..=ADDED).map(Node::new).collect();
    let (added, known) = nodes.split_last().unwrap();
    let known: Vec<_> = known.iter().collect();
    let mut relay = Relay::with_nodes(&known, &["--config", config.to_str().unwrap()]);
    let log_in = |node: &&Node| {
        let mut peer = Peer::upgrade(relay.wss);
        peer.authenticate(node, 3);
        peer
    };
    let mut peers: Vec<_> = known.iter().map(|node| (node.id, log_in(node))).collect();
    assert_eq!(relay.metric("pilot_beacon_wss_active"), f64::from(PEERS));

    let keep = |node: &&Node| node.id != REMOVED;
    let kept: Vec<_> = nodes.iter().filter(keep).collect();
    write_directory(relay.keys(), &kept);
    fs::write(&config, file(|(_, _, after)| after)).unwrap();
    let began = Instant::now();
    relay.signal("HUP");
    assert_eq!(peers.remove(REMOVED as usize - 1).1.read_close().0, 1008);
    eprintln!(
        "{PEERS} peers, {} settings and two keys: reloaded in {:?}",
        SETTINGS.len(),
        began.elapsed()
    );
    relay.wait_for_metric("pilot_beacon_reloads_total{result=\"ok\"}", 1.0);
    let line = relay.wait_for_line("reloaded");
    let applied = format!("applied={} needs_restart=0 added=1 removed=1 changed=0", SETTINGS.len());
    assert!(line.contains(&applied), "{line}");
    let log = relay.log();
    for (key, ..) in SETTINGS {
        assert!(log.contains(&format!("a setting has changed setting=\"{key}\"")), "{key}\n{log}");
    }

    // All others are there, and nothing was sent to them.
    relay.wait_for_metric("pilot_beacon_wss_active", f64::from(PEERS - 1));
    assert!(peers.iter().all(|(_, peer)| is_undisturbed(peer)));
    let ended = "pilot_beacon_wss_sessions_ended_total{reason=\"";
    let metrics = relay.metrics();
    for line in metrics.lines().filter_map(|line| line.strip_prefix(ended)) {
        let expected = if line.starts_with("key_withdrawn") { " 1" } else { " 0" };
        assert!(line.ends_with(expected), "{line}");
    }

    // The rate was one packet a second, of few bytes.
    for pair in peers.chunks_mut(SAMPLE) {
        let [a, b, ..] = pair else { continue };
        for _ in 0..3 {
            exchange(a, b);
        }
    }
    assert_balance(&relay);
    // Room for one more peer, the one whose key was added, who is logged in under the new name.
    let mut newcomer = Peer::upgrade(relay.wss);
    assert_eq!(newcomer.challenge()["relay"], "after.test");
    drop(newcomer);
    let _newcomer = log_in(&added);
    let (status, head) = Peer::connect(relay.wss).ask(&upgrade_request(""));
    assert!(status == 503 && head.contains("retry-after: "), "{head}");
    relay.signal("TERM");
    assert_eq!(relay.wait_for_end(), 0);
}

/// A packet each way.
fn exchange((a_id, a): &mut (u32, Peer), (b_id, b): &mut (u32, Peer)) {
    a.relay(*a_id, *b_id, &[0xa5; 600]);
    assert_eq!(b.delivery(), (*a_id, vec![0xa5; 600]));
    b.relay(*b_id, *a_id, &[0x5a; 600]);
    assert_eq!(a.delivery(), (*b_id, vec![0x5a; 600]));
}

//! `explain`: where a node is, and why its packets did not arrive.

use std::time::Instant;

use serde_json::Value;

use super::{ask, say};
use crate::cluster::{Cluster, Fabric, wait_until};
use crate::harness::{Node, PATIENCE, Relay, look_until};
use crate::peer::{Peer, UdpNode, punch};

/// The explanation of a node once it tells of a drop for this reason, and that drop.
fn dropped(relay: &Relay, node: u32, reason: &str) -> Value {
    let found = look_until(Instant::now() + PATIENCE, || {
        let answer = ask(relay, &["explain", &node.to_string()]);
        let drops = answer["drops"].as_array().unwrap();
        drops.iter().find(|drop| drop["reason"] == reason).cloned()
    });
    found.unwrap_or_else(|| panic!("{reason}: {}", ask(relay, &["explain", &node.to_string()])))
}

fn pair(drop: &Value) -> (Option<u64>, Option<u64>, u64) {
    let node = |key: &str| drop[key].as_u64();
    (node("sender"), node("dest"), node("packets").unwrap())
}

#[test]
fn session_is_told_with_what_became_of_its_packets() {
    let nodes = [11, 12].map(Node::new);
    let relay = Relay::with_nodes(&nodes.each_ref(), &[]);
    let mut peer = Peer::log_in(relay.wss, &nodes[0]);
    peer.relay(11, 99, b"to nobody");
    peer.relay(11, 99, b"to nobody");
    peer.relay(12, 11, b"in another's name");
    relay.wait_for_dropped("unknown_destination", 2);

    let drop = dropped(&relay, 99, "unknown_destination");
    assert_eq!(pair(&drop), (Some(11), Some(99), 2));
    assert_eq!(drop["is_estimate"], false);
    assert!(drop["why"].as_str().unwrap().contains("nobody has the destination"), "{drop}");
    let drop = dropped(&relay, 11, "sender_mismatch");
    // In the name of who it proved to be.
    assert_eq!(pair(&drop), (Some(11), Some(11), 1));

    let answer = ask(&relay, &["explain", "11"]);
    assert_eq!((&answer["place"], &answer["key"]), (&"wss".into(), &"known".into()));
    assert_eq!(answer["events"][0]["what"], "logged_in");
    let text = say(&relay, &["explain", "11"]);
    assert!(
        text.starts_with("node 11: wss: over its WebSocket session, from 127.0.0.1:"),
        "{text}"
    );
    assert!(text.contains("11 -> 99  unknown_destination  2 packets"), "{text}");
    assert_eq!(ask(&relay, &["explain", "99"])["place"], "nowhere");
    assert_eq!(ask(&relay, &["explain", "99"])["key"], "unknown");
}

#[test]
fn slow_reader_is_told_with_what_it_lost() {
    let nodes = [11, 12].map(Node::new);
    let more = ["--relay-rate", "0", "--outbox-age", "1h", "--write-timeout", "1h"];
    let relay = Relay::with_nodes(&nodes.each_ref(), &more);
    let mut sender = Peer::log_in(relay.wss, &nodes[0]);
    let slow = Peer::log_in(relay.wss, &nodes[1]);
    // More than the kernel's buffers and the outbox hold.
    for _ in 0..500 {
        sender.relay(11, 12, &[0; 30_000]);
    }
    let full = dropped(&relay, 12, "outbox_full");
    assert_eq!((full["sender"].as_u64(), full["dest"].as_u64()), (Some(11), Some(12)));
    let answer = ask(&relay, &["explain", "12"]);
    assert!(answer["session"]["waiting_bytes"].as_u64().unwrap() > 100_000, "{answer}");
    assert!(answer["session"]["waiting"].as_u64().unwrap() > 2, "{answer}");
    assert!(answer["session"]["stuck"].as_f64().is_some(), "{answer}");
    assert!(say(&relay, &["explain", "12"]).contains("takes nothing of what is written to it"));

    drop(slow);
    let lost = dropped(&relay, 12, "peer_gone");
    assert_eq!(lost["sender"], 11);
    assert!(lost["packets"].as_u64().unwrap() > 2, "{lost}");
    wait_until("it is gone", || ask(&relay, &["explain", "12"])["place"] == "nowhere");
    let answer = ask(&relay, &["explain", "12"]);
    assert!(answer["session_ended"].as_f64().is_some(), "{answer}");
    assert_eq!(answer["events"][0]["what"], "ended");
}

#[test]
fn udp_node_is_told_with_its_endpoint_and_its_drops() {
    let node = Node::new(11);
    let relay =
        Relay::with_nodes(&[&node], &["--relay-rate", "5", "--udp-sender-check", "observed"]);
    let _peer = Peer::log_in(relay.wss, &node);
    let (a, b) = (UdpNode::register(relay.udp, 21), UdpNode::register(relay.udp, 22));
    for _ in 0..20 {
        a.relay(22, b"x");
    }
    assert_eq!(b.delivery(), (21, b"x".to_vec()));
    let (sender, dest, packets) = pair(&dropped(&relay, 21, "rate_limited"));
    assert_eq!((sender, dest), (Some(21), Some(22)));
    assert!((1..20).contains(&packets), "{packets}");

    let forger = UdpNode::silent(relay.udp, 11);
    forger.relay(22, b"in the name of a session");
    assert_eq!(pair(&dropped(&relay, 11, "sender_is_wss")), (Some(11), Some(22), 1));
    forger.send(&punch(11, 21, &[]));
    assert_eq!(pair(&dropped(&relay, 11, "claim_of_wss_node")), (Some(11), Some(21), 1));
    UdpNode::silent(relay.udp, 22).relay(21, b"from elsewhere");
    assert_eq!(pair(&dropped(&relay, 22, "sender_not_observed")), (Some(22), Some(21), 1));

    let answer = ask(&relay, &["explain", "21"]);
    assert_eq!(answer["place"], "udp");
    assert_eq!(answer["endpoint"]["address"], a.address().to_string());
    assert_eq!(answer["endpoint"]["is_quiet"], false);
    assert!(
        say(&relay, &["explain", "21"]).contains(&format!("udp: over UDP, to {}", a.address()))
    );
}

#[test]
fn node_of_another_relay_is_found_and_so_is_why_a_packet_was_lost() {
    let nodes = [11, 12, 13].map(Node::new);
    let cluster =
        Cluster::of_three(Fabric::Mesh, &nodes.each_ref(), &["--cluster-keepalive", "200ms"]);
    let [here, there, _] = cluster.relays.as_slice() else { panic!() };
    let mut a = Peer::log_in(here.wss, &nodes[0]);
    let mut b = Peer::log_in(there.wss, &nodes[1]);

    // Nobody has asked for it yet.
    let claimed = || ask(there, &["explain", "12"])["cluster"]["epoch_here"].as_u64().is_some();
    wait_until("a home has granted it", claimed);
    let answer = ask(here, &["explain", "12"]);
    assert_eq!(answer["place"], "cluster", "{answer}");
    let elsewhere = &answer["cluster"]["elsewhere"];
    assert_eq!(
        (&elsewhere["ownership"], &elsewhere["was_known"]),
        (&"session".into(), &false.into())
    );
    assert_eq!(elsewhere["relay"].as_str().unwrap().len(), 64);
    assert_eq!(elsewhere["epoch"], ask(there, &["explain", "12"])["cluster"]["epoch_here"]);
    assert_eq!(answer["cluster"]["homes"].as_array().unwrap().len(), 2);
    assert_eq!(ask(here, &["explain", "12"])["cluster"]["elsewhere"]["was_known"], true);
    assert!(say(here, &["explain", "12"]).contains("node 12: cluster: through relay "));

    a.relay(11, 12, b"there");
    assert_eq!(b.delivery(), (11, b"there".to_vec()));
    a.relay(11, 13, b"to nobody");
    let drop = dropped(here, 13, "unknown_destination");
    assert_eq!(pair(&drop), (Some(11), Some(13), 1));

    // A relay that hangs, and is lost.
    there.signal("STOP");
    // More than the link and the outbox in front of it hold.
    for _ in 0..400 {
        a.relay(11, 12, &[0; 60_000]);
    }
    let full = dropped(here, 12, "cluster_full");
    assert_eq!((full["sender"].as_u64(), full["dest"].as_u64()), (Some(11), Some(12)));
    let joined = ask(here, &["record"]);
    let joined = joined.as_array().unwrap();
    assert_eq!(joined.iter().filter(|event| event["what"] == "joined").count(), 2);
    let left = || {
        let events = ask(here, &["record"]);
        events.as_array().unwrap().iter().any(|event| event["what"] == "left")
    };
    wait_until("it is lost", left);
    assert_eq!(ask(here, &["explain", "12"])["place"], "nowhere");
    dropped(here, 12, "cluster_lost");
    there.signal("CONT");
}

#[test]
fn relay_that_has_gone_silent_is_not_vouched_for() {
    let nodes = [11, 12].map(Node::new);
    // Silent after 3 s, lost after 6 s.
    let cluster =
        Cluster::of_three(Fabric::Mesh, &nodes.each_ref(), &["--cluster-keepalive", "2s"]);
    let [here, there, _] = cluster.relays.as_slice() else { panic!() };
    let _b = Peer::log_in(there.wss, &nodes[1]);
    let elsewhere = || ask(here, &["explain", "12"])["cluster"]["elsewhere"].clone();
    wait_until("it is known", || elsewhere()["was_known"] == true);
    assert_eq!(elsewhere()["silence"], Value::Null);

    there.signal("STOP");
    wait_until("its silence is told", || elsewhere()["silence"].as_f64() > Some(3.0));
    let text = say(here, &["explain", "12"]);
    there.signal("CONT");
    let path = text.lines().next().unwrap();
    assert!(path.starts_with("node 12: cluster: through relay "), "{path}");
    assert!(path.contains(", of which nothing was heard for "), "{path}");
}

//! Operators switch one kind of traffic off, and on again.

use std::time::Duration;

use super::{ask, audit, fail, say};
use crate::cells::assert_balance;
use crate::cluster::{Cluster, Fabric, wait_until_found};
use crate::harness::{Node, Relay};
use crate::peer::{Peer, UdpNode, address, discover, punch};

/// Long enough for an answer that would come.
const MOMENT: Duration = Duration::from_millis(50);

fn is_on(relay: &Relay, switch: &str) -> bool {
    let name = format!("pilot_beacon_switch_on{{switch=\"{switch}\"}}");
    relay.metric(&name).total_cmp(&1.0).is_eq()
}

#[test]
fn relay_that_is_off_drops_what_came_over_every_transport() {
    let node = Node::new(11);
    let relay = Relay::with_nodes(&[&node], &[]);
    let mut wss = Peer::log_in(relay.wss, &node);
    let udp = UdpNode::register(relay.udp, 21);
    let said = say(&relay, &["switch", "relay", "off"]);
    assert_eq!(said, "relay is off until it is switched on, or the relay is restarted\n");
    assert!(!is_on(&relay, "relay") && is_on(&relay, "punch") && is_on(&relay, "discover"));

    wss.relay(11, 21, b"dropped");
    udp.relay(11, b"dropped");
    udp.relay(99, b"dropped, and not as unknown");
    relay.wait_for_dropped("relay_off", 3);
    assert_eq!(udp.observed(), udp.address(), "its address it is told");
    assert!(wss.is_silent(MOMENT));
    let status = ask(&relay, &["status"]);
    assert_eq!((&status["switches"]["relay"], &status["ready"]), (&"off".into(), &true.into()));
    assert!(say(&relay, &["status"]).contains("switches.relay     off\n"));

    assert_eq!(say(&relay, &["switch", "relay", "on"]), "relay is on\n");
    wss.relay(11, 21, b"relayed");
    assert_eq!(udp.delivery(), (11, b"relayed".to_vec()));
    assert_balance(&relay);

    relay.wait_for_line("an operator has thrown a switch");
    let lines = audit(&relay);
    let argument = serde_json::json!({ "switch": "relay", "on": false });
    assert_eq!((&lines[0]["action"], &lines[0]["argument"]), (&"switch".into(), &argument));
    let record = say(&relay, &["record"]);
    assert!(record.contains("relay_off") && record.contains("relay_on"), "{record}");
    let (code, error) = fail(relay.state_dir(), &["switch", "sync", "off"]);
    assert_eq!(
        (code, error.contains("possible values: punch, relay, discover")),
        (64, true),
        "{error}"
    );
}

#[test]
fn relay_that_is_off_drops_what_another_relay_sends() {
    let nodes = [Node::new(11), Node::new(12)];
    let cluster = Cluster::start(Fabric::Mesh, 2, &nodes.each_ref(), |_| Vec::new());
    cluster.wait_for_members(2);
    let [here, there] = [&cluster.relays[0], &cluster.relays[1]];
    let mut a = Peer::log_in(here.wss, &nodes[0]);
    let mut b = Peer::log_in(there.wss, &nodes[1]);
    wait_until_found(here, 12, there);
    say(there, &["switch", "relay", "off"]);
    a.relay(11, 12, b"dropped there");
    there.wait_for_dropped("relay_off", 1);
    say(there, &["switch", "relay", "on"]);
    a.relay(11, 12, b"its place was not forgotten for it");
    assert_eq!(b.delivery(), (11, b"its place was not forgotten for it".to_vec()));
    assert_eq!(there.metric("pilot_beacon_cluster_nacks_sent_total"), 0.0);
    cluster.relays.iter().for_each(assert_balance);
}

#[test]
fn discover_that_is_off_is_not_answered_and_registers_nobody() {
    let node = Node::new(11);
    let relay = Relay::with_nodes(&[&node], &["--punch-allow", "*"]);
    let mut wss = Peer::log_in(relay.wss, &node);
    let [known, target] = [21, 22].map(|id| UdpNode::register(relay.udp, id));
    say(&relay, &["switch", "discover", "off"]);
    let new = UdpNode::silent(relay.udp, 23);
    new.discover();
    known.discover();
    new.send(&discover(0x01, 0, &[]));
    new.send(&punch(23, 22, &[]));
    wss.send(2, &discover(0x01, 11, &[]));
    relay.wait_for_dropped("discover_off", 5);
    assert!(new.is_silent(MOMENT) && wss.is_silent(MOMENT));
    assert_eq!(relay.metric("pilot_beacon_udp_nodes"), 2.0);
    known.send(&punch(21, 22, &[]));
    assert_eq!(address(0x04, &target.receive()), known.address());

    say(&relay, &["switch", "discover", "on"]);
    assert_eq!(new.observed(), new.address());
    assert_balance(&relay);
}

#[test]
fn punch_that_is_off_is_dropped_and_a_reload_leaves_it_so() {
    let relay = Relay::with_nodes(&[], &["--punch-allow", "*"]);
    let [a, b] = [21, 22].map(|id| UdpNode::register(relay.udp, id));
    say(&relay, &["switch", "punch", "off"]);
    say(&relay, &["reload"]);
    a.send(&punch(21, 22, &[]));
    relay.wait_for_dropped("punch_off", 1);
    assert!(!is_on(&relay, "punch") && b.is_silent(MOMENT));
    say(&relay, &["switch", "punch", "on"]);
    a.send(&punch(21, 22, &[]));
    assert_eq!(address(0x04, &b.receive()), a.address());
    assert_balance(&relay);
}

//! An operator has nodes told that something waits for them at the registry.

use super::{ask, audit, fail, say};
use crate::cells::assert_balance;
use crate::cluster::{Cluster, Fabric, wait_until_claimed};
use crate::harness::{Node, Relay};
use crate::peer::{Peer, UdpNode};

/// What a daemon understands as "poll now".
const POLL: [u8; 2] = [0x0a, 0x01];

#[test]
fn node_is_notified_where_it_is_and_once_a_minute() {
    let node = Node::new(11);
    let relay = Relay::with_nodes(&[&node], &[]);
    let mut wss = Peer::log_in(relay.wss, &node);
    let udp = UdpNode::register(relay.udp, 21);

    let answer = ask(&relay, &["notify", "11"]);
    assert_eq!(answer, serde_json::json!({ "node": 11, "over": "wss" }));
    assert_eq!(wss.read(), Some((2, POLL.to_vec())));
    let said = say(&relay, &["notify", "21"]);
    assert_eq!(said, format!("notified node 21: over UDP, at {}\n", udp.address()));
    // Daemons take it from their beacon's own address and port alone.
    let mut packet = [0; 8];
    let (length, from) = udp.socket.recv_from(&mut packet).unwrap();
    assert_eq!((&packet[..length], from), (&POLL[..], relay.udp));

    for node in ["11", "21"] {
        let (code, error) = fail(relay.state_dir(), &["notify", node]);
        assert_eq!((code, error.contains("once a minute")), (1, true), "{error}");
    }
    let (code, error) = fail(relay.state_dir(), &["notify", "99"]);
    assert_eq!((code, error.contains("node 99 is neither connected nor known")), (1, true));
    for (transport, count) in [("wss", 1.0), ("udp", 2.0)] {
        let name = format!("pilot_beacon_packets_originated_total{{transport=\"{transport}\"}}");
        relay.wait_for_metric(&name, count);
    }
    let lines = audit(&relay);
    assert_eq!((&lines[0]["action"], &lines[0]["result"]), (&"notify".into(), &"ok".into()));
    assert!(lines[2]["result"].as_str().unwrap().contains("once a minute"), "{lines:?}");
    assert_balance(&relay);
}

#[test]
fn notify_of_a_peer_reaches_nobody() {
    let nodes = [Node::new(11), Node::new(12)];
    let relay = Relay::with_nodes(&nodes.each_ref(), &[]);
    let [mut wss, mut other] = nodes.each_ref().map(|node| Peer::log_in(relay.wss, node));
    let udp = UdpNode::register(relay.udp, 21);
    wss.send(2, &POLL);
    wss.send(2, &[0x0a, 1, 0, 0, 0, 11, 0, 0, 0, 12]);
    udp.send(&POLL);
    relay.wait_for_dropped("not_for_relay", 3);
    wss.relay(11, 12, b"first");
    assert_eq!(other.delivery(), (11, b"first".to_vec()));
    wss.relay(11, 21, b"first");
    assert_eq!(udp.delivery(), (11, b"first".to_vec()));
    assert_balance(&relay);
}

#[test]
fn notify_says_at_which_relay_of_the_cluster_the_node_is() {
    let node = Node::new(11);
    let cluster = Cluster::start(Fabric::Mesh, 2, &[&node], |_| Vec::new());
    cluster.wait_for_members(2);
    let mut peer = Peer::log_in(cluster.relays[1].wss, &node);
    wait_until_claimed(&cluster.relays[1], 1);
    let (code, error) = fail(cluster.relays[0].state_dir(), &["notify", "11"]);
    assert_eq!((code, error.contains("node 11 is at relay ")), (1, true), "{error}");
    assert!(error.contains("127.0.0.3:"), "{error}");
    say(&cluster.relays[1], &["notify", "11"]);
    assert_eq!(peer.read(), Some((2, POLL.to_vec())));
}

//! Every node reaches every node, over whichever relay and whichever way it came.

use super::{Cluster, Fabric, on_both_fabrics, wait_until_claimed, wait_until_found};
use crate::cells::assert_balance;
use crate::harness::Node;
use crate::peer::{Peer, UdpNode};

on_both_fabrics!(every_node_reaches_every_node, largest_packets_pass_and_keep_their_order);

/// A node somewhere in the cluster.
enum Anyone {
    Wss(u32, Peer),
    Udp(UdpNode),
}

impl Anyone {
    const fn id(&self) -> u32 {
        match self {
            Self::Wss(id, _) => *id,
            Self::Udp(node) => node.id,
        }
    }

    fn send(&mut self, dest: u32, payload: &[u8]) {
        match self {
            Self::Wss(id, peer) => peer.relay(*id, dest, payload),
            Self::Udp(node) => node.relay(dest, payload),
        }
    }

    fn delivery(&mut self) -> (u32, Vec<u8>) {
        match self {
            Self::Wss(_, peer) => peer.delivery(),
            Self::Udp(node) => node.delivery(),
        }
    }
}

fn every_node_reaches_every_node(fabric: Fabric) {
    let nodes: Vec<_> = (11..=16).map(Node::new).collect();
    let cluster = Cluster::of_three(fabric, &nodes.iter().collect::<Vec<_>>(), &[]);
    let mut everyone = Vec::new();
    for (index, relay) in cluster.relays.iter().enumerate() {
        for node in &nodes[index * 2..index * 2 + 2] {
            everyone.push(Anyone::Wss(node.id, Peer::log_in(relay.wss, node)));
        }
        let id = 21 + u32::try_from(index).unwrap();
        everyone.push(Anyone::Udp(UdpNode::register(relay.udp, id)));
    }
    // No packet is sent twice, so each has to arrive.
    cluster.relays.iter().for_each(|relay| wait_until_claimed(relay, 3));
    for from in 0..everyone.len() {
        for to in (0..everyone.len()).filter(|to| *to != from) {
            let (sender, dest) = (everyone[from].id(), everyone[to].id());
            let payload = format!("from {sender} to {dest}");
            everyone[from].send(dest, payload.as_bytes());
            assert_eq!(everyone[to].delivery(), (sender, payload.into_bytes()));
        }
    }
    cluster.relays.iter().for_each(assert_balance);
    for relay in &cluster.relays {
        assert_eq!(relay.metric("pilot_beacon_cluster_forwards_total{result=\"unknown\"}"), 0.0);
        assert_eq!(relay.metric("pilot_beacon_cluster_forwards_total{result=\"nack\"}"), 0.0);
    }
}

fn largest_packets_pass_and_keep_their_order(fabric: Fabric) {
    let nodes = [Node::new(11), Node::new(12)];
    let cluster = Cluster::of_three(fabric, &[&nodes[0], &nodes[1]], &[]);
    let mut a = Peer::log_in(cluster.relays[0].wss, &nodes[0]);
    let mut b = Peer::log_in_for_largest(cluster.relays[1].wss, &nodes[1]);
    wait_until_found(&cluster.relays[0], 12, &cluster.relays[1]);
    let largest = vec![7; 65_527];
    a.relay(11, 12, &largest);
    assert!(b.delivery() == (11, largest.clone()));
    a.relay(11, 12, b"");
    assert_eq!(b.delivery(), (11, Vec::new()));
    b.relay(12, 11, &largest);
    cluster.relays[0].wait_for_dropped("too_large_for_peer", 1);
    for round in 0..100u32 {
        for n in 0..50u32 {
            let mut payload = (round * 50 + n).to_be_bytes().to_vec();
            payload.resize(4 + (n as usize * 37) % 1_200, 0);
            a.relay(11, 12, &payload);
        }
        for n in 0..50u32 {
            assert_eq!(b.delivery().1[..4], (round * 50 + n).to_be_bytes());
        }
    }
    cluster.relays.iter().for_each(assert_balance);
}

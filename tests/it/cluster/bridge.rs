//! Nodes that a deployed beacon serves are reached from every relay, whichever of them the
//! beacon gossips with.

use std::net::UdpSocket;

use super::{Cluster, Fabric, on_both_fabrics, wait_until_found};
use crate::cells::assert_balance;
use crate::harness::{Node, PATIENCE};
use crate::peer::{Peer, UdpNode, relay as packet, sync};

on_both_fabrics!(node_of_a_beacon_is_reached_from_every_relay);

fn node_of_a_beacon_is_reached_from_every_relay(fabric: Fabric) {
    let nodes = [Node::new(11), Node::new(12)];
    let beacon = UdpSocket::bind("127.0.0.1:0").unwrap();
    beacon.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = beacon.local_addr().unwrap().to_string();
    // The first relay alone knows the beacon.
    let cluster = Cluster::start(fabric, 3, &[&nodes[0], &nodes[1]], |index| {
        if index == 0 { vec!["--peers", &address] } else { Vec::new() }
    });
    cluster.wait_for_members(3);
    let relays = &cluster.relays;
    beacon.send_to(&sync(9, &[77, 78]), relays[0].udp).unwrap();
    relays[0].wait_for_metric("pilot_beacon_learnt_nodes", 2.0);

    // What the beacon gets is the whole Relay packet, from the relay that it knows.
    let expect = |wanted: &[u8]| {
        let mut buffer = [0; 2_048];
        loop {
            let (length, from) = beacon.recv_from(&mut buffer).unwrap();
            // The relay's own gossip comes every 10 s.
            if buffer[0] != 0x07 {
                assert_eq!((&buffer[..length], from), (wanted, relays[0].udp));
                return;
            }
        }
    };
    let mut b = Peer::log_in(relays[1].wss, &nodes[1]);
    wait_until_found(&relays[1], 77, &relays[0]);
    b.relay(12, 77, b"over wss");
    expect(&packet(12, 77, b"over wss"));
    let udp = UdpNode::register(relays[2].udp, 21);
    wait_until_found(&relays[2], 78, &relays[0]);
    udp.relay(78, b"over udp");
    expect(&packet(21, 78, b"over udp"));

    // And back: the beacon's packets reach nodes of every relay through the one that it knows.
    wait_until_found(&relays[0], 12, &relays[1]);
    wait_until_found(&relays[0], 21, &relays[2]);
    beacon.send_to(&packet(77, 12, b"back"), relays[0].udp).unwrap();
    assert_eq!(b.delivery(), (77, b"back".to_vec()));
    beacon.send_to(&packet(78, 21, b"back as well"), relays[0].udp).unwrap();
    assert_eq!(udp.delivery(), (78, b"back as well".to_vec()));

    // A node that logs in at a relay is reached there, and no longer over the beacon.
    let session = Node::new(77);
    crate::harness::write_directory(cluster.folder(), &[&nodes[0], &nodes[1], &session]);
    let mut moved = log_in_once_known(&cluster, &session);
    wait_until_found(&relays[1], 77, &relays[2]);
    b.relay(12, 77, b"here now");
    assert_eq!(moved.delivery(), (12, b"here now".to_vec()));
    relays.iter().for_each(assert_balance);
}

/// Logs in at the last relay, as soon as it has read the new key file.
fn log_in_once_known(cluster: &Cluster, node: &Node) -> Peer {
    let relay = &cluster.relays[2];
    relay.signal("HUP");
    relay.wait_for_line("reloaded");
    Peer::log_in(relay.wss, node)
}

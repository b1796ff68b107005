//! What beacons tell each other, and whom the relay believes (SPEC §7).

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use crate::cells::assert_balance;
use crate::harness::{Node, PATIENCE, Relay, look_until};
use crate::peer::{Peer, UdpNode, relay as packet, sync};
use crate::ports::free_address;

const LEARNT: &str = "pilot_beacon_learnt_nodes";

/// A beacon of the test, to be listed by `--peers` before the relay is there.
fn beacon() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    (socket, address)
}

fn bridged(relay: &Relay, from: &str, to: &str) -> f64 {
    relay.metric(&format!(
        "pilot_beacon_relay_bridge_total{{src_transport=\"{from}\",dst_transport=\"{to}\"}}"
    ))
}

/// The beacon id and the nodes of a Sync.
fn published(packet: &[u8]) -> (u32, BTreeSet<u32>) {
    assert_eq!(packet[0], 0x07);
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    let nodes: BTreeSet<u32> = packet[7..].chunks(4).map(number).collect();
    assert_eq!(usize::from(u16::from_be_bytes([packet[5], packet[6]])), nodes.len());
    assert_eq!(packet.len(), 7 + 4 * nodes.len());
    (number(&packet[1..5]), nodes)
}

#[test]
fn spec_7_nodes_of_two_relays_reach_each_other_over_wss_and_udp() {
    let nodes = [11, 12].map(Node::new);
    let addresses = [free_address(), free_address()].map(|address| address.to_string());
    let [a, b] = [(0, 1, "1"), (1, 0, "2")].map(|(own, other, id)| {
        let (bind, peer) = (&*addresses[own], &*addresses[other]);
        let flags = ["--udp-bind", bind, "--peers", peer, "--beacon-id", id];
        Relay::with_nodes(&[&nodes[own]], &flags)
    });
    let (mut wss_a, mut wss_b) = (Peer::log_in(a.wss, &nodes[0]), Peer::log_in(b.wss, &nodes[1]));
    let (udp_a, udp_b) = (UdpNode::register(a.udp, 21), UdpNode::register(b.udp, 22));
    a.wait_for_metric(LEARNT, 2.0);
    b.wait_for_metric(LEARNT, 2.0);

    wss_b.relay(12, 11, b"wss to wss");
    assert_eq!(wss_a.delivery(), (12, b"wss to wss".to_vec()));
    wss_b.relay(12, 21, b"wss to udp");
    assert_eq!(udp_a.delivery(), (12, b"wss to udp".to_vec()));
    udp_b.relay(11, b"udp to wss");
    assert_eq!(wss_a.delivery(), (22, b"udp to wss".to_vec()));
    udp_b.relay(21, b"udp to udp");
    assert_eq!(udp_a.delivery(), (22, b"udp to udp".to_vec()));
    udp_a.relay(12, b"and back");
    assert_eq!(wss_b.delivery(), (21, b"and back".to_vec()));

    assert_eq!((bridged(&b, "wss", "beacon"), bridged(&b, "udp", "beacon")), (2.0, 2.0));
    assert_eq!((bridged(&a, "beacon", "wss"), bridged(&a, "beacon", "udp")), (2.0, 2.0));
    assert_eq!((bridged(&a, "udp", "beacon"), bridged(&b, "beacon", "wss")), (1.0, 1.0));
    assert_balance(&a);
    assert_balance(&b);
}

#[test]
fn spec_7_2_wss_and_udp_nodes_are_published_and_nothing_that_was_learnt() {
    let node = Node::new(11);
    let (socket, listed) = beacon();
    let relay = Relay::with_nodes(&[&node], &["--peers", &listed, "--beacon-id", "7"]);
    let beacon = UdpNode::with(socket, relay.udp, 9);
    assert_eq!(published(&beacon.receive()).0, 7, "the first comes at once");
    beacon.send(&sync(9, &[31, 21]));
    relay.wait_for_metric(LEARNT, 2.0);
    let _session = Peer::log_in(relay.wss, &node);
    let _udp = UdpNode::register(relay.udp, 21);

    let began = Instant::now();
    assert_eq!(published(&beacon.receive()), (7, BTreeSet::from([11, 21])));
    assert!(began.elapsed() < Duration::from_secs(11), "one comes every 10 s");
    assert_balance(&relay);
}

#[test]
fn spec_7_1_whole_relay_packet_goes_to_the_address_that_the_sync_came_from() {
    let node = Node::new(11);
    let (socket, listed) = beacon();
    let relay = Relay::with_nodes(&[&node], &["--peers", &listed]);
    let listed = UdpNode::with(socket, relay.udp, 9);
    listed.receive();
    // The port is not compared.
    let beacon = UdpNode::silent(relay.udp, 9);
    beacon.send(&sync(9, &[31, 21]));
    relay.wait_for_metric(LEARNT, 2.0);

    let mut wss = Peer::log_in(relay.wss, &node);
    let udp = UdpNode::register(relay.udp, 21);
    wss.relay(11, 31, b"from wss");
    assert_eq!(beacon.receive(), packet(11, 31, b"from wss"));
    udp.relay(31, b"from udp");
    assert_eq!(beacon.receive(), packet(21, 31, b"from udp"));
    wss.relay(11, 21, b"what is here is never overridden");
    assert_eq!(udp.delivery().0, 11);

    beacon.send(&packet(31, 11, b"to wss"));
    assert_eq!(wss.delivery(), (31, b"to wss".to_vec()));
    beacon.send(&packet(31, 21, b"to udp"));
    assert_eq!(udp.delivery(), (31, b"to udp".to_vec()));
    assert_balance(&relay);
}

#[test]
fn spec_7_1_packet_of_a_beacon_never_goes_to_a_beacon() {
    let ((first, a), (second, b)) = (beacon(), beacon());
    let relay = Relay::start(["--peers", &format!("{a},{b}")]);
    let first = UdpNode::with(first, relay.udp, 8);
    let second = UdpNode::with(second, relay.udp, 9);
    first.send(&sync(8, &[31]));
    relay.wait_for_metric(LEARNT, 1.0);
    for beacon in [&first, &second] {
        beacon.send(&packet(32, 31, b"round and round"));
    }
    // It is listed, and may have published nothing at all.
    relay.wait_for_dropped("beacon_loop", 2);
    for beacon in [first, second] {
        assert_eq!(beacon.receive()[0], 0x07, "nothing but gossip");
        assert!(beacon.is_silent(Duration::from_millis(50)));
    }
    assert_balance(&relay);
}

#[test]
fn spec_7_3_sync_of_a_stranger_counts_for_nothing() {
    let (elsewhere, listed) = (free_address(), "127.0.9.9:9001");
    let relay = Relay::start(["--peers", listed]);
    let stranger = UdpNode::at(&elsewhere.to_string(), relay.udp, 22);
    stranger.send(&sync(9, &[31]));
    stranger.observed();
    assert_eq!(relay.dropped("sync_from_stranger"), 1);
    stranger.relay(31, b"to nobody");
    stranger.observed();
    assert_eq!(relay.dropped("unknown_destination"), 1);
    assert_eq!(relay.metric(LEARNT), 0.0);
    assert_balance(&relay);

    // Nobody is listed: nobody is believed.
    let relay = Relay::start([] as [&str; 0]);
    let stranger = UdpNode::silent(relay.udp, 22);
    stranger.send(&sync(9, &[31]));
    stranger.observed();
    assert_eq!(relay.dropped("sync_from_stranger"), 1);
}

#[test]
fn spec_7_3_open_gossip_believes_a_stranger() {
    let relay = Relay::start(["--open-gossip"]);
    let (stranger, node) = (UdpNode::silent(relay.udp, 9), UdpNode::register(relay.udp, 21));
    stranger.send(&sync(9, &[31]));
    relay.wait_for_metric(LEARNT, 1.0);
    node.relay(31, b"as deployed beacons do");
    assert_eq!(stranger.receive(), packet(21, 31, b"as deployed beacons do"));
    assert_balance(&relay);
}

#[test]
fn spec_7_3_sync_replaces_what_its_source_published() {
    let (socket, listed) = beacon();
    let relay = Relay::start(["--peers", &listed]);
    let beacon = UdpNode::with(socket, relay.udp, 9);
    let other = UdpNode::silent(relay.udp, 9);
    beacon.send(&sync(9, &[31, 32, 33]));
    other.send(&sync(9, &[34]));
    relay.wait_for_metric(LEARNT, 4.0);
    assert_eq!(relay.metric("pilot_beacon_gossip_sources"), 2.0);
    // One a second is taken, the others are counted.
    let replaced = look_until(Instant::now() + PATIENCE, || {
        beacon.send(&sync(9, &[33]));
        (relay.metric(LEARNT) == 2.0).then_some(())
    });
    replaced.expect("the Sync of a second later is taken");
    assert!(relay.dropped("sync_limited") >= 1);

    let node = UdpNode::register(relay.udp, 21);
    node.relay(32, b"gone");
    node.observed();
    assert_eq!(relay.dropped("unknown_destination"), 1);
    node.relay(34, b"of another source");
    assert_eq!(other.receive(), packet(21, 34, b"of another source"));
    assert_balance(&relay);
}

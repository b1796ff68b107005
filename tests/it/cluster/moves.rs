//! A node that reconnects at another relay is followed at once, and is nowhere twice.

use std::time::{Duration, Instant};

use super::flow::Flow;
use super::soon::{FOUND_WITHIN, assert_soon};
use super::{Cluster, Fabric, on_both_fabrics, wait_until, wait_until_claimed, wait_until_found};
use crate::cells::assert_balance;
use crate::harness::{Node, Relay};
use crate::peer::{AUTH_OK, Peer, UdpNode, relay as packet, signed_text};

/// More than homes take for one moment.
const CLEARLY_LATE: Duration = Duration::from_millis(300);

on_both_fabrics!(
    node_that_moves_is_followed_at_once_and_its_old_session_closed,
    node_that_leaves_and_comes_back_elsewhere_is_found,
    login_that_finishes_late_does_not_replace_a_newer_session_elsewhere,
    two_programs_of_one_identity_at_two_relays_slow_down,
    udp_node_is_reached_through_the_relay_that_it_registered_with,
    name_of_a_wss_node_elsewhere_is_not_believed_over_udp,
    node_that_says_bye_at_one_relay_is_a_udp_node_of_another_at_once,
);

fn node_that_moves_is_followed_at_once_and_its_old_session_closed(fabric: Fabric) {
    let nodes = [Node::new(11), Node::new(12)];
    let cluster = Cluster::of_three(fabric, &[&nodes[0], &nodes[1]], &[]);
    let relays = &cluster.relays;
    let from = Peer::log_in(relays[0].wss, &nodes[0]);
    let mut here = Peer::log_in(relays[1].wss, &nodes[1]);
    let witness = Peer::over(here.stream.try_clone().unwrap());
    let flow = Flow::start(from, 11, 12, witness);
    wait_until("the flow runs", || flow.received() > 50);
    let mut stays = Vec::new();
    for index in [2, 0, 1, 2, 1] {
        let there = Peer::log_in(relays[index].wss, &nodes[1]);
        let moved = Instant::now();
        flow.listen(Peer::over(there.stream.try_clone().unwrap()));
        let follow = || {
            let received = flow.received();
            wait_until("packets follow", || flow.received() > received + 50);
        };
        follow();
        relays.iter().enumerate().for_each(|(other, relay)| {
            let active =
                if other == index { 1.0 } else { 0.0 } + if other == 0 { 1.0 } else { 0.0 };
            relay.wait_for_metric("pilot_beacon_wss_active", active);
        });
        // What is on its way when the node moves on is lost to that move: it is sent later.
        stays.push((moved, Instant::now()));
        follow();
        here = there;
    }
    let report = flow.stop();
    assert_eq!(report.doubled(), 0);
    let (lost, sent) = (report.lost().len(), report.sent.len());
    eprintln!("{fabric:?}: {} moves, {lost} of {sent} packets lost", stays.len());
    let found = stays.iter().map(|(moved, end)| report.recovered_between(*moved, *end));
    assert_soon(&format!("{fabric:?} | move"), FOUND_WITHIN, found.collect());
    relays.iter().for_each(assert_balance);
    drop(here);
}

fn node_that_leaves_and_comes_back_elsewhere_is_found(fabric: Fabric) {
    let nodes = [Node::new(11), Node::new(12)];
    let cluster = Cluster::of_three(fabric, &[&nodes[0], &nodes[1]], &[]);
    let relays = &cluster.relays;
    let mut a = Peer::log_in(relays[0].wss, &nodes[0]);
    let mut b = Peer::log_in(relays[1].wss, &nodes[1]);
    wait_until_found(&relays[0], 12, &relays[1]);
    a.relay(11, 12, b"one");
    assert_eq!(b.delivery(), (11, b"one".to_vec()));
    // A second login elsewhere closes the first with 1000 "replaced".
    let mut there = Peer::log_in(relays[2].wss, &nodes[1]);
    assert_eq!(b.read_close(), (1000, "replaced".to_owned()));
    wait_until_found(&relays[0], 12, &relays[2]);
    a.relay(11, 12, b"two");
    assert_eq!(there.delivery(), (11, b"two".to_vec()));
    drop((b, there));
    // Its relay tells all others that it is gone.
    relays[0].wait_for_metric("pilot_beacon_cluster_presence_entries{kind=\"location\"}", 0.0);
    // Asked for while it is nowhere: nobody remembers for long that it was not there.
    a.relay(11, 12, b"into the void");
    relays[0].wait_for_dropped("unknown_destination", 1);
    let mut back = Peer::log_in(relays[1].wss, &nodes[1]);
    wait_until_found(&relays[0], 12, &relays[1]);
    a.relay(11, 12, b"three");
    assert_eq!(back.delivery(), (11, b"three".to_vec()));
    relays.iter().for_each(assert_balance);
}

fn login_that_finishes_late_does_not_replace_a_newer_session_elsewhere(fabric: Fabric) {
    let nodes = [Node::new(11), Node::new(12)];
    let cluster = Cluster::of_three(fabric, &[&nodes[0], &nodes[1]], &[]);
    let relays = &cluster.relays;
    let mut witness = Peer::log_in(relays[2].wss, &nodes[0]);

    // A connection that a proxy holds up, and the next one, which is in before its reply comes.
    let mut late = Peer::upgrade(relays[0].wss);
    let challenge = late.challenge();
    assert!(late.is_silent(CLEARLY_LATE));
    let mut newer = Peer::log_in(relays[1].wss, &nodes[1]);
    wait_until_found(&relays[2], 12, &relays[1]);
    late.reply(&nodes[1], &signed_text(12, &challenge, 2), None);

    // Its relay cannot know of the other one, whose home does.
    assert_eq!(late.read(), Some((1, AUTH_OK.to_vec())));
    assert_eq!(late.read_close(), (1000, "replaced".to_owned()));
    witness.relay(11, 12, b"to the newer");
    assert_eq!(newer.delivery(), (11, b"to the newer".to_vec()));
    relays.iter().for_each(assert_balance);
}

fn two_programs_of_one_identity_at_two_relays_slow_down(fabric: Fabric) {
    let node = Node::new(11);
    let cluster = Cluster::of_three(fabric, &[&node], &[]);
    let relays = &cluster.relays;
    let delayed = |relay: &Relay| relay.metric("pilot_beacon_wss_delayed_total") > 0.0;

    // Of logins that their homes learn of at once, either may stay: each is claimed before the next.
    let log_in = |relay: &Relay| {
        let peer = Peer::log_in(relay.wss, &node);
        wait_until_claimed(relay, 1);
        peer
    };

    let mut before = log_in(&relays[0]);
    let slows_down = (0..40).any(|turn| {
        let next = log_in(&relays[(turn + 1) % 2]);
        assert_eq!(before.read_close(), (1000, "replaced".to_owned()));
        before = next;
        relays.iter().any(delayed)
    });
    assert!(slows_down, "forty takeovers at full speed");
    relays.iter().for_each(assert_balance);
}

fn udp_node_is_reached_through_the_relay_that_it_registered_with(fabric: Fabric) {
    let node = Node::new(11);
    let cluster = Cluster::of_three(fabric, &[&node], &[]);
    let relays = &cluster.relays;
    let mut a = Peer::log_in(relays[0].wss, &node);
    let udp = UdpNode::register(relays[1].udp, 21);
    wait_until_found(&relays[0], 21, &relays[1]);
    a.relay(11, 21, b"through its own");
    assert_eq!(udp.delivery(), (11, b"through its own".to_vec()));
    // Another endpoint for it, at another relay, a moment later: too soon for a node to move.
    let thief = UdpNode::register(relays[2].udp, 21);
    relays[2].wait_for_metric("pilot_beacon_udp_nodes", 0.0);
    a.relay(11, 21, b"still there");
    assert_eq!(udp.delivery(), (11, b"still there".to_vec()));
    assert!(thief.is_silent(Duration::from_millis(50)));
    relays.iter().for_each(assert_balance);
}

fn name_of_a_wss_node_elsewhere_is_not_believed_over_udp(fabric: Fabric) {
    let nodes = [Node::new(11), Node::new(12)];
    let cluster = Cluster::of_three(fabric, &[&nodes[0], &nodes[1]], &[]);
    let relays = &cluster.relays;
    let mut a = Peer::log_in(relays[0].wss, &nodes[0]);
    let mut b = Peer::log_in(relays[1].wss, &nodes[1]);
    wait_until_found(&relays[0], 12, &relays[1]);
    a.relay(11, 12, b"who are you");
    assert_eq!(b.delivery(), (11, b"who are you".to_vec()));
    // Relay 0 knows by now where 12 is; whoever says over UDP there that it is 12, lies.
    let liar = UdpNode::silent(relays[0].udp, 12);
    liar.send(&packet(12, 11, b"I am 12"));
    relays[0].wait_for_dropped("sender_is_wss", 1);
    assert_eq!(liar.observed(), liar.address());
    relays[0].wait_for_metric("pilot_beacon_endpoint_events_total{event=\"held\"}", 1.0);
    relays[0].wait_for_metric("pilot_beacon_udp_nodes", 0.0);
    // Where nobody knows, the home does: the endpoint does not stay.
    let liar = UdpNode::silent(relays[2].udp, 12);
    liar.discover();
    relays[2].wait_for_metric("pilot_beacon_packets_handled_total{kind=\"discover\"}", 1.0);
    relays[2].wait_for_metric("pilot_beacon_udp_nodes", 0.0);
    a.relay(11, 12, b"still you");
    assert_eq!(b.delivery(), (11, b"still you".to_vec()));
    relays.iter().for_each(assert_balance);
}

fn node_that_says_bye_at_one_relay_is_a_udp_node_of_another_at_once(fabric: Fabric) {
    let nodes = [Node::new(11), Node::new(12)];
    let cluster = Cluster::of_three(fabric, &[&nodes[0], &nodes[1]], &[]);
    let relays = &cluster.relays;
    let mut a = Peer::log_in(relays[0].wss, &nodes[0]);
    let mut b = Peer::log_in(relays[1].wss, &nodes[1]);
    wait_until_found(&relays[0], 12, &relays[1]);
    b.send(1, br#"{"type":"bye"}"#);
    assert_eq!(b.read_close(), (1000, "bye".to_owned()));
    // Its homes know that it has left, and its place is forgotten.
    wait_until_claimed(&relays[1], 0);
    relays[2].wait_for_metric("pilot_beacon_cluster_presence_entries{kind=\"location\"}", 0.0);
    let udp = UdpNode::register(relays[2].udp, 12);
    wait_until_found(&relays[0], 12, &relays[2]);
    a.relay(11, 12, b"over UDP by now");
    assert_eq!(udp.delivery(), (11, b"over UDP by now".to_vec()));
    assert_eq!(relays[2].metric("pilot_beacon_udp_nodes"), 1.0);
    relays.iter().for_each(assert_balance);
}

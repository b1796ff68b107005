//! Relays that stop and start again, one after the other, under traffic.

use std::time::Instant;

use super::flow::Flow;
use super::soon::{FOUND_WITHIN, assert_soon};
use super::{Cluster, Fabric, on_both_fabrics, wait_for_members, wait_until, wait_until_found};
use crate::cells::assert_balance;
use crate::harness::Node;
use crate::peer::{Peer, UdpNode};

on_both_fabrics!(
    rolling_restart_loses_no_node_for_longer_than_its_redial,
    relay_that_drains_tells_the_others_first_and_takes_its_presence_back,
);

fn rolling_restart_loses_no_node_for_longer_than_its_redial(fabric: Fabric) {
    let nodes = [Node::new(11), Node::new(12), Node::new(13)];
    let mut cluster =
        Cluster::of_three(fabric, &nodes.iter().collect::<Vec<_>>(), &["--drain-time", "1s"]);
    let mut found = Vec::new();
    for index in 0..3 {
        let (stays, other) = ((index + 1) % 3, (index + 2) % 3);
        let from = Peer::log_in(cluster.relays[stays].wss, &nodes[0]);
        let to = Peer::log_in(cluster.relays[index].wss, &nodes[1]);
        let flow = Flow::start(from, 11, 12, to);
        wait_until("the flow runs", || flow.received() > 50);

        cluster.relays[index].signal("TERM");
        cluster.relays[index].wait_for_line("draining");
        // The node is sent away, and redials elsewhere at once.
        wait_until("the node is sent away", || flow.is_cut());
        let cut = Instant::now();
        let again = Peer::log_in(cluster.relays[other].wss, &nodes[1]);
        let back = Instant::now();
        flow.listen(again);
        let received = flow.received();
        wait_until("packets follow", || flow.received() > received + 50);
        assert_eq!(cluster.relays[index].wait_for_end(), 0);
        let report = flow.stop();
        eprintln!(
            "{fabric:?}: relay {index} restarted, away for {} ms, {} of {} packets lost",
            (back - cut).as_millis(),
            report.lost().len(),
            report.sent.len()
        );
        found.push(report.recovered_after(back));
        assert_eq!(report.doubled(), 0);
        cluster.restart(index);
        cluster.wait_for_members(3);
    }
    assert_soon(&format!("{fabric:?} | redial after a drain"), FOUND_WITHIN, found);
    cluster.relays.iter().for_each(assert_balance);
}

fn relay_that_drains_tells_the_others_first_and_takes_its_presence_back(fabric: Fabric) {
    let nodes = [Node::new(11), Node::new(12)];
    let mut cluster = Cluster::of_three(fabric, &[&nodes[0], &nodes[1]], &["--drain-time", "2s"]);
    let mut a = Peer::log_in(cluster.relays[0].wss, &nodes[0]);
    let mut b = Peer::log_in(cluster.relays[1].wss, &nodes[1]);
    let udp = UdpNode::register(cluster.relays[1].udp, 21);
    wait_until_found(&cluster.relays[0], 21, &cluster.relays[1]);
    wait_until_found(&cluster.relays[0], 12, &cluster.relays[1]);
    a.relay(11, 21, b"before");
    assert_eq!(udp.delivery().1, b"before");

    cluster.relays[1].signal("TERM");
    cluster.relays[0].wait_for_line("draining");
    cluster.relays[0].wait_for_metric("pilot_beacon_cluster_links{state=\"draining\"}", 1.0);
    assert_eq!(b.read_close().0, 1001);
    assert_eq!(cluster.relays[1].wait_for_end(), 0);
    // Said goodbye: nobody waits for three keep-alives.
    for index in [0, 2] {
        wait_for_members(&cluster.relays[index], 2);
    }
    a.relay(11, 21, b"nobody has it");
    a.relay(11, 12, b"nor that one");
    cluster.relays[0].wait_for_dropped("unknown_destination", 2);
    assert_balance(&cluster.relays[0]);
}

//! Ten thousand nodes, spread over three relays.

use std::time::Instant;

use rustix::process::{Resource, getrlimit, setrlimit};

use super::{Cluster, Fabric, on_both_fabrics};
use crate::cells::assert_balance;
use crate::harness::Node;
use crate::peer::Peer;

on_both_fabrics!(ten_thousand_nodes_reach_their_neighbours);

const NODES: u32 = 10_000;

fn ten_thousand_nodes_reach_their_neighbours(fabric: Fabric) {
    // Both ends of each connection are on this machine, a third of the other end in each relay.
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = u64::from(NODES) + 1_000;
    assert!(limit.maximum.is_none_or(|most| most >= wanted), "ulimit -Hn is below {wanted}");
    limit.current = Some(limit.current.unwrap_or(0).max(wanted));
    setrlimit(Resource::Nofile, limit).unwrap();

    let nodes: Vec<_> = (1..=NODES).map(Node::new).collect();
    let cluster = Cluster::of_three(fabric, &nodes.iter().collect::<Vec<_>>(), &[]);
    let relays = &cluster.relays;
    let mut peers: Vec<_> = nodes
        .iter()
        .zip(relays.iter().cycle())
        .map(|(n, relay)| Peer::log_in(relay.wss, n))
        .collect();
    relays.iter().for_each(|relay| {
        relay.wait_for_metric("pilot_beacon_cluster_presence_entries{kind=\"outstanding\"}", 0.0);
    });
    // The next node is at the next relay: each packet crosses a link.
    let began = Instant::now();
    for (peer, id) in peers.iter_mut().zip(1..) {
        peer.relay(id, id % NODES + 1, &id.to_be_bytes());
    }
    for (peer, id) in peers.iter_mut().zip(1..) {
        let before = if id == 1 { NODES } else { id - 1 };
        assert_eq!(peer.delivery(), (before, before.to_be_bytes().to_vec()));
    }
    println!("{fabric:?}: {NODES} first packets, each after a look-up, in {:?}", began.elapsed());
    relays.iter().for_each(assert_balance);
    let entries = "pilot_beacon_cluster_presence_entries{kind=\"here\"}";
    let here: f64 = relays.iter().map(|relay| relay.metric(entries)).sum();
    assert_eq!(here, f64::from(NODES));
}

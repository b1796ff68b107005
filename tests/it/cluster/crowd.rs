//! Ten thousand nodes, spread over three relays.

use std::time::Instant;

use super::{Cluster, Fabric, on_both_fabrics, wait_until_claimed};
use crate::cells::assert_balance;
use crate::descriptors::Descriptors;
use crate::harness::Node;
use crate::peer::Peer;

on_both_fabrics!(ten_thousand_nodes_reach_their_neighbours);

const NODES: u32 = 10_000;

/// Nodes that send at once, each to somebody who has to be looked up.
const WAVE: usize = 100;

fn ten_thousand_nodes_reach_their_neighbours(fabric: Fabric) {
    // A connection's other end is in a relay, which inherits the limit.
    let _descriptors = Descriptors::take(u64::from(NODES));
    let nodes: Vec<_> = (1..=NODES).map(Node::new).collect();
    let cluster = Cluster::of_three(fabric, &nodes.iter().collect::<Vec<_>>(), &[]);
    let relays = &cluster.relays;
    let mut peers: Vec<_> = nodes
        .iter()
        .zip(relays.iter().cycle())
        .map(|(n, relay)| Peer::log_in(relay.wss, n))
        .collect();
    for (relay, at) in relays.iter().zip(0..) {
        let others = (0..NODES).filter(|node| node % 3 == at).count();
        wait_until_claimed(relay, u32::try_from(others).unwrap());
    }
    // The next node is at the next relay: each packet crosses a link.
    let began = Instant::now();
    let ids: Vec<_> = (1..=NODES).collect();
    // In waves, so that a busy machine answers each look-up before its packet is given up.
    for wave in ids.chunks(WAVE) {
        for id in wave {
            peers[*id as usize - 1].relay(*id, id % NODES + 1, &id.to_be_bytes());
        }
        for id in wave {
            let next = &mut peers[(id % NODES) as usize];
            assert_eq!(next.delivery(), (*id, id.to_be_bytes().to_vec()));
        }
    }
    eprintln!("{fabric:?}: {NODES} first packets, each after a look-up, in {:?}", began.elapsed());
    relays.iter().for_each(assert_balance);
    let entries = "pilot_beacon_cluster_presence_entries{kind=\"here\"}";
    let here: f64 = relays.iter().map(|relay| relay.metric(entries)).sum();
    assert_eq!(here, f64::from(NODES));
}

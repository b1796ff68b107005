//! What a connection that does nothing costs in memory.

use crate::descriptors::Descriptors;
use crate::harness::{Node, Relay};
use crate::peer::Peer;

/// Connections before counting, so that what is kept for all is not counted for each.
const WARM_UP: u32 = 50;

/// Connections that are counted.
const COUNT: u32 = 2_000;

/// Most anonymous memory of the relay for each, in bytes.
const MOST: u64 = 5_000;

#[test]
fn idle_connection_takes_at_most_5_000_bytes() {
    // A connection's other end is in the relay, which inherits the limit.
    let _descriptors = Descriptors::take(u64::from(WARM_UP + COUNT));
    let nodes: Vec<_> = (1..=WARM_UP + COUNT).map(Node::new).collect();
    let known: Vec<_> = nodes.iter().collect();
    // The peers answer no pings.
    let patient = ["--upgrade-rate", "0", "--ping-interval", "0s", "--idle-timeout", "1h"];
    let relay = Relay::with_nodes(&known, &patient);
    let mut peers = Vec::new();
    let mut before = 0;
    for (node, number) in nodes.iter().zip(0..) {
        if number == WARM_UP {
            before = relay.anonymous_memory();
        }
        peers.push(Peer::log_in(relay.wss, node));
    }
    let each = (relay.anonymous_memory() - before) / u64::from(COUNT);
    println!("{each} bytes for each of {COUNT} idle connections");
    assert_eq!(relay.metric("pilot_beacon_wss_active"), f64::from(WARM_UP + COUNT));
    assert!(each <= MOST, "{each} bytes");
}

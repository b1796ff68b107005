//! The long run, by `make soak`: peers come and go, some never read, nodes move over UDP,
//! while healthy pairs go on; at the end nothing is left behind.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::cells::assert_balance;
use crate::harness::{Node, PATIENCE, Relay, look_until};
use crate::peer::{Peer, UdpNode};

/// Length of the run, unless SOAK_SECONDS says otherwise.
const SECONDS: u64 = 300;

/// Anonymous memory that the relay may have gained at the end, in bytes.
const GROWTH: u64 = 32 << 20;

#[test]
#[ignore = "takes minutes: make soak"]
fn soak_peers_that_come_and_go_leave_nothing_behind() {
    let seconds = std::env::var("SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(SECONDS));
    let nodes: Vec<_> = (1..=40).map(Node::new).collect();
    let known: Vec<_> = nodes.iter().collect();
    let relay = Relay::with_nodes(&known, &["--upgrade-rate", "0", "--relay-rate", "0"]);
    let (memory, descriptors) = (relay.anonymous_memory(), relay.descriptors());
    let (stop, healthy, logins) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        // Pairs in a closed loop, over WSS one way and UDP the other: no packet may be lost.
        for (node, udp) in nodes[..4].iter().zip(1_000..) {
            let (relay, stop, healthy) = (&relay, &stop, &healthy);
            scope.spawn(move || {
                let mut peer = Peer::log_in(relay.wss, node);
                let udp = UdpNode::register(relay.udp, udp);
                let mut heartbeat = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    peer.relay(node.id, udp.id, b"ping");
                    assert_eq!(udp.delivery(), (node.id, b"ping".to_vec()));
                    udp.relay(node.id, b"pong");
                    assert_eq!(answer(&mut peer), (udp.id, b"pong".to_vec()));
                    healthy.fetch_add(1, Ordering::Relaxed);
                    if heartbeat.elapsed() > Duration::from_secs(30) {
                        heartbeat = Instant::now();
                        udp.discover();
                        assert_eq!(udp.receive()[0], 0x02);
                    }
                }
            });
        }
        // Nodes that log in, flood somebody who never reads, and leave in all ways.
        for nodes in nodes[4..].chunks(2) {
            let (relay, stop, logins) = (&relay, &stop, &logins);
            scope.spawn(move || {
                for turn in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let stuck = Peer::log_in(relay.wss, &nodes[1]);
                    let mut flooder = Peer::log_in(relay.wss, &nodes[0]);
                    for _ in 0..200 {
                        flooder.relay(nodes[0].id, nodes[1].id, &[0xa5; 1_200]);
                    }
                    match turn % 3 {
                        0 => flooder.send(1, br#"{"type":"bye"}"#),
                        1 => flooder.send(8, &1000u16.to_be_bytes()),
                        _ => {}
                    }
                    drop((flooder, stuck));
                    logins.fetch_add(2, Ordering::Relaxed);
                }
            });
        }
        thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
    });
    relay.wait_for_metric("pilot_beacon_wss_sessions", 0.0);
    let back = || (relay.descriptors() <= descriptors).then_some(());
    assert!(look_until(Instant::now() + PATIENCE, back).is_some(), "{}", relay.descriptors());
    assert_balance(&relay);
    let grown = relay.anonymous_memory().saturating_sub(memory);
    println!(
        "{} healthy rounds, {} logins, {} MB gained",
        healthy.into_inner(),
        logins.into_inner(),
        grown >> 20
    );
    assert_eq!(relay.metric("pilot_beacon_wss_panics_total"), 0.0);
    assert!(grown < GROWTH, "{grown}");
}

/// The next delivery, pings of the relay answered on the way.
fn answer(peer: &mut Peer) -> (u32, Vec<u8>) {
    loop {
        match peer.read().expect("the session goes on") {
            (9, payload) => peer.send(10, &payload),
            (2, packet) => {
                let sender = u32::from_be_bytes(packet[1..5].try_into().unwrap());
                return (sender, packet[5..].to_vec());
            }
            (opcode, _) => panic!("opcode {opcode}"),
        }
    }
}

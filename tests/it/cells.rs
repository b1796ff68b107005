//! Packets in all four cells, byte for byte, and their accounts.

use std::time::{Duration, Instant};

use crate::harness::{Node, Relay, look_until};
use crate::peer::{Peer, UdpNode, discover};

/// Longest time until a relay that nobody talks to is at rest.
const MOMENT: Duration = Duration::from_secs(3);

#[test]
fn packet_passes_in_all_four_cells_and_is_accounted_for() {
    let (a, b) = (Node::new(11), Node::new(12));
    let relay = Relay::with_nodes(&[&a, &b], &[]);
    let (mut wss_a, mut wss_b) = (Peer::log_in(relay.wss, &a), Peer::log_in(relay.wss, &b));
    let (udp_c, udp_d) = (UdpNode::register(relay.udp, 21), UdpNode::register(relay.udp, 22));

    wss_a.relay(11, 12, b"wss to wss");
    assert_eq!(wss_b.delivery(), (11, b"wss to wss".to_vec()));
    wss_a.relay(11, 21, b"wss to udp");
    assert_eq!(udp_c.delivery(), (11, b"wss to udp".to_vec()));
    udp_c.relay(11, b"udp to wss");
    assert_eq!(wss_a.delivery(), (21, b"udp to wss".to_vec()));
    udp_c.relay(22, b"udp to udp");
    assert_eq!(udp_d.delivery(), (21, b"udp to udp".to_vec()));
    wss_a.relay(11, 99, b"nobody has 99");
    relay
        .wait_for_metric("pilot_beacon_packets_dropped_total{reason=\"unknown_destination\"}", 1.0);

    for (from, to) in [("wss", "wss"), ("wss", "udp"), ("udp", "wss"), ("udp", "udp")] {
        let name = format!(
            "pilot_beacon_relay_bridge_total{{src_transport=\"{from}\",dst_transport=\"{to}\"}}"
        );
        assert_eq!(relay.metric(&name), 1.0, "{name}");
        let name = name.replace("bridge_total", "bridge_bytes_total");
        assert_eq!(relay.metric(&name), 10.0, "{name}");
    }
    assert_balance(&relay);
}

/// At rest, which may take a moment, every packet that came in is accounted for.
pub(crate) fn assert_balance(relay: &Relay) {
    let unbalanced = || {
        let text = relay.metrics();
        // Each door counts what it handles and drops under a name of its own.
        let sum = |ending: &str| -> f64 {
            let samples = text.lines().filter(|line| {
                let name = line.split(['{', ' ']).next().unwrap_or_default();
                name.ends_with(ending)
            });
            samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
        };
        let came = sum("_packets_in_total");
        let went = sum("_packets_out_total");
        let dropped = sum("_packets_dropped_total");
        let handled = sum("_handled_total");
        let queued = sum("_packets_queued");
        (came - went - dropped - handled - queued, text)
    };
    let rests = || (unbalanced().0 == 0.0).then_some(());
    look_until(Instant::now() + MOMENT, rests).unwrap_or_else(|| {
        let (missing, text) = unbalanced();
        panic!("of what came in, {missing} is not accounted for:\n{text}")
    });
}

#[test]
fn largest_packets_pass_and_larger_ones_are_dropped_with_a_reason() {
    let (a, b) = (Node::new(11), Node::new(12));
    let relay = Relay::with_nodes(&[&a, &b], &[]);
    let mut wss_a = Peer::log_in(relay.wss, &a);
    let mut wss_b = Peer::log_in_for_largest(relay.wss, &b);
    let udp = UdpNode::register(relay.udp, 21);

    let largest = vec![7; 65_527];
    wss_a.relay(11, 12, &largest);
    assert!(wss_b.delivery() == (11, largest.clone()));
    wss_a.relay(11, 21, &largest);
    relay.wait_for_metric("pilot_beacon_packets_dropped_total{reason=\"too_large_for_udp\"}", 1.0);
    wss_a.relay(11, 21, &largest[..65_502]);
    assert!(udp.delivery() == (11, largest[..65_502].to_vec()));
    udp.relay(12, &largest[..65_498]);
    assert!(wss_b.delivery() == (21, largest[..65_498].to_vec()));
    wss_a.relay(11, 12, b"");
    assert_eq!(wss_b.delivery(), (11, Vec::new()));
    assert!(udp.is_silent(Duration::from_millis(50)));
    assert_balance(&relay);
}

#[test]
fn delivery_that_a_compat_daemon_cannot_take_is_dropped_and_does_not_end_its_session() {
    let (a, b) = (Node::new(11), Node::new(12));
    let relay = Relay::with_nodes(&[&a, &b], &[]);
    let (mut wss_a, mut wss_b) = (Peer::log_in(relay.wss, &a), Peer::log_in(relay.wss, &b));
    let udp = UdpNode::register(relay.udp, 21);

    let longest = vec![7; 32_763];
    udp.relay(12, &longest);
    assert!(wss_b.delivery() == (21, longest.clone()));
    udp.relay(12, &vec![7; 32_764]);
    wss_a.relay(11, 12, &vec![7; 65_527]);
    wss_a.relay(11, 12, b"still there");
    assert_eq!(wss_b.delivery(), (11, b"still there".to_vec()));
    relay.wait_for_dropped("too_large_for_peer", 2);

    // The longer header of a 0x09 counts as well.
    wss_b.send(2, &discover(0x08, 12, &[]));
    assert_eq!(wss_b.read().unwrap().1[0], 0x02);
    udp.relay(12, &longest[..32_760]);
    udp.relay(12, &longest[..32_759]);
    let (_, packet) = wss_b.read().unwrap();
    assert_eq!((packet[0], packet.len()), (0x09, 32_768));
    relay.wait_for_dropped("too_large_for_peer", 3);

    // What one session has said is nothing that the next has said.
    drop(wss_b);
    let mut wss_b = Peer::log_in_for_largest(relay.wss, &b);
    wss_a.relay(11, 12, &vec![7; 65_527]);
    assert!(wss_b.delivery() == (11, vec![7; 65_527]));
    let mut wss_b = Peer::log_in(relay.wss, &b);
    wss_a.relay(11, 12, &vec![7; 65_527]);
    relay.wait_for_dropped("too_large_for_peer", 4);
    wss_a.relay(11, 12, b"the end");
    assert_eq!(wss_b.delivery(), (11, b"the end".to_vec()));
    assert_balance(&relay);
}

#[test]
fn flow_keeps_its_order_in_every_cell() {
    let (a, b) = (Node::new(11), Node::new(12));
    let relay = Relay::with_nodes(&[&a, &b], &["--relay-rate", "0"]);
    let (mut wss_a, mut wss_b) = (Peer::log_in(relay.wss, &a), Peer::log_in(relay.wss, &b));
    let udp = UdpNode::register(relay.udp, 21);
    for round in 0..50u32 {
        for n in 0..20u32 {
            let number = (round * 20 + n).to_be_bytes();
            wss_a.relay(11, 12, &number);
            wss_a.relay(11, 21, &[&number[..], &[0; 100][..(n as usize) * 5]].concat());
            udp.relay(12, &number);
        }
        // Read as it comes: what a test cannot take in time is not the relay's to keep.
        let (mut of_a, mut of_udp) = (round * 20, round * 20);
        for _ in 0..40 {
            let (sender, number) = wss_b.delivery();
            let next = if sender == 11 { &mut of_a } else { &mut of_udp };
            assert_eq!(number, next.to_be_bytes());
            *next += 1;
        }
        for n in 0..20u32 {
            let (_, payload) = udp.delivery();
            assert_eq!(payload[..4], (round * 20 + n).to_be_bytes());
        }
    }
    assert_balance(&relay);
}

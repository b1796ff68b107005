//! Punches, their limits and their grants (SPEC §2.3, §2.4, §6.6).

use std::net::Ipv4Addr;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::cells::assert_balance;
use crate::harness::{Node, Relay};
use crate::peer::{UdpNode, address, discover, grant, punch};
use crate::udp::refilled;

/// A registered node on a loopback address of its own: punches count by IP address.
fn node(relay: &Relay, id: u8) -> UdpNode {
    let ip = Ipv4Addr::new(127, 0, 7, id);
    let node = UdpNode::at(&format!("{ip}:0"), relay.udp, id.into());
    node.observed();
    node
}

/// Asserts that each of the two has been told the other's address, and nothing more.
fn assert_told(a: &UdpNode, b: &UdpNode) {
    assert_eq!(address(0x04, &a.receive()), b.address());
    assert_eq!(address(0x04, &b.receive()), a.address());
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn spec_2_3_both_sides_are_told_each_others_address() {
    let relay = Relay::start([] as [&str; 0]);
    let (a, b) = (node(&relay, 21), node(&relay, 22));
    a.send(&punch(21, 22, &[]));
    assert_told(&a, &b);
    assert_eq!(relay.metric("pilot_beacon_packets_handled_total{kind=\"punch\"}"), 1.0);

    // A punch registers its requester.
    let new = UdpNode::at("127.0.7.23:0", relay.udp, 23);
    new.send(&punch(23, 22, b"too short to be a grant"));
    assert_told(&new, &b);
    assert_balance(&relay);
}

#[test]
fn spec_2_3_unknown_target_is_met_with_silence() {
    let relay = Relay::start([] as [&str; 0]);
    let a = node(&relay, 21);
    a.send(&punch(21, 99, &[]));
    a.observed();
    assert_eq!(relay.dropped("punch_unknown_target"), 1);
    assert_balance(&relay);
}

#[test]
fn spec_6_6_one_punch_a_second_for_each_source_address() {
    let relay = Relay::start([] as [&str; 0]);
    let (a, b, other) = (node(&relay, 21), node(&relay, 22), node(&relay, 23));
    let began = Instant::now();
    a.send(&punch(21, 22, &[]));
    assert_told(&a, &b);
    a.send(&punch(21, 22, &[]));
    // Neither the port nor the node tells sources apart.
    let second = UdpNode::at("127.0.7.21:0", relay.udp, 24);
    second.send(&punch(24, 22, &[]));
    a.observed();
    second.observed();
    assert!(began.elapsed().as_secs_f64() < 1.0, "too slow a machine to tell");
    assert_eq!(relay.dropped("punch_source_limited"), 2);
    other.send(&punch(23, 22, &[]));
    assert_told(&other, &b);
    assert_balance(&relay);
}

#[test]
fn spec_6_6_punches_of_all_share_one_rate() {
    let relay = Relay::start(["--punch-rate", "3"]);
    let target = node(&relay, 20);
    let sources: Vec<_> = (21..=30).map(|id| node(&relay, id)).collect();
    let began = Instant::now();
    for source in &sources {
        source.send(&punch(source.id, 20, &[]));
        source.discover();
    }
    // A source that passed is told so before its Discover is answered.
    let passed = sources.iter().filter(|source| {
        let passed = source.receive()[0] == 0x04;
        if passed {
            source.receive();
        }
        passed
    });
    let passed = passed.count();
    let refilled = refilled(3, began);
    assert!((3..=3 + refilled).contains(&passed), "{passed}, {refilled}");
    assert_eq!(relay.dropped("punch_rate_limited"), 10 - passed);
    (0..passed).for_each(|_| assert_eq!(target.receive()[0], 0x04));
    assert_balance(&relay);
}

#[test]
fn spec_6_6_allowed_addresses_pass_both_limits() {
    for allow in ["*", "127.0.7.21", "127.0.7.0/24,192.0.2.1"] {
        let relay = Relay::start(["--punch-rate", "1", "--punch-allow", allow]);
        let (a, b) = (node(&relay, 21), node(&relay, 22));
        for _ in 0..10 {
            a.send(&punch(21, 22, &[]));
            assert_told(&a, &b);
        }
        assert_balance(&relay);
    }
    let relay = Relay::start(["--punch-allow", "127.0.8.0/24"]);
    let (a, b) = (node(&relay, 21), node(&relay, 22));
    a.send(&punch(21, 22, &[]));
    assert_told(&a, &b);
    a.send(&punch(21, 22, &[]));
    a.observed();
    assert_eq!(relay.dropped("punch_source_limited"), 1);
}

#[test]
fn spec_2_4_punch_without_a_valid_grant_is_dropped_where_one_is_required() {
    let (listed, stranger) = (Node::new(22), Node::new(24));
    let relay = Relay::with_nodes(&[&listed], &["--require-punch-grant", "--punch-allow", "*"]);
    let (a, b) = (node(&relay, 21), node(&relay, 22));
    let (now, later) = (unix_seconds(), unix_seconds() + 60);

    a.send(&punch(21, 22, &[]));
    relay.wait_for_dropped("punch_without_grant", 1);
    a.send(&punch(21, 22, &grant(21, 22, now, &listed.key)));
    relay.wait_for_dropped("grant_expired", 1);
    for (forged, count) in [
        (grant(21, 22, later, &stranger.key), 1),
        (grant(23, 22, later, &listed.key), 2),
        (grant(21, 23, later, &listed.key), 3),
        ([&(later + 1).to_be_bytes()[..], &grant(21, 22, later, &listed.key)[8..]].concat(), 4),
    ] {
        a.send(&punch(21, 22, &forged));
        relay.wait_for_dropped("grant_invalid", count);
    }
    a.observed();
    b.observed();

    a.send(&punch(21, 22, &grant(21, 22, later, &listed.key)));
    assert_told(&a, &b);
    assert_balance(&relay);
}

#[test]
fn spec_2_4_grant_is_verified_with_the_key_of_the_targets_discover() {
    let (first, second) = (Node::new(22), Node::new(23));
    let relay = Relay::start(["--require-punch-grant", "--punch-allow", "*"]);
    let (a, b) = (node(&relay, 21), node(&relay, 22));
    let later = unix_seconds() + 60;
    a.send(&punch(21, 22, &grant(21, 22, later, &first.key)));
    relay.wait_for_dropped("grant_invalid", 1);
    for shown in [&first, &second] {
        b.send(&discover(0x01, 22, &shown.key.verifying_key().to_bytes()));
        assert_eq!(address(0x02, &b.receive()), b.address());
    }
    a.send(&punch(21, 22, &grant(21, 22, later, &second.key)));
    relay.wait_for_dropped("grant_invalid", 2);
    a.send(&punch(21, 22, &grant(21, 22, later, &first.key)));
    assert_told(&a, &b);
    assert_balance(&relay);
}

#[test]
fn spec_2_4_valid_grant_passes_the_limit_of_all_and_not_that_of_its_source() {
    let target = Node::new(20);
    let relay = Relay::with_nodes(&[&target], &["--punch-rate", "1"]);
    let (b, later) = (node(&relay, 20), unix_seconds() + 60);
    let spender = node(&relay, 21);
    let mut granted = Vec::new();
    for id in 22..=26 {
        granted.push(node(&relay, id));
    }
    spender.send(&punch(21, 20, &[]));
    assert_told(&spender, &b);
    let began = Instant::now();
    for a in &granted {
        a.send(&punch(a.id, 20, &grant(a.id, 20, later, &target.key)));
        assert_told(a, &b);
    }
    let again = &granted[0];
    again.send(&punch(again.id, 20, &grant(again.id, 20, later, &target.key)));
    again.observed();
    assert!(began.elapsed().as_secs_f64() < 1.0, "too slow a machine to tell");
    assert_eq!(relay.dropped("punch_source_limited"), 1);
    assert_eq!(relay.dropped("punch_rate_limited"), 0);
    assert_balance(&relay);
}

#[test]
fn spec_2_4_bad_grant_is_dropped_where_none_is_required_as_well() {
    let target = Node::new(22);
    let relay = Relay::with_nodes(&[&target], &["--punch-allow", "*"]);
    let (a, b) = (node(&relay, 21), node(&relay, 22));
    a.send(&punch(21, 22, &grant(21, 22, unix_seconds() + 60, &Node::new(23).key)));
    relay.wait_for_dropped("grant_invalid", 1);
    a.send(&punch(21, 22, &grant(21, 22, 1, &target.key)));
    relay.wait_for_dropped("grant_expired", 1);
    a.observed();
    b.observed();
    assert_balance(&relay);
}

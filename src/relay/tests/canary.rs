//! The canary over UDP that a receiving thread comes to late.

use super::*;
use crate::metrics::Transport;
use crate::relay::canary::REMEMBERED;

const SECRET: [u8; 32] = [7; 32];

/// A canary that the relay expects, and what it sends: its question, and its packet.
fn canary(relay: &Fixture, now: Instant) -> (Canary, [Vec<u8>; 2]) {
    let canary = Canary { address: at(1), secret: SECRET };
    relay.relay.expect_canary(canary, now);
    let question = [&[1, 0, 0, 0, 0], &SECRET[..]].concat();
    let packet = [&[5, 255, 255, 255, 255, 255, 255, 255, 255], &SECRET[..]].concat();
    (canary, [question, packet])
}

#[test]
fn canary_that_is_late_registers_no_node_and_counts_nowhere() {
    let (mut relay, t0) = (Fixture::new(), Instant::now());
    let (_, [question, packet]) = canary(&relay, t0);
    // The relay has given that one up, and has sent others since.
    for number in 2..20 {
        let canary = Canary { address: at(number), secret: [number; 32] };
        relay.relay.expect_canary(canary, t0 + SECOND);
    }
    let late = t0 + REMEMBERED - SECOND;

    assert_eq!(relay.one(at(1), &question, late), observed(1));
    assert_eq!(relay.one(at(1), &packet, late).len(), 1);

    assert_eq!(relay.relay.table.endpoint_count(), 0);
    assert_eq!(relay.relay.traffic.packets_in(Transport::Udp), 0);
}

#[test]
fn canary_that_nobody_remembers_is_only_answered() {
    let (mut relay, t0) = (Fixture::new(), Instant::now());
    let (_, [question, packet]) = canary(&relay, t0);

    assert_eq!(relay.one(at(1), &question, t0 + REMEMBERED), observed(1));
    assert_eq!(relay.one(at(1), &packet, t0 + REMEMBERED), []);

    assert_eq!(relay.relay.table.endpoint_count(), 0);
    assert_eq!(relay.dropped(Drop::UnknownDestination), 1);
}

#[test]
fn canaries_that_are_known_are_few() {
    let (relay, t0) = (Fixture::new(), Instant::now());
    let (first, _) = canary(&relay, t0);
    let known = |relay: &Fixture| relay.relay.canaries.load().len();
    relay.relay.dismiss_canary(&first, t0);
    assert_eq!(known(&relay), 0, "it was answered");

    for number in 0..100 {
        relay.relay.expect_canary(Canary { address: at(number), secret: SECRET }, t0);
    }
    assert_eq!(known(&relay), 24);

    relay.relay.expect_canary(first, t0 + REMEMBERED);
    assert_eq!(known(&relay), 1, "the others are too old");
}

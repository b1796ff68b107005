//! How many peers one relay may take away from others, and that all comes to rest behind it.

use super::super::takeovers::Rates;
use super::*;
use crate::limit::Rate;

/// A relay where each other one may take over two sessions, and then one a second.
fn limited() -> Relay {
    let mut relay = Relay::with(&[2, 3]);
    let rate = Rate::per_second(1).with_burst(2);
    relay.presence.takeovers.limit(Rates { of_one: rate, of_all: Rate::NONE });
    relay
}

/// So many ids that a relay is the home of, with the spare at relay 2.
fn ids(relay: &Relay, count: usize) -> Vec<NodeId> {
    let homes = [ME, 2].map(|byte| relay.presence.members.slot(super::relay(byte)).unwrap());
    let all = (1..10_000).map(node);
    all.filter(|id| relay.presence.members.homes(id) == homes).take(count).collect()
}

/// Whether a claim was granted.
fn takes(relay: &mut Relay, by: u8, claim: Claim<NodeId>) -> bool {
    let sent = relay.hear(by, Frame::Claim(claim));
    sent.iter().any(|(_, frame)| matches!(frame, Frame::Granted { .. }))
}

#[test]
fn one_member_does_not_take_every_session_away() {
    let mut relay = limited();
    let ids = ids(&relay, 10);
    for id in &ids {
        assert!(takes(&mut relay, 2, claim(*id, 0, 1, SESSION)), "what is new is no takeover");
    }

    // Neither a request nor an epoch of its own passes the limit.
    let taken = |relay: &mut Relay, epoch| {
        let all = ids.iter().filter(|id| takes(relay, 3, claim(**id, epoch, 1, SESSION)));
        all.count()
    };
    assert_eq!(taken(&mut relay, 0), 2);
    assert_eq!(taken(&mut relay, CLOCK + 50_000), 2, "those that it has");
    assert_eq!(relay.denied(Denied::TakeoverLimited), 16);
    let counted = relay.presence.taken_by(super::relay(3));
    assert_eq!(counted, Taken { sessions: 2, unproved: 0, held_back: 16 });

    // Who left and joins again goes on where it was.
    relay.presence.left(super::relay(3), relay.now());
    relay.presence.joined(super::relay(3), relay.now());
    assert_eq!(taken(&mut relay, 0), 2, "its own, which are over");
}

#[test]
fn one_member_does_not_take_every_endpoint_or_peer_of_a_foreign_server_away() {
    for ownership in [ENDPOINT, GATEWAY] {
        let mut relay = limited();
        let ids = ids(&relay, 20);
        for id in &ids {
            assert!(
                takes(&mut relay, 2, claim(*id, 0, 1, ownership)),
                "what is new is no takeover"
            );
        }
        relay.wait(30_000);
        let (half, rest) = ids.split_at(10);
        let mut taken = |ids: &[NodeId], epoch, by| {
            ids.iter().filter(|id| takes(&mut relay, 3, claim(**id, epoch, 1, by))).count()
        };
        assert_eq!(taken(half, 0, SESSION), 2);
        // What proves nothing has an account of its own.
        assert_eq!(taken(rest, CLOCK + 50_000, ENDPOINT), 2);
        assert_eq!(relay.denied(Denied::TakeoverLimited), 16);
        let counted = relay.presence.taken_by(super::relay(3));
        assert_eq!(counted, Taken { sessions: 0, unproved: 4, held_back: 16 });
        assert_eq!(relay.presence.stats().unproved_takeovers, 4);
    }
}

#[test]
fn who_forges_the_address_of_endpoints_keeps_no_session_from_its_turn() {
    let mut relay = limited();
    let ids = ids(&relay, 12);
    let (forged, moves) = ids.split_at(10);
    forged.iter().for_each(|id| assert!(takes(&mut relay, 2, claim(*id, 0, 1, ENDPOINT))));
    moves.iter().for_each(|id| assert!(takes(&mut relay, 2, claim(*id, 0, 1, SESSION))));
    relay.wait(30_000);
    let by = |relay: &mut Relay, ids: &[NodeId], ownership| {
        ids.iter().filter(|id| takes(relay, 3, claim(**id, 0, 1, ownership))).count()
    };
    assert_eq!(by(&mut relay, forged, ENDPOINT), 2);
    assert_eq!(by(&mut relay, moves, SESSION), 2);
}

#[test]
fn endpoints_that_are_held_back_move_in_the_end_and_those_of_a_dead_relay_at_once() {
    let mut relay = limited();
    let ids = ids(&relay, 10);
    ids.iter().for_each(|id| assert!(takes(&mut relay, 2, claim(*id, 0, 1, ENDPOINT))));
    relay.wait(30_000);
    let mut open = ids;
    for _ in 0..3 {
        open.retain(|id| !takes(&mut relay, 3, claim(*id, 0, 1, ENDPOINT)));
        relay.wait(1_000);
    }
    assert_eq!(open.len(), 6);
    relay.presence.left(super::relay(2), relay.now());
    open.retain(|id| !takes(&mut relay, 3, claim(*id, 0, 1, ENDPOINT)));
    assert_eq!(open, []);
}

#[test]
fn claims_that_are_held_back_are_granted_in_the_end() {
    let mut relay = limited();
    let ids = ids(&relay, 10);
    ids.iter().for_each(|id| assert!(takes(&mut relay, 2, claim(*id, 0, 1, SESSION))));

    let mut open = ids;
    for _ in 0..8 {
        open.retain(|id| !takes(&mut relay, 3, claim(*id, 0, 1, SESSION)));
        relay.wait(1_000);
    }
    open.retain(|id| !takes(&mut relay, 3, claim(*id, 0, 1, SESSION)));
    assert_eq!(open, []);
}

#[test]
fn what_is_there_no_more_is_no_takeover() {
    let mut relay = limited();
    let ids = ids(&relay, 10);
    ids.iter().for_each(|id| assert!(takes(&mut relay, 2, claim(*id, 0, 1, SESSION))));
    let (left, lost) = ids.split_at(5);

    for id in left {
        relay.hear(2, Frame::Leave { id: *id, serial: 1 });
        assert!(takes(&mut relay, 3, claim(*id, 0, 1, SESSION)));
    }
    relay.presence.left(super::relay(2), relay.now());
    for id in lost {
        assert!(takes(&mut relay, 3, claim(*id, 0, 1, SESSION)));
    }
    assert_eq!(relay.denied(Denied::TakeoverLimited), 0);
}

#[test]
fn home_that_lies_does_not_end_every_session() {
    let taken = ended_by_lies(SESSION);
    assert_eq!((taken.sessions, taken.unproved), (3, 0));
}

#[test]
fn home_that_lies_does_not_end_every_endpoint() {
    let taken = ended_by_lies(ENDPOINT);
    assert_eq!((taken.sessions, taken.unproved), (0, 3));
}

/// What a home has ended that names another owner of all that it is a home of.
fn ended_by_lies(ownership: Ownership) -> Taken {
    let mut relay = limited();
    let homes = [3, ME].map(|byte| relay.presence.members.slot(super::relay(byte)).unwrap());
    let all = (1..10_000).map(node);
    let ids: Vec<_> = all.filter(|id| relay.presence.members.homes(id) == homes).take(10).collect();
    for id in &ids {
        relay.presence.arrived(*id, here(1, ownership), relay.now());
    }
    relay.wait(200);

    let left = |relay: &mut Relay| {
        for id in &ids {
            let location = location(2, CLOCK + 50_000, SESSION);
            relay.hear(3, Frame::Moved { id: *id, location, ends: 1 });
        }
        ids.iter().filter(|id| relay.presence.is_here(**id)).count()
    };
    assert_eq!(left(&mut relay), 10, "the other home keeps to them");
    relay.wait(1_100);
    assert_eq!(left(&mut relay), 8);
    assert_eq!(left(&mut relay), 8);
    relay.wait(1_000);
    assert_eq!(left(&mut relay), 7);
    assert!(relay.denied(Denied::TakeoverLimited) > 0);
    relay.presence.taken_by(super::relay(3))
}

//! How many sessions one relay may end elsewhere, and that all comes to rest behind it.

use super::super::takeovers::Rates;
use super::*;
use crate::proto::limit::Rate;

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
    assert_eq!(relay.rejects(Reject::TakeoverLimited), 16);
    let counted = relay.presence.taken_by(super::relay(3));
    assert_eq!(counted, Taken { sessions: 2, held_back: 16 });

    // Who left and joins again goes on where it was.
    relay.presence.left(super::relay(3), relay.now());
    relay.presence.joined(super::relay(3), relay.now());
    assert_eq!(taken(&mut relay, 0), 2, "its own, which are over");
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
    assert_eq!(relay.rejects(Reject::TakeoverLimited), 0);
}

#[test]
fn home_that_lies_does_not_end_every_session() {
    let mut relay = limited();
    let homes = [3, ME].map(|byte| relay.presence.members.slot(super::relay(byte)).unwrap());
    let all = (1..10_000).map(node);
    let ids: Vec<_> = all.filter(|id| relay.presence.members.homes(id) == homes).take(10).collect();
    for id in &ids {
        relay.presence.arrived(*id, here(1, SESSION), relay.now());
    }
    relay.wait(200);

    let left = |relay: &mut Relay| {
        for id in &ids {
            let place = place(2, CLOCK + 50_000, SESSION);
            relay.hear(3, Frame::Moved { id: *id, place, ends: 1 });
        }
        ids.iter().filter(|id| relay.presence.is_here(**id)).count()
    };
    assert_eq!(left(&mut relay), 10, "the other home keeps to them");
    relay.wait(1_100);
    assert_eq!(left(&mut relay), 8);
    assert_eq!(left(&mut relay), 8);
    relay.wait(1_000);
    assert_eq!(left(&mut relay), 7);
    assert!(relay.rejects(Reject::TakeoverLimited) > 0);
    assert_eq!(relay.presence.taken_by(super::relay(3)).sessions, 3);
}

//! What goes when a home has no room, and that it is never busy for long.

use super::*;
use crate::presence::changes::{MAX_CLAIMS, MAX_STEP};

/// A home of all ids, beside relay 2, with room for so many.
fn home(room: usize) -> Relay {
    Relay::of_room(&[2], room)
}

fn fill(relay: &mut Relay, count: u32, ownership: Ownership) {
    for number in 1..=count {
        relay.claim(2, claim(node(number), 0, u64::from(number), ownership));
    }
}

#[test]
fn endpoints_that_came_and_left_keep_nobody_out() {
    for ownership in [ENDPOINT, SESSION] {
        let mut relay = home(80);
        fill(&mut relay, 80, ENDPOINT);
        for number in 1..=80 {
            relay.hear(2, Frame::Leave { id: node(number), serial: u64::from(number) });
        }
        let Stats { entries, tombstones, .. } = relay.presence.stats();
        assert_eq!((entries, tombstones), (0, 10), "an eighth of the room");
        let over = Frame::Left { id: node(80), serial: 80 };
        assert_eq!(relay.claim(2, claim(node(80), 0, 80, ENDPOINT)), over, "the last are kept");
        for number in 101..=180 {
            let claim = claim(node(number), 0, 1_000, ownership);
            assert_eq!(relay.claim(2, claim), granted(node(number), CLOCK, 1_000));
        }
        let Stats { entries, tombstones, .. } = relay.presence.stats();
        assert_eq!((entries, tombstones), (80, 0));
    }
}

#[test]
fn leaves_of_what_was_never_here_take_an_eighth_of_the_room() {
    let mut relay = home(80);
    for number in 1..=1_000 {
        relay.hear(2, Frame::Leave { id: node(number), serial: 1 });
    }
    assert_eq!(relay.presence.stats().tombstones, 10);
}

#[test]
fn session_takes_the_room_of_what_proved_nothing() {
    let mut relay = home(4);
    fill(&mut relay, 2, SESSION);
    relay.claim(2, claim(node(3), 0, 3, ENDPOINT));
    relay.claim(2, claim(node(4), 0, 4, GATEWAY));
    for number in [5, 6] {
        let sent = relay.hear(2, Frame::Claim(claim(node(number), 0, 9, SESSION)));
        assert!(sent.contains(&(super::relay(2), granted(node(number), CLOCK, 9))));
        // Who has to go is told that the peer is its own to claim, until it answers.
        let yours = location(2, 0, GATEWAY);
        let told = |(_, frame): &(_, Frame<'_, NodeId>)| {
            let Frame::Moved { id, location, ends } = *frame else { return None };
            (location == yours).then_some((id, ends))
        };
        let (id, ends) = sent.iter().find_map(told).unwrap();
        assert!([(node(3), 3), (node(4), 4)].contains(&(id, ends)));
        assert_eq!(relay.presence.stats().outstanding, 1);
        let full = refused(id, Refusal::Full);
        assert_eq!(relay.claim(2, claim(id, CLOCK, ends, ENDPOINT)), full);
        assert_eq!(relay.presence.stats().outstanding, 0);
    }
    let full = refused(node(7), Refusal::Full);
    assert_eq!(relay.claim(2, claim(node(7), 0, 9, SESSION)), full, "all are sessions");
    assert_eq!(relay.presence.stats().entries, 4);
}

#[test]
fn members_that_never_answer_fill_no_memory() {
    let mut relay = Relay::of_room(&[2, 3], 8);
    for number in 1..=100 {
        relay.presence.arrived(node(number), here(1, SESSION), relay.now());
        relay.presence.departed(node(number), 1, relay.now());
    }
    assert_eq!(relay.presence.stats().outstanding, 8);
    assert!(relay.denied(Denied::Full) > 0);
    // Who comes is claimed all the same.
    relay.presence.arrived(node(101), here(1, SESSION), relay.now());
    assert_eq!(relay.presence.stats().outstanding, 10);
}

#[test]
fn relay_that_left_has_nothing_at_once_and_its_records_end_in_steps() {
    let mut relay = home(1_000_000);
    let count = 4 * MAX_STEP;
    fill(&mut relay, u32::try_from(count).unwrap(), ENDPOINT);
    relay.presence.joined(super::relay(3), relay.now());
    relay.presence.left(super::relay(2), relay.now());
    let entries = |relay: &Relay| relay.presence.stats().entries;
    assert_eq!(entries(&relay), count - MAX_STEP);
    for number in 1..=1_000 {
        let missing = Frame::Missing { id: node(number) };
        assert_eq!(relay.hear(3, Frame::Find { id: node(number) }), [(super::relay(3), missing)]);
    }
    // Nor does it matter that it comes back before all is done.
    relay.presence.joined(super::relay(2), relay.now());
    let first = relay.claim(2, claim(node(1), 0, 1, SESSION));
    assert_eq!(first, granted(node(1), CLOCK + 1, 1));
    let mut last = entries(&relay);
    for _ in 0..3 {
        relay.millis += 10;
        relay.presence.timeout(relay.now());
        assert!(last - entries(&relay) <= MAX_STEP);
        last = entries(&relay);
    }
    assert_eq!(last, 1);
}

#[test]
fn what_is_over_is_forgotten_in_steps() {
    let mut relay = home(1_000_000);
    let count = 3 * MAX_STEP;
    fill(&mut relay, u32::try_from(count).unwrap(), SESSION);
    for number in 1..=u32::try_from(count).unwrap() {
        relay.hear(2, Frame::Leave { id: node(number), serial: u64::from(number) });
    }
    let tombstones = |relay: &Relay| relay.presence.stats().tombstones;
    assert_eq!(tombstones(&relay), count);
    relay.wait(60_000);
    relay.millis += 31_000;
    for left in [2, 1, 0] {
        relay.presence.timeout(relay.now());
        assert_eq!(tombstones(&relay), left * MAX_STEP);
    }
}

#[test]
fn former_home_hands_over_in_steps_and_an_owner_repeats_in_steps() {
    let mut relay = home(1_000_000);
    let count = 3 * MAX_CLAIMS;
    fill(&mut relay, u32::try_from(count).unwrap(), SESSION);
    relay.presence.draining(super::relay(ME), relay.now());
    relay.millis += 60_000;
    let mut calls = 0;
    while relay.presence.stats().entries > 0 {
        let before = relay.presence.stats().entries;
        relay.presence.timeout(relay.now());
        assert!(before - relay.presence.stats().entries <= MAX_STEP);
        assert!(relay.sent().len() <= MAX_STEP);
        relay.millis += 10;
        calls += 1;
    }
    assert!((3..200).contains(&calls), "{calls}");
    assert_eq!(relay.presence.stats().outstanding, count);
    relay.millis += 60_000;
    for _ in 0..3 {
        relay.presence.timeout(relay.now());
        assert_eq!(relay.sent().len(), MAX_CLAIMS);
    }
}

#[test]
#[ignore = "a measurement: how long one call takes with a million of everything"]
fn longest_call_with_a_million() {
    let mut relay = home(MAX_ENTRIES);
    let mut longest = Duration::ZERO;
    let mut timed = |relay: &mut Relay, what, call: &dyn Fn(&mut Relay)| {
        let start = Instant::now();
        call(relay);
        let took = start.elapsed();
        if took > longest || what != "timeout" {
            println!("{what}: {took:?}");
        }
        longest = longest.max(took);
        relay.sent();
        relay.events();
    };
    relay.presence.joined(super::relay(3), relay.now());
    for number in 1..=1_000_000 {
        let claim = claim(node(number), 0, u64::from(number), SESSION);
        relay.presence.receive(super::relay(2), &Frame::Claim(claim), relay.now());
        relay.sent();
    }
    timed(&mut relay, "left", &|relay| {
        relay.presence.left(super::relay(2), relay.now());
    });
    for _ in 0..10_000 {
        relay.millis += 10;
        timed(&mut relay, "timeout", &|relay| relay.presence.timeout(relay.now()));
    }
    println!("longest: {longest:?}; tombstones left: {}", relay.presence.stats().tombstones);
}

//! What a bus does with the records of one channel.

use super::*;

/// More than one batch has, and few enough for memory.
const BACKLOG: u64 = 2_000;

/// Records that a turn removes.
fn removed(turn: &Turn) -> u64 {
    let mut removed = 0;
    for change in &turn.changes {
        if let Change::Trim { from, before, .. } = change {
            removed += before.0 - from.0;
        }
    }
    removed
}

/// The number of the batch that a turn hands over, and its records.
fn batch(turn: &Turn) -> Option<(u64, usize)> {
    turn.effects.iter().find_map(|effect| match effect {
        Effect::Records { batch, records, .. } => Some((*batch, records.len())),
        Effect::Deliver { .. } | Effect::Load(_) | Effect::Withdraw { .. } => None,
    })
}

#[test]
fn backlog_that_one_acknowledgement_ended_held_everybody_up_until_it_was_removed() {
    let mut fixture = Fixture::new(Limits::default());
    let (publisher, subscriber) = (fixture.claim("alice", ALICE), fixture.claim("bob", BOB));
    fixture.open(subscriber, 1);
    let subscription = Subscription { channels: vec!["c".into()], is_ephemeral: false };
    fixture.bus.subscribe(subscriber, 1, &subscription, fixture.now, &mut fixture.turn);
    fixture.finish();
    for number in 0..BACKLOG {
        fixture.send(publisher, To::Channel("c".into()), &number.to_string());
    }
    let mut turn = fixture.finish();
    let mut handed = 0;
    let mut gone = 0;
    while let Some((number, records)) = batch(&turn) {
        handed += records as u64;
        assert!(fixture.bus.acknowledge_records(subscriber, 1, number, &mut fixture.turn));
        turn = fixture.finish();
        // One entry for the acknowledgement, and one for what is handed over next.
        assert!(turn.events.len() <= 2, "{:?}", turn.events);
        assert!((1..=128).contains(&removed(&turn)), "{}", removed(&turn));
        gone += removed(&turn);
    }
    assert_eq!(handed, BACKLOG);
    while fixture.bus.has_leftovers() {
        turn = fixture.finish();
        assert!(removed(&turn) <= 128, "{}", removed(&turn));
        gone += removed(&turn);
    }
    assert_eq!(gone, BACKLOG);
    assert_eq!(fixture.bus.channel_totals().kept, 0);
}

#[test]
fn what_comes_is_removed_as_fast_however_busy_the_bus_is() {
    let mut fixture = Fixture::new(Limits::default());
    let (publisher, subscriber) = (fixture.claim("alice", ALICE), fixture.claim("bob", BOB));
    fixture.open(subscriber, 1);
    let subscription = Subscription { channels: vec!["c".into()], is_ephemeral: false };
    fixture.bus.subscribe(subscriber, 1, &subscription, fixture.now, &mut fixture.turn);
    let mut in_flight = None;
    for turn in 0..50 {
        if let Some(number) = in_flight.take() {
            fixture.bus.acknowledge_records(subscriber, 1, number, &mut fixture.turn);
        }
        for number in 0..500 {
            fixture.send(publisher, To::Channel("c".into()), &format!("{turn}-{number}"));
        }
        in_flight = batch(&fixture.finish()).map(|(number, _)| number);
        let kept = fixture.bus.channel_totals().kept;
        assert!(kept <= 3 * 500, "{kept} records after turn {turn}");
    }
}

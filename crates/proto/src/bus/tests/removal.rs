//! What leaves a mailbox without an acknowledgement.

use super::*;

#[test]
fn message_that_is_too_old_is_removed_from_a_mailbox_that_nobody_reads() {
    let mut fixture = Fixture::new(Limits { retention: 1_000, ..Limits::default() });
    fixture.bus = Bus::new(fixture.bus.limits, waiting(2));

    fixture.now.0 += 1_000;
    fixture.bus.tick(fixture.now, &mut fixture.turn);
    let load = fixture.load();
    let young = Millis(T0.0 + 500);
    let read = vec![stored(1, "bob", "m1", T0), stored(2, "bob", "m2", young)];
    fixture.bus.loaded(&load, read.into(), fixture.now, &mut fixture.turn);

    let turn = fixture.finish();
    let kinds: Vec<_> = turn.events.iter().map(|event| (event.kind, &*event.key)).collect();
    assert_eq!(kinds, [(EventKind::Expire, "m1")]);
    let totals = fixture.bus.totals();
    assert_eq!((totals.expired, totals.waiting), (1, 1));
}

#[test]
fn purge_removes_what_waits_and_nothing_that_comes_later() {
    let mut fixture = Fixture::new(Limits::default());
    fixture.bus = Bus::new(Limits::default(), waiting(1));
    let alice = fixture.claim("alice", ALICE);

    assert_eq!(fixture.bus.purge(REALM, "alice", &mut fixture.turn), Some(1));
    let load = fixture.load();
    fixture.send(alice, to("alice"), "m2");
    let read = vec![stored(1, "bob", "m1", T0), stored(2, "alice", "m2", T0)];
    fixture.bus.loaded(&load, read.into(), T0, &mut fixture.turn);
    fixture.finish();

    let totals = fixture.bus.totals();
    assert_eq!((totals.purged, totals.waiting), (1, 1));
    assert_eq!(fixture.bus.purge(REALM, "nobody", &mut fixture.turn), None);
}

/// A purge, and what it reads; meanwhile the recipient acknowledges the only message that waits.
fn purged_and_acknowledged(fixture: &mut Fixture) -> (MailboxId, Load) {
    let alice = fixture.claim("alice", ALICE);
    fixture.open(alice, 1);
    fixture.send(alice, to("alice"), "m1");
    fixture.finish();
    fixture.bus.purge(REALM, "alice", &mut fixture.turn);
    let load = fixture.load();
    assert!(fixture.acknowledge(alice, 1, "m1"));
    (alice, load)
}

#[test]
fn message_that_comes_while_a_purge_reads_nothing_is_not_forgotten() {
    let mut fixture = Fixture::new(Limits::default());
    let (alice, load) = purged_and_acknowledged(&mut fixture);
    fixture.send(alice, to("alice"), "m2");
    fixture.finish();

    fixture.bus.loaded(&load, Vec::new().into(), T0, &mut fixture.turn);
    fixture.bus.close(alice, 1, T0, &mut fixture.turn);
    fixture.finish();
    fixture.open(alice, 2);

    assert_eq!(fixture.load().from, Seq(2));
    assert_eq!(fixture.bus.totals().missing, 0);
}

#[test]
fn message_that_was_acknowledged_while_a_purge_read_it_is_removed_once() {
    let mut fixture = Fixture::new(Limits::default());
    let (alice, load) = purged_and_acknowledged(&mut fixture);
    fixture.send(alice, to("alice"), "m2");
    fixture.bus.close(alice, 1, T0, &mut fixture.turn);
    fixture.finish();

    let read = vec![stored(1, "alice", "m1", T0)];
    fixture.bus.loaded(&load, read.into(), T0, &mut fixture.turn);
    fixture.finish();

    let totals = fixture.bus.totals();
    assert_eq!((totals.purged, totals.acknowledged, totals.waiting), (0, 1, 1));
}

#[test]
fn books_follow_a_store_that_has_lost_messages() {
    let mut fixture = Fixture::new(Limits::default());
    fixture.bus = Bus::new(Limits::default(), waiting(3));
    let alice = fixture.claim("alice", ALICE);
    fixture.open(alice, 1);
    let load = fixture.load();

    fixture.bus.loaded(&load, Vec::new().into(), T0, &mut fixture.turn);
    fixture.send(alice, to("alice"), "m4");

    assert_eq!(fixture.delivered(alice), ["m4"]);
    let totals = fixture.bus.totals();
    assert_eq!((totals.missing, totals.waiting), (3, 1));
}

#[test]
fn message_that_cannot_be_read_costs_itself_alone() {
    let mut fixture = Fixture::new(Limits::default());
    fixture.bus = Bus::new(Limits::default(), waiting(3));
    let alice = fixture.claim("alice", ALICE);
    fixture.open(alice, 1);
    let load = fixture.load();
    let key = Digest([7; 16]);

    let damaged = vec![Damaged { seq: Seq(2), key: Some((key, 80)) }];
    let stored = vec![stored(1, "bob", "m1", T0), stored(3, "bob", "m3", T0)];
    fixture.bus.loaded(&load, Reading { stored, damaged }, T0, &mut fixture.turn);

    let removed = Change::Remove { mailbox: alice, seq: Seq(2), key };
    assert!(fixture.turn.changes.contains(&removed));
    assert_eq!(fixture.turn.events[0].kind, EventKind::Expire);
    assert_eq!(fixture.delivered(alice), ["m1", "m3"]);
    let totals = fixture.bus.totals();
    assert_eq!((totals.damaged, totals.missing, totals.waiting), (1, 0, 2));
}

#[test]
fn mailbox_whose_last_messages_cannot_be_read_goes_on_with_what_comes() {
    let mut fixture = Fixture::new(Limits::default());
    fixture.bus = Bus::new(Limits::default(), waiting(1));
    let alice = fixture.claim("alice", ALICE);
    fixture.open(alice, 1);
    let load = fixture.load();

    let damaged = vec![Damaged { seq: Seq(1), key: None }];
    let reading = Reading { stored: Vec::new(), damaged };
    fixture.bus.loaded(&load, reading, T0, &mut fixture.turn);
    fixture.send(alice, to("alice"), "m2");

    assert_eq!(fixture.delivered(alice), ["m2"]);
}

#[test]
fn message_that_was_acknowledged_is_not_lost_to_damage_as_well() {
    let mut fixture = Fixture::new(Limits::default());
    let (_, load) = purged_and_acknowledged(&mut fixture);

    let damaged = vec![Damaged { seq: Seq(1), key: None }];
    let reading = Reading { stored: Vec::new(), damaged };
    fixture.bus.loaded(&load, reading, T0, &mut fixture.turn);
    fixture.finish();

    let totals = fixture.bus.totals();
    assert_eq!((totals.damaged, totals.acknowledged, totals.waiting), (0, 1, 0));
}

//! What a recipient gets, in which order, and when again.

use super::*;

#[test]
fn message_is_delivered_in_the_turn_that_commits_it() {
    let mut fixture = Fixture::new(Limits::default());
    let alice = fixture.claim("alice", ALICE);
    let bob = fixture.claim("bob", BOB);
    fixture.open(alice, 1);

    assert_eq!(fixture.send(bob, to("alice"), "m1"), Submitted::Stored(1));

    let turn = fixture.finish();
    let kinds: Vec<_> = turn.events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::Send, EventKind::Deliver]);
    assert!(matches!(&turn.effects[..], [Effect::Deliver { generation: 1, .. }]), "{turn:?}");
}

#[test]
fn only_the_newest_session_of_the_recipient_acknowledges() {
    let mut fixture = Fixture::new(Limits::default());
    let alice = fixture.claim("alice", ALICE);
    let bob = fixture.claim("bob", BOB);
    fixture.open(alice, 7);
    fixture.open(bob, 8);
    fixture.send(bob, to("alice"), "m1");

    assert!(!fixture.acknowledge(bob, 8, "m1"), "it is another's");
    assert!(!fixture.acknowledge(alice, 6, "m1"), "that session is over");
    assert!(fixture.acknowledge(alice, 7, "m1"));
    assert!(!fixture.acknowledge(alice, 7, "m1"), "once is enough");
}

#[test]
fn window_bounds_what_a_recipient_has_and_the_rest_follows_its_acknowledgements() {
    let mut fixture = Fixture::new(Limits { window: 2, ..Limits::default() });
    let alice = fixture.claim("alice", ALICE);
    fixture.open(alice, 1);
    for number in 1..=4 {
        fixture.send(alice, to("alice"), &format!("m{number}"));
    }
    assert_eq!(fixture.delivered(alice), ["m1", "m2"]);

    assert!(fixture.acknowledge(alice, 1, "m1"));

    let load = fixture.load();
    assert_eq!((load.from, load.messages), (Seq(3), 1));
    fixture.bus.loaded(&load, vec![stored(3, "alice", "m3", T0)].into(), T0, &mut fixture.turn);
    assert_eq!(fixture.delivered(alice), ["m3"]);
}

#[test]
fn what_waits_goes_before_what_is_new_also_while_it_is_being_read() {
    let mut fixture = Fixture::new(Limits::default());
    fixture.bus = Bus::new(Limits::default(), waiting(1));
    let alice = fixture.claim("alice", ALICE);
    fixture.open(alice, 1);
    let load = fixture.load();

    fixture.send(alice, to("alice"), "new");
    assert_eq!(fixture.delivered(alice), [""; 0]);
    fixture.bus.loaded(&load, vec![stored(1, "bob", "old", T0)].into(), T0, &mut fixture.turn);

    let turn = fixture.finish();
    assert!(
        matches!(
            &turn.effects[..],
            [Effect::Deliver { .. }, Effect::Load(Load { from: Seq(2), .. })]
        ),
        "{turn:?}"
    );
}

#[test]
fn first_reading_of_a_session_comes_by_sender_each_in_order() {
    let mut fixture = Fixture::new(Limits::default());
    fixture.bus = Bus::new(Limits::default(), waiting(4));
    let alice = fixture.claim("alice", ALICE);
    fixture.open(alice, 1);
    let load = fixture.load();

    let read = [(1, "carol", "c1"), (2, "bob", "b1"), (3, "carol", "c2"), (4, "bob", "b2")];
    let read = read.map(|(seq, from, key)| stored(seq, from, key, T0));
    fixture.bus.loaded(&load, read.to_vec().into(), T0, &mut fixture.turn);

    assert_eq!(fixture.delivered(alice), ["b1", "b2", "c1", "c2"]);
}

#[test]
fn reading_that_began_before_an_acknowledgement_is_made_again() {
    let mut fixture = Fixture::new(Limits::default());
    fixture.bus = Bus::new(Limits::default(), waiting(2));
    let alice = fixture.claim("alice", ALICE);
    fixture.open(alice, 1);
    let load = fixture.load();
    let first = stored(1, "bob", "m1", T0);
    let found = Found { seq: Seq(1), origin: first.message.origin, cost: first.message.cost() };
    let find = |_, _| Ok::<_, Infallible>(Some(found));
    let Ok(known) = fixture.bus.acknowledge(alice, 1, "m1", T0, &mut fixture.turn, find);
    assert!(known);
    fixture.finish();

    fixture.bus.loaded(
        &load,
        vec![first, stored(2, "bob", "m2", T0)].into(),
        T0,
        &mut fixture.turn,
    );

    let again = fixture.load();
    fixture.bus.loaded(&again, vec![stored(2, "bob", "m2", T0)].into(), T0, &mut fixture.turn);
    assert_eq!(fixture.delivered(alice), ["m2"]);
}

#[test]
fn of_acknowledgements_of_what_never_was_a_window_is_looked_for_between_two_ticks() {
    const WINDOW: usize = 3;
    let mut fixture = Fixture::new(Limits { window: WINDOW, ..Limits::default() });
    fixture.bus = Bus::new(Limits { window: WINDOW, ..Limits::default() }, waiting(2));
    let alice = fixture.claim("alice", ALICE);
    fixture.open(alice, 1);
    let mut looks = 0;
    let mut flood = |fixture: &mut Fixture| {
        for number in 0..100 {
            let find = |_, _| {
                looks += 1;
                Ok::<_, Infallible>(None)
            };
            let key = format!("never-{number}");
            let Ok(known) = fixture.bus.acknowledge(alice, 1, &key, T0, &mut fixture.turn, find);
            assert!(!known);
        }
        looks
    };

    assert_eq!(flood(&mut fixture), WINDOW);
    fixture.bus.tick(T0, &mut fixture.turn);
    assert_eq!(flood(&mut fixture), 2 * WINDOW);
}

#[test]
fn message_that_stays_unacknowledged_comes_again_and_is_a_dead_letter_in_the_end() {
    let limits = Limits { redelivery: 1_000, attempts: 2, ..Limits::default() };
    let mut fixture = Fixture::new(limits);
    let alice = fixture.claim("alice", ALICE);
    fixture.open(alice, 1);
    fixture.send(alice, to("alice"), "m1");
    assert_eq!(fixture.delivered(alice), ["m1"]);

    fixture.now.0 += 1_000;
    fixture.bus.tick(fixture.now, &mut fixture.turn);
    let load = fixture.load();
    let again = Stored { attempts: 1, ..stored(1, "alice", "m1", T0) };
    fixture.bus.loaded(&load, vec![again].into(), fixture.now, &mut fixture.turn);
    assert_eq!(fixture.delivered(alice), ["m1"]);

    // Twice as long as the first time.
    fixture.now.0 += 1_999;
    fixture.bus.tick(fixture.now, &mut fixture.turn);
    assert_eq!(fixture.finish().changes, []);
    fixture.now.0 += 1;
    fixture.bus.tick(fixture.now, &mut fixture.turn);

    let turn = fixture.finish();
    let is_buried = |change: &Change| matches!(change, Change::Bury { seq: Seq(1), .. });
    assert!(turn.changes.iter().any(is_buried), "{turn:?}");
    let totals = fixture.bus.totals();
    assert_eq!((totals.redelivered, totals.dead, totals.waiting), (2, 1, 0));
}

#[test]
fn late_message_that_the_store_does_not_have_is_looked_for_no_more_than_others() {
    let mut fixture = Fixture::new(Limits { redelivery: 10_000, ..Limits::default() });
    let alice = fixture.claim("alice", ALICE);
    fixture.open(alice, 1);
    fixture.send(alice, to("alice"), "m1");
    fixture.finish();
    fixture.now.0 += 10_000;
    fixture.bus.tick(fixture.now, &mut fixture.turn);
    let load = fixture.load();
    fixture.bus.tick(fixture.now, &mut fixture.turn);
    assert_eq!(fixture.finish().effects, [], "one reading at a time");

    fixture.bus.loaded(&load, Reading::default(), fixture.now, &mut fixture.turn);

    fixture.now.0 += 19_000;
    fixture.bus.tick(fixture.now, &mut fixture.turn);
    assert_eq!(fixture.finish().effects, []);
    fixture.now.0 += 1_000;
    fixture.bus.tick(fixture.now, &mut fixture.turn);
    assert_eq!(fixture.load().from, Seq(1));
}

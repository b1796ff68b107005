//! Which messages are accepted, and what is a duplicate.

use super::*;

#[test]
fn message_to_an_unknown_name_is_refused_and_one_to_a_reserved_name_waits() {
    let mut fixture = Fixture::new(Limits::default());
    let bob = fixture.claim("bob", BOB);

    let unknown = fixture.send(bob, to("carol"), "m1");
    fixture.bus.reserve(REALM, "dave", T0, &mut fixture.turn).unwrap();
    let reserved = fixture.send(bob, to("dave"), "m2");

    assert_eq!(unknown, Submitted::Refused(Refused::UnknownRecipient));
    assert_eq!(reserved, Submitted::Stored(1));
}

#[test]
fn same_id_of_one_sender_is_a_duplicate_and_of_another_gets_a_key_of_its_own() {
    let mut fixture = Fixture::new(Limits::default());
    let alice = fixture.claim("alice", ALICE);
    let bob = fixture.claim("bob", BOB);
    fixture.open(alice, 1);

    assert_eq!(fixture.send(bob, to("alice"), "m1"), Submitted::Stored(1));
    assert_eq!(fixture.send(bob, to("alice"), "m1"), Submitted::Duplicate);
    assert_eq!(fixture.send(alice, to("alice"), "m1"), Submitted::Stored(1));

    let keys = fixture.delivered(alice);
    assert_eq!(keys[0], "m1");
    let (id, number) = keys[1].split_once('|').unwrap();
    assert_eq!((id, number.len()), ("m1", 16));
}

#[test]
fn second_acknowledgement_of_a_message_is_none_of_anothers_with_the_same_id() {
    let mut fixture = Fixture::new(Limits::default());
    let alice = fixture.claim("alice", ALICE);
    let bob = fixture.claim("bob", BOB);
    fixture.open(alice, 1);
    fixture.send(bob, to("alice"), "m1");
    assert!(fixture.acknowledge(alice, 1, "m1"));
    fixture.finish();

    fixture.send(alice, to("alice"), "m1");

    assert!(!fixture.acknowledge(alice, 1, "m1"), "it was said before, of another message");
    let keys = fixture.delivered(alice);
    assert!(keys[0].starts_with("m1|"), "{keys:?}");
}

#[test]
fn message_is_a_duplicate_after_its_acknowledgement_too() {
    let mut fixture = Fixture::new(Limits::default());
    let alice = fixture.claim("alice", ALICE);
    fixture.open(alice, 1);
    fixture.send(alice, to("alice"), "m1");
    assert!(fixture.acknowledge(alice, 1, "m1"));
    fixture.finish();

    assert_eq!(fixture.send(alice, to("alice"), "m1"), Submitted::Duplicate);
}

#[test]
fn broadcast_goes_to_each_that_is_connected_but_its_sender() {
    let mut fixture = Fixture::new(Limits::default());
    let alice = fixture.claim("alice", ALICE);
    let bob = fixture.claim("bob", BOB);
    let carol = fixture.claim("carol", BOB);
    fixture.open(alice, 1);
    fixture.open(bob, 2);

    assert_eq!(fixture.send(bob, To::Everybody, "b1"), Submitted::Stored(1));

    let turn = fixture.finish();
    let keys: Vec<_> = turn.events.iter().map(|event| (event.kind, &*event.key)).collect();
    assert_eq!(keys, [(EventKind::Send, "b1|alice"), (EventKind::Deliver, "b1|alice")]);
    assert!(fixture.bus.name(REALM, "carol").is_some_and(|named| named.mailbox == carol));
    assert!(!fixture.acknowledge(alice, 1, "b1"), "a copy has a key of its own");
    assert!(fixture.acknowledge(alice, 1, "b1|alice"));
}

#[test]
fn id_that_looks_like_the_key_of_a_copy_takes_no_copy_from_anybody() {
    let mut fixture = Fixture::new(Limits::default());
    let alice = fixture.claim("alice", ALICE);
    let bob = fixture.claim("bob", BOB);
    fixture.open(alice, 1);

    fixture.send(bob, to("alice"), "b1|alice");
    assert_eq!(fixture.send(bob, To::Everybody, "b1"), Submitted::Stored(1));

    let keys = fixture.delivered(alice);
    assert_eq!(keys.len(), 2);
    assert!(keys[1].starts_with("b1|alice|"), "{keys:?}");
}

#[test]
fn broadcast_without_a_copy_is_refused_and_one_with_some_says_how_many() {
    let cost = "bob".len() + "b1|alice".len() + "body".len() + Message::OVERHEAD;
    let mut fixture = Fixture::new(Limits { quota_bytes: cost as u64, ..Limits::default() });
    let alice = fixture.claim("alice", ALICE);
    let bob = fixture.claim("bob", BOB);
    let carol = fixture.claim("carol", BOB);

    let to_nobody = fixture.send(bob, To::Everybody, "b1");
    assert_eq!(to_nobody, Submitted::Refused(Refused::NoRecipients));
    fixture.open(alice, 1);
    assert_eq!(fixture.send(bob, To::Everybody, "b1"), Submitted::Stored(1), "it was not sent yet");
    let to_a_full_one = fixture.send(bob, To::Everybody, "b2");
    assert_eq!(to_a_full_one, Submitted::Refused(Refused::RecipientsFull));
    fixture.open(carol, 2);
    let to_both = fixture.send(bob, To::Everybody, "b2");
    assert_eq!(to_both, Submitted::Partly { stored: 1, of: 2 });
    assert_eq!(fixture.send(bob, To::Everybody, "b2"), Submitted::Duplicate);
}

#[test]
fn broadcast_that_is_too_much_is_refused_whole() {
    let mut fixture = Fixture::new(Limits { broadcast_bytes: 150, ..Limits::default() });
    let names: Vec<_> = (0..4).map(|n| fixture.claim(&n.to_string(), ALICE)).collect();
    for (generation, mailbox) in names.iter().enumerate() {
        fixture.open(*mailbox, generation as u64 + 1);
    }

    let submitted = fixture.send(names[0], To::Everybody, "b1");

    assert_eq!(submitted, Submitted::Refused(Refused::TooManyCopies));
    assert_eq!(fixture.bus.totals().accepted, 0);
}

#[test]
fn full_mailbox_refuses_and_takes_again_when_something_has_left() {
    let mut fixture = Fixture::new(Limits { quota_messages: 1, ..Limits::default() });
    let alice = fixture.claim("alice", ALICE);
    fixture.open(alice, 1);

    assert_eq!(fixture.send(alice, to("alice"), "m1"), Submitted::Stored(1));
    assert_eq!(fixture.send(alice, to("alice"), "m2"), Submitted::Refused(Refused::Quota));
    assert!(fixture.acknowledge(alice, 1, "m1"));

    assert_eq!(fixture.send(alice, to("alice"), "m2"), Submitted::Stored(1));
}

#[test]
fn full_store_refuses_new_messages_and_takes_acknowledgements() {
    let mut fixture = Fixture::new(Limits::default());
    let alice = fixture.claim("alice", ALICE);
    fixture.open(alice, 1);
    fixture.send(alice, to("alice"), "m1");

    fixture.bus.set_full(true);

    assert_eq!(fixture.send(alice, to("alice"), "m2"), Submitted::Refused(Refused::StoreFull));
    assert_eq!(fixture.send(alice, to("alice"), "m1"), Submitted::Duplicate);
    assert!(fixture.acknowledge(alice, 1, "m1"));
}

#[test]
fn only_so_many_messages_are_remembered() {
    // Of each message its sender with its id, and its key.
    let mut fixture = Fixture::new(Limits { remembered: 4, ..Limits::default() });
    let alice = fixture.claim("alice", ALICE);
    fixture.open(alice, 1);
    for number in 1..=3 {
        fixture.send(alice, to("alice"), &format!("m{number}"));
        assert!(fixture.acknowledge(alice, 1, &format!("m{number}")));
        fixture.finish();
    }

    assert_eq!(fixture.send(alice, to("alice"), "m3"), Submitted::Duplicate);
    assert_eq!(fixture.send(alice, to("alice"), "m1"), Submitted::Stored(1));
}

#[test]
fn sender_of_very_many_messages_has_nobody_elses_forgotten() {
    let mut fixture = Fixture::new(Limits { remembered: 200, ..Limits::default() });
    let alice = fixture.claim("alice", ALICE);
    let bob = fixture.claim("bob", BOB);
    fixture.send(bob, to("alice"), "once");
    fixture.finish();
    let mut rows = BTreeMap::new();
    for number in 0..2_000 {
        fixture.send(alice, to("bob"), &format!("flood{number}"));
        for change in fixture.finish().changes {
            match change {
                Change::Accepted { number, at, origins } => {
                    rows.insert(number, (at, origins));
                }
                Change::ForgetAccepted { before } => rows = rows.split_off(&before),
                Change::Name(_)
                | Change::Forget { .. }
                | Change::Append { .. }
                | Change::Remove { .. }
                | Change::Bury { .. }
                | Change::Requeue { .. }
                | Change::Attempt { .. }
                | Change::Level { .. }
                | Change::Channel(_)
                | Change::DropChannel { .. }
                | Change::Record { .. }
                | Change::Trim { .. }
                | Change::Cursor { .. } => {}
            }
        }
        let written: usize = rows.values().map(|(_, origins)| origins.len()).sum();
        assert!(written <= 404, "{written} are in the store");
    }

    assert_eq!(fixture.send(bob, to("alice"), "once"), Submitted::Duplicate);
    assert_eq!(fixture.send(alice, to("bob"), "flood1999"), Submitted::Duplicate);
    assert_eq!(fixture.send(alice, to("bob"), "flood0"), Submitted::Stored(1));

    // Also after a restart.
    let accepted = rows.into_iter().map(|(number, (at, origins))| (number, at, origins));
    let recovered = Recovered { accepted: accepted.collect(), ..waiting(0) };
    fixture.bus = Bus::new(fixture.bus.limits, recovered);
    let bob = fixture.claim("bob", BOB);
    assert_eq!(fixture.send(bob, to("alice"), "once"), Submitted::Duplicate);
}

#[test]
fn what_time_it_is_is_written_down_every_ten_minutes() {
    let mut fixture = Fixture::new(Limits::default());
    let mut rows = Vec::new();
    for second in 0..=1_800 {
        fixture.now = Millis(T0.0 + second * 1_000);
        fixture.bus.tick(fixture.now, &mut fixture.turn);
        for change in fixture.finish().changes {
            let Change::Accepted { number, at, origins } = change else { panic!("{change:?}") };
            assert_eq!(origins, []);
            rows.push((number, at, origins));
        }
    }

    assert_eq!(rows.len(), 3);
    let recovered = Recovered { accepted: rows, ..Recovered::default() };
    assert_eq!(recovered.newest(), Some(fixture.now));
}

#[test]
fn what_one_commit_accepted_is_remembered_however_much_it_is() {
    let mut fixture = Fixture::new(Limits { remembered: 2, ..Limits::default() });
    let alice = fixture.claim("alice", ALICE);
    for number in 1..=3 {
        fixture.send(alice, to("alice"), &format!("m{number}"));
    }
    fixture.finish();

    assert_eq!(fixture.send(alice, to("alice"), "m1"), Submitted::Duplicate);
}

#[test]
fn what_was_accepted_before_a_long_time_without_a_bus_is_remembered() {
    let origin = Digest::of_origin("alice", "m1");
    let accepted = vec![(7, T0, vec![origin])];
    let mut fixture = Fixture::new(Limits::default());
    fixture.bus = Bus::new(Limits::default(), Recovered { accepted, ..waiting(0) });
    fixture.now.0 += 24 * 60 * 60 * 1_000;
    let alice = fixture.claim("alice", ALICE);
    fixture.finish();

    assert_eq!(fixture.send(alice, to("alice"), "m1"), Submitted::Duplicate);
    fixture.now.0 += 60 * 60 * 1_000;
    fixture.finish();
    assert_eq!(fixture.send(alice, to("alice"), "m1"), Submitted::Stored(1));
}

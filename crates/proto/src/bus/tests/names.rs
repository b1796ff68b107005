//! Whose which name is, and for how long.

use super::*;

#[test]
fn name_belongs_to_who_took_it_first() {
    let mut fixture = Fixture::new(Limits::default());

    let alice = fixture.claim("alice", ALICE);

    assert_eq!(fixture.claim("alice", ALICE), alice);
    let thief = fixture.bus.claim(REALM, "alice", BOB, T0, &mut fixture.turn);
    assert_eq!(thief, Err(NotClaimed::Taken));
    assert_ne!(fixture.claim("bob", BOB), alice);
}

#[test]
fn released_name_belongs_to_who_comes_next() {
    let mut fixture = Fixture::new(Limits::default());
    let alice = fixture.claim("alice", ALICE);

    fixture.bus.bind(REALM, "alice", Owner::NOBODY, T0, &mut fixture.turn).unwrap();

    assert_eq!(fixture.claim("alice", BOB), alice);
    let former = fixture.bus.claim(REALM, "alice", ALICE, T0, &mut fixture.turn);
    assert_eq!(former, Err(NotClaimed::Taken));
}

#[test]
fn name_that_is_given_to_another_owner_is_taken_from_the_session_that_had_it() {
    let mut fixture = Fixture::new(Limits::default());
    let alice = fixture.claim("alice", ALICE);
    let bob = fixture.claim("bob", BOB);
    fixture.open(alice, 7);
    fixture.send(bob, to("alice"), "m1");
    fixture.finish();

    fixture.bus.bind(REALM, "alice", ALICE, T0, &mut fixture.turn).unwrap();
    assert_eq!(fixture.finish().effects, [], "it is its own");
    fixture.bus.bind(REALM, "alice", BOB, T0, &mut fixture.turn).unwrap();

    let withdraw = Effect::Withdraw { mailbox: alice, generation: 7, why: Withdrawn::NotItsName };
    assert_eq!(fixture.finish().effects, [withdraw]);
    assert_eq!(fixture.bus.owner(alice), Some(BOB));
    assert!(!fixture.acknowledge(alice, 7, "m1"), "it is no more its message");
    fixture.send(bob, to("alice"), "m2");
    let broadcast = fixture.send(bob, To::Everybody, "b1");
    assert_eq!(broadcast, Submitted::Refused(Refused::NoRecipients));
    assert_eq!(fixture.finish().effects, []);
    assert_eq!(fixture.bus.totals().waiting, 2);
}

#[test]
fn one_owner_has_half_of_all_names_at_most() {
    let mut fixture = Fixture::new(Limits { names: 4, ..Limits::default() });
    fixture.claim("a", ALICE);
    fixture.claim("b", ALICE);

    let third = fixture.bus.claim(REALM, "c", ALICE, T0, &mut fixture.turn);

    assert_eq!(third, Err(NotClaimed::Full));
    fixture.claim("c", BOB);
}

#[test]
fn name_that_never_returns_is_forgotten_once_nothing_waits_for_it() {
    let limits = Limits { name_expiry: 1_000, ..Limits::default() };
    let mut fixture = Fixture::new(limits);
    let alice = fixture.claim("alice", ALICE);
    let bob = fixture.claim("bob", BOB);
    fixture.open(bob, 1);
    fixture.finish();

    fixture.bus.tick(Millis(T0.0 + 999), &mut fixture.turn);
    assert_eq!(fixture.finish().changes, []);
    fixture.bus.tick(Millis(T0.0 + 1_000), &mut fixture.turn);

    let forget = Change::Forget { realm: REALM, name: "alice".into(), mailbox: alice };
    assert_eq!(fixture.finish().changes, [forget]);
    assert_ne!(fixture.claim("alice", BOB), alice, "no mailbox has the number of another");
}

#[test]
fn reserved_name_is_not_forgotten_until_it_is_reserved_no_more() {
    let mut fixture = Fixture::new(Limits { name_expiry: 1_000, ..Limits::default() });
    let alice = fixture.claim("alice", ALICE);
    let reserved = fixture.bus.reserve(REALM, "alice", T0, &mut fixture.turn);
    assert_eq!(reserved, Ok(alice));
    fixture.finish();

    fixture.bus.tick(Millis(T0.0 + 1_000), &mut fixture.turn);
    assert_eq!(fixture.finish().changes, []);
    fixture.bus.unreserve(REALM);
    fixture.bus.tick(Millis(T0.0 + 1_000), &mut fixture.turn);

    let forget = Change::Forget { realm: REALM, name: "alice".into(), mailbox: alice };
    assert_eq!(fixture.finish().changes, [forget]);
}

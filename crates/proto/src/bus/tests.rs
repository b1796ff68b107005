//! What a bus does with one message, one name, one recipient at a time.

use std::convert::Infallible;
use std::sync::Arc;

use super::*;

const REALM: u8 = 9;
const ALICE: Owner = Owner([1; 32]);
const BOB: Owner = Owner([2; 32]);
const T0: Millis = Millis(1_000_000);

/// A bus with a few names, and what it has said last.
struct Fixture {
    bus: Bus,
    turn: Turn,
    now: Millis,
}

impl Fixture {
    fn new(limits: Limits) -> Self {
        Self { bus: Bus::new(limits, Recovered::default()), turn: Turn::default(), now: T0 }
    }

    fn claim(&mut self, name: &str, owner: Owner) -> MailboxId {
        self.bus.claim(REALM, name, owner, self.now, &mut self.turn).unwrap()
    }

    fn open(&mut self, mailbox: MailboxId, generation: u64) {
        self.bus.open(mailbox, generation, self.now, &mut self.turn);
    }

    fn send(&mut self, from: MailboxId, to: To, id: &str) -> Submitted {
        let submission = Submission { from, to, id: id.into(), body: Arc::from(&b"body"[..]) };
        let find = |_, _| Ok::<_, Infallible>(None);
        let Ok(submitted) = self.bus.submit(&submission, self.now, &mut self.turn, find);
        submitted
    }

    fn acknowledge(&mut self, mailbox: MailboxId, generation: u64, key: &str) -> bool {
        let find = |_, _| Ok::<_, Infallible>(None);
        let Ok(known) =
            self.bus.acknowledge(mailbox, generation, key, self.now, &mut self.turn, find);
        known
    }

    /// Ends the turn.
    fn finish(&mut self) -> Turn {
        self.bus.finish(self.now, &mut self.turn);
        std::mem::take(&mut self.turn)
    }

    /// Ends the turn, and returns the keys that were delivered to a mailbox.
    fn delivered(&mut self, to: MailboxId) -> Vec<String> {
        let delivered = self.finish().effects.into_iter().filter_map(|effect| match effect {
            Effect::Deliver { mailbox, message, .. } if mailbox == to => {
                Some(message.key.to_string())
            }
            Effect::Deliver { .. } | Effect::Load(_) | Effect::Withdraw { .. } => None,
        });
        delivered.collect()
    }

    /// Ends the turn, and returns what it wants to read.
    fn load(&mut self) -> Load {
        let loads = self.finish().effects.into_iter().filter_map(|effect| match effect {
            Effect::Load(load) => Some(load),
            Effect::Deliver { .. } | Effect::Withdraw { .. } => None,
        });
        let loads: Vec<_> = loads.collect();
        let [load] = loads[..] else { panic!("one reading, not {loads:?}") };
        load
    }
}

fn to(name: &str) -> To {
    To::Name(name.into())
}

fn stored(seq: u64, from: &str, key: &str, accepted: Millis) -> Stored {
    let origin = Digest::of_origin(from, key);
    let body = Arc::from(&b"body"[..]);
    let message = Message { from: from.into(), key: key.into(), origin, accepted, body };
    Stored { seq: Seq(seq), attempts: 0, message: Arc::new(message) }
}

/// What a bus begins with whose one mailbox has so many messages.
fn waiting(messages: u64) -> Recovered {
    let named =
        Named { mailbox: MailboxId(3), realm: REALM, name: "alice".into(), owner: ALICE, seen: T0 };
    let level =
        Level { head: Seq(1), next: Seq(messages + 1), messages, bytes: messages * 80, oldest: T0 };
    Recovered { names: vec![(named, level)], accepted: Vec::new(), next_mailbox: 4 }
}

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

    let withdraw = Effect::Withdraw { mailbox: alice, generation: 7 };
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
                _ => {}
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

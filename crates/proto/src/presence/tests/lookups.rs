//! Whom a look-up asks, and how it ends.

use super::*;

fn asker() -> (Relay, NodeId) {
    let relay = Relay::with(&[2, 3, 4]);
    let id = relay.id(2, 3);
    (relay, id)
}

#[test]
fn look_up_asks_the_home_once_and_tells_when_it_was_asked() {
    let (mut relay, id) = asker();
    let asked = relay.now().at;
    relay.presence.look_up(id, relay.now());
    relay.presence.look_up(id, relay.now());
    assert_eq!(relay.sent(), [(super::relay(2), Frame::Find { id })]);
    let location = location(4, CLOCK, SESSION);
    relay.hear(2, Frame::Found { id, location, serial: 1 });
    assert_eq!(relay.events(), [Event::Located { id, location, asked: Some(asked) }]);
    assert_eq!((relay.presence.stats().lookups, relay.wait(5_000)), (0, vec![]));
}

#[test]
fn member_that_was_not_asked_diverts_nobodys_packets() {
    let (mut relay, id) = asker();
    let asked = relay.now().at;
    relay.presence.look_up(id, relay.now());
    let lie = Frame::Found { id, location: location(4, CLOCK + 59_000, SESSION), serial: 1 };
    relay.hear(4, lie);
    assert_eq!((relay.events(), relay.denied(Denied::NoSay)), (vec![], 1));
    let location = location(3, CLOCK, SESSION);
    relay.hear(2, Frame::Found { id, location, serial: 1 });
    assert_eq!(relay.events(), [Event::Located { id, location, asked: Some(asked) }]);
    relay.hear(4, lie);
    assert_eq!(relay.events(), [], "nor afterwards");
}

#[test]
fn home_that_is_silent_knows_nothing_or_leaves_makes_the_spare_be_asked() {
    let spare = |id| vec![(relay(3), Frame::Find { id })];
    let (mut relay, id) = asker();
    relay.presence.look_up(id, relay.now());
    relay.sent();
    assert_eq!(relay.wait(59), []);
    assert_eq!(relay.wait(1), spare(id));

    let (mut relay, id) = asker();
    relay.presence.look_up(id, relay.now());
    relay.sent();
    assert_eq!(relay.hear(2, Frame::Missing { id }), spare(id));

    let (mut relay, id) = asker();
    relay.presence.look_up(id, relay.now());
    relay.sent();
    relay.presence.left(super::relay(2), relay.now());
    assert_eq!(relay.sent(), spare(id));
}

#[test]
fn look_up_ends_when_nobody_knows_or_after_a_second() {
    let (mut relay, id) = asker();
    let missing = Event::Missing { id, asked: relay.now().at };
    relay.presence.look_up(id, relay.now());
    relay.hear(2, Frame::Missing { id });
    relay.hear(3, Frame::Missing { id });
    assert_eq!(relay.events(), [missing]);
    let missing = Event::Missing { id, asked: relay.now().at };
    relay.presence.look_up(id, relay.now());
    relay.wait(999);
    assert_eq!(relay.events(), []);
    relay.wait(1);
    assert_eq!((relay.events(), relay.presence.stats().lookups), (vec![missing], 0));
}

#[test]
fn home_answers_itself_and_asks_the_spare_for_what_it_does_not_know() {
    let mut relay = Relay::with(&[2, 3]);
    let (mine, known) = (relay.id(ME, 2), relay.id(3, ME));
    relay.presence.look_up(mine, relay.now());
    assert_eq!(relay.sent(), [(super::relay(2), Frame::Find { id: mine })]);
    relay.claim(2, claim(known, 0, 1, SESSION));
    relay.presence.look_up(known, relay.now());
    let location = location(2, CLOCK, SESSION);
    let asked = Some(relay.now().at);
    assert_eq!(relay.events(), [Event::Located { id: known, location, asked }]);
    assert_eq!(relay.sent(), []);
}

#[test]
fn home_that_names_the_asker_itself_is_set_right() {
    let (mut relay, id) = asker();
    relay.presence.look_up(id, relay.now());
    relay.sent();
    let sent =
        relay.hear(2, Frame::Found { id, location: location(ME, CLOCK, SESSION), serial: 6 });
    assert!(sent.contains(&(super::relay(2), Frame::Leave { id, serial: 6 })));
    assert!(sent.contains(&(super::relay(3), Frame::Find { id })));
    assert_eq!(relay.presence.stats().outstanding, 0, "who makes up locations is told once");
}

#[test]
fn look_ups_in_flight_are_bounded() {
    let mut relay = Relay::with(&[2]);
    // Of ids whose home is the other relay, which does not answer.
    for number in 1..=65_537 {
        relay.presence.look_up(node(number), relay.now());
    }
    assert_eq!((relay.presence.stats().lookups, relay.denied(Denied::LookupsFull)), (65_536, 1));
    let asked = relay.now().at;
    assert_eq!(relay.events(), [Event::Missing { id: node(65_537), asked }]);
}

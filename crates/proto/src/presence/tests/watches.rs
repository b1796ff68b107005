//! What a watcher is told, and what a home tells watchers.

use beacon_wire::cluster::Sight;

use super::*;
use crate::presence::MAX_WATCHED;

/// A relay whose members all answer watches, and an id whose homes are two of them.
fn watcher() -> (Relay, NodeId) {
    let mut relay = Relay::with(&[2, 3, 4]);
    for member in [2, 3, 4] {
        relay.presence.answers_watches(super::relay(member), relay.now());
    }
    let id = relay.id(2, 3);
    (relay, id)
}

/// A relay that is home to an id, whose spare does not matter.
fn home() -> (Relay, NodeId) {
    let relay = Relay::with(&[2, 3, 4]);
    let id = relay.id(ME, 2);
    (relay, id)
}

impl Relay {
    /// Watches an id; what it has said to which home.
    fn watch(&mut self, id: NodeId, number: u64) -> Vec<(RelayId, u32)> {
        assert!(self.presence.watch(id, number, self.now()));
        self.presence.timeout(self.now());
        self.watches(true)
    }

    /// The watches, or ends of watches, that it has said.
    fn watches(&mut self, on: bool) -> Vec<(RelayId, u32)> {
        let said = self.sent().into_iter().filter_map(|(to, frame)| {
            let Frame::Watch { nonce, is_on, .. } = frame else { return None };
            (is_on == on).then_some((to, nonce))
        });
        said.collect()
    }

    /// Hears what a home knows, in answer to its last watch.
    fn hear_of(
        &mut self,
        home: u8,
        id: NodeId,
        nonces: &[(RelayId, u32)],
        version: u64,
        sight: Sight,
    ) {
        let (_, nonce) = nonces.iter().find(|(to, _)| *to == relay(home)).unwrap();
        let answers =
            self.hear(home, Frame::Locate { id, nonce: *nonce, version, serial: 1, sight });
        assert!(answers.contains(&(relay(home), Frame::Heard { id, version })), "{answers:?}");
    }

    fn told(&mut self) -> Vec<(u64, bool)> {
        let told = self.events().into_iter().filter_map(|event| {
            let Event::Watched { number, is_elsewhere, .. } = event else { return None };
            Some((number, is_elsewhere))
        });
        told.collect()
    }

    /// What it tells a member, version and all.
    fn located(sent: &[(RelayId, Frame<'static, NodeId>)], to: u8) -> Vec<(u64, Sight)> {
        let of_it = sent.iter().filter(|(other, _)| *other == relay(to));
        let located = of_it.filter_map(|(_, frame)| {
            let Frame::Locate { version, sight, .. } = *frame else { return None };
            Some((version, sight))
        });
        located.collect()
    }
}

#[test]
fn watch_asks_each_home_once_until_it_answers_and_tells_what_is_elsewhere() {
    let (mut relay, id) = watcher();
    let asked = relay.watch(id, 7);
    assert_eq!(
        asked.iter().map(|(to, _)| *to).collect::<Vec<_>>(),
        [super::relay(2), super::relay(3)]
    );
    assert_eq!(relay.told(), [], "it seems to be nowhere");
    relay.hear_of(2, id, &asked, 1, Sight::At(location(4, CLOCK, SESSION)));
    assert_eq!(relay.told(), [(7, true)]);

    relay.wait(260);
    let again = relay.watches(true);
    assert_eq!(again, [], "said in the time that was waited for");
    relay.hear_of(3, id, &asked, 5, Sight::At(location(4, CLOCK, SESSION)));
    assert_eq!((relay.told(), relay.wait(60_000)), (vec![], vec![]));

    relay.hear_of(3, id, &asked, 6, Sight::Over(location(4, CLOCK, SESSION)));
    assert_eq!(relay.told(), [(7, false)], "one home that knows that it is over is enough");
    relay.hear_of(2, id, &asked, 2, Sight::Over(location(4, CLOCK, SESSION)));
    relay.hear_of(2, id, &asked, 1, Sight::At(location(4, CLOCK, SESSION)));
    assert_eq!(relay.told(), [], "a late statement is no news");

    relay.presence.unwatch(id, 6, relay.now());
    assert_eq!(relay.presence.watched(id), Some(false), "a later watch stays");
    relay.presence.unwatch(id, 7, relay.now());
    relay.presence.timeout(relay.now());
    let ended = relay.watches(false);
    assert_eq!(ended.len(), 2);
    for (to, nonce) in ended {
        let frame = Frame::Locate { id, nonce, version: 0, serial: 0, sight: Sight::Ended };
        relay.presence.receive(to, &frame, relay.now());
    }
    assert_eq!((relay.sent(), relay.presence.stats().outstanding), (vec![], 0));
}

#[test]
fn peer_that_moves_between_relays_is_never_nowhere() {
    let (mut relay, id) = watcher();
    let asked = relay.watch(id, 1);
    for home in [2, 3] {
        relay.hear_of(home, id, &asked, 1, Sight::At(location(4, CLOCK, SESSION)));
    }
    relay.hear_of(2, id, &asked, 2, Sight::At(location(3, CLOCK + 9, SESSION)));
    relay.hear_of(3, id, &asked, 2, Sight::Over(location(4, CLOCK, SESSION)));
    relay.hear_of(3, id, &asked, 3, Sight::At(location(3, CLOCK + 9, SESSION)));
    assert_eq!(relay.told(), [(1, true)]);
}

#[test]
fn session_that_is_over_is_not_there_under_the_later_epoch_of_another_home() {
    let (mut relay, id) = watcher();
    let asked = relay.watch(id, 1);
    relay.hear_of(3, id, &asked, 1, Sight::Unknown);
    relay.hear_of(2, id, &asked, 1, Sight::At(location(4, CLOCK, SESSION)));
    relay.hear_of(2, id, &asked, 2, Sight::Over(location(4, CLOCK, SESSION)));
    relay.hear_of(3, id, &asked, 2, Sight::At(location(4, CLOCK + 9, SESSION)));
    relay.hear_of(3, id, &asked, 3, Sight::Over(location(4, CLOCK + 9, SESSION)));
    assert_eq!(relay.told(), [(1, true), (1, false)]);
}

#[test]
fn owner_that_loses_a_peer_knows_first_where_it_is() {
    let (mut relay, id) = watcher();
    relay.presence.arrived(id, here(1, SESSION), relay.now());
    let asked = relay.watch(id, 1);
    relay.hear(2, granted(id, CLOCK, 1));
    relay.hear(3, granted(id, CLOCK, 1));
    for home in [2, 3] {
        relay.hear_of(home, id, &asked, 1, Sight::At(location(ME, CLOCK, SESSION)));
    }
    assert_eq!(relay.told(), []);

    let there = location(4, CLOCK + 9, SESSION);
    for _ in 0..2 {
        relay.hear(2, Frame::Moved { id, location: there, ends: 1 });
        relay.hear(3, Frame::Moved { id, location: there, ends: 1 });
    }
    let events = relay.events();
    let at = |wanted: fn(&Event<NodeId>) -> bool| events.iter().position(wanted).unwrap();
    let knows = at(|event| matches!(event, Event::Watched { is_elsewhere: true, .. }));
    assert!(knows < at(|event| matches!(event, Event::Superseded { .. })), "{events:?}");
}

#[test]
fn peers_of_a_relay_that_is_lost_are_nowhere_at_once() {
    let (mut relay, id) = watcher();
    let asked = relay.watch(id, 1);
    for home in [2, 3] {
        relay.hear_of(home, id, &asked, 1, Sight::At(location(4, CLOCK, SESSION)));
    }
    relay.presence.left(super::relay(4), relay.now());
    assert_eq!(relay.told(), [(1, true), (1, false)]);
}

#[test]
fn home_that_is_new_and_knows_nothing_yet_ends_nothing() {
    let (mut relay, id) = watcher();
    let asked = relay.watch(id, 1);
    for home in [2, 3] {
        relay.hear_of(home, id, &asked, 1, Sight::At(location(4, CLOCK, SESSION)));
    }
    assert_eq!(relay.told(), [(1, true)]);
    relay.presence.left(super::relay(2), relay.now());
    relay.presence.left(super::relay(3), relay.now());
    let asked = relay.watches(true);
    let homes: Vec<_> = asked.iter().map(|(to, _)| *to).collect();
    assert_eq!(homes, [super::relay(4)], "this relay is the other home");
    relay.hear_of(4, id, &asked, 1, Sight::Unknown);
    assert_eq!(relay.told(), []);
    relay.wait(1_900);
    relay.hear_of(4, id, &asked, 2, Sight::At(location(4, CLOCK, SESSION)));
    relay.wait(10_000);
    assert_eq!(relay.told(), [], "its owner has claimed it there in time");
    relay.hear_of(4, id, &asked, 3, Sight::Unknown);
    assert_eq!(relay.told(), [(1, false)], "a home of a while knows");
}

#[test]
fn members_of_an_earlier_version_are_not_asked_and_nobody_waits_for_them() {
    let mut relay = Relay::with(&[2, 3, 4]);
    let id = relay.id(2, 3);
    assert_eq!(relay.watch(id, 1), []);
    assert_eq!((relay.presence.stats().outstanding, relay.told()), (0, vec![]));
    relay.presence.answers_watches(super::relay(3), relay.now());
    let asked = relay.watches(true);
    assert_eq!(asked.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [super::relay(3)]);
    relay.hear_of(3, id, &asked, 1, Sight::At(location(2, CLOCK, SESSION)));
    assert_eq!(relay.told(), [(1, true)]);
}

#[test]
fn home_tells_a_watcher_what_changes_until_it_has_heard() {
    let (mut relay, id) = home();
    let asked = relay.hear(2, Frame::Watch { id, nonce: 1, is_on: true });
    let [(first, Sight::Unknown)] = Relay::located(&asked, 2)[..] else { panic!("{asked:?}") };
    relay.hear(2, Frame::Heard { id, version: first });

    let sent = relay.hear(3, Frame::Claim(claim(id, 0, 1, SESSION)));
    let [(second, Sight::At(there))] = Relay::located(&sent, 2)[..] else { panic!("{sent:?}") };
    assert!(second > first && there.owner == super::relay(3));
    // It has not heard that when the peer goes: it is told that alone from then on.
    let sent = relay.hear(3, Frame::Leave { id, serial: 1 });
    let [(third, Sight::Over(there))] = Relay::located(&sent, 2)[..] else { panic!("{sent:?}") };
    assert!(third > second && there.owner == super::relay(3));
    relay.hear(2, Frame::Heard { id, version: second });
    let repeated = relay.wait(300);
    assert_eq!(Relay::located(&repeated, 2), [(third, Sight::Over(there))]);
    relay.hear(2, Frame::Heard { id, version: third });
    assert_eq!(relay.wait(60_000), []);

    // What changes nothing is not told.
    relay.hear(3, Frame::Leave { id, serial: 1 });
    assert_eq!(Relay::located(&relay.wait(1_000), 2), []);
    let ended = relay.hear(2, Frame::Watch { id, nonce: 2, is_on: false });
    assert_eq!(Relay::located(&ended, 2), [(0, Sight::Ended)]);
    // One that was late on its way is of before.
    relay.hear(2, Frame::Watch { id, nonce: 3, is_on: true });
    let late = relay.hear(2, Frame::Watch { id, nonce: 2, is_on: false });
    assert_eq!((late, relay.presence.stats().watchers), (vec![], 1));
}

#[test]
fn member_that_watches_too_much_or_leaves_takes_no_room_from_others() {
    let mut relay = Relay::of_room(&[2, 3, 4], 1_000_000);
    let from = super::relay(2);
    let most = u32::try_from(MAX_WATCHED).unwrap();
    for number in 1..=most {
        let frame = Frame::Watch { id: node(number), nonce: number, is_on: true };
        relay.presence.receive(from, &frame, relay.now());
        relay.presence.receive(
            from,
            &Frame::Heard { id: node(number), version: u64::from(number) },
            relay.now(),
        );
    }
    relay.sent();
    let sent = relay.hear(2, Frame::Watch { id: node(most + 1), nonce: most + 1, is_on: true });
    assert_eq!(Relay::located(&sent, 2), [(0, Sight::Full)]);
    assert_eq!(relay.denied(Denied::WatchesFull), 1);
    let sent = relay.hear(3, Frame::Watch { id: node(most + 1), nonce: 1, is_on: true });
    assert!(matches!(Relay::located(&sent, 3)[..], [(_, Sight::Unknown)]), "another has room");
    assert_eq!(relay.presence.stats().watchers, MAX_WATCHED + 1);
    relay.presence.left(from, relay.now());
    relay.wait(3_000);
    assert_eq!(relay.presence.stats().watchers, 1);
}

#[test]
fn home_without_room_is_asked_again_after_a_while() {
    let (mut relay, id) = watcher();
    let asked = relay.watch(id, 1);
    let (to, nonce) = asked[0];
    let full = Frame::Locate { id, nonce, version: 0, serial: 0, sight: Sight::Full };
    relay.presence.receive(to, &full, relay.now());
    relay.hear_of(3, id, &asked, 1, Sight::Unknown);
    assert_eq!((relay.wait(29_000), relay.told()), (vec![], vec![]));
    let again = relay.wait(1_200);
    assert!(matches!(again[..], [(_, Frame::Watch { is_on: true, .. }), ..]), "{again:?}");
}

#[test]
fn who_is_told_of_what_it_does_not_watch_says_so_once_for_each() {
    let (mut relay, id) = watcher();
    let lie = Frame::Locate { id, nonce: 1, version: 9, serial: 0, sight: Sight::Unknown };
    for _ in 0..3 {
        let answer = relay.hear(2, lie);
        assert!(matches!(answer[..], [(_, Frame::Watch { is_on: false, .. })]), "{answer:?}");
    }
    assert_eq!((relay.presence.stats().outstanding, relay.told()), (0, vec![]));
    // Nor is an epoch of another time believed.
    let asked = relay.watch(id, 1);
    let (to, nonce) = asked[0];
    let sight = Sight::At(location(4, CLOCK + 61_000, SESSION));
    relay.presence.receive(
        to,
        &Frame::Locate { id, nonce, version: 1, serial: 1, sight },
        relay.now(),
    );
    assert_eq!((relay.told(), relay.denied(Denied::EpochAhead)), (vec![], 1));
}

//! How an owner claims, repeats itself and gives way.

use super::*;

/// An owner among three relays, and an id whose homes are the other two.
fn owner() -> (Relay, NodeId) {
    let relay = Relay::with(&[2, 3]);
    let id = relay.id(2, 3);
    (relay, id)
}

/// An owner with a session that both homes have granted under the epoch [`CLOCK`].
fn settled(ownership: Ownership) -> (Relay, NodeId) {
    let (mut relay, id) = owner();
    relay.presence.arrived(id, here(1, ownership), relay.now());
    relay.hear(2, granted(id, CLOCK, 1));
    relay.hear(3, granted(id, CLOCK, 1));
    assert_eq!(relay.presence.stats().outstanding, 0);
    (relay, id)
}

#[test]
fn home_is_asked_at_once_and_the_spare_if_it_is_silent() {
    let (mut relay, id) = owner();
    let request = |age_ms| Frame::Claim(Claim { age_ms, ..claim(id, 0, 1, SESSION) });
    let (two, three) = (super::relay(2), super::relay(3));
    relay.presence.arrived(id, here(1, SESSION), relay.now());
    assert_eq!(relay.sent(), [(two, request(0))]);
    assert_eq!(relay.wait(99), []);
    assert_eq!(relay.wait(1), [(three, request(100))]);
    assert_eq!(relay.wait(150), [(two, request(250))]);
    let told = relay.hear(2, granted(id, CLOCK, 1));
    let known = Claim { age_ms: 250, ..claim(id, CLOCK, 1, SESSION) };
    assert_eq!(told, [(three, Frame::Claim(known))]);
    relay.hear(3, granted(id, CLOCK, 1));
    assert_eq!((relay.presence.epoch(id), relay.wait(9_000)), (Some(CLOCK), vec![]));
}

#[test]
fn node_is_as_old_as_its_connection_and_not_as_its_login() {
    let (mut relay, id) = owner();
    let accepted = relay.now().at;
    relay.wait(4_321);
    let late = Here { since: Some(accepted), ..here(1, SESSION) };
    relay.presence.arrived(id, late, relay.now());
    let request = Frame::Claim(Claim { age_ms: 4_321, ..claim(id, 0, 1, SESSION) });
    assert_eq!(relay.sent(), [(super::relay(2), request)]);
}

#[test]
fn session_is_claimed_by_the_rule_of_its_door_and_goes_where_the_first_one_stays() {
    let (mut relay, id) = owner();
    let (takeover, credential) = (Takeover::Refuse, 5);
    let second = Here { takeover, credential, ..here(1, SESSION) };
    relay.presence.arrived(id, second, relay.now());
    let request = Claim { takeover, credential, ..claim(id, 0, 1, SESSION) };
    assert_eq!(relay.sent(), [(super::relay(2), Frame::Claim(request))]);

    let first = location(3, CLOCK, SESSION);
    relay.hear(2, refused(id, Refusal::Held(first)));

    let goes = Event::Superseded { id, serial: 1, location: Some(first), was_granted: false };
    assert!(relay.events().contains(&goes));
    assert_eq!(relay.presence.stats().locals, 0);
}

#[test]
fn of_several_grants_the_newest_counts_and_the_other_home_is_told() {
    let (mut relay, id) = owner();
    relay.presence.arrived(id, here(1, SESSION), relay.now());
    relay.hear(2, granted(id, CLOCK, 1));
    let told = relay.hear(3, granted(id, CLOCK + 3, 1));
    assert_eq!(told, [(super::relay(2), Frame::Claim(claim(id, CLOCK + 3, 1, SESSION)))]);
    assert_eq!(relay.presence.epoch(id), Some(CLOCK + 3));
}

#[test]
fn ownership_kind_that_changes_is_claimed_under_the_same_epoch() {
    let (mut relay, id) = settled(ENDPOINT);
    relay.presence.arrived(id, here(1, SESSION), relay.now());
    let frame = Frame::Claim(claim(id, CLOCK, 1, SESSION));
    assert_eq!(relay.sent(), [(super::relay(2), frame), (super::relay(3), frame)]);
    let latest = Frame::Granted { id, epoch: CLOCK, serial: 1, nonce: relay.nonce(2, id) };
    let before = Frame::Granted { id, epoch: CLOCK, serial: 1, nonce: relay.nonce(2, id) - 1 };
    relay.hear(2, before);
    assert_eq!(relay.presence.stats().outstanding, 2, "the answer to an older claim is none");
    relay.hear(2, latest);
    assert_eq!(relay.presence.stats().outstanding, 1);
}

#[test]
fn grant_of_what_is_over_is_answered_by_a_leave() {
    let (mut relay, id) = owner();
    relay.presence.arrived(id, here(1, SESSION), relay.now());
    relay.presence.departed(id, 1, relay.now());
    relay.sent();
    for home in [2, 3] {
        relay.hear(home, Frame::Left { id, serial: 1 });
    }
    assert_eq!(relay.wait(9_000), []);
    let leave = (super::relay(2), Frame::Leave { id, serial: 1 });
    assert_eq!(relay.hear(2, granted(id, CLOCK, 1)), [leave]);
    assert_eq!(relay.wait(9_000), [], "who makes up grants has no statement for each");
}

#[test]
fn node_that_leaves_is_forgotten_by_caches_and_homes() {
    let (mut relay, id) = settled(SESSION);
    relay.presence.departed(id, 0, relay.now());
    assert_eq!(relay.sent(), [], "an older serial");
    relay.presence.departed(id, 1, relay.now());
    let sent = relay.sent();
    for to in [2, 3].map(super::relay) {
        assert!(sent.contains(&(to, Frame::Gone { id, epoch: CLOCK })));
        assert!(sent.contains(&(to, Frame::Leave { id, serial: 1 })));
    }
}

#[test]
fn older_location_is_set_right() {
    let (mut relay, id) = settled(SESSION);
    let older = Frame::Moved { id, location: location(3, CLOCK - 1, SESSION), ends: 1 };
    let again = Frame::Claim(claim(id, CLOCK, 1, SESSION));
    assert_eq!(relay.hear(2, older), [(super::relay(2), again)]);
}

#[test]
fn newer_location_that_both_homes_name_supersedes() {
    let (mut relay, id) = settled(SESSION);
    let newer = location(3, CLOCK + 1, SESSION);
    let moved = Frame::Moved { id, location: newer, ends: 1 };
    assert_eq!((relay.hear(2, moved), relay.events()), (vec![], vec![]));
    let sent = relay.hear(3, moved);
    let (leave, gone) = (Frame::Leave { id, serial: 1 }, Frame::Gone { id, epoch: CLOCK });
    let (two, three) = (super::relay(2), super::relay(3));
    assert_eq!(sent, [(two, gone), (three, gone), (two, leave), (three, leave)]);
    let superseded = Event::Superseded { id, serial: 1, location: Some(newer), was_granted: true };
    assert_eq!(relay.events(), [superseded, Event::Located { id, location: newer, asked: None }]);
}

#[test]
fn newer_location_that_one_home_keeps_to_supersedes_after_a_second() {
    for stays in [false, true] {
        let (mut relay, id) = settled(SESSION);
        let moved = Frame::Moved { id, location: location(3, CLOCK + 1, SESSION), ends: 1 };
        relay.hear(2, moved);
        relay.wait(999);
        assert_eq!((relay.hear(2, moved), relay.events()), (vec![], vec![]), "it repeats itself");
        let again = Claim { age_ms: 1_000, ..claim(id, CLOCK, 1, SESSION) };
        assert_eq!(relay.wait(1), [(super::relay(2), Frame::Claim(again))]);
        relay.hear(2, if stays { granted(id, CLOCK, 1) } else { moved });
        let Stats { locals, outstanding, .. } = relay.presence.stats();
        assert_eq!((locals, outstanding), if stays { (1, 0) } else { (0, 2) });
    }
}

#[test]
fn owner_gave_way_before_the_home_that_had_granted_it_the_best_epoch_could_say_so() {
    let answers: [fn(&mut Relay, NodeId) -> bool; 3] = [
        |relay, id| {
            relay.hear(3, granted(id, CLOCK + 5, 1));
            true
        },
        |relay, id| {
            relay.hear(3, Frame::Moved { id, location: location(2, CLOCK + 1, SESSION), ends: 1 });
            false
        },
        |relay, _| {
            relay.presence.left(super::relay(3), relay.now());
            false
        },
    ];
    for answer in answers {
        let (mut relay, id) = owner();
        relay.presence.arrived(id, here(1, SESSION), relay.now());
        // The grant of the other home is lost, and its own claim there is not answered yet.
        relay.hear(2, granted(id, CLOCK, 1));
        let moved = Frame::Moved { id, location: location(3, CLOCK + 1, SESSION), ends: 1 };
        relay.hear(2, moved);
        relay.wait(10_000);
        relay.hear(2, moved);
        assert_eq!(relay.presence.stats().locals, 1, "the other home has yet to answer");

        let stays = answer(&mut relay, id);
        relay.hear(2, moved);
        relay.wait(1_000);
        relay.hear(2, moved);

        assert_eq!(relay.presence.stats().locals, usize::from(stays));
    }
}

#[test]
fn refusal_whose_way_crossed_that_of_moved_was_void_again_and_again() {
    let (mut relay, id) = owner();
    relay.presence.arrived(id, here(1, SESSION), relay.now());
    relay.sent();
    let nonce = relay.nonce(2, id);
    let newer = location(3, CLOCK + 1, SESSION);

    relay.hear(2, Frame::Moved { id, location: newer, ends: 1 });
    relay.hear(2, Frame::Refused { id, nonce, refusal: Refusal::Held(newer) });

    assert_eq!(relay.presence.stats().locals, 0);
}

#[test]
fn grant_of_before_a_newer_location_does_not_hold_after_it() {
    let (mut relay, id) = owner();
    relay.presence.arrived(id, here(1, SESSION), relay.now());
    relay.wait(100);
    let late = Frame::Granted { id, epoch: CLOCK, serial: 1, nonce: relay.nonce(2, id) };
    relay.hear(2, Frame::Moved { id, location: location(3, CLOCK + 1, SESSION), ends: 1 });
    let claims = relay.hear(2, late);
    let under = Frame::Claim(Claim { age_ms: 100, ..claim(id, CLOCK, 1, SESSION) });
    assert_eq!(claims, [(super::relay(2), under), (super::relay(3), under)]);
    relay.hear(3, granted(id, CLOCK, 1));
    assert_eq!(relay.presence.stats().outstanding, 1, "the home has yet to say that it holds");
}

#[test]
fn newer_location_of_a_former_home_is_noted() {
    let (mut relay, id) = settled(SESSION);
    relay.presence.joined(super::relay(4), relay.now());
    relay.sent();
    let moved = Frame::Moved { id, location: location(3, CLOCK + 1, SESSION), ends: 1 };
    let former = [2, 3, 4].into_iter().find(|byte| {
        let slot = relay.presence.members.slot(super::relay(*byte)).unwrap();
        !relay.presence.members.homes(&id).contains(&slot)
    });
    let former = former.unwrap();
    let noted = (super::relay(former), Frame::Noted { id, serial: 1 });
    assert_eq!((relay.hear(former, moved), relay.events()), (vec![noted], vec![]));
}

#[test]
fn owner_waits_for_both_homes_before_it_gives_way() {
    let (mut relay, id) = owner();
    relay.presence.arrived(id, here(1, SESSION), relay.now());
    relay.hear(3, granted(id, CLOCK, 1));
    relay.hear(3, Frame::Moved { id, location: location(3, CLOCK + 1, SESSION), ends: 1 });
    assert_eq!(relay.events(), [], "the home may have granted a newer epoch");
    let told = relay.hear(2, granted(id, CLOCK + 2, 1));
    assert_eq!(told, [(super::relay(3), Frame::Claim(claim(id, CLOCK + 2, 1, SESSION)))]);
}

#[test]
fn notice_that_ends_what_is_not_here_is_answered_and_news_is_not() {
    let (mut relay, id) = owner();
    let location = location(3, CLOCK, SESSION);
    assert_eq!(relay.hear(2, Frame::Moved { id, location, ends: 0 }), []);
    assert_eq!(relay.events(), [Event::Located { id, location, asked: None }]);
    let leave = (super::relay(2), Frame::Leave { id, serial: 8 });
    assert_eq!(relay.hear(2, Frame::Moved { id, location, ends: 8 }), [leave]);
}

#[test]
fn member_that_is_no_home_diverts_nobodys_packets() {
    let mut relay = Relay::with(&[2, 3, 4]);
    let id = relay.id(2, 3);
    let lie = location(4, CLOCK + 59_000, SESSION);
    assert_eq!(relay.hear(4, Frame::Moved { id, location: lie, ends: 0 }), []);
    let leave = (super::relay(4), Frame::Leave { id, serial: 8 });
    assert_eq!(relay.hear(4, Frame::Moved { id, location: lie, ends: 8 }), [leave]);
    assert_eq!((relay.events(), relay.denied(Denied::NoSay)), (vec![], 2));
}

#[test]
fn member_that_is_no_home_ends_nothing_while_the_homes_change() {
    let mut relay = Relay::with(&[2, 3]);
    let slot = |relay: &Relay, byte| relay.presence.members.slot(super::relay(byte)).unwrap();
    let homes = |relay: &Relay, id: &NodeId| relay.presence.members.homes(id);
    let of_both = [slot(&relay, 2), slot(&relay, 3)];
    let ids = (1..10_000).map(node).filter(|id| homes(&relay, id) == of_both);
    let ids: Vec<_> = ids.take(300).collect();
    for id in &ids {
        relay.presence.arrived(*id, here(1, ENDPOINT), relay.now());
        relay.hear(2, granted(*id, CLOCK, 1));
        relay.hear(3, granted(*id, CLOCK, 1));
    }
    // It takes a moment until all new homes have been told.
    for byte in [2, 3] {
        relay.presence.left(super::relay(byte), relay.now());
    }
    for byte in [4, 5, 6] {
        relay.presence.joined(super::relay(byte), relay.now());
    }
    relay.events();
    let mut lies = 0;
    for liar in [4, 5, 6] {
        let is_home = |id: &&NodeId| homes(&relay, id).contains(&slot(&relay, liar));
        let others: Vec<_> = ids.iter().copied().filter(|id| !is_home(&id)).collect();
        for id in others {
            let location = location(liar, CLOCK + 59_000, SESSION);
            relay.hear(liar, Frame::Moved { id, location, ends: 1 });
            lies += 1;
        }
    }
    assert!(lies > 300, "{lies}");
    assert_eq!((relay.events().len(), relay.presence.stats().locals), (0, 300));
}

#[test]
fn refused_session_or_endpoint_has_to_go() {
    let (mut relay, id) = owner();
    relay.presence.arrived(id, here(1, ENDPOINT), relay.now());
    relay.hear(2, refused(id, Refusal::TooSoon));
    assert_eq!(
        relay.events(),
        [Event::Superseded { id, serial: 1, location: None, was_granted: false }]
    );
    assert_eq!(relay.presence.stats().locals, 0);
}

#[test]
fn refused_gateway_stays_and_asks_again_after_30_seconds() {
    let (mut relay, id) = owner();
    relay.presence.arrived(id, here(1, GATEWAY), relay.now());
    let held = Refusal::Held(location(3, CLOCK, SESSION));
    relay.hear(2, refused(id, held));
    relay.wait(100);
    relay.hear(3, refused(id, held));
    assert_eq!((relay.events(), relay.presence.stats().outstanding), (vec![], 0));
    assert_eq!(relay.wait(29_800), []);
    assert!(matches!(relay.wait(200)[..], [(_, Frame::Claim(_)), ..]));
    assert_eq!(relay.presence.stats().locals, 1);
}

#[test]
fn epoch_that_a_home_calls_too_far_ahead_is_asked_for_afresh() {
    let (mut relay, id) = owner();
    relay.presence.arrived(id, here(1, SESSION), relay.now());
    relay.hear(2, granted(id, CLOCK + 50_000, 1));
    relay.hear(3, refused(id, Refusal::EpochAhead));
    let asked = relay.wait(250);
    let afresh = Frame::Claim(Claim { age_ms: 250, ..claim(id, 0, 1, SESSION) });
    assert_eq!(asked, [(super::relay(3), afresh)]);
    relay.hear(3, granted(id, CLOCK, 1));
    assert_eq!((relay.presence.epoch(id), relay.wait(9_000)), (Some(CLOCK + 50_000), vec![]));
}

#[test]
fn packets_for_a_node_that_is_not_here_make_the_homes_forget_it() {
    let (mut relay, id) = owner();
    relay.presence.not_here(id, 5, relay.now());
    let leave = Frame::Leave { id, serial: 5 };
    assert_eq!(relay.sent(), [(super::relay(2), leave), (super::relay(3), leave)]);
    assert_eq!(relay.wait(9_000), [], "if that is lost, packets come again");
}

#[test]
fn relay_that_drains_says_so_and_its_nodes_stay() {
    let (mut relay, id) = settled(SESSION);
    relay.presence.draining(super::relay(ME), relay.now());
    let drains = [2, 3].map(|to| (super::relay(to), Frame::Draining));
    assert_eq!(relay.sent(), drains);
    relay.presence.joined(super::relay(4), relay.now());
    assert!(relay.sent().contains(&(super::relay(4), Frame::Draining)));
    assert_eq!(relay.presence.epoch(id), Some(CLOCK));
}

#[test]
fn home_that_names_another_owner_is_claimed_again_when_the_other_home_is_gone() {
    let (mut relay, id) = owner();
    relay.presence.arrived(id, here(1, SESSION), relay.now());
    relay.hear(2, granted(id, CLOCK, 1));
    relay.hear(2, Frame::Moved { id, location: location(3, CLOCK + 1, SESSION), ends: 1 });
    assert_eq!(relay.events(), [], "the spare has not answered");
    relay.presence.left(super::relay(3), relay.now());
    let again = Claim { age_ms: 1_000, ..claim(id, CLOCK, 1, SESSION) };
    assert_eq!(relay.wait(1_000), [(super::relay(2), Frame::Claim(again))]);
}

#[test]
fn word_of_another_serial_is_no_answer_to_the_claim() {
    for (ends, leaves) in [(0, 0), (1, 1)] {
        let (mut relay, id) = owner();
        let two = super::relay(2);
        relay.presence.arrived(id, here(2, SESSION), relay.now());
        relay.wait(100);
        relay.hear(3, granted(id, CLOCK, 2));
        // The home may have granted a newer epoch, and its answer may be lost.
        let location = location(3, CLOCK + 5, SESSION);
        let sent = relay.hear(2, Frame::Moved { id, location, ends });
        let leave = (two, Frame::Leave { id, serial: ends });
        assert_eq!(sent.iter().filter(|sent| **sent == leave).count(), leaves);
        assert_eq!((relay.events(), relay.presence.stats().locals), (vec![], 1));
        let again = Claim { age_ms: 350, ..claim(id, CLOCK, 2, SESSION) };
        assert_eq!(relay.wait(250), [(two, Frame::Claim(again))]);
        for home in [2, 3] {
            relay.hear(home, Frame::Moved { id, location, ends: 2 });
        }
        assert_eq!(relay.presence.stats().locals, 0, "it has lost");
    }
}

#[test]
fn word_of_another_serial_makes_a_home_be_told_again() {
    let (mut relay, id) = settled(SESSION);
    let location = location(3, CLOCK + 5, SESSION);
    let again = (super::relay(2), Frame::Claim(claim(id, CLOCK, 1, SESSION)));
    assert_eq!(relay.hear(2, Frame::Moved { id, location, ends: 0 }), [again]);
    assert_eq!(relay.events(), []);
}

#[test]
fn refusal_of_a_request_is_void_when_another_home_has_granted() {
    for ownership in [SESSION, ENDPOINT, GATEWAY] {
        for refusal in [Refusal::Held(location(3, CLOCK, SESSION)), Refusal::TooSoon] {
            let (mut relay, id) = owner();
            relay.presence.arrived(id, here(1, ownership), relay.now());
            relay.wait(100);
            let late = Frame::Refused { id, nonce: relay.nonce(2, id), refusal };
            relay.hear(3, granted(id, CLOCK + 1, 1));
            assert_eq!(relay.hear(2, late), []);
            assert_eq!((relay.events(), relay.presence.epoch(id)), (vec![], Some(CLOCK + 1)));
            let again = Claim { age_ms: 350, ..claim(id, CLOCK + 1, 1, ownership) };
            assert_eq!(relay.wait(250), [(super::relay(2), Frame::Claim(again))]);
        }
    }
}

#[test]
fn epoch_far_ahead_is_not_believed() {
    let ahead = CLOCK + 60_001;
    let elsewhere = location(3, ahead, SESSION);
    let (mut relay, id) = owner();
    let other = relay.id(3, 2);
    relay.presence.arrived(id, here(1, SESSION), relay.now());
    relay.sent();
    relay.hear(2, granted(id, ahead, 1));
    assert_eq!(relay.presence.epoch(id), None);
    relay.hear(2, refused(id, Refusal::Held(elsewhere)));
    relay.hear(2, granted(id, ahead - 1, 1));
    relay.hear(3, granted(id, ahead - 1, 1));
    relay.hear(2, Frame::Moved { id, location: elsewhere, ends: 1 });
    relay.hear(2, Frame::Moved { id: other, location: elsewhere, ends: 0 });
    assert_eq!((relay.events(), relay.presence.epoch(id)), (vec![], Some(ahead - 1)));
    relay.presence.look_up(other, relay.now());
    relay.sent();
    let sent = relay.hear(3, Frame::Found { id: other, location: elsewhere, serial: 1 });
    assert_eq!(sent, [(super::relay(2), Frame::Find { id: other })], "as if nobody was known");
    assert_eq!((relay.events(), relay.denied(Denied::EpochAhead)), (vec![], 5));
}

#[test]
fn session_that_a_home_keeps_calling_over_needs_a_new_serial() {
    for (ownership, stays) in [(SESSION, false), (ENDPOINT, false), (GATEWAY, true)] {
        let (mut relay, id) = owner();
        relay.presence.arrived(id, here(4, ownership), relay.now());
        relay.hear(2, Frame::Left { id, serial: 4 });
        relay.wait(100);
        relay.hear(3, granted(id, CLOCK, 4));
        relay.wait(1_500);
        relay.hear(2, Frame::Left { id, serial: 4 });
        assert_eq!(relay.presence.stats().locals, 1, "another word may be on its way");
        relay.wait(4_000);
        relay.hear(2, Frame::Left { id, serial: 3 });
        assert_eq!(relay.presence.stats().outstanding, 1, "of a serial before");
        relay.hear(2, Frame::Left { id, serial: 4 });
        let superseded = Event::Superseded { id, serial: 4, location: None, was_granted: true };
        assert_eq!(relay.events(), if stays { vec![] } else { vec![superseded] });
        assert_eq!(relay.presence.stats().locals, usize::from(stays));
    }
}

#[test]
fn session_that_one_home_refuses_waits_for_the_other_that_was_asked() {
    let held = Refusal::Held(location(3, CLOCK, SESSION));
    for grants in [true, false] {
        let (mut relay, id) = owner();
        relay.presence.arrived(id, here(1, SESSION), relay.now());
        relay.wait(100);
        relay.hear(2, refused(id, held));
        assert_eq!(relay.events(), [], "the spare may have granted it, and told the owner");
        let answer = if grants { granted(id, CLOCK + 9, 1) } else { refused(id, held) };
        relay.hear(3, answer);
        assert_eq!(relay.presence.stats().locals, usize::from(grants));
    }
}

#[test]
fn node_that_ended_its_session_is_an_endpoint_to_its_homes_before_it_leaves() {
    let (mut relay, id) = settled(SESSION);
    relay.presence.released(id, 1, relay.now());
    let sent = relay.wait(0);
    for home in [2, 3].map(super::relay) {
        let said: Vec<_> = sent.iter().filter(|(to, _)| *to == home).map(|(_, f)| f).collect();
        let [Frame::Claim(_), ..] = said[..] else { panic!("{said:?}") };
        assert_eq!(*said[0], Frame::Claim(claim(id, CLOCK, 1, ENDPOINT)));
        assert!(said.contains(&&Frame::Leave { id, serial: 1 }), "{said:?}");
    }
    assert_eq!(relay.presence.stats().locals, 0);
}

//! What a home grants, refuses and remembers.

use super::*;

/// A home among three relays, and an id that it is the home of.
fn home() -> (Relay, NodeId) {
    let relay = Relay::with(&[2, 3]);
    let id = relay.id(ME, 2);
    (relay, id)
}

#[test]
fn epoch_is_the_clock_or_one_more_than_the_last() {
    let (mut relay, id) = home();
    assert_eq!(relay.claim(2, claim(id, 0, 1, SESSION)), granted(id, CLOCK, 1));
    assert_eq!(relay.claim(2, claim(id, 0, 1, SESSION)), granted(id, CLOCK, 1), "again");
    assert_eq!(relay.claim(3, claim(id, 0, 1, SESSION)), granted(id, CLOCK + 1, 1));
    relay.wait(10);
    assert_eq!(relay.claim(2, claim(id, 0, 2, SESSION)), granted(id, CLOCK + 10, 2));
}

#[test]
fn late_repeat_of_a_claim_took_the_node_back_from_who_had_taken_it_over() {
    let (mut relay, id) = home();
    relay.claim(2, claim(id, 0, 7, SESSION));
    relay.claim(3, claim(id, 0, 1, SESSION));
    relay.wait(1_000);
    let held = Refusal::Held(location(3, CLOCK + 1, SESSION));
    assert_eq!(relay.claim(2, claim(id, 0, 7, SESSION)), refused(id, held));
    let moved = Frame::Moved { id, location: location(3, CLOCK + 1, SESSION), ends: 7 };
    let said_again = relay.wait(1_000);
    assert!(said_again.contains(&(super::relay(2), moved)), "it is no answer: {said_again:?}");
    assert_eq!(
        relay.claim(2, claim(id, 0, 8, SESSION)),
        granted(id, CLOCK + 2_000, 8),
        "a newer one"
    );
}

#[test]
fn owner_that_is_replaced_is_told_until_it_answers() {
    let (mut relay, id) = home();
    relay.claim(2, claim(id, 0, 7, SESSION));
    let sent = relay.hear(3, Frame::Claim(claim(id, 0, 1, SESSION)));
    let moved = Frame::Moved { id, location: location(3, CLOCK + 1, SESSION), ends: 7 };
    let two = super::relay(2);
    assert!(sent.contains(&(two, moved)));
    for wait in [250, 500, 1_000, 2_000, 4_000, 4_000] {
        assert_eq!(relay.wait(wait - 1), []);
        assert_eq!(relay.wait(1), [(two, moved)]);
    }
    assert_eq!(
        relay.hear(2, Frame::Leave { id, serial: 7 }),
        [(two, Frame::Left { id, serial: 7 })]
    );
    assert_eq!(relay.wait(10_000), []);
    assert_eq!(relay.presence.stats().outstanding, 0);
}

#[test]
fn newer_epoch_wins_and_an_older_one_is_told_where_the_node_is() {
    let (mut relay, id) = home();
    relay.claim(2, claim(id, CLOCK + 5, 1, SESSION));
    let moved = Frame::Moved { id, location: location(2, CLOCK + 5, SESSION), ends: 1 };
    assert_eq!(relay.claim(3, claim(id, CLOCK + 4, 1, SESSION)), moved);
    assert_eq!(
        relay.claim(3, claim(id, CLOCK + 5, 1, SESSION)),
        granted(id, CLOCK + 5, 1),
        "of equal epochs the higher relay wins"
    );
}

#[test]
fn epoch_far_ahead_of_the_clock_is_refused_and_counted() {
    let (mut relay, id) = home();
    let ahead = claim(id, CLOCK + 60_001, 1, SESSION);
    assert_eq!(relay.claim(2, ahead), refused(id, Refusal::EpochAhead));
    assert_eq!(relay.denied(Denied::EpochAhead), 1);
    let last = claim(id, CLOCK + 60_000, 1, SESSION);
    assert_eq!(relay.claim(2, last), granted(id, CLOCK + 60_000, 1));
}

#[test]
fn endpoint_takes_nothing_from_a_session_and_an_endpoint_stays_for_30_seconds() {
    let (mut relay, id) = home();
    relay.claim(2, claim(id, 0, 1, ENDPOINT));
    let too_soon = refused(id, Refusal::TooSoon);
    relay.wait(29_900);
    assert_eq!(relay.claim(3, claim(id, 0, 1, ENDPOINT)), too_soon);
    relay.wait(100);
    assert_eq!(relay.claim(3, claim(id, 0, 1, ENDPOINT)), granted(id, CLOCK + 30_000, 1));
    relay.claim(2, claim(id, 0, 2, SESSION));
    let held = Refusal::Held(location(2, CLOCK + 30_001, SESSION));
    assert_eq!(relay.claim(3, claim(id, 0, 2, ENDPOINT)), refused(id, held));
    // Nor does one that was granted a newer epoch where the session was not known.
    let elsewhere = claim(id, CLOCK + 40_000, 3, ENDPOINT);
    let moved = Frame::Moved { id, location: location(2, CLOCK + 30_001, SESSION), ends: 3 };
    assert_eq!(relay.claim(3, elsewhere), moved);
}

#[test]
fn endpoint_follows_a_session_elsewhere_after_90_seconds() {
    let (mut relay, id) = home();
    relay.claim(2, claim(id, 0, 1, SESSION));
    relay.hear(2, Frame::Leave { id, serial: 1 });
    relay.wait(89_900);
    let too_soon = refused(id, Refusal::TooSoon);
    assert_eq!(relay.claim(3, claim(id, 0, 1, ENDPOINT)), too_soon);
    assert_eq!(relay.claim(2, claim(id, 0, 2, ENDPOINT)), granted(id, CLOCK + 89_900, 2));
    relay.hear(2, Frame::Leave { id, serial: 2 });
    assert_eq!(relay.claim(3, claim(id, 0, 1, ENDPOINT)), granted(id, CLOCK + 89_901, 1));
}

#[test]
fn gateway_supersedes_nobody_and_gives_way_to_all() {
    let (mut relay, id) = home();
    relay.claim(2, claim(id, 0, 1, GATEWAY));
    let held = Refusal::Held(location(2, CLOCK, GATEWAY));
    assert_eq!(relay.claim(3, claim(id, 0, 1, GATEWAY)), refused(id, held));
    assert_eq!(relay.claim(2, claim(id, 0, 2, GATEWAY)), granted(id, CLOCK + 1, 2));
    assert_eq!(relay.claim(3, claim(id, 0, 2, ENDPOINT)), granted(id, CLOCK + 2, 2));
}

#[test]
fn session_passes_as_its_takeover_says() {
    use Takeover::{Always, Refuse, SameCredential};
    for (takeover, credential, passes) in [
        (Always, 9, true),
        (SameCredential, 9, false),
        (SameCredential, 5, true),
        (Refuse, 5, false),
    ] {
        let (mut relay, id) = home();
        relay.claim(2, Claim { credential: 5, ..claim(id, 0, 1, SESSION) });
        let answer = relay.claim(3, Claim { takeover, credential, ..claim(id, 0, 1, SESSION) });
        let held = Refusal::Held(location(2, CLOCK, SESSION));
        let no = refused(id, held);
        let yes = granted(id, CLOCK + 1, 1);
        assert_eq!(answer, if passes { yes } else { no }, "{takeover:?} {credential}");
    }
}

#[test]
fn late_word_of_what_is_over_changes_nothing() {
    let (mut relay, id) = home();
    // The leave overtakes the claim.
    relay.hear(2, Frame::Leave { id, serial: 4 });
    assert_eq!(relay.claim(2, claim(id, 0, 4, SESSION)), Frame::Left { id, serial: 4 });
    relay.claim(3, claim(id, 0, 1, SESSION));
    assert_eq!(relay.claim(2, claim(id, CLOCK + 9, 4, SESSION)), Frame::Left { id, serial: 4 });
    let found = Frame::Found { id, location: location(3, CLOCK, SESSION), serial: 1 };
    assert_eq!(relay.hear(2, Frame::Find { id }), [(super::relay(2), found)]);
    // Of a relay that was replaced, all logins before that one are over.
    relay.claim(2, claim(id, 0, 9, SESSION));
    relay.claim(3, claim(id, 0, 3, SESSION));
    assert_eq!(relay.claim(2, claim(id, 0, 8, SESSION)), Frame::Left { id, serial: 8 });
}

#[test]
fn request_that_comes_late_is_no_newer_than_what_came_before() {
    let (mut relay, id) = home();
    relay.wait(1_000);
    relay.claim(2, claim(id, 0, 1, SESSION));
    let late = Claim { age_ms: 500, ..claim(id, 0, 1, SESSION) };
    let held = Refusal::Held(location(2, CLOCK + 1_000, SESSION));
    assert_eq!(relay.claim(3, late), refused(id, held));
    relay.wait(1_000);
    assert_eq!(relay.claim(3, late), granted(id, CLOCK + 1_500, 1));
}

#[test]
fn request_that_came_after_the_grant_is_newer_whatever_another_clock_said() {
    let (mut relay, id) = home();
    // The spare's clock, half a minute ahead, has granted it first.
    relay.claim(2, claim(id, CLOCK + 30_000, 1, SESSION));
    relay.wait(1_000);
    let newer = Claim { age_ms: 300, ..claim(id, 0, 1, SESSION) };
    assert_eq!(relay.claim(3, newer), granted(id, CLOCK + 30_001, 1));
}

#[test]
fn relay_that_leaves_takes_its_nodes_along_and_begins_anew() {
    let (mut relay, id) = home();
    relay.claim(2, claim(id, 0, 40, SESSION));
    relay.presence.left(super::relay(2), relay.now());
    assert_eq!(relay.events(), [Event::RelayGone { relay: super::relay(2) }]);
    assert_eq!(relay.presence.stats().entries, 0);
    relay.presence.joined(super::relay(2), relay.now());
    assert_eq!(relay.claim(2, claim(id, 0, 1, SESSION)), granted(id, CLOCK + 1, 1));
}

#[test]
fn home_without_room_refuses_and_counts() {
    let mut relay = Relay::of_room(&[2], 1);
    relay.claim(2, claim(node(1), 0, 1, SESSION));
    let full = refused(node(2), Refusal::Full);
    assert_eq!(relay.claim(2, claim(node(2), 0, 2, SESSION)), full);
    assert_eq!((relay.denied(Denied::Full), relay.presence.stats().entries), (1, 1));
}

#[test]
fn former_home_answers_for_a_minute_and_tells_the_owner_that_it_forgets() {
    let mut relay = Relay::with(&[2]);
    let three = super::relay(3);
    relay.presence.joined(three, relay.now());
    let id = relay.id(2, 3);
    relay.presence.left(three, relay.now());
    relay.claim(2, claim(id, 0, 1, SESSION));
    relay.presence.joined(three, relay.now());
    let found = Frame::Found { id, location: location(2, CLOCK, SESSION), serial: 1 };
    relay.wait(59_000);
    assert_eq!(relay.hear(3, Frame::Find { id }), [(three, found)]);
    let yours = Frame::Moved { id, location: location(2, 0, GATEWAY), ends: 1 };
    assert!(relay.wait(2_000).contains(&(super::relay(2), yours)));
    assert_eq!(relay.hear(3, Frame::Find { id }), [(three, Frame::Missing { id })]);
    relay.hear(2, Frame::Noted { id, serial: 1 });
    assert_eq!(relay.presence.stats().outstanding, 0);
}

#[test]
fn word_for_caches_ends_no_claim_of_a_later_serial() {
    let (mut relay, id) = home();
    relay.claim(2, claim(id, 0, 5, SESSION));
    relay.hear(2, Frame::Gone { id, epoch: CLOCK + 2_000 });
    assert_eq!(relay.claim(2, claim(id, CLOCK, 5, SESSION)), granted(id, CLOCK, 5));
}

#[test]
fn only_a_request_comes_too_soon_after_a_session() {
    let (mut relay, id) = home();
    relay.claim(2, claim(id, 0, 1, SESSION));
    relay.hear(2, Frame::Leave { id, serial: 1 });
    assert_eq!(
        relay.claim(3, claim(id, CLOCK - 5, 1, ENDPOINT)),
        granted(id, CLOCK + 1, 1),
        "another home has granted it"
    );
}

#[test]
fn what_came_and_left_is_remembered_once() {
    let (mut relay, id) = home();
    for serial in 1..100 {
        relay.hear(2, Frame::Leave { id: node(9), serial: 1 });
        relay.hear(3, Frame::Leave { id: node(9), serial });
        for owner in [2, 3] {
            relay.claim(owner, claim(id, 0, serial, SESSION));
            relay.hear(owner, Frame::Leave { id, serial });
        }
    }
    // A grave for each id, and a serial for each relay that has been the owner of one.
    assert_eq!(relay.presence.registry.queued(), (2, 3));
    let left = Frame::Left { id, serial: 99 };
    relay.wait(29_000);
    assert_eq!(relay.claim(2, claim(id, CLOCK + 90, 99, SESSION)), left, "not forgotten");
    relay.wait(91_000);
    assert_eq!(relay.presence.registry.queued(), (0, 0));
    assert_eq!(relay.presence.stats().tombstones, 0);
}

#[test]
fn endpoint_need_not_wait_for_a_session_that_was_an_endpoint_when_it_left() {
    let (mut relay, id) = home();
    relay.claim(2, claim(id, 0, 1, SESSION));
    relay.claim(2, claim(id, CLOCK, 1, ENDPOINT));
    relay.hear(2, Frame::Leave { id, serial: 1 });
    assert_eq!(relay.claim(3, claim(id, 0, 1, ENDPOINT)), granted(id, CLOCK + 1, 1));
}

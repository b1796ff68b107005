//! Locations, their age, and packets that wait for them.

use super::*;
use crate::cluster::Outbox;
use crate::ids::PublicKey;
use crate::wire::cluster::{Frame, Frames};
use crate::wire::name::testing::name;

fn relay(byte: u8) -> RelayId {
    RelayId(PublicKey([byte; 32]))
}

fn location(owner: u8, epoch: u64) -> Location {
    Location { owner: relay(owner), epoch, ownership: Ownership::Session }
}

struct Setup {
    traffic: Arc<Traffic>,
    locations: Locations,
    a: Arc<Member>,
    b: Arc<Member>,
    now: Instant,
}

fn setup() -> Setup {
    let traffic = Arc::<Traffic>::default();
    let outbox = || Outbox::new(Arc::clone(&traffic), Arc::default());
    let member = |byte| Arc::new(Member::new(relay(byte), String::new(), outbox()));
    Setup {
        locations: Locations::new(Arc::clone(&traffic)),
        a: member(1),
        b: member(2),
        traffic,
        now: Instant::now(),
    }
}

impl Setup {
    fn send(&self, number: u32, payloads: &[&'static [u8]]) -> Way {
        self.locations.find_or_park(name(number), name(99), payloads.iter().copied(), self.now)
    }
}

async fn packets(member: &Member) -> Vec<(u64, Vec<u8>)> {
    let batch = member.outbox.next_packets().await.unwrap();
    let mut found = Vec::new();
    for frame in Frames::<Name>::new(&batch.bytes) {
        let Ok(Frame::Packets(packets)) = frame else { panic!("{frame:?}") };
        found.extend(packets.iter().map(|payload| (packets.run.epoch, payload.to_vec())));
    }
    member.outbox.sent(batch);
    found
}

#[tokio::test]
async fn packets_wait_for_the_answer_and_keep_their_order() {
    let setup = setup();
    assert!(matches!(setup.send(1, &[b"a"]), Way::Parked { packets: 1, asks: true, .. }));
    assert!(matches!(setup.send(1, &[b"b"]), Way::Parked { packets: 1, asks: false, .. }));
    setup.locations.located(name(1), &setup.a, &location(1, 5), None, setup.now);
    assert!(matches!(setup.send(1, &[b"c"]), Way::To { remote, asks: false } if remote.epoch == 5));
    assert_eq!(packets(&setup.a).await, [(5, b"a".to_vec()), (5, b"b".to_vec())]);
    assert_eq!(setup.traffic.packets_queued(), 0);
    assert_eq!((setup.locations.waiting(), setup.locations.count()), (0, 1));
}

#[test]
fn newest_word_wins_and_a_late_one_changes_nothing() {
    let setup = setup();
    let at = || setup.locations.known(name(1)).map(|r| (r.member.relay, r.epoch));
    setup.locations.located(name(1), &setup.a, &location(1, 5), None, setup.now);
    setup.locations.located(name(1), &setup.b, &location(2, 4), None, setup.now);
    assert_eq!(at(), Some((relay(1), 5)));
    // Of two with one epoch the larger id stays, whichever came first.
    setup.locations.located(name(1), &setup.b, &location(2, 5), None, setup.now);
    setup.locations.located(name(1), &setup.a, &location(1, 5), None, setup.now);
    assert_eq!(at(), Some((relay(2), 5)));
    setup.locations.gone(name(1), relay(2), 4);
    setup.locations.gone(name(1), relay(1), 9);
    assert_eq!(at(), Some((relay(2), 5)));
    setup.locations.gone(name(1), relay(2), 5);
    assert_eq!((at(), setup.locations.count()), (None, 0));
}

#[test]
fn nobody_is_asked_again_for_a_moment_after_nobody_had_the_peer() {
    let mut setup = setup();
    setup.send(1, &[b"a", b"b"]);
    assert_eq!(setup.locations.missing(name(1), setup.now), 2);
    assert_eq!(setup.traffic.packets_dropped(Drop::UNKNOWN_DESTINATION), 2);
    assert!(matches!(setup.send(1, &[b"c"]), Way::Nowhere));
    setup.now += NOWHERE_TIME;
    assert!(matches!(setup.send(1, &[b"d"]), Way::Parked { asks: true, .. }));
}

#[test]
fn waiting_is_bounded_in_packets_in_peers_and_in_time() {
    let mut setup = setup();
    let many = [b"x" as &[u8]; 40];
    assert!(matches!(setup.send(1, &many), Way::Parked { packets: 32, refused: 8, .. }));
    setup.now += PATIENCE / 2;
    for number in 2..=u32::try_from(MAX_WAITING).unwrap() {
        assert!(matches!(setup.send(number, &[]), Way::Parked { asks: true, .. }));
    }
    assert!(matches!(setup.send(99_999, &[b"x"]), Way::Parked { refused: 1, .. }));
    setup.now += PATIENCE / 2;
    assert_eq!(setup.locations.expire(setup.now), 32);
    assert_eq!(setup.traffic.packets_dropped(Drop::LOOKUP_EXPIRED), 32);
    assert_eq!((setup.traffic.packets_queued(), setup.locations.waiting()), (0, MAX_WAITING));
    assert!(matches!(setup.send(1, &[b"y"]), Way::Parked { packets: 1, asks: false, .. }));
}

#[test]
fn location_that_is_used_is_asked_for_again_and_one_that_is_not_is_believed_for_a_while() {
    let mut setup = setup();
    setup.locations.located(name(1), &setup.a, &location(1, 5), None, setup.now);
    let began = setup.now;
    setup.now += REFRESH_AFTER;
    assert!(matches!(setup.send(1, &[b"x"]), Way::To { asks: true, .. }));
    assert!(matches!(setup.send(1, &[b"x"]), Way::To { asks: false, .. }), "once");
    let known = setup.locations.known(name(1)).unwrap();
    assert!(known.is_believed(began + BELIEVED_FOR / 2));
    assert!(!known.is_believed(began + BELIEVED_FOR));
    setup.locations.located(name(1), &setup.a, &location(1, 5), None, began + REFRESH_AFTER);
    assert!(setup.locations.known(name(1)).unwrap().is_believed(began + BELIEVED_FOR));
    assert_eq!(setup.locations.arrived(name(1), setup.now), 0);
    assert!(setup.locations.known(name(1)).is_none());
}

#[test]
fn lie_of_a_high_epoch_ends_with_the_next_answer_that_was_asked_for() {
    let mut setup = setup();
    let at = |setup: &Setup| setup.locations.known(name(1)).map(|r| (r.member.relay, r.epoch));
    let second = Duration::from_secs(1);
    let answer = |setup: &Setup, epoch, asked| {
        let now = setup.now + second;
        setup.locations.located(name(1), &setup.b, &location(2, epoch), asked, now);
    };
    setup.locations.located(name(1), &setup.a, &location(1, 59_000), None, setup.now);
    setup.now += second;
    answer(&setup, 5, Some(setup.now));
    assert_eq!(at(&setup), Some((relay(1), 59_000)), "it was not due: the answer may be older");
    setup.now += REFRESH_AFTER;
    assert!(matches!(setup.send(1, &[b"x"]), Way::To { asks: true, .. }));
    answer(&setup, 5, None);
    assert_eq!(at(&setup), Some((relay(1), 59_000)), "news do not go before what is newer");
    answer(&setup, 5, Some(setup.now));
    assert_eq!(at(&setup), Some((relay(2), 5)));
}

#[test]
fn peer_that_moves_while_its_location_is_asked_for_stays_where_it_moved() {
    let mut setup = setup();
    setup.locations.located(name(1), &setup.a, &location(1, 5), None, setup.now);
    setup.now += REFRESH_AFTER;
    assert!(matches!(setup.send(1, &[b"x"]), Way::To { asks: true, .. }));
    let asked = Some(setup.now);
    setup.now += PATIENCE;
    setup.locations.located(name(1), &setup.b, &location(2, 6), None, setup.now);
    setup.locations.located(name(1), &setup.a, &location(1, 5), asked, setup.now);
    assert_eq!(setup.locations.known(name(1)).map(|r| r.epoch), Some(6));
}

#[test]
fn locations_at_a_lost_relay_are_forgotten() {
    let setup = setup();
    setup.locations.located(name(1), &setup.a, &location(1, 5), None, setup.now);
    setup.locations.located(name(2), &setup.b, &location(2, 5), None, setup.now);
    setup.locations.relay_gone(relay(1));
    assert!(setup.locations.known(name(1)).is_none() && setup.locations.known(name(2)).is_some());
    assert_eq!(setup.locations.count(), 1);
}

#[test]
fn peer_whose_question_had_no_room_is_asked_for_by_the_next_packet() {
    let setup = setup();
    assert!(matches!(setup.send(1, &[b"a"]), Way::Parked { asks: true, .. }));
    setup.locations.not_asked(name(1), setup.now);

    assert!(matches!(setup.send(1, &[b"b"]), Way::Parked { packets: 1, asks: true, .. }));
    assert!(matches!(setup.send(1, &[b"c"]), Way::Parked { packets: 1, asks: false, .. }));

    setup.locations.located(name(2), &setup.a, &location(1, 5), None, setup.now);
    let later = setup.now + REFRESH_AFTER;
    let refresh = || setup.locations.find_or_park(name(2), name(99), std::iter::empty(), later);
    assert!(matches!(refresh(), Way::To { asks: true, .. }));
    assert!(matches!(refresh(), Way::To { asks: false, .. }));
    setup.locations.not_asked(name(2), later);
    assert!(matches!(refresh(), Way::To { asks: true, .. }));
}

#[test]
fn peer_that_nobody_answers_for_is_asked_for_again_or_forgotten() {
    let mut setup = setup();
    assert!(matches!(setup.send(1, &[b"a"]), Way::Parked { asks: true, .. }));
    assert!(matches!(setup.send(2, &[b"a"]), Way::Parked { asks: true, .. }));

    // Packets for one of them come on and on.
    let began = setup.now;
    let mut asked = 0;
    while setup.now < began + 2 * QUESTION_TIME {
        setup.now += PATIENCE / 2;
        setup.locations.expire(setup.now);
        asked += u32::from(matches!(setup.send(1, &[b"a"]), Way::Parked { asks: true, .. }));
    }

    assert_eq!((asked, setup.locations.waiting()), (2, 1), "the other is forgotten");
    setup.now += 2 * QUESTION_TIME;
    setup.locations.expire(setup.now);
    assert_eq!((setup.traffic.packets_queued(), setup.locations.waiting()), (0, 0));
    assert!(setup.locations.due.lock().is_empty());
}

#[test]
fn packets_for_a_peer_that_comes_here_do_not_wait_for_an_answer() {
    let setup = setup();
    setup.send(1, &[b"a", b"b"]);

    assert_eq!(setup.locations.arrived(name(1), setup.now), 2);

    assert_eq!(setup.traffic.packets_dropped(Drop::OVERTAKEN), 2);
    assert_eq!((setup.traffic.packets_queued(), setup.locations.waiting()), (0, 0));
    assert_eq!(setup.locations.missing(name(1), setup.now), 0);
}

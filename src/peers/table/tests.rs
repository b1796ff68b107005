//! Registration, replacement, claims, eviction and foreign servers in the table.

use super::*;
use crate::config::testing::translators;
use crate::metrics::Origin;
use crate::peers::{
    Arrival, Capabilities, Credential, Neighbour, Principal, Record, Takeover, testing,
};
use crate::proto::endpoint::{Claim, MOVE_INTERVAL};

fn id(number: u32) -> Name {
    testing::name(number)
}

fn at(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], port))
}

fn session(table: &Table, number: u32, key: u8) -> Arc<Session> {
    let principal =
        Principal { credential: Credential([key; 32]), ..testing::principal(id(number)) };
    let link = testing::link(testing::stuck());
    Arc::new(Session::new(principal, table.generation(), at(1, 1), link, Instant::now()))
}

fn table(sessions: usize, endpoints: usize) -> Arc<Table> {
    Arc::new(Table::new(sessions, endpoints))
}

fn claim(table: &Table, number: u32, from: SocketAddr, now: Instant) -> Option<Claim> {
    table.claim(id(number), from, None, Capabilities::NONE, || false, now).claim
}

#[test]
fn late_cleanup_of_a_replaced_session_never_touches_its_successor() {
    let table = table(10, 10);
    let first = session(&table, 1, 1);
    let first_registration = table.register(first.clone()).unwrap();
    let second = session(&table, 1, 1);
    let second_registration = table.register(second.clone()).unwrap();
    assert!(second_registration.replaced);
    assert_eq!(first.ending(), Some(End::Replaced));
    assert_eq!(table.session_count(), 1);

    drop(first_registration);
    assert_eq!(table.session(id(1)).unwrap().generation(), second.generation());
    drop(second_registration);
    assert!(table.session(id(1)).is_none());
    assert_eq!(table.session_count(), 0);
}

#[test]
fn login_that_finishes_late_does_not_replace_a_newer_one() {
    let table = table(10, 10);
    let older = session(&table, 1, 1);
    let newer = session(&table, 1, 1);
    let _registration = table.register(newer).unwrap();
    assert_eq!(table.register(older).unwrap_err(), Refused::Taken);
}

#[test]
fn takeover_rules_hold() {
    let table = table(10, 10);
    let _first = table.register(session(&table, 1, 1)).unwrap();
    let register = |key, takeover| {
        let mut session = Arc::into_inner(session(&table, 1, key)).unwrap();
        session.takeover = takeover;
        table.register(Arc::new(session)).map(|registration| registration.replaced)
    };
    assert_eq!(register(1, Takeover::Refuse), Err(Refused::Taken));
    assert_eq!(register(2, Takeover::SameCredential), Err(Refused::Taken));
    assert_eq!(register(1, Takeover::SameCredential), Ok(true));
}

#[test]
fn sessions_were_counted_below_none_after_one_took_the_place_of_a_hidden_one() {
    let table = table(10, 10);
    let of = |is_hidden| {
        let mut session = Arc::into_inner(session(&table, 1, 1)).unwrap();
        session.is_hidden = is_hidden;
        Arc::new(session)
    };
    for (first, second, count) in [(true, false, 0), (false, true, 1)] {
        let registration = table.register(of(first)).unwrap();
        assert_eq!(table.register(of(second)).unwrap_err(), Refused::Taken);
        assert_eq!(table.session_count(), count);
        drop(registration);
        assert_eq!(table.session_count(), 0);
    }
}

#[test]
fn full_table_takes_a_replacement_and_nobody_new() {
    let table = table(1, 10);
    let _first = table.register(session(&table, 1, 1)).unwrap();
    assert!(table.is_full());
    assert_eq!(table.register(session(&table, 2, 1)).unwrap_err(), Refused::Full);
    assert!(table.register(session(&table, 1, 1)).is_ok());
}

#[test]
fn ended_session_counts_what_it_held_as_peer_gone() {
    let table = table(1, 10);
    let session = session(&table, 1, 1);
    let registration = table.register(session.clone()).unwrap();
    let record = Record { head: b"", body: b"x" };
    let arrival = Arrival { origin: Origin::Relayed, ..Arrival::ours(Instant::now()) };
    session.push(std::iter::once(record), &arrival);
    session.flush(Instant::now());
    assert!(session.stuck_since().is_some());
    drop(registration);
    assert!(session.is_drained() && session.stuck_since().is_none());
}

#[test]
fn session_goes_before_endpoint_and_claims_wait_after_it() {
    let table = table(10, 10);
    let now = Instant::now();
    assert_eq!(claim(&table, 1, at(1, 1), now), Some(Claim::Register));
    let registration = table.register(session(&table, 1, 1)).unwrap();
    let route = |now| table.route(id(1), Neighbour::Peer, now);
    assert!(matches!(route(now), Destination::Session(_)));
    assert_eq!(claim(&table, 1, at(1, 1), now), Some(Claim::HeldBySession));
    assert!(table.sender(id(1), at(1, 1), now).has_session);

    drop(registration);
    let later = Instant::now();
    assert!(matches!(route(later), Destination::Endpoint(view) if view.address == at(1, 1)));
    assert_eq!(claim(&table, 1, at(2, 1), later), Some(Claim::HeldBySession));
    let free = later + HOLD_AFTER_SESSION + Duration::from_secs(1);
    assert_eq!(claim(&table, 1, at(2, 1), free), Some(Claim::Move));
}

#[test]
fn allowance_of_a_second_is_not_renewed_by_coming_back() {
    let table = table(10, 10);
    let rates = crate::proto::limit::SourceRates {
        packets: crate::proto::limit::Rate::per_second(1),
        bytes: crate::proto::limit::Rate::NONE,
    };
    let now = Instant::now();
    let first = session(&table, 1, 1);
    let registration = table.register(first.clone()).unwrap();
    assert!(first.inbound.lock().take(&rates, 1, now).is_ok());
    let second = session(&table, 1, 1);
    let replacing = table.register(second.clone()).unwrap();
    assert!(second.inbound.lock().take(&rates, 1, now).is_err());
    drop((registration, replacing));
    let third = session(&table, 1, 1);
    let _registration = table.register(third.clone()).unwrap();
    assert!(third.inbound.lock().take(&rates, 1, now).is_err());
}

#[test]
fn silent_endpoint_is_forgotten_after_ten_minutes() {
    let table = table(10, 10);
    let t0 = Instant::now();
    claim(&table, 1, at(1, 1), t0);
    claim(&table, 2, at(1, 2), t0 + Duration::from_secs(60));
    assert_eq!(table.sweep(t0 + FORGET_AFTER), 0);
    assert!(table.endpoint(id(1), t0 + FORGET_AFTER).unwrap().quiet);
    assert_eq!(table.sweep(t0 + FORGET_AFTER + Duration::from_secs(1)), 1);
    assert_eq!((table.endpoint_count(), table.served()), (1, vec![id(2)]));
}

#[test]
fn full_endpoint_table_evicts_newcomers_of_the_largest_prefix() {
    let table = table(10, 4);
    let now = Instant::now();
    claim(&table, 1, SocketAddr::from(([198, 51, 100, 1], 1)), now);
    for n in 2..=4u8 {
        claim(&table, n.into(), at(n, 1), now);
    }
    claim(&table, 3, at(3, 1), now); // twice at once is no coming back
    let now = now + MOVE_INTERVAL;
    claim(&table, 2, at(2, 1), now); // came back: stays
    let claimed = table.claim(id(5), at(5, 1), None, Capabilities::NONE, || false, now);
    assert_eq!((claimed.claim, claimed.evicted), (Some(Claim::Register), true));
    assert_eq!(table.endpoint_count(), 4);
    assert!(table.endpoint(id(3), now).is_none());
    assert!([1, 2, 4, 5].iter().all(|n| table.endpoint(id(*n), now).is_some()));
}

#[test]
fn newcomers_behind_one_translator_are_of_the_networks_that_they_have_there() {
    let table = Arc::new(Table::new(10, 4).with_translators(translators()));
    let now = Instant::now();
    let behind = |ip: &str| format!("[2001:db8:64::{ip}]:1").parse().unwrap();
    claim(&table, 1, behind("198.51.100.1"), now);
    for n in 2..=5 {
        claim(&table, n, behind(&format!("192.0.2.{n}")), now);
    }
    assert!(table.endpoint(id(1), now).is_some(), "it is the oldest, alone in its network");
    assert!(table.endpoint(id(2), now).is_none());
}

#[test]
fn flood_from_many_networks_leaves_a_new_peer_its_time_wherever_it_is() {
    let low = SocketAddr::from(([1, 2, 3, 4], 1));
    let high = SocketAddr::from(([223, 255, 255, 1], 1));
    for peer in [low, high] {
        let table = table(10, 100);
        let now = Instant::now();
        let stranger = |n: u32| SocketAddr::from(((0x6440_0000 + n * 256).to_be_bytes(), 1));
        for n in 0..100 {
            claim(&table, 1_000 + n, stranger(n), now);
        }
        assert_eq!(claim(&table, 1, peer, now), Some(Claim::Register));
        for n in 100..199 {
            claim(&table, 1_000 + n, stranger(n), now);
        }
        assert!(table.endpoint(id(1), now).is_some(), "{peer}: 99 came after it, of 100");
        claim(&table, 1_199, stranger(199), now);
        assert!(table.endpoint(id(1), now).is_none(), "{peer}: it is the oldest");
        assert_eq!(table.endpoint_count(), 100);
    }
}

#[test]
fn flood_of_strangers_pushes_no_peer_of_the_directory_out() {
    let table = table(10, 4);
    let now = Instant::now();
    let stranger = |n: u8| SocketAddr::from(([198, 51, n, 1], 1));
    let known =
        |number, from, now| table.claim(id(number), from, None, Capabilities::NONE, || true, now);
    known(1, at(1, 1), now);
    // A stranger at first, until the directory has it.
    claim(&table, 2, at(2, 1), now);
    let now = now + MOVE_INTERVAL;
    assert_eq!(known(2, at(2, 2), now).claim, Some(Claim::Move));
    for n in 0..100 {
        assert_eq!(claim(&table, 100 + u32::from(n), stranger(n), now), Some(Claim::Register));
    }
    assert!([1, 2].iter().all(|n| table.endpoint(id(*n), now).is_some()));
    for number in [3, 4] {
        let admitted = known(number, at(3, 1), now);
        assert_eq!((admitted.claim, admitted.evicted), (Some(Claim::Register), true));
    }
    assert_eq!(claim(&table, 300, stranger(200), now), None, "no stranger is left to evict");
    assert!((1..=4).all(|n| table.endpoint(id(n), now).is_some()));
}

#[test]
fn full_endpoint_table_of_regulars_admits_only_peers_of_the_directory() {
    let table = table(10, 2);
    let now = Instant::now();
    for n in 1..=2u8 {
        claim(&table, n.into(), at(n, 1), now);
        claim(&table, n.into(), at(n, 1), now + MOVE_INTERVAL);
    }
    assert_eq!(claim(&table, 3, at(3, 1), now), None);
    let admitted = table.claim(id(4), at(4, 1), None, Capabilities::NONE, || true, now);
    assert_eq!((admitted.claim, table.endpoint_count()), (Some(Claim::Register), 2));
}

#[test]
fn first_credential_and_capabilities_stay_when_the_endpoint_moves() {
    let table = table(10, 10);
    let t0 = Instant::now();
    table.claim(id(1), at(1, 1), None, Capabilities(0b10), || false, t0);
    table.keep_credential(id(1), Credential([1; 32]));
    table.keep_credential(id(1), Credential([2; 32]));
    let later = t0 + Duration::from_secs(31);
    assert_eq!(claim(&table, 1, at(2, 1), later), Some(Claim::Move));
    let view = table.endpoint(id(1), later).unwrap();
    assert_eq!(view.credential, Some(Credential([1; 32])));
    assert!(view.has(Capabilities(0b10)) && !view.has(Capabilities(0b11)));
}

#[tokio::test]
async fn hidden_session_is_routed_to_and_otherwise_there_for_nobody() {
    let table = table(0, 10);
    table.watch();
    let mut hidden = Arc::into_inner(session(&table, 1, 1)).unwrap();
    hidden.is_hidden = true;

    let registration = table.register(Arc::new(hidden)).unwrap();

    let now = Instant::now();
    let route = table.route(id(1), Neighbour::Peer, now);
    assert!(matches!(route, Destination::Session(session) if session.is_hidden));
    assert_eq!(table.session_count(), 0, "nor does it need room");
    assert!(table.served().is_empty() && table.all_sessions().is_empty());
    assert!(table.look(id(1), now).is_none_or(|look| look.session.is_none()));
    drop(registration);
    assert!(table.look(id(1), now).is_none(), "nothing of it is kept");
    table.learn([id(2)], at(2, 2));
    assert_eq!(table.next_changes().await, [id(2)], "nobody was told of it");
}

#[test]
fn foreign_server_is_the_last_way_and_forgotten_only_by_its_own_word() {
    let table = table(10, 10);
    let now = Instant::now();
    table.learn([id(1), id(2)], at(9, 1));
    table.learn([id(2)], at(9, 2));
    table.unlearn([id(1), id(2)], at(9, 1));
    assert_eq!(table.learnt_count(), 1);
    let route = |number, from| table.route(id(number), from, now);
    assert!(matches!(route(2, Neighbour::Peer), Destination::Foreign(a) if a == at(9, 2)));
    assert!(matches!(route(2, Neighbour::Relay), Destination::Foreign(_)));
    assert!(matches!(route(2, Neighbour::Foreign), Destination::Loop));
    assert!(matches!(route(1, Neighbour::Peer), Destination::Unknown));
    claim(&table, 2, at(3, 3), now);
    assert!(matches!(route(2, Neighbour::Foreign), Destination::Endpoint(_)));
}

#[tokio::test]
async fn changes_name_each_id_once_and_here_tells_the_best_way() {
    let table = table(10, 10);
    assert_eq!(table.here(id(1)), None);
    table.watch();
    let now = Instant::now();
    claim(&table, 1, at(1, 1), now);
    let endpoint = table.here(id(1)).unwrap();
    assert_eq!(endpoint.kind, Kind::Endpoint);
    let mut session = Arc::into_inner(session(&table, 1, 7)).unwrap();
    session.takeover = Takeover::Refuse;
    let registration = table.register(Arc::new(session)).unwrap();
    let here = table.here(id(1)).unwrap();
    let session = Kind::Session { credential: Credential([7; 32]), takeover: Takeover::Refuse };
    assert_eq!(here.kind, session);
    assert!(here.serial > endpoint.serial);
    table.learn([id(2)], at(2, 2));
    let mut changed = table.next_changes().await;
    changed.sort_unstable();
    assert_eq!(changed, [id(1), id(2)]);

    drop(registration);
    assert_eq!(table.next_changes().await, [id(1)]);
    let after = table.here(id(1)).unwrap();
    assert_eq!(after.kind, Kind::Endpoint);
    assert!(after.serial > here.serial, "a later state has a later number");
    claim(&table, 1, at(1, 1), now);
    claim(&table, 1, at(1, 2), now + MOVE_INTERVAL);
    let nothing = tokio::time::timeout(Duration::ZERO, table.next_changes()).await;
    assert!(nothing.is_err(), "a heartbeat or a move is told");
}

#[test]
fn superseded_session_and_endpoint_go_and_later_ones_stay() {
    let table = table(10, 10);
    let now = Instant::now();
    claim(&table, 1, at(1, 1), now);
    let old = session(&table, 1, 7);
    let registration = table.register(Arc::clone(&old)).unwrap();
    let serial = table.here(id(1)).unwrap().serial;
    let newer = session(&table, 1, 7);
    let second = table.register(Arc::clone(&newer)).unwrap();
    assert!(table.supersede(id(1), serial, true, now).is_none(), "a later session was ended");
    assert!(newer.is_open());

    let serial = table.here(id(1)).unwrap().serial;
    assert!(table.supersede(id(1), serial, true, now).is_some());
    assert_eq!(newer.ending(), Some(End::Replaced));
    assert_eq!((table.here(id(1)), table.session_count(), table.endpoint_count()), (None, 0, 0));
    drop((registration, second));
    assert_eq!(table.session_count(), 0, "counted off twice");
}

#[test]
fn session_that_the_cluster_never_granted_made_the_next_login_of_its_peer_wait() {
    let table = table(10, 10);
    let now = Instant::now();
    for (was_granted, counted) in [(false, 0), (true, 4)] {
        for _ in 0..4 {
            let _registration = table.register(session(&table, 1, 7)).unwrap();
            let serial = table.here(id(1)).unwrap().serial;
            assert!(table.supersede(id(1), serial, was_granted, now).is_some());
        }
        let recent = table.takeovers(id(1), now).map_or(0, |look| look.pace.recent);
        assert_eq!(recent, counted);
    }
}

#[test]
fn superseded_session_held_its_peer_off_after_the_newer_one_had_ended() {
    let table = table(10, 10);
    let now = Instant::now();
    let registration = table.register(session(&table, 1, 7)).unwrap();
    let serial = table.here(id(1)).unwrap().serial;

    assert!(table.supersede(id(1), serial, true, now).is_some());
    drop(registration);

    assert_eq!(claim(&table, 1, at(9, 1), now), Some(Claim::Register));
    assert!(!table.has_left(id(1)), "it went to another relay");
}

#[test]
fn endpoint_that_was_given_up_to_another_relay_is_not_made_anew_at_once() {
    let table = table(10, 10);
    let now = Instant::now();
    claim(&table, 1, at(1, 1), now);
    let serial = table.here(id(1)).unwrap().serial;
    table.supersede(id(1), serial, true, now);
    let again = |now| claim(&table, 1, at(1, 1), now);
    assert_eq!(again(now + MOVE_INTERVAL / 2), Some(Claim::Keep), "answered, and not followed");
    assert_eq!(table.here(id(1)), None);
    assert_eq!(again(now + MOVE_INTERVAL), Some(Claim::Register));
}

//! Relays find each other, and each other again.

use tokio::time::Instant;

use super::*;

#[tokio::test]
async fn two_relays_join_by_a_secret() {
    let keys: [_; 2] = keys();
    for [one, other] in [[0, 1], [1, 0]] {
        let one = (&keys[one], Relay::start(&keys[one], &[], by_secret()));
        let other = (&keys[other], Relay::start(&keys[other], &[one.1.address], by_secret()));
        one.1.has(&[other.0]).await;
        other.1.has(&[one.0]).await;
        assert_eq!(one.1.member().address, other.1.address.to_string());
        assert_eq!(other.1.member().address, one.1.address.to_string());
        other.1.settled().await;
        assert_eq!((one.1.history(), other.1.history()), ((1, 0), (1, 0)));
    }
}

#[tokio::test]
async fn three_relays_that_list_each_other_make_a_full_mesh() {
    let keys: [_; 3] = keys();
    let addresses: [_; 3] = free_addresses();
    // Every relay has the same list of addresses, its own among them, as from DNS.
    let start = |n: usize| {
        let mesh = bind_to(addresses[n], &keys[n], &addresses, by_list(&keys));
        Relay::start_as("test", [0; 16], &keys[n], mesh)
    };
    let relays = [start(0), start(1), start(2)];
    for (n, relay) in relays.iter().enumerate() {
        relay.has(&[&keys[(n + 1) % 3], &keys[(n + 2) % 3]]).await;
    }
    for relay in &relays {
        relay.settled().await;
        assert_eq!(relay.history(), (2, 0));
        assert!(relay.rejects(Reject::Itself) >= 1, "our own address was dialled");
    }
}

#[tokio::test]
async fn list_and_secret_hold_together() {
    let keys: [_; 2] = keys();
    let both = || Trust { secret: Some(SECRET.to_vec()), ..by_list(&keys) };
    let one = Relay::start(&keys[0], &[], both());
    let other = Relay::start(&keys[1], &[one.address], both());
    one.has(&[&keys[1]]).await;
    other.has(&[&keys[0]]).await;
    // On the list, but without the secret.
    let third = Relay::start(&keys[1], &[one.address], by_list(&keys));
    one.refuses(Reject::WrongSecret).await;
    assert_eq!(third.others(), []);
}

#[tokio::test]
async fn mesh_that_is_open_to_strangers_is_refused() {
    for secret in [None, Some(Vec::new())] {
        let [key] = keys();
        let trust = Trust { allow: Vec::new(), secret };
        let bind = ([127, 0, 0, 1], 0).into();
        let settings = Settings {
            bind,
            free_bind: FreeBind::Off,
            join: Vec::new(),
            dns: None,
            trust,
            tcp: false,
            translators: Translators::default(),
            key,
        };
        let error = Mesh::bind(settings).err().unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_that_dial_each_other_at_once_keep_one_link() {
    let keys: [_; 2] = keys();
    for round in 0..25 {
        let [one, other] = free_addresses();
        let start = |n: usize, at, join| {
            let mesh = bind_to(at, &keys[n], &[join], by_secret());
            Relay::start_as("test", [0; 16], &keys[n], mesh)
        };
        let (one, other) = (start(0, one, other), start(1, other, one));
        one.has(&[&keys[1]]).await;
        other.has(&[&keys[0]]).await;
        one.settled().await;
        other.settled().await;
        assert_eq!((one.history(), other.history()), ((1, 0), (1, 0)), "round {round}");
    }
}

#[tokio::test]
async fn stopped_relay_is_missed_at_once_and_found_again() {
    let keys: [_; 2] = keys();
    let mut stops = Relay::start(&keys[0], &[], by_secret());
    let address = stops.address;
    let stays = Relay::start(&keys[1], &[address], by_secret());
    stays.has(&[&keys[0]]).await;
    stops.has(&[&keys[1]]).await;

    let since = Instant::now();
    stops.stop().await;
    assert_eq!((stops.others(), stops.history()), (vec![], (1, 1)));
    stays.has(&[]).await;
    assert!(since.elapsed() < KEEPALIVE, "not by silence");
    assert_eq!(stays.history(), (1, 1));

    until("the address is free", || std::net::UdpSocket::bind(address).is_ok()).await;
    let mesh = bind_to(address, &keys[0], &[], by_secret());
    let _again = Relay::start_as("test", [1; 16], &keys[0], mesh);
    stays.has(&[&keys[0]]).await;
}

#[tokio::test]
async fn silent_member_is_let_go_and_dialled_again() {
    let keys: [_; 2] = keys();
    let one = Relay::start(&keys[0], &[], by_secret());
    let other = Relay::start(&keys[1], &[one.address], by_secret());
    for ends in [&one, &other] {
        one.has(&[&keys[1]]).await;
        other.has(&[&keys[0]]).await;
        let (lost, ended) = (one.history().1, ends.member());
        ended.ending.cancel();
        for relay in [&one, &other] {
            until("the link is gone", || relay.history().1 == lost + 1).await;
            until("there is a new one", || relay.history().0 == lost + 2).await;
        }
        assert!(!Arc::ptr_eq(&ended, &ends.member()));
    }
}

#[tokio::test]
async fn relay_that_is_not_there_is_dialled_until_it_is() {
    let keys: [_; 2] = keys();
    let [address] = free_addresses();
    let early = Relay::start(&keys[0], &[address], by_secret());
    let dialling = || early.cluster.counters().dialling.value();
    until("it is dialled", || dialling() == 1).await;
    let mesh = bind_to(address, &keys[1], &[], by_secret());
    let late = Relay::start_as("test", [0; 16], &keys[1], mesh);
    early.has(&[&keys[1]]).await;
    late.has(&[&keys[0]]).await;
    until("it is no longer dialled", || dialling() == 0).await;
}

#[tokio::test]
async fn two_relays_with_one_key_both_say_so() {
    let [key] = keys();
    let addresses: [_; 2] = free_addresses();
    // Each has its own address in the list as well, and only one the other's.
    let first = Relay::start_as(
        "test",
        [1; 16],
        &key,
        bind_to(addresses[0], &key, &addresses[..1], by_secret()),
    );
    first.refuses(Reject::Itself).await;
    assert!(!first.cluster.status().cloned, "its own address is no clone");
    let second = Relay::start_as(
        "test",
        [2; 16],
        &key,
        bind_to(addresses[1], &key, &addresses, by_secret()),
    );

    for relay in [&first, &second] {
        relay.refuses(Reject::Clone).await;
        assert!(relay.cluster.status().cloned);
        assert_eq!(relay.others(), []);
    }
    second.refuses(Reject::Itself).await;
}

//! A registry that is down, slow or lying.

use std::sync::atomic::AtomicUsize;

use tokio::net::TcpListener;

use super::*;
use crate::doors::pilot::directory::registry::dial::Target;
use crate::net::dial::Destination;
use crate::net::resolve::Resolver;

#[tokio::test]
async fn registry_that_is_down_fails_closed_at_once_and_cached_keys_go_on() {
    let fake = Fake::start(Modes::Both, None, |_| Reply::Key(1)).await;
    let fixture = Fixture::new(fake.address);
    assert_eq!(fixture.lookup(7).await, key(1));
    let address = fake.address;
    drop(fake);

    // The connection that broke first, then those that are refused.
    assert_eq!(fixture.lookup(8).await, Lookup::Unavailable);
    let before = Instant::now();
    assert_eq!(fixture.lookup(9).await, Lookup::Unavailable);
    assert!(before.elapsed() < SOON, "nobody waits for what is known to be down");
    assert_eq!(fixture.lookup(7).await, key(1));
    assert_eq!(fixture.metric("pilot_beacon_registry_up"), 0.0);
    assert!(fixture.failures("connect") >= 1.0);
    assert_eq!(fixture.directory.beacons().await, Err(RegistryError::Unavailable));

    let again = Fixture::new(address);
    assert_eq!(again.lookup(7).await, Lookup::Unavailable);
}

#[tokio::test]
async fn registry_that_answers_again_is_used_again() {
    let fake = Fake::start(Modes::Both, None, |_| Reply::Close).await;
    let fixture = Fixture::new(fake.address);
    assert_eq!(fixture.lookup(7).await, Lookup::Unavailable);
    assert_eq!(fixture.metric("pilot_beacon_registry_up"), 0.0);
    assert_eq!(fixture.failures("closed"), 1.0, "the trial of binary mode is no failure");
    fake.answer_with(|_| Reply::Key(1));
    fixture.recovered(7, key(1)).await;
    assert_eq!(fixture.metric("pilot_beacon_registry_up"), 1.0);
    let last = fake.events().pop();
    assert_eq!(last, Some(Event::Lookup(7, true)), "binary mode is tried again");
}

#[tokio::test]
async fn connection_that_was_closed_while_idle_is_made_again_without_a_failure() {
    let fake = Fake::start(Modes::Both, None, |_| Reply::Key(1)).await;
    let fixture = Fixture::new(fake.address);
    let raw = Reply::RawThenClose(fake_answer(7, 32));
    fake.answer_with(move |_| raw.clone());
    assert_eq!(fixture.lookup(7).await, key(1));
    fake.answer_with(|_| Reply::Key(2));
    until(|| fake.events().contains(&Event::Ended)).await;
    assert_eq!(fixture.lookup(8).await, key(2));
    assert_eq!((fake.connections(), fixture.failures("closed")), (2, 0.0));
}

#[tokio::test]
async fn silent_registry_is_given_up_after_nine_tenths_of_a_login() {
    let fake = Fake::start(Modes::Both, None, |_| Reply::Key(1)).await;
    let fixture = Fixture::new(fake.address);
    assert_eq!(fixture.lookup(1).await, key(1));
    fake.answer_with(|_| Reply::Silence);
    let lookup = fixture.start_lookup(7);
    until(|| fake.lookups(7) == 1).await;
    skip(SECOND * 9).await;
    assert_eq!(lookup.await.unwrap(), Lookup::Unavailable);
    fake.answer_with(|_| Reply::Key(2));
    fixture.recovered(8, key(2)).await;
    assert_eq!(fixture.failures("timeout"), 1.0);
}

/// What the address before the registry's does with a connection.
#[derive(Clone, Copy, Debug)]
enum Useless {
    /// The kernel takes it, and nobody reads.
    Silent,
    Closes,
}

#[tokio::test]
async fn address_that_takes_connections_and_answers_nothing_does_not_hide_the_registry() {
    for useless in [Useless::Silent, Useless::Closes] {
        let fake = Fake::start(Modes::Both, None, |_| Reply::Key(1)).await;
        let port = fake.address.port();
        let first = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
        let addresses = [first.local_addr().unwrap(), fake.address];
        let resolver = Resolver::new(1, move |_| Ok(addresses.to_vec()));
        let target = Target::at(Destination::new("registry.test", port, resolver));
        let settings = RegistrySettings {
            connections: 1,
            patience: SECOND,
            ..RegistrySettings::new("registry.test".to_owned())
        };
        let (registry, connections) = Registry::at(target, settings, Arc::default());
        let mut running = JoinSet::new();
        running.spawn(connections.run());
        let taken = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&taken);
        running.spawn(async move {
            let mut kept = Vec::new();
            while let Ok((stream, _)) = first.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                match useless {
                    Useless::Silent => kept.push(stream),
                    Useless::Closes => drop(stream),
                }
            }
        });

        while registry.lookup(node(7)).await.0 != key(1) {
            // One in binary mode and one in JSON, and some on a machine that is too busy.
            let taken = taken.load(Ordering::Relaxed);
            assert!(taken < 6, "{useless:?}: only the first address is tried");
            skip(SECOND).await;
        }
    }
}

#[tokio::test]
async fn one_slow_answer_on_a_quiet_relay_left_the_registry_down_for_ever() {
    let fake = Fake::start(Modes::Both, None, |_| Reply::Silence).await;
    let fixture = Fixture::new(fake.address);
    let up = || fixture.metric("pilot_beacon_registry_up");
    let asked_in_vain = async |number| {
        let lookup = fixture.start_lookup(number);
        until(|| fake.lookups(number) == 1).await;
        skip(SECOND * 9).await;
        assert_eq!(lookup.await.unwrap(), Lookup::Unavailable);
    };
    asked_in_vain(7).await;
    until(|| fixture.failures("timeout") == 1.0).await;
    until(|| fake.connections() == 2).await;
    assert_eq!(up(), 0.0);

    skip(SECOND * 50).await;
    asked_in_vain(8).await;
    skip(SECOND * 50).await;
    assert_eq!(up(), 0.0, "it was asked again meanwhile");
    skip(SECOND * 10).await;
    let recovered = timeout(SECOND * 20, until(|| up() == 1.0)).await;
    assert!(recovered.is_ok(), "nobody has asked for a minute");
}

#[tokio::test]
async fn slow_registry_delays_only_those_who_need_it() {
    let fake = Fake::start(Modes::Both, None, |node| match node {
        1 => Reply::Key(1),
        _ => Reply::After(SECOND * 2, 2),
    })
    .await;
    let registry = RegistrySettings::new(fake.address.to_string());
    let in_file = PublicKey([9; 32]);
    let fixture = Fixture::with(registry, Some(&format!("{{\"9\": \"{in_file}\"}}")));
    assert_eq!(fixture.lookup(1).await, key(1));
    let slow = fixture.start_lookup(2);
    until(|| fake.lookups(2) == 1).await;
    let before = Instant::now();
    assert_eq!(fixture.lookup(1).await, key(1));
    assert_eq!(fixture.lookup(9).await, Lookup::Key(in_file));
    assert_eq!(fixture.known(9), Some(in_file));
    assert!(before.elapsed() < SOON);
    assert!(!slow.is_finished());
    skip(SECOND * 2).await;
    assert_eq!(slow.await.unwrap(), key(2));
    assert_eq!(fake.lookups(9), 0, "the file has it");
}

#[tokio::test]
async fn lookups_in_flight_are_bounded() {
    let fake = Fake::start(Modes::Both, None, |_| Reply::Key(1)).await;
    let fixture = Fixture::new(fake.address);
    assert_eq!(fixture.lookup(1).await, key(1));
    fake.answer_with(|_| Reply::Silence);
    let last = 1_000 + u32::try_from(in_flight::MAX_LOOKUPS).unwrap();
    let lookups: Vec<_> = (1_001..=last).map(|number| fixture.start_lookup(number)).collect();
    let in_flight = "pilot_beacon_registry_lookups_in_flight";
    until(|| fixture.metric(in_flight) == f64::from(last - 1_000)).await;
    let before = Instant::now();
    assert_eq!(fixture.lookup(7).await, Lookup::Unavailable);
    assert!(before.elapsed() < SOON);
    assert_eq!((fixture.failures("busy"), fake.lookups(7)), (1.0, 0));
    lookups.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn keys_outlast_a_restart_while_the_registry_is_down() {
    let fake = Fake::start(Modes::Both, None, |_| Reply::Key(1)).await;
    let folder = tempfile::tempdir().unwrap();
    let registry = RegistrySettings {
        kept_keys: Some(folder.path().join("registry-keys")),
        ..RegistrySettings::new(fake.address.to_string())
    };
    let fixture = Fixture::with(registry.clone(), None);
    assert_eq!(fixture.lookup(7).await, key(1));
    fixture.directory.save().await;
    assert_eq!(fixture.metric("pilot_beacon_registry_saves_total{result=\"ok\"}"), 1.0);
    drop((fixture, fake));

    let restarted = Fixture::with(registry, None);
    assert_eq!(restarted.lookup(7).await, key(1));
    assert_eq!(restarted.lookup(8).await, Lookup::Unavailable);
}

#[tokio::test]
async fn key_serves_24_hours_without_the_registry_and_no_longer() {
    let fake = Fake::start(Modes::Both, None, |_| Reply::Key(1)).await;
    let fixture = Fixture::new(fake.address);
    assert_eq!(fixture.lookup(7).await, key(1));
    drop(fake);
    skip(24 * 60 * MINUTE - SECOND * 10).await;
    assert_eq!(fixture.lookup(7).await, key(1));
    assert_eq!(fixture.known(7), Some(PublicKey([1; 32])));
    skip(SECOND * 10).await;
    assert_eq!(fixture.lookup(7).await, Lookup::Unavailable);
    assert_eq!(fixture.known(7), None);
}

/// A binary answer about `node` with a key of `length` ones.
fn fake_answer(node: u32, length: u8) -> Vec<u8> {
    let mut body = vec![0x82];
    body.extend(node.to_be_bytes());
    body.extend([0, 0, 0, 0, 0, 0, 0, length]);
    body.resize(body.len() + usize::from(length), 1);
    [&u32::try_from(body.len()).unwrap().to_be_bytes(), body.as_slice()].concat()
}

#[tokio::test]
async fn lies_are_counted_by_reason_and_cached_keys_go_on() {
    let cut = fake_answer(7, 32)[..20].to_vec();
    let mut unasked = fake_answer(7, 32);
    unasked.extend(fake_answer(8, 32));
    let lies = [
        ("wrong_key_length", Reply::Raw(fake_answer(7, 31))),
        ("wrong_key_length", Reply::Raw(fake_answer(7, 0))),
        ("message_too_long", Reply::Raw(vec![0x7f, 0xff, 0xff, 0xff, 0x82])),
        ("closed", Reply::RawThenClose(cut)),
        ("wrong_node", Reply::KeyOf(6, 1)),
        ("malformed", Reply::Raw(vec![0, 0, 0, 2, 0x82, 0])),
        ("malformed", Reply::Raw(b"\0\0\0\x1e\0{\"type\":\"beacon_register_ok\"}".to_vec())),
        ("malformed", Reply::Raw(vec![0, 0, 0, 0])),
    ];
    for (reason, lie) in lies {
        // Both as the first answer of all and after a good one.
        for primed in [false, true] {
            let said = lie.clone();
            let fake = Fake::start(Modes::Both, None, move |node| match node {
                7 => said.clone(),
                _ => Reply::Key(1),
            })
            .await;
            let fixture = Fixture::new(fake.address);
            if primed {
                assert_eq!(fixture.lookup(1).await, key(1));
            }
            assert_eq!(fixture.lookup(7).await, Lookup::Unavailable, "{lie:?}");
            assert_eq!(fixture.known(7), None, "{lie:?}");
            assert_eq!(fixture.known(6), None, "{lie:?}");
            assert_eq!(fixture.failures(reason), 1.0, "{lie:?}");
            if primed {
                assert_eq!(fixture.lookup(1).await, key(1), "{lie:?}");
            }
            fixture.recovered(8, key(1)).await;
            assert!(fake.connections() >= 2, "{lie:?}");
        }
    }
}

#[tokio::test]
async fn response_that_nobody_asked_for_ends_the_connection() {
    let fake = Fake::start(Modes::Both, None, |_| {
        Reply::Raw([fake_answer(7, 32), fake_answer(8, 32)].concat())
    })
    .await;
    let fixture = Fixture::new(fake.address);
    assert_eq!(fixture.lookup(7).await, key(1));
    until(|| fixture.failures("malformed") == 1.0).await;
    assert_eq!(fixture.known(8), None);
}

#[tokio::test]
async fn lie_about_one_node_costs_the_others_in_the_pipe_only_a_moment() {
    let fake = Fake::start(Modes::Both, None, |node| match node {
        7 => Reply::KeyOf(6, 1),
        _ => Reply::Key(1),
    })
    .await;
    let fixture = Fixture::new(fake.address);
    assert_eq!(fixture.lookup(1).await, key(1));
    let answers = tokio::join!(fixture.lookup(2), fixture.lookup(7), fixture.lookup(3));
    assert_eq!(answers, (key(1), Lookup::Unavailable, key(1)));
}

#[tokio::test]
async fn error_that_speaks_of_something_not_found_withdraws_no_key() {
    for text in ["upstream not found: node 7", "node 8: not found", "not found"] {
        let fake = Fake::start(Modes::Both, None, |_| Reply::Key(1)).await;
        let fixture = Fixture::new(fake.address);
        assert_eq!(fixture.lookup(7).await, key(1));
        fake.answer_with(move |_| Reply::Error(text));
        let recheck = fixture.directory.recheck(node(7), PublicKey([1; 32])).await;
        assert_eq!(recheck, Recheck::Unavailable, "{text}");
        skip(5 * MINUTE).await;
        assert_eq!(fixture.lookup(7).await, key(1), "{text}");
        assert_eq!(fixture.directory.contradictions(), [], "{text}");
        let reason = if text.starts_with("node 8") { "wrong_node" } else { "refused" };
        assert!(fixture.failures(reason) >= 1.0, "{text}");
        assert_eq!(fixture.directory.registry_refuses(), Some(reason == "refused"), "{text}");
    }
}

#[tokio::test]
async fn refusal_is_no_answer_and_leaves_the_connection() {
    let fake = Fake::start(Modes::Both, None, |node| match node {
        7 => Reply::Error("rate limited"),
        _ => Reply::Key(1),
    })
    .await;
    let fixture = Fixture::new(fake.address);
    assert_eq!(fixture.lookup(7).await, Lookup::Unavailable);
    assert_eq!(fixture.lookup(8).await, key(1));
    assert_eq!((fake.connections(), fixture.failures("refused")), (1, 1.0));
}

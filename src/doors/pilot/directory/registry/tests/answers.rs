//! A registry that does what it should.

use std::collections::BTreeSet;

use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::net::tls::Trust;

#[tokio::test]
async fn keys_come_in_binary_mode_over_one_connection() {
    let fake = Fake::start(Modes::Both, None, |node| match node {
        9 => Reply::NotFound,
        _ => Reply::Key(1),
    })
    .await;
    let fixture = Fixture::new(fake.address);
    assert_eq!(fixture.known(7), None);
    assert_eq!(fixture.lookup(7).await, key(1));
    assert_eq!(fixture.lookup(8).await, key(1));
    assert_eq!(fixture.lookup(9).await, Lookup::Unknown);
    assert_eq!(fixture.lookup(7).await, key(1));
    assert_eq!(fixture.known(7), Some(PublicKey([1; 32])));
    assert_eq!(fixture.known(9), None);
    let expected = [7, 8, 9].map(|number| Event::Lookup(number, true));
    assert_eq!(fake.events(), [&[Event::Connected], expected.as_slice()].concat());
    assert_eq!((fixture.outcomes("asked"), fixture.outcomes("cached")), (2.0, 1.0));
    assert_eq!(fixture.metric("pilot_beacon_directory_cache_entries"), 2.0);
    assert_eq!(fixture.metric("pilot_beacon_registry_up"), 1.0);
}

#[tokio::test]
async fn registry_without_binary_mode_is_asked_in_json_and_remembered() {
    for modes in [Modes::JsonCloses, Modes::JsonComplains] {
        let fake = Fake::start(modes, None, |node| match node {
            9 => Reply::NotFound,
            8 => Reply::Close,
            _ => Reply::Key(1),
        })
        .await;
        let fixture = Fixture::new(fake.address);
        assert_eq!(fixture.lookup(7).await, key(1), "{modes:?}");
        assert_eq!(fixture.lookup(9).await, Lookup::Unknown, "{modes:?}");
        assert_eq!(fake.connections(), 2, "{modes:?}");
        // A failure is no reason to try binary mode again.
        fixture.lookup(8).await;
        fixture.recovered(10, key(1)).await;
        let binary = |event: &Event| matches!(event, Event::Lookup(_, true));
        assert!(!fake.events().iter().any(binary), "{modes:?}");
    }
}

#[tokio::test]
async fn tls_with_a_pin_or_a_ca_is_checked() {
    let pair = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.self_signed(&pair).unwrap();
    let der: CertificateDer<'static> = certificate.der().clone();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![der.clone()], PrivateKeyDer::try_from(pair.serialize_der()).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let fake = Fake::start(Modes::Both, Some(acceptor), |_| Reply::Key(1)).await;
    let files = tempfile::tempdir().unwrap();
    let ca = files.path().join("ca.pem");
    fs::write(&ca, certificate.pem()).unwrap();
    let fixture = |tls| {
        let (address, tls) = (fake.address.to_string(), Some(tls));
        Fixture::with(RegistrySettings { tls, ..RegistrySettings::new(address) }, None)
    };

    let pinned = fixture(Trust::Fingerprint(Sha256::digest(&der).into()));
    assert_eq!(pinned.lookup(7).await, key(1));
    assert_eq!(fixture(Trust::CaFile(ca)).lookup(7).await, key(1));
    let elsewhere = fixture(Trust::Fingerprint([0; 32]));
    assert_eq!(elsewhere.lookup(7).await, Lookup::Unavailable);
    assert!(elsewhere.failures("tls") >= 1.0);
}

#[tokio::test]
async fn lookups_of_different_nodes_share_the_pipe() {
    let fake = Fake::start(Modes::Both, None, |_| Reply::Key(1)).await;
    let fixture = Fixture::new(fake.address);
    assert_eq!(fixture.lookup(1).await, key(1));
    fake.answer_with(|node| Reply::After(SECOND, u8::try_from(node).unwrap()));
    let lookups: Vec<_> = (2..=5).map(|number| fixture.start_lookup(number)).collect();
    // All are asked before any is answered.
    until(|| (2..=5).all(|number| fake.lookups(number) == 1)).await;
    assert_eq!(fixture.outcomes("asked"), 1.0);
    skip(SECOND).await;
    for (number, lookup) in (2..).zip(lookups) {
        assert_eq!(lookup.await.unwrap(), key(number));
    }
    assert_eq!(fake.connections(), 1);
}

#[tokio::test]
async fn one_question_is_put_for_all_who_ask_about_a_node() {
    let fake = Fake::start(Modes::Both, None, |_| Reply::Key(1)).await;
    let fixture = Fixture::new(fake.address);
    assert_eq!(fixture.lookup(1).await, key(1));
    fake.answer_with(|_| Reply::After(SECOND, 1));
    let lookups: Vec<_> = (0..100).map(|_| fixture.start_lookup(7)).collect();
    until(|| fake.lookups(7) == 1).await;
    skip(SECOND).await;
    for lookup in lookups {
        assert_eq!(lookup.await.unwrap(), key(1));
    }
    assert_eq!(fixture.outcomes("asked"), 101.0);
    assert_eq!(fake.lookups(7), 1);
}

#[tokio::test]
async fn unknown_node_is_asked_for_again_after_10_seconds() {
    let fake = Fake::start(Modes::Both, None, |_| Reply::NotFound).await;
    let fixture = Fixture::new(fake.address);
    for _ in 0..3 {
        assert_eq!(fixture.lookup(7).await, Lookup::Unknown);
    }
    assert_eq!(fake.lookups(7), 1);
    fake.answer_with(|_| Reply::Key(1));
    skip(SECOND * 10).await;
    assert_eq!(fixture.lookup(7).await, key(1));
    assert_eq!(fixture.failures("refused"), 0.0);
}

#[tokio::test]
async fn stale_key_is_given_while_it_is_refreshed_and_the_change_is_told() {
    let fake = Fake::start(Modes::Both, None, |_| Reply::Key(1)).await;
    let fixture = Fixture::new(fake.address);
    assert_eq!(fixture.lookup(7).await, key(1));
    fake.answer_with(|_| Reply::After(SECOND, 2));
    skip(5 * MINUTE).await;
    let before = Instant::now();
    assert_eq!(fixture.lookup(7).await, key(1));
    assert_eq!(fixture.lookup(7).await, key(1));
    assert!(before.elapsed() < SOON);
    until(|| fake.lookups(7) == 2).await;
    skip(SECOND).await;
    fixture.directory.contradicted().await;
    assert_eq!(fixture.known(7), Some(PublicKey([1; 32])), "until somebody believes it");
    fixture.directory.believe();
    assert_eq!(fixture.directory.next_change().await, Change::Node(node(7)));
    assert_eq!(fixture.lookup(7).await, key(2));
    assert_eq!(fake.lookups(7), 2);
    assert_eq!(fixture.outcomes("stale"), 2.0);

    fake.answer_with(|_| Reply::NotFound);
    skip(5 * MINUTE).await;
    assert_eq!(fixture.lookup(7).await, key(2));
    fixture.directory.contradicted().await;
    fixture.directory.believe();
    assert_eq!(fixture.directory.next_change().await, Change::Node(node(7)));
    assert_eq!(fixture.lookup(7).await, Lookup::Unknown);
    assert_eq!(fixture.known(7), None);
}

#[tokio::test]
async fn what_is_held_back_is_in_use_until_it_is_forced() {
    let fake = Fake::start(Modes::Both, None, |_| Reply::Key(1)).await;
    let fixture = Fixture::new(fake.address);
    let recheck = async |number| fixture.directory.recheck(node(number), PublicKey([1; 32])).await;
    for number in 1..=4 {
        assert_eq!(fixture.lookup(number).await, key(1));
        assert_eq!(recheck(number).await, Recheck::Confirmed);
    }
    fake.answer_with(|node| match node {
        1 => Reply::Key(2),
        _ => Reply::NotFound,
    });
    for number in 1..=3 {
        assert_eq!(recheck(number).await, Recheck::Contradicted);
        assert_eq!(fixture.lookup(number).await, key(1));
    }
    assert!(fixture.directory.hold());
    assert_eq!(fixture.metric("pilot_beacon_registry_held_nodes"), 3.0);
    // Nobody is disconnected, and those who come back are let in.
    skip(5 * MINUTE).await;
    assert_eq!(fixture.lookup(1).await, key(1));
    assert_eq!(fixture.lookup(2).await, key(1));

    let forced = fixture.directory.force();
    assert_eq!(forced, Reload { added: 0, removed: 2, changed: 1 });
    assert_eq!(fixture.lookup(1).await, key(2));
    assert_eq!(fixture.lookup(2).await, Lookup::Unknown);
    assert_eq!(recheck(4).await, Recheck::Confirmed, "believed as the others were");
    assert_eq!(fixture.known(4), None);
    assert_eq!(fixture.metric("pilot_beacon_registry_held_nodes"), 0.0);
    let results = "pilot_beacon_registry_contradictions_total{result=\"forced\"}";
    assert_eq!(fixture.metric(results), 4.0);
}

#[tokio::test]
async fn key_of_a_session_that_is_not_remembered_is_withdrawn_by_judgement_only() {
    let fake = Fake::start(Modes::Both, None, |_| Reply::NotFound).await;
    let fixture = Fixture::new(fake.address);
    let key = PublicKey([1; 32]);
    assert_eq!(fixture.directory.recheck(node(7), key).await, Recheck::Contradicted);
    assert_eq!(fixture.known(7), None, "a login is not checked against it");
    fixture.directory.believe();
    assert_eq!(fixture.directory.next_change().await, Change::Node(node(7)));
}

#[tokio::test]
async fn beacons_are_registered_and_listed_in_both_modes() {
    for modes in [Modes::Both, Modes::JsonCloses] {
        let fake = Fake::start(modes, None, |_| Reply::Key(1)).await;
        let fixture = |token: &str| {
            let (address, admin_token) = (fake.address.to_string(), Some(token.to_owned()));
            Fixture::with(RegistrySettings { admin_token, ..RegistrySettings::new(address) }, None)
        };
        let good = fixture("right");
        good.directory.register_beacon(BeaconId(5), "192.0.2.5:9001").await.unwrap();
        let listed = BeaconEntry { id: BeaconId(3), address: "192.0.2.3:9001".to_owned() };
        assert_eq!(good.directory.beacons().await, Ok(vec![listed]));
        let json = r#"{"type":"beacon_register","beacon_id":5,"addr":"192.0.2.5:9001","admin_token":"right"}"#;
        let registered = Event::Json(serde_json::from_str(json).unwrap());
        assert!(fake.events().contains(&registered), "{:?}", fake.events());

        let bad = fixture("wrong");
        let refused = bad.directory.register_beacon(BeaconId(5), "192.0.2.5:9001").await;
        assert_eq!(refused, Err(RegistryError::Refused("admin token required".to_owned())));
        assert_eq!(bad.failures("refused"), 1.0);
    }
}

#[tokio::test]
async fn each_metric_is_scraped_once() {
    let fake = Fake::start(Modes::Both, None, |_| Reply::Key(1)).await;
    let registry = RegistrySettings::new(fake.address.to_string());
    let fixture = Fixture::with(registry, Some("{}"));
    assert!(fixture.state_dir.path().join("given.json").exists());
    let mut families = Vec::new();
    fixture.directory.metrics(&mut families);
    let names: BTreeSet<_> = families.iter().map(|family| family.name().to_owned()).collect();
    assert_eq!(names.len(), families.len());
    assert!(names.iter().all(|name| name.starts_with("pilot_beacon_")), "{names:?}");
    assert!(families.iter().all(|family| family.help().ends_with('.')));
    assert_eq!(fixture.metric("pilot_beacon_keys_last_reload_success"), 1.0);
    assert_eq!(fixture.metric("pilot_beacon_keys_entries"), 0.0);
}

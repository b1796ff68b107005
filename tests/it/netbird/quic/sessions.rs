//! Sessions over QUIC from beginning to end: takeovers, kicks, drains, signs of life, certificates.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use super::super::{Site, id, message, shown};
use super::{Manner, QuicPeer, RUNTIME, normal_closure};
use crate::cells::assert_balance;
use crate::control::ask;
use crate::deploy::nginx::write_certificates;

#[test]
fn session_of_either_kind_takes_over_from_the_other_without_a_sign_of_going() {
    let site = Site::with_tls(&[]);
    let watcher = site.log_in_by_quic("watcher");
    watcher.send(&message(8, "alice", b""));
    let by_quic = site.log_in_by_quic("alice");
    assert_eq!(watcher.read(), Some(message(10, "alice", b"")));
    let mut by_websocket = site.log_in("alice");
    assert_eq!(by_quic.close_reason(), normal_closure());
    by_websocket.send(2, &message(3, "watcher", b"moved"));
    assert_eq!(watcher.read(), Some(message(3, "alice", b"moved")));
    let again = site.log_in_by_quic("alice");
    assert_eq!(by_websocket.read(), None);
    watcher.send(&message(3, "alice", b"welcome back"));
    assert_eq!(again.read(), Some(message(3, "watcher", b"welcome back")));
    let last = site.log_in_by_quic("alice");
    assert_eq!(again.close_reason(), normal_closure());
    last.send(&message(3, "watcher", b"and last"));
    assert_eq!(watcher.read(), Some(message(3, "alice", b"and last")), "it has never gone");
    let name = format!("netbird:sha-{}", shown("alice"));
    let told = ask(&site.relay, &["explain", &name]);
    assert_eq!((&told["place"], &told["over"]), (&"quic".into(), &"quic".into()), "{told}");
    assert_eq!(ask(&site.relay, &["kick", &name])["session"], true);
    assert_eq!(last.read(), Some(vec![1, 4]), "who is kicked is told");
    assert_eq!(last.close_reason(), normal_closure());
    assert_eq!(watcher.read(), Some(message(11, "alice", b"")));
    assert_balance(&site.relay);
}

#[test]
fn client_that_moves_to_another_address_keeps_its_session() {
    let site = Site::with_tls(&[]);
    let (alice, bob) = (site.log_in_by_quic("alice"), site.log_in_by_quic("bob"));
    alice.send(&message(3, "bob", b"from home"));
    assert_eq!(bob.read(), Some(message(3, "alice", b"from home")));

    let elsewhere = UdpSocket::bind("127.0.0.1:0").unwrap();
    RUNTIME.block_on(async { alice.endpoint.rebind(elsewhere) }).unwrap();

    alice.send(&message(3, "bob", b"on the way"));
    assert_eq!(bob.read(), Some(message(3, "alice", b"on the way")));
    bob.send(&message(3, "alice", b"good journey"));
    assert_eq!(alice.read(), Some(message(3, "bob", b"good journey")));
    assert_eq!(site.relay.metric("beacon_relay_sessions{door=\"netbird\"}"), 2.0);
    assert_balance(&site.relay);
}

#[test]
fn drain_tells_each_client_over_quic_and_takes_no_more() {
    let mut site = Site::with_tls(&["--drain-time", "1s"]);
    let peers: Vec<_> =
        (0..5).map(|number| site.log_in_by_quic(&format!("peer {number}"))).collect();
    // Before it has logged in.
    let waiting = site.dial();
    site.relay.signal("TERM");
    site.relay.wait_for_line("draining");
    let late = QuicPeer::dial(site.quic.unwrap(), &site.ca(), &Manner::default());
    assert!(late.is_err(), "nobody is taken");
    for peer in &peers {
        assert_eq!(peer.read(), Some(vec![1, 4]));
        assert_eq!(peer.close_reason(), normal_closure());
    }
    assert!(waiting.read().is_none());
    assert_eq!(site.relay.wait_for_end(), 0);
}

#[test]
fn client_that_answers_no_health_check_ends_after_45_seconds_and_one_that_does_stays() {
    let site = Site::with_tls(&[]);
    let (mute, keen) = (site.log_in_by_quic("mute"), site.log_in_by_quic("keen"));
    let began = Instant::now();
    let minute = Duration::from_secs(60);
    for peer in [&mute, &keen] {
        assert_eq!(peer.read_within(minute), Some(vec![1, 5]));
    }
    let after = began.elapsed().as_secs_f64();
    assert!((24.0..32.0).contains(&after), "{after}");
    keen.send(&[1, 5]);
    assert_eq!(mute.read_within(minute), None);
    assert_eq!(mute.close_reason(), normal_closure());
    let after = began.elapsed().as_secs_f64();
    assert!((44.0..52.0).contains(&after), "{after}");
    keen.send(&message(3, "keen", b"alive"));
    assert_eq!(keen.read().unwrap(), message(3, "keen", b"alive"));
}

#[test]
fn certificate_that_has_changed_is_shown_to_new_clients_and_nobody_is_disconnected() {
    let site = Site::with_tls(&[]);
    let before = site.log_in_by_quic("before");
    let old = std::fs::read(site.ca()).unwrap();
    write_certificates(site.folder.path(), &["127.0.0.1".to_owned()], 90);
    assert_ne!(std::fs::read(site.ca()).unwrap(), old, "another authority");
    site.relay.wait_for_line("new connections get the new certificates");

    let after = site.log_in_by_quic("after");
    after.send(&message(3, "before", b"hello"));
    assert_eq!(before.read(), Some(message(3, "after", b"hello")));
    std::fs::write(site.ca(), old).unwrap();
    assert!(QuicPeer::dial(site.quic.unwrap(), &site.ca(), &Manner::default()).is_err());
}

#[test]
fn message_beyond_the_path_is_dropped_with_a_reason_and_costs_nobody_a_session() {
    let site = Site::with_tls(&["--relay-rate", "0"]);
    let quic = site.log_in_by_quic("quic");
    let mut bob = site.log_in("bob");
    // 8,820 bytes, the longest message there is.
    bob.send(2, &message(3, "quic", &[7; 8_782]));
    site.relay.wait_for_dropped("too_large_for_path", 1);
    bob.send(2, &message(3, "quic", b"small"));
    assert_eq!(quic.read(), Some(message(3, "bob", b"small")));
    // One byte more ends its sender.
    bob.send(2, &message(3, "quic", &[7; 8_783]));
    assert_eq!(bob.read_close().0, 1009);
    quic.send(&message(3, "quic", b"alive"));
    assert_eq!(quic.read(), Some(message(3, "quic", b"alive")));
    assert_balance(&site.relay);
}

#[test]
fn subscriber_to_many_is_told_of_them_in_datagrams_that_fit() {
    let site = Site::with_tls(&["--upgrade-rate", "0"]);
    let names: Vec<_> = (0..70).map(|number| format!("peer {number}")).collect();
    let _peers: Vec<_> = names.iter().map(|name| site.log_in(name)).collect();
    let watcher = QuicPeer::dial(site.quic.unwrap(), &site.ca(), &Manner::wide()).unwrap();
    watcher.log_in("watcher");
    for some in names.chunks(35) {
        let ids: Vec<u8> = some.iter().flat_map(|name| id(name)).collect();
        watcher.send(&[b"\x01\x08", &ids[..]].concat());
    }
    let mut told = 0;
    while told < names.len() {
        let message = watcher.read().unwrap();
        assert_eq!(message[..2], [1, 10]);
        assert!(message.len() <= 2 + 31 * 36);
        told += (message.len() - 2) / 36;
    }
    assert_eq!(told, names.len());
}

//! Who has a peer's place when it logs in twice, and how much it may send.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::{SECRET, Site, auth, connect_with, frame, id, message, token, unix_now};
use crate::cells::assert_balance;
use crate::control::ask;
use crate::peer::Peer;

fn takeovers(result: &str) -> String {
    format!("beacon_relay_netbird_takeovers_total{{result=\"{result}\"}}")
}

/// Tries to log in by a proxy that comes for this address; whether it was let in.
fn try_from(site: &Site, client: &str, who: &str) -> (Peer, bool) {
    let mut peer = connect_with(site.address, &format!("X-Forwarded-For: {client}\r\n"));
    peer.send(2, &auth(id(who), &token(SECRET, unix_now() + 60)));
    let is_in = peer.read().is_some();
    (peer, is_in)
}

#[test]
fn last_login_wins_and_one_from_another_address_is_told() {
    let site = Site::start(&[]);
    let (mut first, is_in) = try_from(&site, "198.51.100.1", "alice");
    assert!(is_in);
    let (mut second, is_in) = try_from(&site, "198.51.100.1", "alice");
    assert!(is_in);
    assert_eq!(first.read(), None);
    site.relay.wait_for_metric(&takeovers("same_address"), 1.0);
    let (mut third, is_in) = try_from(&site, "198.51.100.2", "alice");
    assert!(is_in);
    assert_eq!(second.read(), None);
    site.relay.wait_for_metric(&takeovers("other_address"), 1.0);
    let events = ask(&site.relay, &["record"]);
    let events = events.as_array().unwrap();
    let taken: Vec<_> = events.iter().filter(|event| event["what"] == "taken_over").collect();
    assert_eq!(taken.len(), 1, "{taken:?}");
    assert_eq!(taken[0]["door"], "netbird", "{taken:?}");
    third.send(2, &message(3, "alice", b"here"));
    assert_eq!(third.read(), frame(3, "alice", b"here"));
}

#[test]
fn session_that_answers_stays_where_logins_come_from_elsewhere() {
    let site = Site::start(&["--netbird-takeover", "same-address"]);
    let (mut alice, is_in) = try_from(&site, "2001:db8::1", "alice");
    assert!(is_in);
    let answers = thread::spawn(move || {
        assert_eq!(alice.read(), Some((2, vec![1, 5])), "it is asked");
        alice.send(2, &[1, 5]);
        alice
    });
    let (_, is_in) = try_from(&site, "2001:db8:0:1::1", "alice");
    assert!(!is_in, "another /64");
    let mut alice = answers.join().unwrap();
    site.relay.wait_for_metric(&takeovers("refused"), 1.0);
    alice.send(2, &message(3, "alice", b"undisturbed"));
    assert_eq!(alice.read(), frame(3, "alice", b"undisturbed"));

    // From the same /64 there is nothing to ask.
    let (mut moved, is_in) = try_from(&site, "2001:db8::2", "alice");
    assert!(is_in);
    assert_eq!(alice.read(), None);
    // One that does not answer has lost its place.
    let began = Instant::now();
    let (_other, is_in) = try_from(&site, "198.51.100.1", "alice");
    assert!(is_in && began.elapsed() > Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(moved.read(), Some((2, vec![1, 5])));
    assert_eq!(moved.read(), None);
    site.relay.wait_for_metric(&takeovers("other_address"), 1.0);
}

#[test]
fn peer_over_its_rate_loses_packets_until_a_reload_lifts_it() {
    let config = |site: &Site| site.folder.path().join("relay.toml");
    let site = Site::start(&["--relay-rate", "1"]);
    let mut alice = site.log_in("alice");
    let send = |alice: &mut Peer, count: usize| {
        (0..count).for_each(|_| alice.send(2, &message(3, "alice", b"x")));
    };
    send(&mut alice, 20);
    (0..20).for_each(|_| assert_eq!(alice.read(), frame(3, "alice", b"x")));

    let text = fs::read_to_string(config(&site)).unwrap();
    let reload = |lines: &str, applied: usize| {
        fs::write(config(&site), format!("{lines}{text}")).unwrap();
        site.relay.signal("HUP");
        site.relay.wait_for_line(&format!("reloaded applied={applied} "));
    };
    reload("netbird_rate = 5\nnetbird_takeover = \"same-address\"\n", 2);
    send(&mut alice, 200);
    let dropped = || site.relay.dropped("rate_limited");
    let end = Instant::now() + Duration::from_secs(10);
    while dropped() < 100 {
        assert!(Instant::now() < end, "{} dropped", dropped());
    }
    assert_balance(&site.relay);

    reload("netbird_bytes = 100000000\n", 3);
    let mut bob = site.log_in("bob");
    send_all(&mut bob);
}

#[test]
fn peer_that_asks_for_news_of_more_than_it_may_loses_that_and_no_packet() {
    let site = Site::start(&[]);
    let mut eve = site.log_in("eve");
    let ids = [&b"\x01\x09"[..], &[7; 244 * 36]].concat();
    // 73,200 ids, of peers that it has not subscribed to.
    (0..300).for_each(|_| eve.send(2, &ids));
    eve.send(2, &message(3, "eve", b"behind them"));
    assert_eq!(eve.read(), frame(3, "eve", b"behind them"));
    assert!(site.relay.dropped("rate_limited") > 0, "{}", site.relay.metrics());
    assert_balance(&site.relay);
}

#[test]
fn limits_before_the_login_are_those_of_every_listener() {
    let more = ["--max-peers", "1", "--upgrade-rate", "1", "--upgrade-burst", "3"];
    let site = Site::start(&more);
    let (_alice, is_in) = try_from(&site, "198.51.100.1", "alice");
    assert!(is_in);
    let ask = |client: &str| {
        let mut peer = Peer::connect(site.address);
        let (status, _) = peer.ask(&format!(
            "GET /relay HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             X-Real-Ip: {client}\r\nX-Real-Port: 4711\r\n\r\n"
        ));
        status
    };
    assert_eq!(ask("198.51.100.2"), 503, "there is one peer, and may be no more");
    let statuses: Vec<_> = (0..5).map(|_| ask("198.51.100.2")).collect();
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_ne!(ask("198.51.100.3"), 429, "another client has its own");
}

/// Sends itself packets that all come back.
fn send_all(bob: &mut Peer) {
    for number in 0..50_u8 {
        bob.send(2, &message(3, "bob", &[number]));
        assert_eq!(bob.read(), frame(3, "bob", &[number]));
    }
}

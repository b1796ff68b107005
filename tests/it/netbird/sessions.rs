//! Clients that come and go, are silent, read nothing, or try to come in.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::{SECRET, Site, auth, connect, frame, id, message, shown, token, unix_now};
use crate::cells::assert_balance;
use crate::control::ask;

fn outcomes(outcome: &str) -> String {
    format!("beacon_relay_logins_total{{door=\"netbird\",outcome=\"{outcome}\"}}")
}

fn dropped(reason: &str) -> String {
    format!("beacon_relay_packets_dropped_total{{door=\"netbird\",reason=\"{reason}\"}}")
}

#[test]
fn clients_find_each_other_and_exchange_packets_in_order() {
    let site = Site::start(&["--relay-rate", "0"]);
    let mut alice = site.log_in("alice");
    alice.send(2, &message(8, "bob", b""));
    let mut bob = site.log_in("bob");
    assert_eq!(alice.read(), frame(10, "bob", b""));
    bob.send(2, &message(8, "alice", b""));
    assert_eq!(bob.read(), frame(10, "alice", b""));
    for number in 0..1_000_u32 {
        let payload = [&number.to_be_bytes()[..], &[7; 1_308]].concat();
        alice.send(2, &message(3, "bob", &payload));
        bob.send(2, &message(3, "alice", &payload));
        assert_eq!(bob.read(), frame(3, "alice", &payload));
        assert_eq!(alice.read(), frame(3, "bob", &payload));
    }
    let name = format!("netbird:sha-{}", shown("alice"));
    let told = ask(&site.relay, &["explain", &name]);
    assert_eq!(told["door"], "netbird", "{told}");
    assert_eq!(site.relay.metric("beacon_relay_netbird_subscriptions"), 2.0);

    // Who is kicked is told, and the other that it has gone.
    assert_eq!(ask(&site.relay, &["kick", &name])["session"], true);
    assert_eq!(alice.read(), Some((2, vec![1, 4])));
    assert_eq!(alice.read(), None);
    assert_eq!(bob.read(), frame(11, "alice", b""));
    site.relay.wait_for_metric("beacon_relay_netbird_subscriptions", 1.0);
    assert_balance(&site.relay);
}

#[test]
fn logins_without_a_good_token_end_alike_and_are_counted() {
    let site = Site::start(&["--auth-timeout", "1s"]);
    let good = token(SECRET, unix_now() + 60);
    for message in [
        auth(id("eve"), &token("guessed", unix_now() + 60)),
        auth(id("eve"), &token(SECRET, unix_now() - 2)),
        auth(id("eve"), &good)[..80].to_vec(),
        vec![7; 213],
        vec![1, 5],
    ] {
        let mut eve = connect(site.address);
        eve.send(2, &message);
        assert_eq!(eve.read(), None, "nobody is told why");
    }
    let mut silent = connect(site.address);
    assert_eq!(silent.read(), None);
    site.relay.wait_for_metric(&outcomes("auth_fail"), 4.0);
    site.relay.wait_for_metric(&outcomes("violation"), 1.0);
    site.relay.wait_for_metric(&outcomes("auth_timeout"), 1.0);
    // Either secret of the file is good.
    let mut older = connect(site.address);
    older.send(2, &auth(id("bob"), &token("older secret", unix_now() + 60)));
    assert_eq!(older.read().unwrap().1[..2], [1, 7]);
}

#[test]
fn secrets_change_with_a_reload_and_nobody_is_disconnected() {
    let site = Site::start(&[]);
    let mut alice = site.log_in("alice");
    fs::write(site.folder.path().join("secrets"), "another secret\n").unwrap();
    site.relay.signal("HUP");
    assert!(site.relay.wait_for_line("reloaded").contains("applied=1 needs_restart=0"));
    assert!(!site.relay.log().contains("another secret"));
    let try_with = |secret: &str| {
        let mut peer = connect(site.address);
        peer.send(2, &auth(id("bob"), &token(secret, unix_now() + 60)));
        peer.read()
    };
    assert_eq!(try_with(SECRET), None);
    assert_eq!(try_with("another secret").unwrap().1[..2], [1, 7]);
    alice.send(2, &message(3, "alice", b"still here"));
    assert_eq!(alice.read(), frame(3, "alice", b"still here"));
}

#[test]
fn messages_that_are_wrong_cost_a_message_or_the_session_and_nobody_else() {
    let site = Site::start(&[]);
    let mut witness = site.log_in("witness");
    let mut alice = site.log_in("alice");
    for (bytes, reason) in [
        (vec![1, 3, 9], "wrong_length"),
        (vec![1, 8, 9], "wrong_length"),
        (auth(id("bob"), &token(SECRET, unix_now() + 60)), "second_login"),
    ] {
        let before = site.relay.metric(&dropped(reason));
        alice.send(2, &bytes);
        site.relay.wait_for_metric(&dropped(reason), before + 1.0);
    }
    alice.send(2, &message(3, "alice", b"and yet it lives"));
    assert_eq!(alice.read(), frame(3, "alice", b"and yet it lives"));
    for (opcode, bytes) in
        [(2, &b"\x02\x05"[..]), (2, b"\x01\x0c"), (2, b"\x01"), (2, b""), (1, b"\x01\x05")]
    {
        let mut alice = site.log_in("alice");
        alice.send(opcode, bytes);
        assert_eq!(alice.read(), None, "{bytes:?}");
    }
    site.relay.wait_for_metric(&dropped("malformed"), 5.0);
    witness.send(2, &message(3, "witness", b"unharmed"));
    assert_eq!(witness.read(), frame(3, "witness", b"unharmed"));
    assert_balance(&site.relay);
}

#[test]
fn signs_of_life_come_each_25_seconds_and_45_seconds_without_end_a_session() {
    let site = Site::start(&[]);
    let (mut keen, mut lazy) = (site.log_in("keen"), site.log_in("lazy"));
    let began = Instant::now();
    let keeps = thread::spawn(move || {
        keen.stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        for _ in 0..2 {
            assert_eq!(keen.read(), Some((2, vec![1, 5])));
            keen.send(2, &[1, 5]);
        }
        keen
    });
    lazy.stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    assert_eq!(lazy.read(), Some((2, vec![1, 5])));
    assert!(began.elapsed() > Duration::from_secs(24), "{:?}", began.elapsed());
    assert_eq!(lazy.read(), None);
    assert!(began.elapsed() > Duration::from_secs(44), "{:?}", began.elapsed());
    let mut keen = keeps.join().unwrap();
    assert!(began.elapsed() > Duration::from_secs(49), "{:?}", began.elapsed());
    keen.send(2, &message(3, "keen", b"alive"));
    assert_eq!(keen.read(), frame(3, "keen", b"alive"));
}

#[test]
fn hundreds_that_come_and_go_are_told_to_all_in_order() {
    const PEERS: u32 = 200;
    let site = Site::start(&["--upgrade-rate", "0"]);
    let names: Vec<_> = (0..PEERS).map(|number| format!("peer {number}")).collect();
    let mut watchers: Vec<_> =
        (0..4).map(|number| site.log_in(&format!("watcher {number}"))).collect();
    let ids: Vec<u8> = names.iter().flat_map(|name| id(name)).collect();
    for watcher in &mut watchers {
        watcher.send(2, &[b"\x01\x08", &ids[..]].concat());
    }
    let subscribed = f64::from(PEERS) * 4.0;
    site.relay.wait_for_metric("beacon_relay_netbird_subscriptions", subscribed);
    for name in &names {
        let mut peer = site.log_in(name);
        peer.send(2, &[1, 4]);
        assert_eq!(peer.read(), None);
        for watcher in &mut watchers {
            assert_eq!(watcher.read(), frame(10, name, b""));
            assert_eq!(watcher.read(), frame(11, name, b""));
        }
    }
    drop(watchers);
    site.relay.wait_for_metric("beacon_relay_netbird_subscriptions", 0.0);
}

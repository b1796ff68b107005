//! Bad input of every kind, by itself and by the thousand: each ends as it is to, is counted, and
//! disturbs nobody else.

use std::io::Write as _;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use super::{SECRET, Site, auth, connect, id, message, token, unix_now};
use crate::cells::assert_balance;
use crate::harness::{PATIENCE, look_until};
use crate::peer::{Peer, frame};
use crate::random::Random;
use crate::stopping::Stopping;
use crate::stuck::packet;

/// Resident memory that nothing here may make the relay exceed, in bytes.
const MOST_MEMORY: u64 = 100 << 20;

/// Broken things that each attacker sends.
const TRIES: usize = 2_500;

fn logins(site: &Site, outcome: &str) -> f64 {
    let name = "beacon_relay_logins_total{door=\"netbird\"";
    site.relay.metric(&format!("{name},outcome=\"{outcome}\"}}"))
}

fn dropped(reason: &str) -> String {
    format!("beacon_relay_packets_dropped_total{{door=\"netbird\",reason=\"{reason}\"}}")
}

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Without a word.
    Silent,
    /// By a close frame.
    Close(u16),
    /// It does not.
    Never,
}

/// Exchanges numbered packets until told to stop, each of which must arrive; how many did.
fn exchange(site: &Site, stop: &AtomicBool) -> u32 {
    let (mut left, mut right) = (site.log_in("left"), site.log_in("right"));
    let mut number = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        for n in number..number + 10 {
            left.send(2, &message(3, "right", &n.to_be_bytes()));
            right.send(2, &message(3, "left", &n.to_be_bytes()));
        }
        for n in number..number + 10 {
            assert_eq!(packet(&mut right), message(3, "left", &n.to_be_bytes()));
            assert_eq!(packet(&mut left), message(3, "right", &n.to_be_bytes()));
        }
        number += 10;
    }
    number
}

/// Runs an attack beside a pair that must not notice.
fn beside_a_pair(site: &Site, attack: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    let exchanged = thread::scope(|scope| {
        let stopping = Stopping(&stop);
        let pair = scope.spawn(|| exchange(site, &stop));
        attack();
        drop(stopping);
        pair.join().expect("every packet of the pair arrives")
    });
    assert!(exchanged > 0);
    assert_eq!(site.relay.metric("pilot_beacon_wss_panics_total"), 0.0);
    assert!(!site.relay.log().contains("panicked"), "{}", site.relay.log());
    assert_balance(&site.relay);
}

#[test]
fn each_bad_login_ends_without_a_word_and_is_counted() {
    let site = Site::start(&["--upgrade-rate", "0"]);
    let good = auth(id("eve"), &token(SECRET, unix_now() + 60));
    let with = |at: usize, byte: u8| {
        let mut login = good.clone();
        login[at] = byte;
        login
    };
    let bad = [
        ("version 0", 2, with(0, 0)),
        ("version 2", 2, with(0, 2)),
        ("type 1", 2, with(1, 1)),
        ("type 7", 2, with(1, 7)),
        ("a packet", 2, message(3, "left", b"x")),
        ("a health check", 2, vec![1, 5]),
        ("the magic", 2, with(3, 0)),
        ("the algorithm", 2, with(42, 2)),
        ("the signature", 2, with(50, good[50] ^ 1)),
        ("the expiry", 2, with(84, if good[84] == b'9' { b'8' } else { b'9' })),
        ("an expired token", 2, auth(id("eve"), &token(SECRET, unix_now() - 2))),
        ("another secret", 2, auth(id("eve"), &token("guessed", unix_now() + 60))),
        ("one byte less", 2, good[..84].to_vec()),
        ("one byte", 2, vec![1]),
        ("nothing", 2, vec![]),
        ("text", 1, vec![1, 6]),
        ("NetBird's health agent", 2, {
            auth(id("healthcheck-agent"), &[&[1][..], &[0; 32], b"healthcheck"].concat())
        }),
    ];
    beside_a_pair(&site, || {
        for (what, opcode, login) in &bad {
            let before = logins(&site, "auth_fail");
            let mut eve = connect(site.address);
            eve.send(*opcode, login);
            assert_eq!(eve.read(), None, "{what}");
            let name = "beacon_relay_logins_total{door=\"netbird\",outcome=\"auth_fail\"}";
            site.relay.wait_for_metric(name, before + 1.0);
        }
        // Longer than any login: the connection does not read it.
        let mut eve = connect(site.address);
        eve.send(2, &[&good[..], &[b'0'; 213 - 85]].concat());
        assert_eq!(eve.read(), None);
        let name = "beacon_relay_logins_total{door=\"netbird\",outcome=\"violation\"}";
        site.relay.wait_for_metric(name, 1.0);
    });
}

#[test]
fn each_bad_message_ends_as_it_is_to_and_is_counted() {
    let site = Site::start(&["--upgrade-rate", "0"]);
    let second = auth(id("bob"), &token(SECRET, unix_now() + 60));
    let large = message(3, "left", &[7; 8_783]);
    let bad: [(&str, Vec<u8>, End, Option<&str>); 24] = [
        ("version 0", frame(0x82, &[0, 5]), End::Silent, Some("malformed")),
        ("version 2", frame(0x82, &[2, 5]), End::Silent, Some("malformed")),
        ("type 0", frame(0x82, &[1, 0]), End::Silent, Some("malformed")),
        ("type 1", frame(0x82, &[1, 1]), End::Silent, Some("malformed")),
        ("type 2", frame(0x82, &[1, 2]), End::Silent, Some("malformed")),
        ("type 7", frame(0x82, &[1, 7]), End::Silent, Some("malformed")),
        ("type 10", frame(0x82, &message(10, "left", b"")), End::Silent, Some("malformed")),
        ("type 11", frame(0x82, &message(11, "left", b"")), End::Silent, Some("malformed")),
        ("type 12", frame(0x82, &[1, 12]), End::Silent, Some("malformed")),
        ("one byte", frame(0x82, &[1]), End::Silent, Some("malformed")),
        ("nothing", frame(0x82, &[]), End::Silent, Some("malformed")),
        ("text", frame(0x81, &[1, 5]), End::Silent, Some("malformed")),
        ("a second login", frame(0x82, &second), End::Never, Some("second_login")),
        ("a short packet", frame(0x82, &[1, 3, 9]), End::Never, Some("wrong_length")),
        ("a packet of 37 bytes", frame(0x82, &[&[1, 3][..], &[9; 35]].concat()), End::Never, {
            Some("wrong_length")
        }),
        ("half an id", frame(0x82, &[&[1, 8][..], &[9; 54]].concat()), End::Never, {
            Some("wrong_length")
        }),
        ("unsubscribed from half an id", frame(0x82, &[1, 9, 9]), End::Never, {
            Some("wrong_length")
        }),
        ("245 ids", frame(0x82, &[&[1, 8][..], &[9; 245 * 36]].concat()), End::Close(1009), None),
        ("8,821 bytes", frame(0x82, &large), End::Close(1009), None),
        ("not masked", vec![0x82, 2, 1, 5], End::Silent, None),
        ("reserved bits", frame(0xf2, &[1, 5]), End::Silent, None),
        ("an unknown opcode", frame(0x83, &[1, 5]), End::Silent, None),
        ("a continuation of nothing", frame(0x80, &[1, 5]), End::Silent, None),
        ("a long ping", frame(0x89, &[7; 126]), End::Silent, None),
    ];
    beside_a_pair(&site, || {
        let mut watcher = site.log_in("watcher");
        for (what, bytes, end, reason) in &bad {
            watcher.send(2, &message(8, "mallory", b""));
            let mut mallory = site.log_in("mallory");
            assert_eq!(watcher.read(), Some((2, message(10, "mallory", b""))), "{what}");
            let before = reason.map(|reason| site.relay.metric(&dropped(reason)));
            mallory.write(bytes);
            match end {
                End::Silent => assert_eq!(mallory.read(), None, "{what}"),
                End::Close(code) => assert_eq!(mallory.read_close().0, *code, "{what}"),
                End::Never => {
                    let to_oneself = message(3, "mallory", b"and yet it lives");
                    mallory.send(2, &to_oneself);
                    assert_eq!(mallory.read(), Some((2, to_oneself)), "{what}");
                }
            }
            if let (Some(reason), Some(before)) = (reason, before) {
                site.relay.wait_for_metric(&dropped(reason), before + 1.0);
            }
            drop(mallory);
            assert_eq!(watcher.read(), Some((2, message(11, "mallory", b""))), "{what}");
        }
    });
}

/// Sends broken things over connection after connection.
fn attack(site: &Site, name: &str, mut random: Random) {
    let mut tries = 0;
    while tries < TRIES {
        let mut peer = connect(site.address);
        let mut login = auth(id(name), &token(SECRET, unix_now() + 60));
        if random.below(3) == 0 {
            random.break_up(&mut login);
            tries += 1;
            end(peer, &frame(0x82, &login));
            continue;
        }
        peer.send(2, &login);
        for _ in 0..20 {
            tries += 1;
            // It may have ended by what came before: then the rest has nowhere to go.
            if peer.stream.write_all(&broken(name, &mut random)).is_err() {
                break;
            }
        }
        end(peer, b"");
    }
}

/// A frame of any kind, broken inside or outside its mask.
fn broken(name: &str, random: &mut Random) -> Vec<u8> {
    let length = random.below(300);
    let mut payload = match random.below(6) {
        0 => message(3, name, &random.bytes(length)),
        1 => message(8, "left", &id("right")),
        2 => message(9, "left", b""),
        3 => vec![1, 5],
        4 => random.bytes(length),
        _ => message(3, name, &vec![7; 8_000 + random.below(2_000)]),
    };
    let kinds = [0x82, 0x82, 0x82, 0x81, 0x89, 0x8a, 0x88, 0x02, 0x00, 0x80];
    let first = kinds[random.below(kinds.len())];
    if random.below(2) == 0 {
        random.break_up(&mut payload);
        frame(first, &payload)
    } else {
        let mut bytes = frame(first, &payload);
        random.break_up(&mut bytes);
        bytes
    }
}

/// Sends the last bytes and waits until the relay has taken everything and closed.
fn end(mut peer: Peer, bytes: &[u8]) {
    // Both fail where the relay closed first, which is its right.
    let _ = peer.stream.write_all(bytes);
    let _ = peer.stream.shutdown(Shutdown::Write);
    let mut discarded = [0; 4_096];
    while std::io::Read::read(&mut peer.stream, &mut discarded).is_ok_and(|read| read > 0) {}
}

#[test]
fn broken_logins_and_messages_by_the_thousand_disturb_nobody() {
    const SEED: u64 = 20_261_129;
    eprintln!("seed {SEED}");
    let site = Site::start(&["--upgrade-rate", "0"]);
    let descriptors = site.relay.descriptors();
    beside_a_pair(&site, || {
        thread::scope(|scope| {
            for (seed, name) in (SEED..).zip(["mallory", "trudy", "eve", "oscar"]) {
                let site = &site;
                scope.spawn(move || attack(site, name, Random(seed << 32)));
            }
        });
    });
    let memory = site.relay.anonymous_memory();
    assert!(memory < MOST_MEMORY, "{memory}");
    // Of the attacks some reached each layer.
    assert!(logins(&site, "auth_fail") > 10.0 && logins(&site, "auth_ok") > 10.0);
    assert!(site.relay.metric(&dropped("malformed")) > 10.0, "{}", site.relay.metrics());
    site.relay.wait_for_metric("beacon_relay_sessions{door=\"netbird\"}", 0.0);
    site.relay.wait_for_metric("beacon_relay_netbird_subscriptions", 0.0);
    let back = look_until(Instant::now() + PATIENCE, || {
        (site.relay.descriptors() <= descriptors).then_some(())
    });
    assert!(back.is_some(), "{} descriptors, {descriptors} before", site.relay.descriptors());
}

//! Broken requests, replies and frames by the thousand, beside a pair that must not notice.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::cells::assert_balance;
use crate::harness::{Node, PATIENCE, look_until};
use crate::over::{Over, over_plain_and_tls};
use crate::peer::{Peer, frame, relay as relay_packet, reply, signed_text, upgrade_request};
use crate::random::Random;

over_plain_and_tls!(broken_upgrades_and_frames_by_the_thousand_disturb_nobody);

/// Broken things that each attacker sends, 10,000 in all; over TLS, where each takes a handshake,
/// 2,000.
const fn tries(over: Over) -> usize {
    match over {
        Over::Plain => 2_500,
        Over::Tls => 500,
    }
}

/// The attackers; each is a node that can log in, so that its frames get far.
const ATTACKERS: [u32; 4] = [101, 102, 103, 104];

/// Resident memory that nothing here may make the relay exceed, in bytes.
const MOST_MEMORY: u64 = 100 << 20;

impl Random {
    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_be_bytes()[0]).collect()
    }

    /// Breaks bytes in one to three ways.
    pub(crate) fn break_up(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len().max(1)).min(bytes.len());
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 => bytes.truncate(at),
                2 => drop(bytes.splice(at..at, self.bytes(9))),
                3 => drop(bytes.splice(at.., self.bytes(40))),
                4 => bytes.extend_from_within(at..),
                _ => drop(bytes.drain(at..bytes.len().min(at + 4))),
            }
        }
    }
}

/// Sends broken things over connection after connection.
fn attack(wss: SocketAddr, node: &Node, most: usize, mut random: Random) {
    let mut tries = 0;
    while tries < most {
        let kind = random.below(8);
        let mut peer = Peer::connect(wss);
        if kind < 3 {
            let mut request = upgrade_request("X-Forwarded-For: 203.0.113.9\r\n").into_bytes();
            random.break_up(&mut request);
            tries += 1;
            end(peer, &request);
            continue;
        }
        assert_eq!(peer.ask_for_upgrade(""), 101);
        if kind < 5 {
            let challenge = peer.challenge();
            let text = signed_text(node.id, &challenge, 2);
            let mut reply = reply(node, &text, None).to_string().into_bytes();
            // Broken inside or outside the mask: as JSON, or as a frame.
            let inside = random.below(2) == 0;
            if inside {
                random.break_up(&mut reply);
            }
            let mut bytes = frame(0x81, &reply);
            if !inside {
                random.break_up(&mut bytes);
            }
            tries += 1;
            // The verdict takes its 250 ms, and needs nobody to wait for it.
            peer.write(&bytes);
            continue;
        }
        peer.authenticate(node, 2);
        for _ in 0..20 {
            tries += 1;
            // It may have ended by what came before: then the rest has nowhere to go.
            if peer.stream.write_all(&broken_frame(node.id, &mut random)).is_err() {
                break;
            }
        }
        end(peer, b"");
    }
}

/// A frame of any kind, broken inside or outside its mask.
fn broken_frame(node: u32, random: &mut Random) -> Vec<u8> {
    let length = random.below(300);
    let mut payload = match random.below(5) {
        0 => relay_packet(node, 9_999, &random.bytes(length)),
        1 => [&[0x01][..], &node.to_be_bytes()].concat(),
        2 => br#"{"type":"hello"}"#.to_vec(),
        3 => random.bytes(length),
        _ => vec![0; 60_000 + random.below(8_000)],
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
    while peer.stream.read(&mut discarded).is_ok_and(|read| read > 0) {}
}

/// Exchanges numbered packets until told to stop, each of which must arrive; how many did.
fn exchange(wss: SocketAddr, [a, b]: [&Node; 2], stop: &AtomicBool) -> u32 {
    let (mut sender, mut receiver) = ((a.id, Peer::log_in(wss, a)), (b.id, Peer::log_in(wss, b)));
    let mut number = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        for n in number..number + 10 {
            sender.1.relay(sender.0, receiver.0, &n.to_be_bytes());
        }
        for n in number..number + 10 {
            assert_eq!(receiver.1.delivery(), (sender.0, n.to_be_bytes().to_vec()));
        }
        number += 10;
        std::mem::swap(&mut sender, &mut receiver);
    }
    number
}

fn broken_upgrades_and_frames_by_the_thousand_disturb_nobody(over: Over) {
    const SEED: u64 = 20_260_725;
    eprintln!("seed {SEED}");
    let (a, b) = (Node::new(11), Node::new(12));
    let attackers = ATTACKERS.map(Node::new);
    let nodes: Vec<_> = attackers.iter().chain([&a, &b]).collect();
    let relay = over.relay(&nodes, &["--upgrade-rate", "0", "--relay-rate", "0"]);
    let descriptors = relay.descriptors();
    let stop = AtomicBool::new(false);
    let began = Instant::now();

    let exchanged = thread::scope(|scope| {
        let pair = scope.spawn(|| exchange(relay.wss, [&a, &b], &stop));
        let attacks: Vec<_> = (SEED..)
            .zip(&attackers)
            .map(|(seed, node)| {
                scope.spawn(move || attack(relay.wss, node, tries(over), Random(seed << 32)))
            })
            .collect();
        let attacked: Vec<_> = attacks.into_iter().map(|attack| attack.join()).collect();
        stop.store(true, Ordering::Relaxed);
        let exchanged = pair.join();
        attacked.into_iter().for_each(|attack| attack.expect("an attacker is answered"));
        exchanged.expect("every packet of the pair arrives")
    });

    let memory = relay.anonymous_memory();
    eprintln!(
        "{} broken in {:?}; {exchanged} packets of the pair beside them, none lost; RssAnon {} MB",
        ATTACKERS.len() * tries(over),
        began.elapsed(),
        memory >> 20
    );
    assert!(exchanged > 100, "{exchanged}");
    assert!(memory < MOST_MEMORY, "{memory}");
    assert_eq!(relay.metric("pilot_beacon_wss_panics_total"), 0.0);
    assert!(!relay.log().contains("panicked"), "{}", relay.log());
    // Of the attacks some reached each layer.
    for outcome in ["bad_request", "bad_upgrade", "auth_fail", "auth_ok", "violation"] {
        let name = format!("pilot_beacon_wss_connections_total{{outcome=\"{outcome}\"}}");
        // A refusal is counted when it leaves, 250 ms after the reply.
        let reached = || (relay.metric(&name) > 10.0).then_some(());
        let reached = look_until(Instant::now() + PATIENCE, reached);
        assert!(reached.is_some(), "{outcome}: {}", relay.metrics());
    }
    relay.wait_for_metric("pilot_beacon_wss_sessions", 0.0);
    let back = look_until(Instant::now() + PATIENCE, || {
        (relay.descriptors() <= descriptors).then_some(())
    });
    assert!(back.is_some(), "{} descriptors, {descriptors} before", relay.descriptors());
    assert_balance(&relay);
    // It serves as before.
    let mut peer = Peer::log_in(relay.wss, &a);
    assert!(peer.is_silent(Duration::from_millis(20)));
}

//! A million random, cut and bent packets, over UDP and over a session, while healthy nodes
//! send each other packets in all four cells: nothing breaks, nothing grows, nobody else
//! loses a packet, and each of the million is accounted for.
//!
//! Whoever makes noise waits for a packet of its own to come back after each burst, so that
//! no buffer of the kernel overflows and the accounts can be exact.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::cells::assert_balance;
use crate::harness::{Node, Relay};
use crate::peer::{Peer, UdpNode, frame, relay as packet};
use crate::random::Random;

const PACKETS: usize = 1_000_000;

/// Sources of noise over UDP, each with its share.
const SOURCES: usize = 4;

/// Packets between two of which the source waits.
const BURST: usize = 50;

/// The relay without limits, which would keep the noise out of the router; and without pings,
/// which the peers here do not answer.
const FLAGS: [&str; 8] =
    ["--relay-rate", "0", "--discover-rate", "0", "--punch-allow", "*", "--ping-interval", "0s"];

impl Random {
    fn fill(&mut self, length: usize, out: &mut Vec<u8>) {
        let end = out.len() + length;
        while out.len() < end {
            out.extend_from_slice(&self.next().to_be_bytes());
        }
        out.truncate(end);
    }

    /// A node id: our own, one of few, none at all, or any.
    fn id(&mut self, own: u32) -> u32 {
        match self.below(8) {
            0 | 1 => own,
            // No bent bit makes one of the healthy of these.
            2..=4 => 0x5500 + u32::try_from(self.below(64)).unwrap(),
            5 => 0,
            // Far from those of the healthy nodes.
            _ => u32::try_from(self.next() >> 32).unwrap() | 0x8000_0000,
        }
    }

    /// A packet that is nearly one: mostly of a known type, at times cut, bent or too long.
    fn packet(&mut self, own: u32) -> Vec<u8> {
        let mut packet = Vec::new();
        let kind = match self.below(4) {
            0 => u8::try_from(self.below(256)).unwrap(),
            1 => 0x05,
            _ => u8::try_from(1 + self.below(9)).unwrap(),
        };
        packet.push(kind);
        for _ in 0..self.below(3) {
            packet.extend(self.id(own).to_be_bytes());
        }
        let length = match self.below(100) {
            0..40 => self.below(16),
            40..60 => 32,
            60..80 => 72,
            80..95 => self.below(200),
            95..99 => self.below(1_500),
            _ => self.below(5_000),
        };
        self.fill(length, &mut packet);
        if self.below(4) == 0 {
            packet.truncate(self.below(packet.len() + 1));
        }
        if self.below(8) == 0 && !packet.is_empty() {
            let index = self.below(packet.len());
            packet[index] ^= 1 << self.below(8);
        }
        packet
    }
}

/// Memory of the relay's own in KiB: what is not a file's.
fn anonymous_kib(relay: &Relay) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", relay.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

/// Four healthy nodes, and a packet that goes round through all four cells.
struct Healthy {
    wss: [Peer; 2],
    udp: [UdpNode; 2],
}

impl Healthy {
    fn nodes() -> [Node; 2] {
        [11, 12].map(Node::new)
    }

    fn log_in(relay: &Relay) -> Self {
        let wss = Self::nodes().map(|node| Peer::log_in(relay.wss, &node));
        let udp = [21, 22].map(|id| UdpNode::register(relay.udp, id));
        Self { wss, udp }
    }

    /// WSS 11 → UDP 21 → UDP 22 → WSS 12 → WSS 11, until it is told to stop; each packet
    /// arrives, or the test fails. How many rounds there were.
    fn go_round(&mut self, stop: &AtomicBool) -> u64 {
        let Self { wss: [a, b], udp: [c, d] } = self;
        let mut round = 0u64;
        while !stop.load(Ordering::Relaxed) {
            round += 1;
            let payload = [&round.to_be_bytes()[..], &[7; 1_000]].concat();
            a.relay(11, 21, &payload);
            assert!(c.delivery() == (11, payload.clone()), "round {round}");
            c.relay(22, &payload);
            assert!(d.delivery() == (21, payload.clone()), "round {round}");
            d.relay(12, &payload);
            assert!(b.delivery() == (22, payload.clone()), "round {round}");
            b.relay(12, 11, &payload);
            assert!(a.delivery() == (12, payload.clone()), "round {round}");
        }
        round
    }
}

/// What must hold after the noise.
fn assert_undisturbed(relay: &Relay, rounds: u64, before_kib: u64) {
    assert!(rounds > 100, "{rounds} rounds of the healthy");
    let names = ["pilot_beacon_udp_panics_total", "pilot_beacon_wss_panics_total"];
    names.iter().for_each(|name| assert_eq!(relay.metric(name), 0.0, "{name}"));
    assert_eq!(relay.metric("pilot_beacon_udp_kernel_dropped_total"), 0.0);
    let grown = anonymous_kib(relay).saturating_sub(before_kib) as f64;
    // Half a KiB for each node that the noise has registered, and 8 MiB for all the rest.
    let allowed = 8.0 * 1_024.0 + relay.metric("pilot_beacon_udp_nodes") / 2.0;
    assert!(grown < allowed, "grown by {grown} KiB of {allowed}");
    assert_balance(relay);
}

/// Sends a share of the noise, and counts what was sent.
fn noise_over_udp(node: &UdpNode, packets: usize, mut random: Random) -> usize {
    let mut sent = 0;
    for number in 0..packets / BURST {
        for _ in 0..BURST {
            node.send(&random.packet(node.id));
        }
        let mark = [&b"came back "[..], &number.to_be_bytes()].concat();
        node.relay(node.id, &mark);
        while !node.receive().ends_with(&mark) {}
        sent += BURST + 1;
    }
    sent
}

#[test]
fn million_broken_packets_over_udp_disturb_nobody() {
    let nodes = Healthy::nodes();
    let relay = Relay::with_nodes(&[&nodes[0], &nodes[1]], &FLAGS);
    let mut healthy = Healthy::log_in(&relay);
    let noisy: [_; SOURCES] =
        std::array::from_fn(|n| UdpNode::register(relay.udp, 900 + u32::try_from(n).unwrap()));
    let before_kib = anonymous_kib(&relay);
    let before = relay.metric("pilot_beacon_packets_in_total{transport=\"udp\"}");

    let stop = AtomicBool::new(false);
    let (rounds, sent) = thread::scope(|scope| {
        let round = scope.spawn(|| healthy.go_round(&stop));
        let noise = noisy.each_ref().map(|node| {
            let random = Random(node.id.into());
            scope.spawn(move || noise_over_udp(node, PACKETS / SOURCES, random))
        });
        let sent = noise.map(|noise| noise.join());
        stop.store(true, Ordering::Relaxed);
        (round.join().unwrap(), sent.map(Result::unwrap).iter().sum::<usize>())
    });

    assert!(sent >= PACKETS);
    assert_undisturbed(&relay, rounds, before_kib);
    let came = relay.metric("pilot_beacon_packets_in_total{transport=\"udp\"}") - before;
    assert_eq!(came, (sent + usize::try_from(2 * rounds).unwrap()) as f64);
}

#[test]
fn million_broken_packets_over_a_session_disturb_nobody() {
    let ([a, b], own) = (Healthy::nodes(), Node::new(900));
    let relay = Relay::with_nodes(&[&a, &b, &own], &FLAGS);
    let mut healthy = Healthy::log_in(&relay);
    let mut noisy = Peer::log_in(relay.wss, &own);
    let before_kib = anonymous_kib(&relay);

    let stop = AtomicBool::new(false);
    let rounds = thread::scope(|scope| {
        let round = scope.spawn(|| healthy.go_round(&stop));
        let noise = scope.spawn(|| {
            let mut random = Random(1);
            for number in 0..PACKETS / BURST {
                let mut frames = Vec::new();
                for _ in 0..BURST {
                    frames.extend(frame(0x82, &random.packet(own.id)));
                }
                let mark = [&b"came back "[..], &number.to_be_bytes()].concat();
                frames.extend(frame(0x82, &packet(own.id, own.id, &mark)));
                noisy.write(&frames);
                while !noisy.read().expect("the session goes on").1.ends_with(&mark) {}
            }
        });
        let noise = noise.join();
        stop.store(true, Ordering::Relaxed);
        noise.unwrap();
        round.join().unwrap()
    });

    assert_undisturbed(&relay, rounds, before_kib);
    let came = relay.metric("pilot_beacon_packets_in_total{transport=\"wss\"}");
    let sent = PACKETS + PACKETS / BURST + usize::try_from(2 * rounds).unwrap();
    assert_eq!(came, sent as f64);
}

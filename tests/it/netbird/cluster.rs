//! Several relays as one relay of NetBird: peers of one see those of another come and go, and
//! reach them, over both fabrics.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tempfile::TempDir;

use super::{EXPOSED, SECRET, auth, connect, frame, id, message, shown, token, unix_now};
use crate::cells::assert_balance;
use crate::cluster::{Cluster, Fabric, on_both_fabrics, wait_until, wait_until_claimed};
use crate::control::ask;
use crate::harness::{Node, PATIENCE, Relay};
use crate::peer::Peer;

on_both_fabrics!(
    peers_of_two_relays_learn_of_each_other_and_exchange_packets_in_order,
    peer_that_moves_to_another_relay_is_nobody_s_loss,
    peers_of_a_killed_relay_are_offline_and_come_back_elsewhere,
    subscriptions_to_ten_thousand_that_are_absent_keep_nobody_waiting,
    peers_that_come_and_go_are_told_once_each_and_in_order,
);

/// Short, where a test waits until a relay is lost; else a busy machine would make one seem so.
const KEEPALIVE: Duration = Duration::from_millis(500);
const LONG_KEEPALIVE: Duration = Duration::from_secs(5);

/// What is printed of a time says so where a busy machine made it longer.
const LEARNT_WITHIN: Duration = Duration::from_millis(100);

/// Relays of one cluster, each with a listener of the door.
struct Sites {
    cluster: Cluster,
    addresses: Vec<SocketAddr>,
    _folder: TempDir,
}

impl Sites {
    fn of_three(fabric: Fabric) -> Self {
        Self::start(fabric, &[EXPOSED; 3], LONG_KEEPALIVE)
    }

    /// A relay for each of these addresses, which it tells its clients.
    fn start(fabric: Fabric, exposed: &[&str], keepalive: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let secrets = folder.path().join("secrets");
        fs::write(&secrets, SECRET).unwrap();
        let config = |index: usize| {
            let path = folder.path().join(format!("relay{index}.toml"));
            let bind = format!("{}:0", crate::cluster::host(index));
            let listener =
                format!("[[listener]]\nname = \"nb\"\nbind = \"{bind}\"\ndoors = [\"netbird\"]\n");
            let text = format!("log_level = \"debug\"\n{listener}");
            fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let configs: Vec<_> = (0..exposed.len()).map(config).collect();
        let keepalive = format!("{}ms", keepalive.as_millis());
        let nodes = [Node::new(1)];
        let cluster = Cluster::start(fabric, exposed.len(), &nodes.each_ref(), |index| {
            let door = ["--netbird-exposed-address", exposed[index]];
            let secrets = ["--netbird-auth-secret-file", secrets.to_str().unwrap()];
            let rest = ["--config", &configs[index], "--cluster-keepalive", &keepalive];
            [door, secrets].concat().into_iter().chain(rest).collect()
        });
        cluster.wait_for_members(exposed.len());
        let addresses = cluster.relays.iter().map(|relay| {
            let line = relay.wait_for_line("also listening");
            let address = line.split_once("bind=").unwrap().1.split(' ').next().unwrap();
            address.parse().unwrap()
        });
        let addresses = addresses.collect();
        Self { cluster, addresses, _folder: folder }
    }

    fn relay(&self, at: usize) -> &Relay {
        &self.cluster.relays[at]
    }

    fn log_in(&self, at: usize, who: &str) -> Peer {
        log_in(self.addresses[at], who)
    }

    /// Waits until the homes of all that a relay has subscribed to have told what they know.
    fn wait_until_watched(&self, at: usize, peers: u32) {
        let relay = self.relay(at);
        relay.wait_for_metric(&entries("watched"), f64::from(peers));
        relay.wait_for_metric(&entries("outstanding"), 0.0);
    }
}

fn entries(kind: &str) -> String {
    format!("pilot_beacon_cluster_presence_entries{{kind=\"{kind}\"}}")
}

fn log_in(address: SocketAddr, who: &str) -> Peer {
    let mut peer = connect(address);
    peer.send(2, &auth(id(who), &token(SECRET, unix_now() + 3_600)));
    assert_eq!(peer.read(), Some((2, [b"\x01\x07", EXPOSED.as_bytes()].concat())));
    peer
}

fn online(who: &str) -> Option<crate::peer::Frame> {
    frame(10, who, b"")
}

fn offline(who: &str) -> Option<crate::peer::Frame> {
    frame(11, who, b"")
}

fn subscribe(peer: &mut Peer, who: &str) {
    peer.send(2, &message(8, who, b""));
}

/// What a client does that has lost its connection to a peer.
fn subscribe_anew(peer: &mut Peer, who: &str) {
    peer.send(2, &message(9, who, b""));
    subscribe(peer, who);
}

/// That a peer was told nothing before what it sends to itself.
fn assert_told_nothing(peer: &mut Peer, who: &str) {
    peer.send(2, &message(3, who, b"nothing else"));
    assert_eq!(peer.read(), frame(3, who, b"nothing else"));
}

/// What a peer is told next, but for signs of life, which it answers.
fn read_event(peer: &mut Peer) -> Vec<u8> {
    loop {
        let (_, told) = peer.read().expect("it is told of all");
        if told != [1, 5] {
            return told;
        }
        peer.send(2, &told);
    }
}

fn print_time(fabric: Fabric, what: &str, time: Duration, bound: Duration) {
    let note = if time > bound { " (a busy machine?)" } else { "" };
    eprintln!("{fabric:?} | {what} | {:.1} ms{note}", time.as_secs_f64() * 1_000.0);
    assert!(time < PATIENCE, "{what}: {time:?}");
}

fn peers_of_two_relays_learn_of_each_other_and_exchange_packets_in_order(fabric: Fabric) {
    let sites = Sites::of_three(fabric);
    // Each has subscribed to the other before that is there: by a session that the next replaces.
    let mut alice = sites.log_in(0, "alice");
    subscribe(&mut alice, "bob");
    let mut carol = sites.log_in(1, "carol");
    subscribe(&mut carol, "dave");
    sites.wait_until_watched(0, 1);
    sites.wait_until_watched(1, 1);

    for (at, who, watcher) in [(1, "bob", &mut alice), (0, "dave", &mut carol)] {
        let began = Instant::now();
        let mut peer = sites.log_in(at, who);
        assert_eq!(watcher.read(), online(who));
        print_time(fabric, "online at another relay after", began.elapsed(), LEARNT_WITHIN);
        peer.send(2, &[1, 4]);
        let left = Instant::now();
        assert_eq!(peer.read(), None);
        assert_eq!(watcher.read(), offline(who));
        print_time(fabric, "offline at another relay after", left.elapsed(), LEARNT_WITHIN);
    }

    let mut bob = sites.log_in(1, "bob");
    subscribe_anew(&mut alice, "bob");
    assert_eq!(alice.read(), online("bob"));
    wait_until_claimed(sites.relay(0), 1);
    let asked = Instant::now();
    subscribe(&mut bob, "alice");
    assert_eq!(bob.read(), online("alice"));
    print_time(fabric, "a subscription answered after", asked.elapsed(), LEARNT_WITHIN);
    let name = format!("netbird:sha-{}", shown("bob"));
    let told = ask(sites.relay(0), &["explain", &name]);
    assert_eq!(told["cluster"]["watched_elsewhere"], true, "{told}");
    for number in 0..1_000_u32 {
        let payload = [&number.to_be_bytes()[..], &[7; 1_308]].concat();
        alice.send(2, &message(3, "bob", &payload));
        bob.send(2, &message(3, "alice", &payload));
        assert_eq!(bob.read(), frame(3, "alice", &payload));
        assert_eq!(alice.read(), frame(3, "bob", &payload));
    }
    // In a burst as well, once it is known where they go.
    for number in 0..200_u32 {
        alice.send(2, &message(3, "bob", &number.to_be_bytes()));
    }
    for number in 0..200_u32 {
        assert_eq!(bob.read(), frame(3, "alice", &number.to_be_bytes()));
    }
    // Who is nowhere gets nothing, and nobody waits for that.
    for number in 0..100 {
        alice.send(2, &message(3, &format!("nobody {number}"), b"lost"));
    }
    assert_told_nothing(&mut alice, "alice");
    alice.send(2, &message(3, "bob", b"and on"));
    assert_eq!(bob.read(), frame(3, "alice", b"and on"));
    sites.cluster.relays.iter().for_each(assert_balance);
}

fn peer_that_moves_to_another_relay_is_nobody_s_loss(fabric: Fabric) {
    let sites = Sites::of_three(fabric);
    let mut watchers: Vec<_> =
        (0..3).map(|at| sites.log_in(at, &format!("watcher {at}"))).collect();
    watchers.iter_mut().for_each(|watcher| subscribe(watcher, "bob"));
    (0..3).for_each(|at| sites.wait_until_watched(at, 1));
    let mut before = sites.log_in(0, "bob");
    watchers.iter_mut().for_each(|watcher| assert_eq!(watcher.read(), online("bob")));

    for at in [1, 2, 0, 2, 1, 0, 1] {
        wait_until("the homes know of the session", || {
            sites.cluster.relays.iter().all(|relay| relay.metric(&entries("outstanding")) == 0.0)
        });
        let mut now = sites.log_in(at, "bob");
        assert_eq!(before.read(), None, "the older session ends");
        before = now;
        now = sites.log_in(at, &format!("witness {at}"));
        for (number, watcher) in watchers.iter_mut().enumerate() {
            assert_told_nothing(watcher, &format!("watcher {number}"));
        }
        now.send(2, &message(3, "bob", b"here"));
        assert_eq!(before.read(), frame(3, &format!("witness {at}"), b"here"));
    }

    before.send(2, &[1, 4]);
    for watcher in &mut watchers {
        assert_eq!(watcher.read(), offline("bob"));
    }
    sites.cluster.relays.iter().for_each(assert_balance);
}

fn peers_of_a_killed_relay_are_offline_and_come_back_elsewhere(fabric: Fabric) {
    const PEERS: usize = 20;
    let mut sites = Sites::start(fabric, &[EXPOSED; 3], KEEPALIVE);
    let names: Vec<_> = (0..PEERS).map(|number| format!("peer {number}")).collect();
    let mut alice = sites.log_in(0, "alice");
    names.iter().for_each(|name| subscribe(&mut alice, name));
    let peers: Vec<_> = names.iter().map(|name| sites.log_in(1, name)).collect();
    let mut told: Vec<_> = names.iter().map(|_| alice.read()).collect();
    told.sort();
    let mut expected: Vec<_> = names.iter().map(|name| online(name)).collect();
    expected.sort();
    assert_eq!(told, expected);

    let killed = Instant::now();
    drop(sites.cluster.relays.remove(1));
    drop(peers);
    let mut told: Vec<_> = names.iter().map(|_| alice.read()).collect();
    let bound = KEEPALIVE * 3 + Duration::from_millis(500);
    print_time(fabric, "offline after a relay was killed", killed.elapsed(), bound);
    told.sort();
    let mut expected: Vec<_> = names.iter().map(|name| offline(name)).collect();
    expected.sort();
    assert_eq!(told, expected);

    for name in &names {
        subscribe_anew(&mut alice, name);
        let began = Instant::now();
        let _back = sites.log_in(2, name);
        assert_eq!(alice.read(), online(name));
        if name == "peer 0" {
            print_time(fabric, "online elsewhere after", began.elapsed(), LEARNT_WITHIN);
        }
        drop(_back);
        assert_eq!(alice.read(), offline(name));
    }
}

fn subscriptions_to_ten_thousand_that_are_absent_keep_nobody_waiting(fabric: Fabric) {
    const PEERS: u32 = 10_000;
    let sites = Sites::of_three(fabric);
    let mut alice = sites.log_in(0, "alice");
    let ids: Vec<u8> = (0..PEERS).flat_map(|number| id(&format!("absent {number}"))).collect();
    let began = Instant::now();
    for some in ids.chunks(244 * 36) {
        alice.send(2, &[b"\x01\x08", some].concat());
    }
    assert_told_nothing(&mut alice, "alice");
    print_time(fabric, "10,000 subscriptions read after", began.elapsed(), LEARNT_WITHIN);
    sites.wait_until_watched(0, PEERS);
    print_time(fabric, "and known at their homes after", began.elapsed(), Duration::from_secs(1));
    assert_eq!(sites.relay(0).metric("beacon_relay_netbird_subscriptions"), f64::from(PEERS));
    assert_eq!(sites.relay(0).metric(&entries("looked_up")), 0.0);
    // One to each home that is another relay. A busy machine repeats some.
    let said = sites.relay(0).metric("pilot_beacon_cluster_watch_frames_total{kind=\"watch\"}");
    eprintln!("{fabric:?} | {said} messages for 10,000 subscriptions");
    assert!((1.0..10.0).contains(&(said / f64::from(PEERS))), "{said}");
    for number in [0, PEERS / 2, PEERS - 1] {
        let who = format!("absent {number}");
        let began = Instant::now();
        let _there = sites.log_in(1, &who);
        assert_eq!(alice.read(), online(&who));
        print_time(fabric, "one of 10,000 online after", began.elapsed(), LEARNT_WITHIN);
        drop(_there);
        assert_eq!(alice.read(), offline(&who));
    }
    drop(alice);
    for relay in &sites.cluster.relays {
        relay.wait_for_metric(&entries("watched"), 0.0);
        relay.wait_for_metric(&entries("watcher"), 0.0);
    }
}

fn peers_that_come_and_go_are_told_once_each_and_in_order(fabric: Fabric) {
    come_and_go(fabric, 150, 8);
}

#[test]
#[ignore = "takes half a minute of both cores: make soak"]
fn soak_five_thousand_that_come_and_go_are_told_once_each_and_in_order() {
    for fabric in [Fabric::Mesh, Fabric::Nats] {
        come_and_go(fabric, 5_000, 64);
    }
}

/// Each of so many peers comes and goes twice, as many at a time as there are hands.
fn come_and_go(fabric: Fabric, peers: usize, hands: usize) {
    let sites = Sites::of_three(fabric);
    let names: Vec<_> = (0..peers).map(|number| format!("peer {number}")).collect();
    let mut reader = sites.log_in(0, "reader");
    let ids: Vec<u8> = names.iter().flat_map(|name| id(name)).collect();
    for some in ids.chunks(244 * 36) {
        reader.send(2, &[b"\x01\x08", some].concat());
    }
    sites.wait_until_watched(0, u32::try_from(peers).unwrap());
    let known: HashMap<_, _> = names.iter().map(|name| (id(name), name)).collect();
    let began = Instant::now();
    for round in 0..2 {
        let seen: HashMap<_, _> =
            names.iter().map(|name| (id(name), AtomicBool::new(false))).collect();
        let waiting: Mutex<VecDeque<_>> = Mutex::new(names.iter().enumerate().collect());
        let next = || waiting.lock().pop_front();
        thread::scope(|scope| {
            for _ in 0..hands {
                scope.spawn(|| {
                    while let Some((number, name)) = next() {
                        let mut peer = sites.log_in((number + round) % 3, name);
                        // Who goes before its homes know that it came was never there for others.
                        wait_until(&format!("the reader knows of {name}"), || {
                            seen[&id(name)].load(Ordering::Relaxed)
                        });
                        peer.send(2, &[1, 4]);
                        assert_eq!(peer.read(), None);
                    }
                });
            }
            let mut online: HashMap<[u8; 36], bool> = HashMap::new();
            for _ in 0..2 * peers {
                let told = read_event(&mut reader);
                let who: [u8; 36] = told[2..].try_into().expect("of one each");
                let name = known[&who];
                match told[1] {
                    10 => {
                        assert_eq!(online.insert(who, true), None, "{name} came twice");
                        seen[&who].store(true, Ordering::Relaxed);
                    }
                    11 => {
                        assert_eq!(online.insert(who, false), Some(true), "{name} left unseen");
                        subscribe_anew(&mut reader, name);
                    }
                    other => panic!("message {other}"),
                }
            }
        });
    }
    let (seconds, events) = (began.elapsed().as_secs_f64(), 4 * peers);
    eprintln!("{fabric:?} | {events} events in {seconds:.1} s, none lost or out of order");
    assert_told_nothing(&mut reader, "reader");
    sites.cluster.relays.iter().for_each(assert_balance);
}

#[test]
fn relays_that_tell_their_clients_different_addresses_are_named() {
    let exposed = [EXPOSED, EXPOSED, "rel://elsewhere.example:33080"];
    let sites = Sites::start(Fabric::Mesh, &exposed, KEEPALIVE);
    let mismatches = |at: usize, count: f64| {
        sites.relay(at).wait_for_metric("pilot_beacon_cluster_address_mismatches", count);
    };
    mismatches(0, 1.0);
    mismatches(1, 1.0);
    mismatches(2, 2.0);
    sites.relay(0).wait_for_line("another relay tells its clients another address");
}

//! What takes time, or addresses that no socket of a test can have; the rest is tested over
//! real sockets.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::buckets::Buckets;
use super::*;
use crate::cluster::Cluster;
use crate::config::PunchAllow;
use crate::config::testing::translators;
use crate::doors::pilot::directory::Settings;
use crate::ids::NodeId;
use crate::net::Stream;
use crate::net::local::Locality;
use crate::net::udp::{Received, Run, SendError};
use crate::peers::{Link, Registration, Session, testing};
use crate::udp::DatagramSink as _;

mod canary;
mod cluster;
mod panics;

const SECOND: Duration = Duration::from_secs(1);

/// A socket that keeps what is sent, run by run.
#[derive(Debug, Default)]
struct Wire {
    runs: Mutex<VecDeque<(SocketAddr, Vec<Vec<u8>>)>>,
    full: AtomicBool,
    /// The next send is a bug.
    broken: AtomicBool,
    /// The next look at its address is a bug.
    lost: AtomicBool,
}

impl Datagrams for Wire {
    fn receive(&self, _: &mut Received) -> io::Result<()> {
        Ok(())
    }

    fn send(&self, runs: &[Run<'_>], sent: &mut dyn FnMut(usize, usize, Result<(), SendError>)) {
        assert!(!self.broken.swap(false, Ordering::Relaxed), "a bug");
        for (index, run) in runs.iter().enumerate() {
            if self.full.load(Ordering::Relaxed) {
                sent(index, run.packets(), Err(SendError::Full));
                continue;
            }
            let packets = run.bytes.chunks(run.segment.max(1)).map(<[u8]>::to_vec).collect();
            self.runs.lock().push_back((run.to, packets));
            sent(index, run.packets(), Ok(()));
        }
    }

    fn address(&self) -> SocketAddr {
        assert!(!self.lost.swap(false, Ordering::Relaxed), "a bug");
        SocketAddr::from(([192, 0, 2, 1], 9001))
    }
}

struct Fixture {
    relay: Arc<Overlay>,
    buckets: Buckets,
    wire: Arc<Wire>,
    // Grants that nobody verifies here.
    _grants: GrantQueue,
}

impl Fixture {
    fn new() -> Self {
        Self::in_cluster(Arc::default(), None)
    }

    fn with_sockets(count: usize) -> Self {
        Self::of(count, Arc::default(), None)
    }

    fn in_cluster(traffic: Arc<Traffic>, cluster: Option<Arc<Cluster>>) -> Self {
        Self::of(1, traffic, cluster)
    }

    fn of(sockets: usize, traffic: Arc<Traffic>, cluster: Option<Arc<Cluster>>) -> Self {
        let state = tempfile::tempdir().unwrap();
        let state_dir = state.path().to_owned();
        let directory = Directory::open(Settings { keys: None, registry: None, state_dir });
        let wire = Arc::<Wire>::default();
        let sockets: Vec<Arc<dyn Datagrams>> = vec![wire.clone(); sockets];
        let table = Arc::new(Table::new(10, 10));
        let beacons = Beacons::new(false, Translators::default());
        let router = Router::new(table, traffic, rates(4), cluster);
        let (relay, grants) = Overlay::new(router, directory.unwrap(), sockets, rules(), beacons);
        let buckets = relay.worker(relay.sockets.len());
        Self { relay, buckets, wire, _grants: grants }
    }

    /// Routes one batch.
    fn receive(&mut self, packets: &[(SocketAddr, &[u8])], now: Instant) {
        self.relay.datagrams(&mut self.buckets, &*self.wire, &Received::of(packets), now);
    }

    /// Routes one batch, and returns the packets that leave, each with its destination.
    fn batch(
        &mut self,
        packets: &[(SocketAddr, &[u8])],
        now: Instant,
    ) -> Vec<(SocketAddr, Vec<u8>)> {
        self.receive(packets, now);
        let runs = std::mem::take(&mut *self.wire.runs.lock());
        runs.into_iter()
            .flat_map(|(to, packets)| packets.into_iter().map(move |packet| (to, packet)))
            .collect()
    }

    fn one(&mut self, from: SocketAddr, packet: &[u8], now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
        self.batch(&[(from, packet)], now)
    }

    fn dropped(&self, reason: Drop) -> u64 {
        self.relay.traffic.packets_dropped(reason)
    }
}

fn punch_rules() -> PunchRules {
    PunchRules { rate: Rate::per_second(10), allow: PunchAllow::Everyone, require_grant: false }
}

fn rates(packets: u64) -> SourceRates {
    SourceRates { packets: Rate::per_second(packets), bytes: Rate::NONE }
}

fn rules() -> Rules {
    Rules {
        beacon: rates(8),
        discover: Rate::NONE,
        translators: Translators::default(),
        observed_senders_only: false,
        loopback: false,
        own: Vec::new(),
        beacon_id: BeaconId(7),
        punch: punch_rules(),
    }
}

fn at(host: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, host], 4_000))
}

fn discover(node: u8) -> [u8; 5] {
    [1, 0, 0, 0, node]
}

fn packet(sender: u8, dest: u8, payload: &[u8]) -> Vec<u8> {
    [&[5, 0, 0, 0, sender, 0, 0, 0, dest], payload].concat()
}

fn delivery(sender: u8, payload: &[u8]) -> Vec<u8> {
    [&[6, 0, 0, 0, sender], payload].concat()
}

#[test]
fn spec_6_2_endpoint_moves_after_30_seconds_and_not_before() {
    let (mut relay, t0) = (Fixture::new(), Instant::now());
    relay.one(at(1), &discover(1), t0);
    for (after, endpoint) in [(SECOND * 29, at(1)), (SECOND * 30, at(2)), (SECOND * 31, at(2))] {
        let reply = relay.one(at(2), &discover(1), t0 + after);
        assert_eq!(reply, [(at(2), vec![2, 4, 198, 51, 100, 2, 0x0f, 0xa0])]);
        let delivered = relay.one(at(9), &packet(9, 1, b"x"), t0 + after);
        assert_eq!(delivered, [(endpoint, delivery(9, b"x"))], "{after:?}");
    }
}

/// A session of a node that never says anything.
fn log_in(relay: &Overlay, number: u32) -> Registration {
    log_in_over(testing::reader(), relay, number)
}

fn log_in_over(stream: impl Stream, relay: &Overlay, number: u32) -> Registration {
    let link = Link { traffic: Arc::clone(&relay.traffic), ..testing::link(stream) };
    let node = NodeId::new(number).unwrap();
    let session = Session::new(testing::principal(node), 1, at(3), link, Instant::now());
    relay.table.register(session.into()).unwrap()
}

/// The answer to a Discover from a host.
fn observed(host: u8) -> [(SocketAddr, Vec<u8>); 1] {
    [(at(host), vec![2, 4, 198, 51, 100, host, 0x0f, 0xa0])]
}

#[test]
fn spec_6_3_name_of_a_lost_session_is_free_for_others_90_seconds_after_its_end() {
    let mut relay = Fixture::new();
    let registered = log_in(&relay.relay, 1);

    let t0 = Instant::now();
    assert_eq!(relay.one(at(1), &discover(1), t0 + SECOND * 1_000), observed(1));
    drop(registered);
    assert_eq!(relay.one(at(1), &discover(1), t0 + SECOND * 89), observed(1));
    assert_eq!(relay.relay.table.endpoint_count(), 0);
    assert_eq!(relay.one(at(1), &[3, 0, 0, 0, 1, 0, 0, 0, 2], t0 + SECOND * 89), []);
    assert_eq!(relay.dropped(PilotDrop::CLAIM_OF_WSS_NODE), 1);
    let ended = Instant::now();
    assert_eq!(relay.one(at(1), &discover(1), ended + SECOND * 90), observed(1));
    assert_eq!(relay.relay.table.endpoint_count(), 1);
}

#[test]
fn spec_6_3_client_of_a_lost_session_is_not_dark_for_90_seconds() {
    let mut relay = Fixture::new();
    drop(log_in(&relay.relay, 1));
    let now = Instant::now();
    relay.one(at(1), &discover(1), now);
    assert_eq!(relay.one(at(9), &packet(9, 1, b"x"), now), [], "nobody else is the node");
    // Where `log_in` came from.
    assert_eq!(relay.one(at(3), &discover(1), now), observed(3));
    assert_eq!(relay.one(at(9), &packet(9, 1, b"x"), now), [(at(3), delivery(9, b"x"))]);
}

#[test]
fn spec_6_3_node_that_says_bye_is_not_dark_for_90_seconds() {
    let (mut relay, now) = (Fixture::new(), Instant::now());
    let registered = log_in(&relay.relay, 1);
    relay
        .relay
        .table
        .session(NodeId::new(1).unwrap().into())
        .unwrap()
        .end(crate::peers::End::PeerLeft);
    drop(registered);
    for (host, endpoint) in [(1, 1), (2, 1), (3, 3), (2, 3)] {
        assert_eq!(relay.one(at(host), &discover(1), now), observed(host));
        let delivered = relay.one(at(9), &packet(9, 1, b"x"), now);
        assert_eq!(delivered, [(at(endpoint), delivery(9, b"x"))], "after {host}");
    }
}

#[test]
fn spec_6_4_addresses_that_no_node_has_are_never_answered() {
    let (mut relay, now) = (Fixture::new(), Instant::now());
    for from in [
        "0.0.0.0:4000",
        "255.255.255.255:4000",
        "224.0.0.1:4000",
        "127.0.0.1:4000",
        "198.51.100.1:0",
        "[::]:4000",
        "[ff02::1]:4000",
        "[::1]:4000",
        // The relay's own.
        "192.0.2.1:9001",
    ] {
        let before = relay.dropped(PilotDrop::FORBIDDEN_ENDPOINT);
        for node in [1, 0] {
            assert_eq!(relay.one(from.parse().unwrap(), &discover(node), now), [], "{from}");
        }
        assert_eq!(relay.dropped(PilotDrop::FORBIDDEN_ENDPOINT), before + 2, "{from}");
    }
    assert_eq!(relay.relay.table.endpoint_count(), 0);
}

#[test]
fn spec_6_4_silent_endpoint_gets_ten_packets_a_second_until_it_is_heard_again() {
    let (mut relay, t0) = (Fixture::new(), Instant::now());
    relay.one(at(1), &discover(1), t0);
    let quiet = t0 + SECOND * 121;
    // Each from another address, which has a limit of its own.
    let flood = |relay: &mut Fixture, now| {
        let sent = (10..30).flat_map(|host| relay.one(at(host), &packet(host, 1, b"x"), now));
        sent.count()
    };
    assert_eq!(flood(&mut relay, quiet), 10);
    assert_eq!(relay.dropped(PilotDrop::QUIET_ENDPOINT), 10);
    relay.one(at(1), &discover(1), quiet);
    assert_eq!(flood(&mut relay, quiet + SECOND), 20);
}

#[test]
fn spec_6_1_node_is_forgotten_after_ten_minutes_of_silence() {
    let (mut relay, t0) = (Fixture::new(), Instant::now());
    relay.one(at(1), &discover(1), t0);
    relay.relay.router.sweep(t0 + SECOND * 599);
    assert_eq!(relay.one(at(2), &packet(2, 1, b"x"), t0 + SECOND * 599).len(), 1);
    relay.relay.router.sweep(t0 + SECOND * 601);
    assert_eq!(relay.one(at(2), &packet(2, 1, b"x"), t0 + SECOND * 601), []);
    assert_eq!(relay.dropped(Drop::UNKNOWN_DESTINATION), 1);
}

#[test]
fn spec_7_3_beacon_that_is_silent_for_90_seconds_is_dropped_with_its_nodes() {
    let (mut relay, t0) = (Fixture::new(), Instant::now());
    relay.relay.beacons.list([at(8)]);
    relay.one(at(8), &[7, 0, 0, 0, 8, 0, 1, 0, 0, 0, 31], t0);
    let whole = packet(2, 31, b"x");
    relay.relay.expire_beacons(t0 + SECOND * 89);
    assert_eq!(relay.one(at(2), &whole, t0 + SECOND * 89), [(at(8), whole.clone())]);
    relay.relay.expire_beacons(t0 + SECOND * 90);
    assert_eq!(relay.one(at(2), &whole, t0 + SECOND * 90), []);
    assert_eq!((relay.relay.beacons.sources(), relay.relay.table.learnt_count()), (0, 0));
}

#[test]
fn spec_6_6_listed_beacon_has_a_limit_of_its_own() {
    let (mut relay, now) = (Fixture::new(), Instant::now());
    relay.relay.beacons.list([at(8)]);
    relay.one(at(1), &discover(1), now);
    let whole = packet(2, 1, b"x");
    for (from, passes) in [(at(2), 4), (at(8), 8)] {
        let batch = vec![(from, &*whole); 10];
        assert_eq!(relay.batch(&batch, now).len(), passes);
    }
    assert_eq!(relay.dropped(Drop::RATE_LIMITED), 6 + 2);
}

#[test]
fn batch_leaves_in_one_run_for_each_destination_and_each_flow_in_its_order() {
    let (mut relay, now) = (Fixture::new(), Instant::now());
    for node in [1, 2] {
        relay.one(at(node), &discover(node), now);
    }
    let packets: Vec<_> = (0..8).map(|n| (at(10 + n), packet(9, 1 + n % 2, &[n]))).collect();
    let batch: Vec<_> = packets.iter().map(|(from, packet)| (*from, &**packet)).collect();
    relay.receive(&batch, now);
    let runs = std::mem::take(&mut *relay.wire.runs.lock());
    let of = |numbers: [u8; 4]| numbers.map(|n| delivery(9, &[n])).to_vec();
    assert_eq!(runs, [(at(1), of([0, 2, 4, 6])), (at(2), of([1, 3, 5, 7]))]);
}

#[test]
fn packet_that_the_full_socket_refuses_is_counted_and_not_kept() {
    let (mut relay, now) = (Fixture::new(), Instant::now());
    relay.one(at(1), &discover(1), now);
    relay.wire.full.store(true, Ordering::Relaxed);
    assert_eq!(relay.one(at(2), &packet(2, 1, b"x"), now), []);
    assert_eq!(relay.one(at(1), &discover(1), now), []);
    assert_eq!(relay.dropped(Drop::UDP_SOCKET_FULL), 1, "the reply is ours and counts apart");
    relay.wire.full.store(false, Ordering::Relaxed);
    assert_eq!(relay.one(at(2), &packet(2, 1, b"y"), now), [(at(1), delivery(2, b"y"))]);
}

#[test]
fn discovers_and_punches_of_one_address_are_limited_whatever_node_and_port_they_name() {
    let (mut relay, now) = (Fixture::new(), Instant::now());
    let punch = PunchRules { allow: PunchAllow::List(Vec::new()), ..punch_rules() };
    relay.relay.update(Rules { punch, discover: Rate::per_second(100), ..rules() });
    let from = |port| SocketAddr::from(([198, 51, 100, 1], port));
    let answered = (1..=150u16)
        .filter(|port| {
            let node = u8::try_from(port % 5).unwrap();
            !relay.one(from(*port), &discover(node), now).is_empty()
        })
        .count();
    assert_eq!(answered, 100);
    assert_eq!(relay.dropped(PilotDrop::DISCOVER_LIMITED), 50);
    relay.one(from(7), &[3, 0, 0, 0, 1, 0, 0, 0, 2], now);
    assert_eq!(relay.dropped(PilotDrop::DISCOVER_LIMITED), 51, "a punch passes the limit");
    assert_eq!(relay.one(at(2), &discover(6), now).len(), 1, "another address");
    assert_eq!(relay.one(from(7), &discover(6), now + SECOND).len(), 1, "a second later");
}

#[test]
fn clients_behind_one_translator_have_discovers_and_punches_of_their_own() {
    let (mut relay, now) = (Fixture::new(), Instant::now());
    let translators = translators();
    let punch = PunchRules { allow: PunchAllow::List(Vec::new()), ..punch_rules() };
    let discover_once = Rate::per_second(1).with_burst(2);
    relay.relay.update(Rules { punch, discover: discover_once, translators, ..rules() });
    for host in 1..=8 {
        let from = format!("[2001:db8:64::198.51.100.{host}]:4000").parse().unwrap();
        assert_eq!(relay.one(from, &discover(host), now).len(), 1, "{host}");
        relay.one(from, &[3, 0, 0, 0, host, 0, 0, 0, 99], now);
    }
    assert_eq!(relay.dropped(PilotDrop::DISCOVER_LIMITED), 0);
    assert_eq!(relay.dropped(PilotDrop::PUNCH_SOURCE_LIMITED), 0);
    assert_eq!(relay.dropped(PilotDrop::PUNCH_UNKNOWN_TARGET), 8);
    // The same client, without the translator.
    assert_eq!(relay.one(at(1), &discover(9), now), []);
    assert_eq!(relay.dropped(PilotDrop::DISCOVER_LIMITED), 1);
}

#[test]
fn address_whose_ports_are_forged_was_answered_at_its_full_rate_by_each_thread() {
    let (mut relay, now) = (Fixture::with_sockets(20), Instant::now());
    relay.relay.update(Rules { discover: Rate::per_second(400), ..rules() });
    let mut answered = 0;
    for _ in 0..20 {
        relay.buckets = relay.relay.worker(20);
        answered += (1..=100)
            .filter(|port| {
                let from = SocketAddr::new(at(1).ip(), *port);
                !relay.one(from, &discover(0), now).is_empty()
            })
            .count();
    }
    assert_eq!(answered, 400);
}

#[test]
fn flood_in_the_name_of_an_address_has_none_of_its_nodes_forgotten() {
    let (mut relay, t0) = (Fixture::new(), Instant::now());
    relay.relay.update(Rules { discover: Rate::per_second(100), ..rules() });
    relay.one(at(1), &discover(1), t0);
    let later = t0 + SECOND * 590;
    let forged = SocketAddr::new(at(1).ip(), 9);
    (0..200).for_each(|_| drop(relay.one(forged, &discover(0), later)));
    assert_eq!(relay.one(at(1), &discover(1), later), [], "its heartbeat is over the limit");
    relay.relay.router.sweep(t0 + SECOND * 700);
    let delivered = relay.one(at(2), &packet(2, 1, b"x"), t0 + SECOND * 700);
    assert_eq!(delivered, [(at(1), delivery(2, b"x"))]);
}

#[test]
fn discovers_in_the_name_of_a_beacon_do_not_use_up_its_syncs() {
    let (mut relay, now) = (Fixture::new(), Instant::now());
    relay.relay.update(Rules { discover: Rate::per_second(100), ..rules() });
    relay.relay.beacons.list([at(8)]);
    let forged = SocketAddr::new(at(8).ip(), 9);
    (0..200).for_each(|_| drop(relay.one(forged, &discover(0), now)));
    relay.one(at(8), &[7, 0, 0, 0, 8, 0, 1, 0, 0, 0, 31], now);
    assert_eq!(relay.relay.table.learnt_count(), 1);
}

#[test]
fn spec_6_4_own_address_that_cannot_be_told_is_refused() {
    let (relay, now) = (Fixture::new(), Instant::now());
    let bound = SocketAddr::from(([0, 0, 0, 0], 9001));
    let look = |from: &str, to: &str| {
        let to = Some(to.parse().unwrap());
        relay.relay.is_own_socket(bound, from.parse().unwrap(), to, now)
    };
    assert_eq!(look("198.51.100.1:9001", "192.0.2.1"), Locality::Unknown);
    assert_eq!(look("198.51.100.1:9002", "192.0.2.1"), Locality::Foreign, "another port");
    assert_eq!(look("192.0.2.1:9001", "192.0.2.1"), Locality::Local);
    relay.relay.local.refresh(now).unwrap();
    assert_eq!(look("198.51.100.1:9001", "192.0.2.1"), Locality::Foreign);
    assert_eq!(look("127.0.0.9:9001", "192.0.2.1"), Locality::Local);
}

#[test]
fn forged_syncs_from_the_ports_of_a_beacon_shut_no_beacon_out() {
    let (mut relay, t0) = (Fixture::new(), Instant::now());
    let other = at(9);
    relay.relay.beacons.list([at(8), other]);
    let sync = |node: u8| [7, 0, 0, 0, 8, 0, 1, 0, 0, 0, node];
    let mut now = t0;
    for port in 5_000..5_064 {
        now += SECOND;
        relay.one(SocketAddr::new(at(8).ip(), port), &sync(30), now);
    }
    assert!(relay.relay.beacons.sources() <= 4);
    relay.one(at(8), &sync(31), now);
    relay.one(other, &sync(32), now);
    for (node, beacon) in [(31, at(8)), (32, other)] {
        let whole = packet(2, node, b"x");
        assert_eq!(relay.one(at(2), &whole, now), [(beacon, whole.clone())]);
    }
    // What a forgotten source published is forgotten with it.
    assert_eq!(relay.relay.table.learnt_count(), 3);
    relay.relay.expire_beacons(now + SECOND * 90);
    assert_eq!((relay.relay.beacons.sources(), relay.relay.table.learnt_count()), (0, 0));
}

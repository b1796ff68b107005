//! A real link of MTU 1,500: packets of any size pass in both directions, and none forbids
//! fragmentation (SPEC §6.5).
//!
//! The relay runs in a network namespace of its own, behind a pair of virtual interfaces.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use socket2::{Domain, Protocol, Socket, Type};

use crate::cells::assert_balance;
use crate::control::say;
use crate::harness::{Node, PATIENCE, Relay};
use crate::peer::{Peer, UdpNode, frame, relay as packet};

/// A namespace with one end of a link; both go when this is dropped.
struct Namespace {
    name: String,
    /// Our end of the link.
    here: Ipv4Addr,
    /// The end in the namespace.
    there: Ipv4Addr,
}

impl Namespace {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (number, process) = (NEXT.fetch_add(1, Ordering::Relaxed), std::process::id());
        let name = format!("br{process}-{number}");
        // 198.18.0.0/15 is for tests of networks, its other half for those of clusters.
        let network = free_network(Ipv4Addr::new(198, 18, 0, 0), 4, process * 8 + number);
        let end = |host| Ipv4Addr::from(network + host);
        let namespace = Self { name, here: end(1), there: end(2) };
        let Self { name, here, there } = &namespace;
        ip(&format!("netns add {name}"));
        ip(&format!("link add {name} mtu 1500 type veth peer name eth0 mtu 1500 netns {name}"));
        ip(&format!("address add {here}/30 dev {name}"));
        ip(&format!("link set {name} up"));
        ip(&format!("-n {name} address add {there}/30 dev eth0"));
        ip(&format!("-n {name} link set eth0 up"));
        ip(&format!("-n {name} link set lo up"));
        namespace
    }

    /// A relay in the namespace, which knows this node.
    fn relay(&self, node: &Node) -> Relay {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, env!("CARGO_BIN_EXE_beacon-relay")]);
        let bind = format!("{}:0", self.there);
        let flags = ["--wss-bind", &bind, "--udp-bind", &bind, "--admin-bind", &bind];
        Relay::with_nodes_by(command, &[node], &[&flags[..], &["--public-plaintext"]].concat())
    }

    /// A node at our end of the link.
    fn node(&self, relay: &Relay, id: u32) -> UdpNode {
        let node = UdpNode::at(&format!("{}:0", self.here), relay.udp, id);
        assert_eq!(node.observed(), node.address());
        node
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The link goes with the namespace that has its other end.
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

/// The first address of a network of so many, the `start`th of this /16 or a later one that no
/// interface is in: another run may be under way, or was killed and left its own behind.
pub(crate) fn free_network(among: Ipv4Addr, size: u32, start: u32) -> u32 {
    let shown = ip("-4 -oneline address show");
    let address = |word: &str| word.split_once('/')?.0.parse().map(Ipv4Addr::to_bits).ok();
    let taken: Vec<_> = shown.split_whitespace().filter_map(address).collect();
    let count = 0x1_0000 / size;
    let mut networks = (start..start + count).map(|n| among.to_bits() + n % count * size);
    let is_free = |first: &u32| !taken.iter().any(|one| (*first..*first + size).contains(one));
    networks.find(is_free).expect("a network is free")
}

/// Runs `ip`, which must succeed; what it says.
pub(crate) fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.expect("this test needs `ip` (iproute2); `make setup` installs it");
    assert!(
        output.status.success(),
        "this test makes a network namespace, for which it must run as root; \
         `ip {arguments}`: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn node_known_by_an_address_of_ours_that_was_removed_still_gets_its_packets() {
    let namespace = Namespace::new();
    let Namespace { name, here, there } = &namespace;
    let second = free_network(Ipv4Addr::new(198, 18, 0, 0), 4, std::process::id() + 0x2000);
    let second = Ipv4Addr::from(second);
    ip(&format!("-n {name} address add {second}/32 dev lo"));
    ip(&format!("route add {second}/32 via {there} dev {name}"));
    let mut command = Command::new("ip");
    command.args(["netns", "exec", name, env!("CARGO_BIN_EXE_beacon-relay")]);
    let bind = format!("{there}:0");
    let binds = ["--wss-bind", &bind, "--admin-bind", &bind, "--udp-bind", "0.0.0.0:0"];
    let arguments = [&binds[..], &["--public-plaintext"]].concat();
    let relay = Relay::with_nodes_by(command, &[&Node::new(11)], &arguments);
    let node = |ours: Ipv4Addr, id| {
        let relay = SocketAddr::from((ours, relay.udp.port()));
        let node = UdpNode::at(&format!("{here}:0"), relay, id);
        assert_eq!(node.observed(), node.address());
        node
    };
    let (known, sender) = (node(second, 21), node(*there, 22));
    sender.relay(21, b"before");
    assert_eq!(known.delivery(), (22, b"before".to_vec()));

    ip(&format!("-n {name} address delete {second}/32 dev lo"));

    sender.relay(21, b"after");
    assert_eq!(known.delivery(), (22, b"after".to_vec()));
    let gone = "pilot_beacon_udp_send_retries_total{reason=\"source_gone\"}";
    // It counts after it has sent.
    relay.wait_for_metric(gone, 1.0);
    assert_balance(&relay);
    // The relay reads its addresses every 5 s.
    let gone = format!("{second}, which is gone");
    let explained = || say(&relay, &["explain", "21"]).contains(&gone).then_some(());
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    assert!(crate::harness::look_until(end, explained).is_some(), "nobody says that it is gone");
}

#[test]
fn spec_6_5_packets_of_every_size_cross_a_link_of_1500_bytes() {
    let namespace = Namespace::new();
    let wss_node = Node::new(11);
    let relay = namespace.relay(&wss_node);
    let (a, b) = (namespace.node(&relay, 21), namespace.node(&relay, 22));
    let mut wss = Peer::log_in_for_largest(relay.wss, &wss_node);

    // 1,443 and 9 bytes are the longest packet that is sent in runs, 1,444 a byte too much.
    for length in [0, 60, 1_200, 1_443, 1_444, 1_463, 1_464, 4_200, 16_418, 65_000, 65_498] {
        let payload: Vec<u8> = (0..length).map(|n: u32| n.to_be_bytes()[3]).collect();
        a.relay(22, &payload);
        assert!(b.delivery() == (21, payload.clone()), "{length} bytes, UDP to UDP");
        a.relay(11, &payload);
        assert!(wss.delivery() == (21, payload.clone()), "{length} bytes, UDP to WSS");
        wss.relay(11, 22, &payload);
        assert!(b.delivery() == (11, payload.clone()), "{length} bytes, WSS to UDP");
    }
    assert_balance(&relay);
}

#[test]
fn spec_6_5_runs_of_equal_packets_cross_a_link_of_1500_bytes() {
    let namespace = Namespace::new();
    let wss_node = Node::new(11);
    let relay = namespace.relay(&wss_node);
    let b = namespace.node(&relay, 22);
    let mut wss = Peer::log_in(relay.wss, &wss_node);
    for (length, count) in [(1_200, 40), (1_443, 40), (4_200, 15), (60, 60)] {
        // One write is one read of the relay, so that what leaves is one run.
        let frames = (0..count).map(|number| frame(0x82, &packet(11, 22, &vec![number; length])));
        wss.write(&frames.flatten().collect::<Vec<u8>>());
        for number in 0..count {
            assert!(b.delivery() == (11, vec![number; length]), "{number} of {length} bytes");
        }
    }
    assert_balance(&relay);
}

#[test]
fn spec_6_5_no_datagram_forbids_fragmentation() {
    let namespace = Namespace::new();
    let relay = namespace.relay(&Node::new(11));
    let (a, b) = (namespace.node(&relay, 21), namespace.node(&relay, 22));
    // Sees each datagram with its IP header; only whole ones show the bit of their sender.
    let mut raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)).unwrap();
    raw.bind(&SocketAddr::from((namespace.here, 0)).into()).unwrap();
    raw.set_read_timeout(Some(PATIENCE)).unwrap();
    for length in [60, 1_200] {
        a.relay(22, &vec![7; length]);
        b.delivery();
        let mut datagram = [0; 2_048];
        let read = raw.read(&mut datagram).unwrap();
        assert_eq!(read, 20 + 8 + 5 + length);
        assert_eq!(datagram[12..16], namespace.there.octets(), "from the relay");
        assert_eq!(datagram[6] & 0x40, 0, "don't fragment");
    }
}

#[test]
fn spec_6_4_loopback_is_no_endpoint_of_a_relay_that_is_not_bound_there() {
    let namespace = Namespace::new();
    // In our namespace, at our end of the link, where loopback can reach it.
    let bind = format!("{}:0", namespace.here);
    let relay = Relay::start(["--udp-bind", &bind]);
    let forger = UdpNode::silent(relay.udp, 21);
    forger.discover();
    relay.wait_for_dropped("forbidden_endpoint", 1);
    namespace.node(&relay, 22);
    assert_eq!(relay.metric("pilot_beacon_udp_nodes"), 1.0);
    assert_balance(&relay);
}

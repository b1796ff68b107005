//! Discover, endpoints and their owners, and the limits of sources, over real sockets.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::cells::assert_balance;
use crate::harness::{Node, PATIENCE, Relay, look_until};
use crate::peer::{Peer, UdpNode, address, discover, punch, relay as packet, sync};
use crate::upgrade::limit_descriptors;

/// How often something happened to an endpoint.
fn events(relay: &Relay, event: &str) -> f64 {
    relay.metric(&format!("pilot_beacon_endpoint_events_total{{event=\"{event}\"}}"))
}

/// An address of the relay, which is bound to all of them.
fn on(relay: &Relay, ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), relay.udp.port())
}

/// Most tokens that buckets have been given at this rate since `began`.
pub(crate) fn refilled(per_second: u128, began: Instant) -> usize {
    usize::try_from(began.elapsed().as_micros() * per_second / 1_000_000 + 1).unwrap()
}

#[test]
fn spec_2_2_address_is_told_in_4_bytes_over_ipv4_and_16_over_ipv6() {
    let relay = Relay::start(["--udp-bind", "[::]:0"]);
    for (ip, id, length) in [("127.0.0.1", 21, 4), ("::1", 22, 16)] {
        let to = on(&relay, ip);
        let node = UdpNode::at(&SocketAddr::new(to.ip(), 0).to_string(), to, id);
        for kind in [0x01, 0x08] {
            node.send(&discover(kind, id, &[]));
            let reply = node.receive();
            assert_eq!(reply[1], length);
            assert_eq!(address(0x02, &reply), node.address());
        }
    }
    assert_balance(&relay);
}

#[test]
fn spec_2_1_address_question_is_answered_and_registers_nothing() {
    let relay = Relay::start(["--udp-bind", "[::]:0"]);
    for ip in ["127.0.0.1", "::1"] {
        let to = on(&relay, ip);
        let socket = UdpNode::at(&SocketAddr::new(to.ip(), 0).to_string(), to, 0);
        let key = Node::new(21).key.verifying_key().to_bytes();
        for question in [discover(0x01, 0, &[]), discover(0x08, 0, &[]), discover(0x01, 0, &key)] {
            socket.send(&question);
            assert_eq!(address(0x02, &socket.receive()), socket.address());
        }
    }
    assert_eq!(relay.metric("pilot_beacon_udp_nodes"), 0.0);
    assert_eq!((events(&relay, "registered"), relay.dropped("zero_id")), (0.0, 0));
    let handled = "pilot_beacon_packets_handled_total{kind=\"discover\"}";
    assert_eq!(relay.metric(handled), 6.0);
    assert_balance(&relay);
}

#[test]
fn spec_6_reply_and_delivery_leave_from_the_address_that_was_asked() {
    let relay = Relay::start(["--udp-bind", "[::]:0"]);
    let asked = on(&relay, "127.0.0.5");
    let node = UdpNode::silent(asked, 21);
    node.discover();
    let mut buffer = [0; 64];
    assert_eq!(node.socket.recv_from(&mut buffer).unwrap().1, asked);

    let other = UdpNode::register(on(&relay, "127.0.0.6"), 22);
    other.relay(21, b"hello");
    let (length, from) = node.socket.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[5..length], from), (&b"hello"[..], asked));
}

#[test]
fn spec_2_1_deliveries_name_their_destination_after_a_discover_ex() {
    let relay = Relay::start([] as [&str; 0]);
    let (node, other) = (UdpNode::register(relay.udp, 21), UdpNode::register(relay.udp, 22));
    other.relay(21, b"before");
    assert_eq!(node.delivery(), (22, b"before".to_vec()));
    node.send(&discover(0x08, 21, &[]));
    address(0x02, &node.receive());
    other.relay(21, b"after");
    assert_eq!(node.receive(), [&[9, 0, 0, 0, 22, 0, 0, 0, 21], &b"after"[..]].concat());
    // A plain heartbeat does not take it back.
    node.observed();
    other.relay(21, b"still");
    assert_eq!(node.receive()[0], 9);
}

#[test]
fn spec_2_1_contradicting_and_unusable_keys_are_counted_and_answered_all_the_same() {
    let (listed, first, second) = (Node::new(21), Node::new(22), Node::new(23));
    let key = |node: &Node| node.key.verifying_key().to_bytes();
    let relay = Relay::with_nodes(&[&listed], &[]);
    let ask = |node: &UdpNode, key: &[u8]| {
        node.send(&discover(0x01, node.id, key));
        assert_eq!(address(0x02, &node.receive()), node.address());
    };

    let (a, b) = (UdpNode::silent(relay.udp, 21), UdpNode::silent(relay.udp, 22));
    ask(&a, &key(&listed));
    ask(&b, &key(&first));
    ask(&b, &key(&first));
    ask(&b, &[&key(&first)[..], b"fields of later versions"].concat());
    ask(&b, &key(&second)[..31]);
    assert_eq!(events(&relay, "key_ignored"), 0.0);

    ask(&a, &key(&first));
    assert_eq!(events(&relay, "key_ignored"), 1.0, "the directory beats what a node shows");
    ask(&b, &key(&second));
    assert_eq!(events(&relay, "key_ignored"), 2.0, "the first key stays");
    let no_point = [&[2][..], &[0; 31]].concat();
    ask(&UdpNode::silent(relay.udp, 24), &no_point);
    assert_eq!(events(&relay, "key_ignored"), 3.0, "no point of the curve");
    let small_order = [&[1][..], &[0; 31]].concat();
    ask(&UdpNode::silent(relay.udp, 25), &small_order);
    assert_eq!(events(&relay, "key_ignored"), 4.0, "a key that signs anything");
    assert_balance(&relay);
}

#[test]
fn spec_6_2_early_move_is_answered_and_not_followed() {
    let relay = Relay::start([] as [&str; 0]);
    let (node, other) = (UdpNode::register(relay.udp, 21), UdpNode::register(relay.udp, 22));
    let elsewhere = UdpNode::register(relay.udp, 21);
    assert_eq!((events(&relay, "registered"), events(&relay, "move_limited")), (2.0, 1.0));
    other.relay(21, b"to the first");
    assert_eq!(node.delivery(), (22, b"to the first".to_vec()));
    elsewhere.observed();
    assert_eq!(relay.metric("pilot_beacon_udp_nodes"), 2.0);
}

#[test]
fn spec_6_1_full_table_forgets_the_oldest_that_never_came_back() {
    let relay = Relay::start(["--max-nodes", "3"]);
    let nodes = [21, 22, 23, 24].map(|id| UdpNode::register(relay.udp, id));
    assert_eq!((events(&relay, "registered"), events(&relay, "evicted")), (4.0, 1.0));
    assert_eq!(relay.metric("pilot_beacon_udp_nodes"), 3.0);
    nodes[3].relay(21, b"forgotten");
    nodes[3].relay(22, b"still here");
    assert_eq!(nodes[1].delivery(), (24, b"still here".to_vec()));
    assert_eq!(relay.dropped("unknown_destination"), 1);
    assert_balance(&relay);
}

#[test]
fn spec_2_broken_packets_are_counted_by_reason_and_never_answered() {
    let relay = Relay::start([] as [&str; 0]);
    let node = UdpNode::silent(relay.udp, 21);
    for (broken, reason) in [
        (&[] as &[u8], "empty"),
        (&[0x00], "unknown_type"),
        (&[0x0b, 0, 0, 0, 1], "unknown_type"),
        (&[0x01, 0, 0, 0], "truncated"),
        (&[0x05, 0, 0, 0, 1, 0, 0, 0], "truncated"),
        (&[0x07, 0, 0, 0, 1, 0, 2, 0, 0, 0, 1], "truncated"),
        (&[0x03, 0, 0, 0, 0, 0, 0, 0, 1], "zero_id"),
        (&[0x05, 0, 0, 0, 1, 0, 0, 0, 0], "zero_id"),
        (&[0x02, 4, 127, 0, 0, 1, 0, 9], "not_for_relay"),
        (&[0x04, 4, 127, 0, 0, 1, 0, 9], "not_for_relay"),
        (&[0x06, 0, 0, 0, 1], "not_for_relay"),
        (&[0x09, 0, 0, 0, 1, 0, 0, 0, 2], "not_for_relay"),
        (&[0x0a], "truncated"),
        (&[0x0a, 1], "not_for_relay"),
        (&[0x0a, 1, 0, 0, 0, 21, 0, 0, 0, 21], "not_for_relay"),
    ] {
        let before = relay.dropped(reason);
        node.send(broken);
        node.observed();
        assert_eq!(relay.dropped(reason), before + 1, "{broken:?}");
    }
    assert_balance(&relay);
}

#[test]
fn spec_6_3_packet_in_the_name_of_a_wss_node_is_dropped() {
    let (a, b) = (Node::new(11), Node::new(12));
    let relay = Relay::with_nodes(&[&a, &b], &[]);
    let (mut wss_a, mut wss_b) = (Peer::log_in(relay.wss, &a), Peer::log_in(relay.wss, &b));
    let (victim, forger) = (UdpNode::register(relay.udp, 21), UdpNode::register(relay.udp, 22));

    forger.send(&packet(11, 12, b"forged"));
    forger.send(&packet(11, 21, b"forged"));
    forger.observed();
    assert_eq!(relay.dropped("sender_is_wss"), 2);
    wss_a.relay(11, 12, b"real");
    assert_eq!(wss_b.delivery(), (11, b"real".to_vec()));
    wss_a.relay(11, 21, b"real");
    assert_eq!(victim.delivery(), (11, b"real".to_vec()));
    assert_balance(&relay);
}

#[test]
fn spec_6_3_wss_node_cannot_be_claimed_during_its_session_nor_just_after() {
    let a = Node::new(11);
    let relay = Relay::with_nodes(&[&a], &[]);
    let own = UdpNode::register(relay.udp, 11);
    let target = UdpNode::register(relay.udp, 21);
    let session = Peer::log_in_from("198.51.100.7", relay.wss, &a);
    let forger = UdpNode::register(relay.udp, 22);
    let claim = |packet: &[u8]| {
        forger.send(packet);
        assert_eq!(address(0x02, &forger.receive()), forger.address(), "it asked, and is told");
    };

    claim(&discover(0x01, 11, &[]));
    claim(&discover(0x08, 11, &[]));
    forger.send(&punch(11, 21, &[]));
    forger.observed();
    assert_eq!((events(&relay, "held"), relay.dropped("claim_of_wss_node")), (3.0, 1));
    assert_eq!(own.observed(), own.address());

    drop(session);
    relay.wait_for_metric("pilot_beacon_wss_active", 0.0);
    claim(&discover(0x01, 11, &[]));
    assert_eq!((events(&relay, "held"), events(&relay, "moved")), (5.0, 0.0));
    assert_eq!(own.observed(), own.address(), "the endpoint from before is the node's own");
    target.relay(11, b"to the node itself");
    assert_eq!(own.delivery(), (21, b"to the node itself".to_vec()));
    assert_balance(&relay);
}

#[test]
fn spec_6_3_node_that_moves_from_compat_mode_to_udp_is_reached_there_at_once() {
    let a = Node::new(11);
    let ends: [&dyn Fn(&mut Peer); 3] =
        [&|peer| peer.send(8, &[0x03, 0xe8]), &|peer| peer.send(8, b""), &|peer| {
            peer.send(1, br#"{"type":"bye"}"#)
        }];
    for end in ends {
        let relay = Relay::with_nodes(&[&a], &[]);
        let other = UdpNode::register(relay.udp, 21);
        let mut session = Peer::log_in_from("198.51.100.7", relay.wss, &a);
        end(&mut session);
        assert_eq!(session.read_close().0, 1000);
        relay.wait_for_metric("pilot_beacon_wss_active", 0.0);
        let node = UdpNode::register(relay.udp, 11);
        other.relay(11, b"over UDP");
        assert_eq!(node.delivery(), (21, b"over UDP".to_vec()));
        assert_balance(&relay);
    }
}

#[test]
fn spec_6_3_close_that_a_proxy_sends_as_well_frees_the_name_for_its_client_alone() {
    let a = Node::new(11);
    for (client, registered) in [("198.51.100.7", 0.0), ("127.0.0.1", 1.0)] {
        let relay = Relay::with_nodes(&[&a], &[]);
        let mut session = Peer::log_in_from(client, relay.wss, &a);
        session.send(8, &[0x03, 0xe9]);
        assert_eq!(session.read_close().0, 1001);
        relay.wait_for_metric("pilot_beacon_wss_active", 0.0);
        let node = UdpNode::silent(relay.udp, 11);
        assert_eq!(node.observed(), node.address());
        assert_eq!(relay.metric("pilot_beacon_udp_nodes"), registered, "{client}");
    }
}

#[test]
fn spec_5_2_discover_over_wss_never_makes_a_udp_node() {
    let a = Node::new(11);
    let relay = Relay::with_nodes(&[&a], &[]);
    let mut peer = Peer::log_in(relay.wss, &a);
    peer.send(2, &discover(0x01, 11, &[]));
    let (opcode, reply) = peer.read().unwrap();
    assert_eq!(
        (opcode, address(0x02, &reply)),
        (2, peer.stream.local_addr().unwrap().as_socket().unwrap())
    );
    // An address question, which makes no difference to what comes later.
    peer.send(2, &discover(0x08, 0, &[]));
    let (opcode, reply) = peer.read().unwrap();
    assert_eq!(opcode, 2);
    assert_eq!(address(0x02, &reply), peer.stream.local_addr().unwrap().as_socket().unwrap());
    peer.send(2, &discover(0x01, 12, &[]));
    peer.send(2, &punch(11, 21, &[]));
    peer.send(2, &sync(3, &[31]));
    peer.relay(12, 11, b"not mine");
    peer.relay(11, 11, b"to myself");
    assert_eq!(peer.delivery(), (11, b"to myself".to_vec()));
    for (reason, count) in [
        ("discover_for_other", 1),
        ("punch_over_wss", 1),
        ("not_over_wss", 1),
        ("sender_mismatch", 1),
    ] {
        assert_eq!(relay.dropped(reason), count, "{reason}");
    }
    assert_eq!(relay.metric("pilot_beacon_udp_nodes"), 0.0);
    assert_balance(&relay);
}

#[test]
fn spec_6_4_listed_beacon_and_advertised_address_are_no_endpoints() {
    let sockets = ["127.0.0.1:0"; 2].map(|any| UdpSocket::bind(any).unwrap());
    let [beacon, advertised] = sockets.each_ref().map(|s| s.local_addr().unwrap().to_string());
    let flags = ["--peers", &beacon, "--advertise-addr", &advertised, "--punch-allow", "*"];
    let relay = Relay::start(flags);
    let mut forbidden = 0;
    for socket in sockets {
        let node = UdpNode::with(socket, relay.udp, 21);
        for claim in [discover(0x01, 21, &[]), punch(21, 22, &[])] {
            node.send(&claim);
            forbidden += 1;
            relay.wait_for_dropped("forbidden_endpoint", forbidden);
        }
    }
    assert_eq!(relay.metric("pilot_beacon_udp_nodes"), 0.0);
    // Another port of the same machine is another matter.
    UdpNode::register(relay.udp, 21);
    assert_balance(&relay);
}

#[test]
fn spec_6_4_own_address_is_no_endpoint() {
    let relay = Relay::start(["--udp-bind", "[::]:0"]);
    // A socket that shares the relay's port sends in its name, as a forged packet would.
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&on(&relay, "127.0.0.9").into()).unwrap();
    let forger = UdpNode::with(socket.into(), on(&relay, "127.0.0.1"), 21);
    forger.discover();
    relay.wait_for_dropped("forbidden_endpoint", 1);
    assert_eq!(relay.metric("pilot_beacon_udp_nodes"), 0.0);
    assert!(forger.is_silent(Duration::from_millis(50)));
}

#[test]
fn relay_without_descriptors_registers_none_of_its_own_addresses() {
    let relay = Relay::start(["--udp-bind", "[::]:0", "--canary-interval", "0s"]);
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&on(&relay, "127.0.0.9").into()).unwrap();
    let forger = UdpNode::with(socket.into(), on(&relay, "127.0.0.1"), 21);
    let node = UdpNode::silent(on(&relay, "127.0.0.1"), 22);

    // Below those that are open: it can open none.
    limit_descriptors(&relay, 3);
    relay.wait_for_line("cannot read the addresses of this machine");
    forger.discover();
    assert_eq!(node.observed(), node.address());
    assert!(forger.is_silent(Duration::from_millis(50)));

    limit_descriptors(&relay, 1_000);
    relay.wait_for_dropped("forbidden_endpoint", 1);
    assert_eq!(relay.metric("pilot_beacon_udp_nodes"), 1.0);
    assert!(relay.metric("pilot_beacon_local_address_failures_total") >= 1.0);
}

#[test]
fn spec_6_6_discovers_of_one_address_are_limited_and_others_are_answered() {
    let flags = ["--discover-rate", "1", "--discover-burst", "50", "--udp-bind", "[::]:0"];
    let relay = Relay::start(flags);
    let to = on(&relay, "127.0.0.1");
    let began = Instant::now();
    // From many ports, in the name of many nodes and of nobody: one address all the same.
    let flood: Vec<_> = (0..100).map(|n| UdpNode::at("127.0.0.2:0", to, n % 50)).collect();
    flood.iter().for_each(UdpNode::discover);
    let other = UdpNode::at("127.0.0.3:0", to, 99);
    assert_eq!(other.observed(), other.address());
    // Each receiving thread has a share; who gets which flow is the kernel's choice.
    let handled = "pilot_beacon_packets_handled_total{kind=\"discover\"}";
    let counted = || relay.metric(handled) + relay.dropped("discover_limited") as f64;
    // All of the flood, and the other.
    let all = look_until(Instant::now() + PATIENCE, || (counted() >= 101.0).then_some(()));
    assert!(all.is_some(), "{}", relay.metrics());
    let threads = std::thread::available_parallelism().unwrap().get();
    let share = 50usize.div_ceil(threads).max(10);
    let most = threads * (share + refilled(1, began));
    let answered = 100 - relay.dropped("discover_limited");
    assert!((share..=most).contains(&answered), "{answered} of {most}");
    assert_balance(&relay);
}

#[test]
fn spec_6_3_observed_sender_check_drops_what_is_not_from_the_senders_endpoint() {
    let a = Node::new(11);
    let relay = Relay::with_nodes(&[&a], &["--udp-sender-check", "observed"]);
    let mut wss = Peer::log_in(relay.wss, &a);
    let (node, forger) = (UdpNode::register(relay.udp, 21), UdpNode::register(relay.udp, 22));
    forger.send(&packet(21, 11, b"in the name of 21"));
    forger.send(&packet(23, 11, b"of nobody"));
    forger.observed();
    assert_eq!(relay.dropped("sender_not_observed"), 2);
    node.relay(11, b"its own");
    assert_eq!(wss.delivery(), (21, b"its own".to_vec()));
    wss.relay(11, 21, b"sessions are not asked");
    assert_eq!(node.delivery(), (11, b"sessions are not asked".to_vec()));
    assert_balance(&relay);
}

#[test]
fn spec_6_6_udp_source_over_its_rate_is_dropped_and_others_are_not() {
    let relay = Relay::start(["--relay-rate", "50"]);
    let target = UdpNode::register(relay.udp, 20);
    let (fast, slow) = (UdpNode::register(relay.udp, 21), UdpNode::register(relay.udp, 22));
    let began = Instant::now();
    for _ in 0..80 {
        // The source is the address, whatever sender it claims.
        fast.send(&packet(30, 20, b"fast"));
    }
    fast.observed();
    let refilled = refilled(50, began);
    for _ in 0..40 {
        slow.relay(20, b"slow");
    }
    slow.observed();
    let dropped = relay.dropped("rate_limited");
    assert!((30_usize.saturating_sub(refilled)..=30).contains(&dropped), "{dropped}, {refilled}");
    let deliveries = (0..120 - dropped).map(|_| target.delivery().0);
    assert_eq!(deliveries.filter(|sender| *sender == 22).count(), 40);
    assert_balance(&relay);
}

#[test]
fn spec_6_6_wss_node_over_its_rate_is_dropped_and_others_are_not() {
    let (a, b) = (Node::new(11), Node::new(12));
    let relay = Relay::with_nodes(&[&a, &b], &["--relay-rate", "50"]);
    let (mut fast, mut slow) = (Peer::log_in(relay.wss, &a), Peer::log_in(relay.wss, &b));
    let target = UdpNode::register(relay.udp, 20);
    let began = Instant::now();
    for _ in 0..80 {
        fast.relay(11, 20, b"fast");
    }
    fast.send(9, b"all read");
    assert_eq!(fast.read().unwrap().0, 10);
    let refilled = refilled(50, began);
    for _ in 0..40 {
        slow.relay(12, 20, b"slow");
    }
    slow.send(9, b"all read");
    assert_eq!(slow.read().unwrap().0, 10);
    let dropped = relay.dropped("rate_limited");
    assert!((30_usize.saturating_sub(refilled)..=30).contains(&dropped), "{dropped}, {refilled}");
    let deliveries = (0..120 - dropped).map(|_| target.delivery().0);
    assert_eq!(deliveries.filter(|sender| *sender == 12).count(), 40);
    assert_balance(&relay);
}

#[test]
fn spec_6_6_bytes_of_a_source_are_limited_over_udp_and_wss() {
    let a = Node::new(11);
    let relay = Relay::with_nodes(&[&a], &["--relay-bytes", "10000"]);
    let mut wss = Peer::log_in(relay.wss, &a);
    let (target, udp) = (UdpNode::register(relay.udp, 20), UdpNode::register(relay.udp, 21));
    let began = Instant::now();
    for _ in 0..20 {
        udp.relay(20, &[7; 991]);
        wss.relay(11, 20, &[7; 991]);
    }
    udp.observed();
    wss.send(9, b"all read");
    assert_eq!(wss.read().unwrap().0, 10);
    let refilled = refilled(20, began);
    let dropped = relay.dropped("byte_limited");
    assert!((20_usize.saturating_sub(refilled)..=20).contains(&dropped), "{dropped}, {refilled}");
    (0..40 - dropped).for_each(|_| assert_eq!(target.delivery().1.len(), 991));
    assert_balance(&relay);
}

#[test]
fn datagrams_that_the_kernel_drops_are_counted() {
    let relay = Relay::start([] as [&str; 0]);
    let node = UdpNode::register(relay.udp, 21);
    relay.signal("STOP");
    for _ in 0..20_000 {
        node.relay(22, &[0x5a; 1_200]);
    }
    relay.signal("CONT");
    // The kernel tells it with the next datagram that it takes.
    let counted = look_until(Instant::now() + PATIENCE, || {
        node.relay(22, b"and one more");
        (relay.metric("pilot_beacon_udp_kernel_dropped_total") > 0.0).then_some(())
    });
    counted.expect("24 MB find no room");
    assert_balance(&relay);
}

//! Sessions: one for each node, kept alive by frames, ended for a reason (SPEC §3.5 to §3.8, §5).

use std::time::Duration;

use crate::cells::assert_balance;
use crate::harness::{Node, Relay};
use crate::over::{Over, over_plain_and_tls};
use crate::peer::{AUTH_OK, Peer, UdpNode, direct_probe, frame, signed_text};

over_plain_and_tls!(
    spec_5_3_hundred_logins_of_a_node_leave_one_session_and_it_is_the_last,
    spec_4_5_bye_and_close_end_a_session_gracefully,
    spec_3_7_ping_is_answered_with_its_payload,
    spec_3_7_relay_pings_and_drops_a_peer_that_does_not_answer,
    spec_3_7_session_without_any_frame_ends_and_any_frame_keeps_it,
    spec_3_7_frame_that_comes_byte_by_byte_is_no_sign_of_life,
    spec_3_5_fragmented_packet_is_relayed_whole,
    spec_3_8_broken_framing_ends_the_session_with_its_code,
    spec_4_5_unknown_text_is_ignored,
    spec_5_2_what_a_session_may_not_send_is_dropped_and_counted,
    spec_2_2_discover_behind_a_proxy_shows_the_client_and_no_port,
    spec_5_1_packets_for_a_node_whose_session_ended_go_nowhere,
);

/// Far longer than a test.
const NEVER: &str = "1h";

fn dropped(reason: &str) -> String {
    format!("pilot_beacon_packets_dropped_total{{reason=\"{reason}\"}}")
}

fn ended(reason: &str) -> String {
    format!("pilot_beacon_wss_sessions_ended_total{{reason=\"{reason}\"}}")
}

/// Waits until these many nodes are connected, and no session beside theirs is left.
fn wait_for_sessions(relay: &Relay, count: f64) {
    // In this order: a login makes its node one of them before it counts as a session.
    relay.wait_for_metric("pilot_beacon_wss_active", count);
    relay.wait_for_metric("pilot_beacon_wss_sessions", count);
}

fn spec_5_3_hundred_logins_of_a_node_leave_one_session_and_it_is_the_last(over: Over) {
    let (node, other) = (Node::new(11), Node::new(12));
    let relay = over.relay(&[&node, &other], &["--upgrade-rate", "0"]);
    let mut witness = Peer::log_in(relay.wss, &other);
    // None waits for the one before: of those that are not at once accepted the last one is.
    let mut replaced: Vec<_> = (0..100)
        .map(|_| {
            let mut peer = Peer::upgrade(relay.wss);
            let challenge = peer.challenge();
            peer.reply(&node, &signed_text(11, &challenge, 2), None);
            peer
        })
        .collect();
    let mut last = replaced.pop().unwrap();
    assert_eq!(last.read(), Some((1, AUTH_OK.to_vec())));
    assert_eq!(relay.metric("pilot_beacon_wss_active"), 2.0);

    for peer in &mut replaced {
        // What was in flight when the newer session came, from a connection that may be gone.
        let _gone = std::io::Write::write_all(
            &mut peer.stream,
            &frame(0x82, &crate::peer::relay(11, 12, b"from a replaced session")),
        );
        assert_eq!(peer.read_close(), (1000, "replaced".to_owned()));
    }
    // All the late clean-up is done here, and has not touched the last.
    wait_for_sessions(&relay, 2.0);
    let accepted = relay.metric("pilot_beacon_wss_replacements_total");
    relay.wait_for_metric(&ended("replaced"), accepted);
    let superseded = "pilot_beacon_wss_connections_total{outcome=\"superseded\"}";
    assert_eq!(relay.metric(superseded) + accepted, 99.0);
    relay.wait_for_line("a newer session of the same node replaced the one before");

    witness.relay(12, 11, b"to the last");
    assert_eq!(last.delivery(), (12, b"to the last".to_vec()));
    last.relay(11, 12, b"from the last");
    assert_eq!(witness.delivery(), (11, b"from the last".to_vec()));
    assert_balance(&relay);
}

fn spec_4_5_bye_and_close_end_a_session_gracefully(over: Over) {
    let (node, other) = (Node::new(11), Node::new(12));
    let relay = over.relay(&[&node, &other], &[]);
    let mut witness = Peer::log_in(relay.wss, &other);
    let ends: [(u8, &[u8], u16); 4] = [
        (1, br#"{"type":"bye"}"#, 1000),
        (1, br#" { "reason": "update", "type" : "bye" } "#, 1000),
        (8, b"", 1000),
        (8, &[0x0f, 0xa1], 4001),
    ];
    for (opcode, payload, code) in ends {
        let mut peer = Peer::log_in(relay.wss, &node);
        peer.relay(11, 12, b"last words");
        peer.send(opcode, payload);
        assert_eq!(peer.read_close().0, code);
        assert_eq!(peer.read(), None);
        assert_eq!(witness.delivery(), (11, b"last words".to_vec()));
        wait_for_sessions(&relay, 1.0);
    }
    relay.wait_for_metric(&ended("peer_left"), 3.0);
    relay.wait_for_metric(&ended("peer_closed"), 1.0);
}

fn spec_3_7_ping_is_answered_with_its_payload(over: Over) {
    let node = Node::new(11);
    let relay = over.relay(&[&node], &[]);
    let mut peer = Peer::log_in(relay.wss, &node);
    for payload in [&b""[..], b"x", &[0xa5; 125]] {
        peer.send(9, payload);
        assert_eq!(peer.read(), Some((10, payload.to_vec())));
    }
}

fn spec_3_7_relay_pings_and_drops_a_peer_that_does_not_answer(over: Over) {
    let (node, other) = (Node::new(11), Node::new(12));
    let times = ["--ping-interval", "200ms", "--pong-timeout", "500ms", "--idle-timeout", NEVER];
    let relay = over.relay(&[&node, &other], &times);
    let (mut lively, mut silent) =
        (Peer::log_in(relay.wss, &node), Peer::log_in(relay.wss, &other));
    assert_eq!(silent.read(), Some((9, Vec::new())));
    // Frames of another kind are no answer to a ping.
    silent.relay(12, 99, b"alive, but deaf");
    for _ in 0..5 {
        let (opcode, payload) = lively.read().unwrap();
        assert_eq!(opcode, 9);
        lively.send(10, &payload);
    }
    assert_eq!(silent.read_close(), (1008, "idle".to_owned()));
    relay.wait_for_metric("pilot_beacon_wss_idle_disconnects_total", 1.0);
    assert_eq!(relay.metric("pilot_beacon_wss_active"), 1.0);
}

fn spec_3_7_session_without_any_frame_ends_and_any_frame_keeps_it(over: Over) {
    let nodes = [11, 12, 13, 14].map(Node::new);
    let times = ["--ping-interval", "0s", "--idle-timeout", "1s"];
    let relay = over.relay(&nodes.each_ref(), &times);
    let mut peers = nodes.each_ref().map(|node| Peer::log_in(relay.wss, node));
    // Twice the idle time, in which each of the last three sends another kind of frame.
    for _ in 0..8 {
        let [_, pinging, ponging, talking] = &mut peers;
        pinging.send(9, b"alive");
        assert_eq!(pinging.read(), Some((10, b"alive".to_vec())));
        ponging.send(10, b"unasked");
        talking.relay(14, 99, b"to nobody");
        assert!(talking.is_silent(Duration::from_millis(250)));
    }
    assert_eq!(peers[0].read_close(), (1008, "idle".to_owned()));
    wait_for_sessions(&relay, 3.0);
    relay.wait_for_metric("pilot_beacon_wss_idle_disconnects_total", 1.0);
}

fn spec_3_7_frame_that_comes_byte_by_byte_is_no_sign_of_life(over: Over) {
    let (node, other) = (Node::new(11), Node::new(12));
    let times = ["--ping-interval", "0s", "--idle-timeout", "1s"];
    let relay = over.relay(&[&node, &other], &times);
    let mut peer = Peer::log_in(relay.wss, &node);
    let packet = frame(0x82, &crate::peer::relay(11, 12, &[0; 1_000]));
    // Each wait for an answer paces the next byte.
    let dripped = packet.iter().take_while(|byte| {
        peer.write(&[**byte]);
        peer.is_silent(Duration::from_millis(100))
    });
    assert!(dripped.count() < 100, "a byte each 100 ms keeps a session for over 10 s");
    assert_eq!(peer.read_close(), (1008, "idle".to_owned()));
    relay.wait_for_metric("pilot_beacon_wss_idle_disconnects_total", 1.0);
}

fn spec_3_5_fragmented_packet_is_relayed_whole(over: Over) {
    let (a, b) = (Node::new(11), Node::new(12));
    let relay = over.relay(&[&a, &b], &[]);
    let mut wss_a = Peer::log_in(relay.wss, &a);
    let mut wss_b = Peer::log_in_for_largest(relay.wss, &b);
    let payload = vec![0x5a; 65_527];
    let packet = crate::peer::relay(11, 12, &payload);
    wss_a.write(&frame(0x02, &packet[..1]));
    wss_a.write(&frame(0x00, &packet[1..1_000]));
    wss_a.write(&frame(0x00, b""));
    wss_a.send(9, b"between");
    assert_eq!(wss_a.read(), Some((10, b"between".to_vec())));
    wss_a.write(&frame(0x80, &packet[1_000..]));
    assert!(wss_b.delivery() == (11, payload));
    // One packet, however many frames.
    assert_eq!(relay.metric("pilot_beacon_wss_frames_in_total"), 1.0);
    assert_balance(&relay);
}

fn spec_3_8_broken_framing_ends_the_session_with_its_code(over: Over) {
    let (node, other) = (Node::new(11), Node::new(12));
    let relay = over.relay(&[&node, &other], &[]);
    let mut witness = Peer::log_in(relay.wss, &other);
    let announced =
        |length: u64| [&[0x82, 0xff][..], &length.to_be_bytes(), &[0, 0, 0, 0]].concat();
    let too_long = frame(0x82, &[0; 65_537]);
    let in_fragments = [frame(0x02, &[0; 60_000]), frame(0x80, &[0; 5_537])].concat();
    let cases: [(&str, Vec<u8>, u16); 16] = [
        ("no mask", vec![0x82, 1, 5], 1002),
        ("the close of Caddy 2.6.2, without a mask", vec![0x88, 2, 3, 0xe9], 1002),
        ("a reserved bit", frame(0xc2, b"x"), 1002),
        ("an unknown opcode", frame(0x83, b"x"), 1002),
        ("a long ping", frame(0x89, &[0; 126]), 1002),
        ("a fragmented ping", frame(0x09, b"x"), 1002),
        ("a continuation of nothing", frame(0x80, b"x"), 1002),
        ("a message within another", [frame(0x02, b"x"), frame(0x82, b"x")].concat(), 1002),
        ("a close code that is none", frame(0x88, &[0, 7]), 1002),
        ("a negative length", announced(1 << 63), 1002),
        ("a short length in 64 bits", announced(5), 1002),
        ("a short length in 16 bits", vec![0x82, 0xfe, 0, 5, 0, 0, 0, 0], 1002),
        ("text that is not UTF-8", frame(0x81, &[0xff]), 1007),
        ("65,537 bytes", too_long, 1009),
        ("65,537 bytes, announced", announced(65_537), 1009),
        ("65,537 bytes in fragments", in_fragments, 1009),
    ];
    for (what, bytes, code) in &cases {
        let mut peer = Peer::log_in(relay.wss, &node);
        peer.write(
            &[frame(0x82, &crate::peer::relay(11, 12, b"in order")), bytes.clone()].concat(),
        );
        assert_eq!(peer.read_close().0, *code, "{what}");
        assert_eq!(witness.delivery(), (11, b"in order".to_vec()), "before {what}");
    }
    wait_for_sessions(&relay, 1.0);
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    let broken = cases.len() as f64;
    relay.wait_for_metric(&ended("violation"), broken);
    assert_balance(&relay);
}

fn spec_4_5_unknown_text_is_ignored(over: Over) {
    let (a, b) = (Node::new(11), Node::new(12));
    let relay = over.relay(&[&a, &b], &[]);
    let (mut wss_a, mut wss_b) = (Peer::log_in(relay.wss, &a), Peer::log_in(relay.wss, &b));
    let long = "\"".repeat(65_536);
    let packet = String::from_utf8(crate::peer::relay(11, 12, b"as text")).unwrap();
    let texts =
        ["", "bye", "{", "[]", "null", r#"{"type":"later"}"#, r#"{"type":7}"#, &packet, &long];
    for text in texts {
        wss_a.send(1, text.as_bytes());
    }
    wss_a.write(&[frame(0x01, b"{\"type\":"), frame(0x80, b"\"hello\"}")].concat());
    wss_a.relay(11, 12, b"as a packet");
    assert_eq!(wss_b.delivery(), (11, b"as a packet".to_vec()));
    assert_eq!(relay.metric("pilot_beacon_wss_frames_in_total"), 1.0);
}

fn spec_5_2_what_a_session_may_not_send_is_dropped_and_counted(over: Over) {
    let (a, b) = (Node::new(11), Node::new(12));
    let relay = over.relay(&[&a, &b], &[]);
    let (mut wss_a, mut wss_b) = (Peer::log_in(relay.wss, &a), Peer::log_in(relay.wss, &b));
    let probe = direct_probe(b"PILS");
    let cases: [(&str, &[u8]); 15] = [
        ("sender_mismatch", &crate::peer::relay(12, 12, b"forged")),
        ("discover_for_other", &[0x01, 0, 0, 0, 12]),
        ("discover_for_other", &[0x08, 0, 0, 0, 12]),
        ("punch_over_wss", &[0x03, 0, 0, 0, 11, 0, 0, 0, 12]),
        ("direct_probe", &probe),
        ("direct_probe", &direct_probe(b"PILA")),
        ("unknown_type", &probe[..69]),
        ("unknown_type", &direct_probe(b"PIL1")),
        ("unknown_type", &direct_probe(b"PORT")),
        ("not_over_wss", &[0x07, 0, 0, 0, 1, 0, 1, 0, 0, 0, 12]),
        ("not_for_relay", &[0x06, 0, 0, 0, 11, 1]),
        ("unknown_type", &[0x7f]),
        ("empty", &[]),
        ("truncated", &[0x05, 0, 0, 0, 11, 0, 0]),
        ("zero_id", &crate::peer::relay(11, 0, b"")),
    ];
    for (reason, packet) in cases {
        let before = relay.metric(&dropped(reason));
        wss_a.send(2, packet);
        relay.wait_for_metric(&dropped(reason), before + 1.0);
    }
    // Of what daemons send all the time nobody is told.
    let status = crate::control::ask(&relay, &["status"]);
    assert_eq!(status["packets_dropped"], 15 - 3, "{status}");
    let explained = crate::control::ask(&relay, &["explain", "11"]);
    let drops = explained["drops"].as_array().unwrap();
    assert!(!drops.is_empty() && drops.iter().all(|drop| drop["reason"] != "punch_over_wss"));
    wss_a.relay(11, 12, b"and yet it lives");
    assert_eq!(wss_b.read(), Some((2, [&[6, 0, 0, 0, 11][..], b"and yet it lives"].concat())));
    assert!(wss_a.is_silent(Duration::from_millis(50)), "nothing of it is answered");
    assert_balance(&relay);
}

#[test]
fn spec_5_2_discover_over_a_session_is_answered_there_and_makes_no_udp_node() {
    let (a, b) = (Node::new(11), Node::new(12));
    let relay = Relay::with_nodes(&[&a, &b], &[]);
    let (mut wss_a, mut wss_b) = (Peer::log_in(relay.wss, &a), Peer::log_in(relay.wss, &b));

    let own = wss_a.stream.local_addr().unwrap().as_socket_ipv4().unwrap();
    wss_a.send(2, &[0x01, 0, 0, 0, 11]);
    let reply = [&[2, 4][..], &own.ip().octets(), &own.port().to_be_bytes()].concat();
    assert_eq!(wss_a.read(), Some((2, reply)));
    wss_b.relay(12, 11, b"before");
    assert_eq!(wss_a.read(), Some((2, [&[6, 0, 0, 0, 12][..], b"before"].concat())));

    // From here on deliveries name their destination, until the session ends.
    wss_a.send(2, &[0x08, 0, 0, 0, 11]);
    assert_eq!(wss_a.read().unwrap().1[..2], [2, 4]);
    wss_b.relay(12, 11, b"after");
    assert_eq!(wss_a.read(), Some((2, [&[9, 0, 0, 0, 12, 0, 0, 0, 11][..], b"after"].concat())));
    let mut wss_a = Peer::log_in(relay.wss, &a);
    wss_b.relay(12, 11, b"anew");
    assert_eq!(wss_a.read(), Some((2, [&[6, 0, 0, 0, 12][..], b"anew"].concat())));

    assert_eq!(relay.metric("pilot_beacon_udp_nodes"), 0.0);
    assert_balance(&relay);
}

fn spec_2_2_discover_behind_a_proxy_shows_the_client_and_no_port(over: Over) {
    let node = Node::new(11);
    let relay = over.relay(&[&node], &[]);
    let cases: [(&str, &[u8]); 3] = [
        ("203.0.113.9", &[2, 4, 203, 0, 113, 9, 0, 0]),
        ("203.0.113.9:4711", &[2, 4, 203, 0, 113, 9, 0x12, 0x67]),
        ("2001:db8::1", &[2, 16, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]),
    ];
    for (client, reply) in cases {
        let (mut peer, _) = Peer::request(relay.wss, &format!("X-Forwarded-For: {client}\r\n"));
        peer.authenticate(&node, 2);
        peer.send(2, &[0x01, 0, 0, 0, 11]);
        assert_eq!(peer.read(), Some((2, reply.to_vec())), "{client}");
    }
}

fn spec_5_1_packets_for_a_node_whose_session_ended_go_nowhere(over: Over) {
    let (a, b) = (Node::new(11), Node::new(12));
    let relay = over.relay(&[&a, &b], &[]);
    let (mut wss_a, wss_b) = (Peer::log_in(relay.wss, &a), Peer::log_in(relay.wss, &b));
    let udp = UdpNode::register(relay.udp, 21);
    drop(wss_b);
    wait_for_sessions(&relay, 1.0);
    wss_a.relay(11, 12, b"too late");
    udp.relay(12, b"too late");
    relay.wait_for_metric(&dropped("unknown_destination"), 2.0);
    assert_balance(&relay);
}

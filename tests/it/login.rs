//! Logins: who gets in, who does not, and that no refusal tells why (SPEC §4).

use std::io::Write as _;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer as _;
use serde_json::{Value, json};

use crate::harness::{Node, Relay};
use crate::peer::{AUTH_OK, Frame, Peer, frame, reply, signed_text};

/// The public name of the vectors (SPEC §4.6).
const NAME: &str = "relay.example.net";

/// From a reply to its refusal, at the least (SPEC §4.4).
const REFUSAL_DELAY: Duration = Duration::from_millis(250);

/// A close frame with this code and reason, as it comes.
fn close(code: u16, reason: &str) -> Frame {
    (8, [&code.to_be_bytes()[..], reason.as_bytes()].concat())
}

fn refused() -> Vec<Frame> {
    vec![close(1008, "auth failed")]
}

fn refusals(relay: &Relay, reason: &str) -> f64 {
    relay.metric(&format!("pilot_beacon_wss_refusals_total{{reason=\"{reason}\"}}"))
}

fn connections(relay: &Relay, outcome: &str) -> f64 {
    relay.metric(&outcome_metric(outcome))
}

fn outcome_metric(outcome: &str) -> String {
    format!("pilot_beacon_wss_connections_total{{outcome=\"{outcome}\"}}")
}

#[test]
fn spec_4_6_our_peers_sign_the_published_vectors() {
    let node = Node::of_the_vectors();
    let nonce = "00112233445566778899aabbccddeeff".repeat(2);
    let challenge = json!({ "nonce": nonce, "ts": 1_767_225_600, "relay": NAME });
    let signatures = [
        "OjPKFOTxoI+dYULF9nkRqxxo4IlY+vqPKPc1A73ZkMvYnoYN7ctwH+hx5qbjuP9xzwODcPyJRi2bOt/EbE72BA==",
        "qbBOeyyjprV2RtaKwyhpaTFucKz1nL/dm61kFPaC2tTmHtI6KfysHi0dzI29TKyRLQN+L3leZPJDfMiAYFSuCQ==",
        "lZ1vy4j1ehkvP8o7AH+Xh1u7GWfRdKO05e6/S+epTXuwib3c6D+sTEkrOzgxLFKOIIQVgtJcC6CvluyLsg+FCw==",
    ];
    for (generation, signature) in (1..).zip(signatures) {
        let text = signed_text(node.id, &challenge, generation);
        assert_eq!(STANDARD.encode(node.key.sign(text.as_bytes()).to_bytes()), signature);
    }
}

#[test]
fn spec_4_3_all_three_generations_log_in_at_a_relay_with_a_name() {
    let node = Node::of_the_vectors();
    let relay = Relay::with_nodes(&[&node], &["--relay-name", NAME]);
    for generation in 1..=3 {
        let mut peer = Peer::upgrade(relay.wss);
        peer.authenticate(&node, generation);
        relay.wait_for_line(&format!("generation={generation}"));
    }
    assert_eq!(connections(&relay, "auth_ok"), 3.0);
}

#[test]
fn spec_4_3_minimum_generation_refuses_all_earlier_ones() {
    let node = Node::of_the_vectors();
    for minimum in ["2", "3"] {
        let arguments = ["--relay-name", NAME, "--min-auth-generation", minimum];
        let relay = Relay::with_nodes(&[&node], &arguments);
        for generation in 1..=3 {
            let verdict = Peer::upgrade(relay.wss).try_to_authenticate(&node, generation);
            let is_early = generation.to_string().as_str() < minimum;
            let expected = if is_early { close(1008, "auth failed") } else { (1, AUTH_OK.into()) };
            assert_eq!(verdict, expected, "generation {generation}, at least {minimum}");
        }
    }
}

#[test]
fn spec_4_3_third_generation_is_not_offered_by_a_relay_without_a_name() {
    let node = Node::of_the_vectors();
    let relay = Relay::with_nodes(&[&node], &[]);
    let mut peer = Peer::upgrade(relay.wss);
    let challenge = peer.challenge();
    assert_eq!(challenge.get("relay"), None);
    peer.reply(&node, &signed_text(node.id, &challenge, 2), Some(3));
    assert_eq!(peer.read_to_end(), refused());
}

/// Makes a reply to a challenge that must be refused.
type Forgery<'a> = &'a dyn Fn(&Value) -> String;

#[test]
fn spec_4_4_refusals_all_look_alike_and_come_a_fixed_time_after_the_reply() {
    let (known, stranger) = (Node::new(11), Node::new(12));
    let relay = Relay::with_nodes(&[&known], &[]);
    let earlier = Peer::upgrade(relay.wss).challenge();
    let impostor = Node { id: known.id, key: stranger.key.clone() };
    let text = |challenge: &Value| signed_text(known.id, challenge, 2);

    let wrong_signature = |challenge: &Value| {
        let mut reply = reply(&known, &text(challenge), None);
        reply["sig"] = STANDARD.encode([7; 64]).into();
        reply.to_string()
    };
    let unknown_node =
        |challenge: &Value| reply(&stranger, &signed_text(12, challenge, 2), None).to_string();
    let other_key = |challenge: &Value| reply(&impostor, &text(challenge), None).to_string();
    // The directory's key counts, also where the reply shows it and somebody else signs.
    let shown_key = |challenge: &Value| {
        let mut reply = reply(&impostor, &text(challenge), None);
        reply["public_key"] = STANDARD.encode(known.key.verifying_key().to_bytes()).into();
        reply.to_string()
    };
    let replayed = |_: &Value| reply(&known, &text(&earlier), None).to_string();
    let other_time = |challenge: &Value| {
        let mut challenge = challenge.clone();
        challenge["ts"] = (challenge["ts"].as_u64().unwrap() - 1).into();
        reply(&known, &text(&challenge), None).to_string()
    };
    let no_json = |_: &Value| "let me in".to_owned();
    let zero = |challenge: &Value| with(&known, &text(challenge), "node_id", json!(0));
    let signed = |challenge: &Value| with(&known, &text(challenge), "node_id", json!(-11));
    let in_text = |challenge: &Value| with(&known, &text(challenge), "node_id", json!("11"));
    let other_type = |challenge: &Value| with(&known, &text(challenge), "type", json!("hello"));
    let short_key = |challenge: &Value| with(&known, &text(challenge), "public_key", json!("AA"));
    let long_message =
        |challenge: &Value| with(&known, &text(challenge), "max_message", json!(65_537));
    let cases: [(&str, &str, Forgery<'_>); 13] = [
        ("wrong signature", "signature", &wrong_signature),
        ("unknown node", "unknown_node", &unknown_node),
        ("another node's key", "other_key", &other_key),
        ("another node's signature", "signature", &shown_key),
        ("reply to another challenge", "signature", &replayed),
        ("another time", "signature", &other_time),
        ("no JSON", "malformed", &no_json),
        ("node 0", "malformed", &zero),
        ("negative node", "malformed", &signed),
        ("node as text", "malformed", &in_text),
        ("another type", "malformed", &other_type),
        ("short key", "malformed", &short_key),
        ("message size out of range", "malformed", &long_message),
    ];
    for (what, reason, make) in cases {
        let before = refusals(&relay, reason);
        let mut peer = Peer::upgrade(relay.wss);
        let reply = make(&peer.challenge());
        let sent = Instant::now();
        peer.send(1, reply.as_bytes());
        assert_eq!(peer.read_to_end(), refused(), "{what}");
        assert!(sent.elapsed() >= REFUSAL_DELAY, "{what}: after {:?}", sent.elapsed());
        assert_eq!(refusals(&relay, reason), before + 1.0, "{what} counts as {reason}");
    }
    assert_eq!(connections(&relay, "auth_fail"), 13.0);
    assert_eq!(connections(&relay, "auth_ok"), 0.0);
}

/// A valid reply with one field replaced.
fn with(node: &Node, text: &str, field: &str, value: Value) -> String {
    let mut reply = reply(node, text, None);
    reply[field] = value;
    reply.to_string()
}

#[test]
fn spec_5_1_packet_before_the_login_ends_it() {
    let (known, other) = (Node::new(11), Node::new(12));
    let relay = Relay::with_nodes(&[&known, &other], &[]);
    let mut bystander = Peer::log_in(relay.wss, &other);
    let mut peer = Peer::upgrade(relay.wss);
    let _challenge = peer.challenge();
    peer.relay(11, 12, b"too early");
    assert_eq!(peer.read_to_end(), refused());
    assert_eq!(relay.metric("pilot_beacon_wss_frames_in_total"), 0.0);
    assert!(bystander.is_silent(Duration::from_millis(50)));
}

#[test]
fn spec_4_2_reply_may_have_1024_bytes_and_come_in_fragments_between_pings() {
    let node = Node::new(11);
    let relay = Relay::with_nodes(&[&node], &[]);
    let mut peer = Peer::upgrade(relay.wss);
    let challenge = peer.challenge();
    let mut text = reply(&node, &signed_text(11, &challenge, 2), None).to_string();
    text.extend(std::iter::repeat_n(' ', 1_024 - text.len()));
    let (begin, end) = text.as_bytes().split_at(1_000);
    peer.write(&frame(0x01, begin));
    peer.send(9, b"still there?");
    assert_eq!(peer.read(), Some((10, b"still there?".to_vec())));
    peer.write(&frame(0x80, end));
    assert_eq!(peer.read(), Some((1, AUTH_OK.to_vec())));
}

#[test]
fn spec_4_2_reply_over_1024_bytes_is_closed_with_1009_as_soon_as_it_is_announced() {
    let relay = Relay::with_nodes(&[], &[]);
    let whole = frame(0x81, &[b' '; 60_000]);
    let announced = frame(0x81, &[b' '; 1_025])[..8].to_vec();
    let fragments = [frame(0x01, &[b' '; 1_000]), frame(0x80, &[b' '; 25])].concat();
    for bytes in [whole, announced, fragments] {
        let mut peer = Peer::upgrade(relay.wss);
        let _challenge = peer.challenge();
        // The rest may meet a connection that has been closed already.
        let _ = peer.stream.write_all(&bytes);
        let (code, _reason) = peer.read_close();
        assert_eq!(code, 1009);
    }
    relay.wait_for_metric(&outcome_metric("violation"), 3.0);
}

#[test]
fn spec_5_3_login_that_finishes_late_does_not_replace_the_newer_session() {
    let (node, other) = (Node::new(11), Node::new(12));
    let relay = Relay::with_nodes(&[&node, &other], &[]);
    let mut witness = Peer::log_in(relay.wss, &other);

    // A connection that a proxy holds up, and the next one, which is in before its reply comes.
    let mut late = Peer::upgrade(relay.wss);
    let challenge = late.challenge();
    let mut newer = Peer::log_in(relay.wss, &node);
    late.reply(&node, &signed_text(11, &challenge, 2), None);

    assert_eq!(late.read_to_end(), [close(1000, "replaced")]);
    relay.wait_for_metric(&outcome_metric("superseded"), 1.0);
    assert_eq!(relay.metric("pilot_beacon_wss_replacements_total"), 0.0);
    witness.relay(12, 11, b"to the newer");
    assert_eq!(newer.delivery(), (12, b"to the newer".to_vec()));
}

#[test]
fn spec_4_2_one_deadline_covers_connection_upgrade_and_reply() {
    let relay = Relay::with_nodes(&[], &["--auth-timeout", "1s"]);
    let timeouts = outcome_metric("auth_timeout");

    // A connection that says nothing.
    let mut silent = Peer::connect(relay.wss);
    // A request that never ends, a byte at a time: each wait for an answer paces the next.
    let mut slow = Peer::connect(relay.wss);
    let request = crate::peer::upgrade_request("X-Padding: ").into_bytes();
    let dripped = request.iter().chain(std::iter::repeat(&b'x')).take_while(|byte| {
        slow.write(&[**byte]);
        slow.is_silent(Duration::from_millis(10))
    });
    assert!(dripped.count() < 1_000, "a byte each 10 ms goes on for over 10 s");
    assert_eq!(slow.read(), None);
    assert_eq!(silent.read(), None);
    relay.wait_for_metric(&timeouts, 2.0);

    // An upgraded connection that never replies is told so.
    let mut peer = Peer::upgrade(relay.wss);
    let _challenge = peer.challenge();
    assert_eq!(peer.read_close().0, 1008);
    relay.wait_for_metric(&timeouts, 3.0);
}

#[test]
fn spec_4_2_slow_upgrade_leaves_less_time_for_the_reply() {
    let relay = Relay::with_nodes(&[], &["--auth-timeout", "3s"]);
    let mut peer = Peer::connect(relay.wss);
    let began = Instant::now();
    let (head, end) = ("GET /v1/compat HTTP/1.1\r\n", crate::peer::upgrade_request(""));
    peer.write(head.as_bytes());
    assert!(peer.is_silent(Duration::from_secs(2)));
    let (status, _) = peer.ask(end.strip_prefix(head).unwrap());
    assert_eq!(status, 101);
    assert_eq!(peer.read_close().0, 1008);
    // Counted anew from the upgrade it would be 5 s.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

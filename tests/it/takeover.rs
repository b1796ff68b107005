//! Two programs of one identity: their sessions replace each other, ever more slowly (SPEC §5.3).

use std::time::{Duration, Instant};

use crate::cells::assert_balance;
use crate::control::ask;
use crate::harness::{Node, Relay};
use crate::peer::{AUTH_OK, Peer, signed_text};

const DELAYED: &str = "pilot_beacon_wss_delayed_total";
const WAITING: &str = "pilot_beacon_wss_delayed";
const REPLACEMENTS: &str = "pilot_beacon_wss_replacements_total";

fn outcome(outcome: &str) -> String {
    format!("pilot_beacon_wss_connections_total{{outcome=\"{outcome}\"}}")
}

/// Logs in a node so often that its next login has to wait; the last session. The fifth
/// takeover waits for 1 s, the sixth for 2 s, the next one for 4 s.
fn take_over(relay: &Relay, node: &Node, times: u32) -> Peer {
    let mut peers: Vec<_> = (0..5).map(|_| Peer::log_in(relay.wss, node)).collect();
    assert_eq!(relay.metric(DELAYED), 0.0, "so many are free");
    peers.extend((4..times).map(|_| Peer::log_in(relay.wss, node)));
    assert_eq!(relay.metric(REPLACEMENTS), f64::from(times));
    assert_eq!(relay.metric(DELAYED), f64::from(times - 4));
    peers.pop().unwrap()
}

/// A login that waits for its turn.
fn waiting_login(relay: &Relay, node: &Node) -> Peer {
    let before = relay.metric(DELAYED);
    let mut peer = Peer::upgrade(relay.wss);
    let challenge = peer.challenge();
    peer.reply(node, &signed_text(node.id, &challenge, 2), None);
    relay.wait_for_metric(DELAYED, before + 1.0);
    peer
}

#[test]
fn spec_5_3_fifth_takeover_in_ten_seconds_waits_while_the_older_session_serves() {
    let (node, other) = (Node::new(11), Node::new(12));
    let relay = Relay::with_nodes(&[&node, &other], &[]);
    let mut witness = Peer::log_in(relay.wss, &other);
    assert!(ask(&relay, &["peer", "12"]).get("takeovers").is_none());
    let mut older = take_over(&relay, &node, 5);
    relay.wait_for_line("sessions of a node replace each other again and again");

    let began = Instant::now();
    let mut newer = waiting_login(&relay, &node);
    witness.relay(12, 11, b"to the older");
    assert_eq!(older.delivery(), (12, b"to the older".to_vec()));
    relay.wait_for_line("a login waits, since sessions of its node replace each other");
    let known = ask(&relay, &["peer", "11"]);
    assert_eq!(known["takeovers"]["is_contested"], true, "{known}");
    assert_eq!(known["takeovers"]["recent"], 4, "{known}");

    assert_eq!(newer.read(), Some((1, AUTH_OK.to_vec())));
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(older.read_close(), (1000, "replaced".to_owned()));
    witness.relay(12, 11, b"to the newer");
    assert_eq!(newer.delivery(), (12, b"to the newer".to_vec()));
    assert_eq!(ask(&relay, &["peer", "11"])["takeovers"]["wait"], 4.0);
    assert_eq!(relay.metric("pilot_beacon_wss_contested_nodes"), 1.0);
    assert_eq!(relay.metric(WAITING), 0.0);
    assert_balance(&relay);
}

#[test]
fn login_that_waits_and_is_closed_takes_over_from_nobody() {
    let (node, other) = (Node::new(11), Node::new(12));
    let relay = Relay::with_nodes(&[&node, &other], &[]);
    let mut witness = Peer::log_in(relay.wss, &other);
    let mut serving = take_over(&relay, &node, 6);

    drop(waiting_login(&relay, &node));
    relay.wait_for_metric(&outcome("gone"), 1.0);
    let mut closes = waiting_login(&relay, &node);
    closes.send(8, &1000_u16.to_be_bytes());
    assert_eq!(closes.read_close().0, 1000);
    let mut talks = waiting_login(&relay, &node);
    talks.send(9, b"still there?");
    assert_eq!(talks.read(), Some((10, b"still there?".to_vec())));
    talks.relay(11, 12, b"before its acceptance");
    assert_eq!(talks.read_close(), (1008, "auth failed".to_owned()));

    relay.wait_for_metric(WAITING, 0.0);
    relay.wait_for_metric(&outcome("gone"), 2.0);
    witness.relay(12, 11, b"as before");
    assert_eq!(serving.delivery(), (12, b"as before".to_vec()));
    assert_eq!(relay.metric(REPLACEMENTS), 6.0);
}

#[test]
fn login_that_waits_gives_up_for_a_newer_one_and_not_for_an_older() {
    let node = Node::new(11);
    let relay = Relay::with_nodes(&[&node], &[]);
    let _serving = take_over(&relay, &node, 6);

    let mut oldest = Peer::upgrade(relay.wss);
    let challenge = oldest.challenge();
    let mut older = waiting_login(&relay, &node);
    let mut newer = waiting_login(&relay, &node);
    oldest.reply(&node, &signed_text(11, &challenge, 2), None);
    for peer in [&mut older, &mut oldest] {
        assert_eq!(peer.read_close(), (1000, "replaced".to_owned()));
    }
    relay.wait_for_metric(&outcome("superseded"), 2.0);
    assert_eq!(relay.metric(WAITING), 1.0);
    newer.send(9, b"still there?");
    assert_eq!(newer.read(), Some((10, b"still there?".to_vec())));
}

#[test]
fn login_waits_no_longer_than_the_session_that_it_waits_for() {
    let node = Node::new(11);
    let relay = Relay::with_nodes(&[&node], &[]);
    let mut older = take_over(&relay, &node, 6);
    let mut newer = waiting_login(&relay, &node);
    older.send(8, &1000_u16.to_be_bytes());
    assert_eq!(older.read_close().0, 1000);
    assert_eq!(newer.read(), Some((1, AUTH_OK.to_vec())));
    assert_eq!(relay.metric(REPLACEMENTS), 6.0, "nothing was taken over");
}

#[test]
fn login_that_waits_outlives_the_time_for_logins_but_not_the_relay() {
    let node = Node::new(11);
    let relay = Relay::with_nodes(&[&node], &["--auth-timeout", "900ms"]);
    let _older = take_over(&relay, &node, 4);
    let mut newer = waiting_login(&relay, &node);
    assert_eq!(newer.read(), Some((1, AUTH_OK.to_vec())), "after a second");
    let mut last = waiting_login(&relay, &node);
    assert_eq!(relay.metric("pilot_beacon_wss_waiting"), 0.0, "it has proved who it is");
    relay.signal("TERM");
    assert_eq!(last.read_close(), (1001, "shutting down".to_owned()));
}

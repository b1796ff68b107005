//! A drain: who comes is told to stay away, who is here goes one by one, and it ends when
//! nobody is left.

use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::thread;
use std::time::{Duration, Instant};

use crate::control::say;
use crate::harness::{Node, PATIENCE, Relay, http_get, look_until};
use crate::peer::{Peer, upgrade_request};

const PEERS: u32 = 500;

const DRAIN_TIME: Duration = Duration::from_secs(3);

/// Stretch of time in which redials are counted; a shorter one would show the machine's pauses.
const WINDOW: Duration = Duration::from_millis(500);

/// Most redials in a window: the even share and half of it.
const MOST: f64 = PEERS as f64 / DRAIN_TIME.as_secs_f64() * 1.5 * WINDOW.as_secs_f64();

/// Whether something came, which can only be the close.
fn has_more(peer: &Peer) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    match peer.stream.peek(&mut byte) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn peers_redial_no_faster_than_they_are_sent_away() {
    let nodes: Vec<_> = (1..=PEERS).map(Node::new).collect();
    let all: Vec<_> = nodes.iter().collect();
    let unlimited = ["--upgrade-rate=0", "--drain-time=3s"];
    let mut drained = Relay::with_nodes(&all, &unlimited);
    let other = Relay::with_nodes(&all, &unlimited);
    let mut peers: Vec<_> =
        nodes.iter().map(|node| (node, Peer::log_in(drained.wss, node))).collect();
    peers.iter().for_each(|(_, peer)| peer.stream.set_nonblocking(true).unwrap());

    drained.signal("TERM");
    drained.wait_for_line("draining");
    let wss = drained.wss;
    let refused = thread::spawn(move || {
        // For as long as it drains, somebody is there to say so.
        let end = Instant::now() + DRAIN_TIME - WINDOW;
        let mut refused = 0;
        while Instant::now() < end {
            let (status, head) = Peer::connect(wss).ask(&upgrade_request(""));
            assert!(status == 503 && head.contains("retry-after: 3\r\n"), "{head}");
            refused += 1;
            thread::sleep(Duration::from_millis(10));
        }
        refused
    });
    let mut redials = Vec::new();
    let mut again = Vec::new();
    let end = Instant::now() + PATIENCE;
    while !peers.is_empty() {
        assert!(Instant::now() < end, "{} are still there", peers.len());
        for (node, mut gone) in peers.extract_if(.., |(_, peer)| has_more(peer)) {
            redials.push(Instant::now());
            again.push(Peer::log_in(other.wss, node));
            gone.stream.set_nonblocking(false).unwrap();
            assert_eq!(gone.read_close().0, 1001);
        }
        thread::sleep(Duration::from_millis(2));
    }
    let in_window =
        |from: &Instant| redials.iter().filter(|at| (*from..*from + WINDOW).contains(*at)).count();
    let busiest = redials.iter().map(in_window).max().unwrap();
    let took = redials[redials.len() - 1] - redials[0];
    let refused = refused.join().unwrap();
    eprintln!(
        "{PEERS} peers redialled over {took:?}, at most {busiest} of them within {WINDOW:?} \
         (allowed: {MOST}); {refused} strangers were told to come back"
    );
    assert!(busiest as f64 <= MOST, "{busiest} redials within {WINDOW:?}");
    assert!(took >= DRAIN_TIME - WINDOW, "{took:?}");
    assert!(refused > 20, "{refused}");
    assert_eq!(drained.wait_for_end(), 0);
    assert_eq!(other.metric("pilot_beacon_wss_active"), f64::from(PEERS));
}

#[test]
fn drain_ends_when_the_last_peer_has_left_by_itself() {
    let nodes = [11, 12, 13].map(Node::new);
    let mut relay = Relay::with_nodes(&nodes.each_ref(), &["--drain-time", "1h"]);
    let mut peers = nodes.each_ref().map(|node| Peer::log_in(relay.wss, node));
    let began = Instant::now();
    relay.signal("TERM");
    relay.wait_for_line("draining");
    let mut closed = || {
        let silent = peers.iter_mut().map(|peer| peer.is_silent(Duration::from_millis(10)));
        (silent.filter(|silent| !silent).count() == 1).then_some(())
    };
    assert_eq!(look_until(began + PATIENCE, &mut closed), Some(()));
    // Each of the others has 20 minutes, and no use for them.
    drop(peers);
    assert_eq!(relay.wait_for_end(), 0);
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

#[test]
fn login_that_began_before_the_drain_ends_in_it() {
    let nodes = [11, 12, 13].map(Node::new);
    let relay = Relay::with_nodes(&nodes.each_ref(), &["--drain-time", "1h"]);
    // Two, or the drain would be over at once.
    let _peers = [0, 1].map(|index: usize| Peer::log_in(relay.wss, &nodes[index]));
    let mut half = Peer::upgrade(relay.wss);
    relay.signal("TERM");
    relay.wait_for_line("draining");
    let (opcode, payload) = half.try_to_authenticate(&nodes[2], 2);
    assert_eq!((opcode, &payload[..2]), (8, &1001_u16.to_be_bytes()[..]));
}

#[test]
fn signal_after_an_operators_drain_cuts_nobody_off() {
    let nodes = [11, 12, 13].map(Node::new);
    let mut relay = Relay::with_nodes(&nodes.each_ref(), &["--drain-time", "2s"]);
    let mut peers = nodes.each_ref().map(|node| Peer::log_in(relay.wss, node));
    say(&relay, &["drain"]);
    relay.wait_for_line("draining");
    // As `drain` and then `systemctl stop` do.
    relay.signal("TERM");
    relay.wait_for_line("draining already");
    assert!(say(&relay, &["drain"]).contains("drains"), "a second order changes nothing");
    for peer in &mut peers {
        assert_eq!(peer.read_close().0, 1001);
    }
    assert_eq!(relay.wait_for_end(), 0);
}

#[test]
fn signal_that_came_twice_cut_off_the_drain() {
    let nodes = [11, 12].map(Node::new);
    let mut relay = Relay::with_nodes(&nodes.each_ref(), &["--drain-time", "1h"]);
    let _peers = nodes.each_ref().map(|node| Peer::log_in(relay.wss, node));
    // As a supervisor does that signals the group, and whoever passes it on.
    relay.signal("TERM");
    relay.signal("INT");
    relay.wait_for_line("draining");
    let is_there = http_get(relay.admin, "/healthz").0 == 200;
    assert!(is_there, "{}", relay.log());
    assert_eq!(relay.signal_until_gone("TERM"), 1);
    assert!(relay.log().contains("by a second signal"), "{}", relay.log());
}

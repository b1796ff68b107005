//! Clients over QUIC that read nothing, never log in, or come in floods.

use std::collections::HashMap;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use quinn::Endpoint;
use tokio::runtime::Builder;

use super::super::{SECRET, Site, auth, id, message, token, unix_now};
use super::{Manner, QuicPeer, RUNTIME};
use crate::cells::assert_balance;
use crate::harness::{PATIENCE, look_until};

#[test]
fn receiver_that_has_stopped_costs_itself_alone() {
    let site = Site::with_tls(&["--relay-rate", "0", "--relay-bytes", "0"]);
    // Whoever is on this runtime runs only while it is waited for.
    let stopped = Builder::new_current_thread().enable_all().build().unwrap();
    let manner = Manner::default();
    let stuck = QuicPeer::dial_on(&stopped, site.quic.unwrap(), &site.ca(), &manner).unwrap();
    stopped.block_on(async {
        let login = auth(id("stuck"), &token(SECRET, unix_now() + 60));
        stuck.connection.send_datagram(login.into()).unwrap();
        assert_eq!(stuck.connection.read_datagram().await.unwrap()[..2], [1, 7]);
    });
    let (alice, healthy) = (site.log_in_by_quic("alice"), site.log_in_by_quic("healthy"));
    for number in 0..3_000_u32 {
        alice.send(&message(3, "stuck", &[7; 1_000]));
        if number % 10 == 0 {
            let payload = number.to_be_bytes();
            alice.send(&message(3, "healthy", &payload));
            assert_eq!(healthy.read(), Some(message(3, "alice", &payload)));
        }
    }
    let dropped = || {
        let reasons = ["outbox_full", "outbox_aged"];
        reasons.map(|reason| site.relay.dropped(reason)).iter().sum::<usize>()
    };
    let end = Instant::now() + PATIENCE;
    look_until(end, || (dropped() > 1_000).then_some(())).expect("its oldest are dropped");
    // 262,144 bytes of the outbox, of messages of 1,038.
    assert!(site.relay.metric("pilot_beacon_packets_queued") < 260.0);
    drop(stuck);
    drop(stopped);
    alice.send(&message(3, "healthy", b"done"));
    assert_eq!(healthy.read(), Some(message(3, "alice", b"done")));
}

#[test]
fn flood_of_first_packets_costs_a_round_trip_and_keeps_nobody_out() {
    let site = Site::with_tls(&["--upgrade-rate", "0"]);
    let early = site.log_in_by_quic("early");
    let to = site.quic.unwrap();
    // Handshakes that stop after the first packet, as from forged addresses.
    let floods: Vec<_> = first_packets(&site, 150)
        .into_iter()
        .map(|packet| (UdpSocket::bind("127.0.0.1:0").unwrap(), packet))
        .collect();
    for (socket, packet) in &floods {
        socket.send_to(packet, to).unwrap();
    }
    let retries = || site.relay.metric("beacon_relay_quic_retries_total");
    let end = Instant::now() + PATIENCE;
    look_until(end, || (retries() >= 100.0).then_some(())).expect("most have to come back");

    // The answer is no longer than three times the question, whatever it is.
    let mut answer = [0; 65_536];
    for (socket, packet) in &floods {
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut bytes = 0;
        while let Ok(read) = socket.recv(&mut answer) {
            bytes += read;
        }
        assert!(bytes <= 3 * packet.len(), "{bytes}");
    }
    let late = site.log_in_by_quic("late");
    late.send(&message(3, "early", b"here I am"));
    assert_eq!(early.read(), Some(message(3, "late", b"here I am")));
    let waiting = site.relay.metric("pilot_beacon_wss_waiting");
    assert!(waiting <= 33.0, "{waiting}");
    assert_balance(&site.relay);
}

/// The first packets of so many clients.
fn first_packets(site: &Site, count: usize) -> Vec<Vec<u8>> {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    let to = silent.local_addr().unwrap();
    let config = Manner::default().config(&site.ca());
    let _runtime = RUNTIME.enter();
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let dial = |_| endpoint.connect_with(config.clone(), to, "127.0.0.1").unwrap();
    let _dialling: Vec<_> = (0..count).map(dial).collect();
    // By the id that each has chosen: some come in two packets, and all again.
    let mut packets = HashMap::new();
    let mut packet = [0; 2_048];
    while packets.len() < count {
        let length = silent.recv(&mut packet).unwrap();
        let id = packet[6..6 + usize::from(packet[5])].to_vec();
        packets.entry(id).or_insert_with(|| packet[..length].to_vec());
    }
    packets.into_values().collect()
}

#[test]
fn clients_that_never_log_in_make_room_for_those_that_do() {
    let site = Site::with_tls(&["--upgrade-rate", "0"]);
    let idle: Vec<_> = (0..100).map(|_| site.dial()).collect();
    site.relay.wait_for_metric("pilot_beacon_wss_waiting", 100.0);
    let alice = site.log_in_by_quic("alice");
    alice.send(&message(3, "alice", b"in"));
    assert_eq!(alice.read(), Some(message(3, "alice", b"in")));
    drop(idle);
    // They are gone at once, and not when their time is over.
    site.relay.wait_for_metric("pilot_beacon_wss_waiting", 0.0);
}

#[test]
fn client_over_its_rate_of_connections_is_refused_and_streams_are_none() {
    let site = Site::with_tls(&["--upgrade-rate", "1", "--upgrade-burst", "2"]);
    let alice = site.log_in_by_quic("alice");
    let open = async {
        let opened = alice.connection.open_uni();
        tokio::time::timeout(Duration::from_millis(200), opened).await
    };
    assert!(RUNTIME.block_on(open).is_err(), "no stream is ever allowed");
    let refused = (0..5).filter(|_| {
        let dialled = QuicPeer::dial(site.quic.unwrap(), &site.ca(), &Manner::default());
        let login = auth(id("bob"), &token(SECRET, unix_now() + 60));
        dialled.is_err() || {
            let peer = dialled.unwrap();
            let _lost = peer.connection.send_datagram(login.into());
            peer.read().is_none()
        }
    });
    assert!(refused.count() >= 3);
    let outcome = "pilot_beacon_wss_connections_total{outcome=\"rate_limited\"}";
    assert!(site.relay.metric(outcome) >= 3.0);
    alice.send(&message(3, "alice", b"unharmed"));
    assert_eq!(alice.read(), Some(message(3, "alice", b"unharmed")));
}

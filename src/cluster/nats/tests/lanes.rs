//! Batches, in both directions.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::peer::Peer;
use super::{HOUR, Relay, name, until};
use crate::cluster::Reject;
use crate::cluster::nats::message::{Message, PACKETS, WORDS};
use crate::net::nats::testing::Server;
use crate::wire::cluster::{Frame, Frames, MAX_BATCH, Run, encode};
use crate::wire::name::Name;

/// A relay, and another one that the test plays and that is a member.
async fn pair(server: &Server) -> (Relay, Peer) {
    let a = Relay::listening(1, server, HOUR).await;
    let mut peer = Peer::connect(2, &server.url()).await;
    peer.pair().await;
    (a, peer)
}

fn push(relay: &Relay, number: u32, payloads: &[&[u8]]) {
    let outbox = &relay.member(2).outbox;
    let run = Run { dest: name(number), sender: name(9), epoch: 1 };
    outbox.push(&run, payloads.iter().copied(), Instant::now());
    outbox.wake();
}

fn words(of: impl IntoIterator<Item = u32>) -> Vec<u8> {
    let mut batch = vec![WORDS];
    for number in of {
        encode(&Frame::Missing { id: name(number) }, &mut batch);
    }
    batch
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_lane_keeps_its_order() {
    let server = Server::start("").await;
    let (a, mut peer) = pair(&server).await;
    let member = a.member(2);
    for number in 1..=10_000 {
        assert!(member.outbox.say(&Frame::Missing { id: name(number) }, Instant::now()));
        push(&a, number, &[b"payload"]);
    }

    let (mut words, mut packets) = (Vec::new(), Vec::new());
    while words.len() < 10_000 || packets.len() < 10_000 {
        let (Message::Words(batch) | Message::Packets(batch)) = peer.next().await else {
            panic!("neither words nor packets");
        };
        for frame in Frames::<Name>::new(&batch) {
            let frame = frame.unwrap();
            if let Frame::Missing { id } = frame {
                words.push(id);
            } else if let Frame::Packets(run) = frame {
                packets.push(run.run.dest);
            }
        }
    }

    let expected: Vec<_> = (1..=10_000).map(name).collect();
    assert!(words == expected && packets == expected);
    assert_eq!(member.outbox.bytes(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_is_taken_in() {
    let server = Server::start("").await;
    let (a, peer) = pair(&server).await;
    let member = a.member(2);
    for kind in [WORDS, PACKETS] {
        // Signs of life are noted in whole milliseconds.
        let short = Duration::from_millis(20);
        until("a moment of silence", || member.silence(Instant::now()) > 2 * short).await;
        let before = Instant::now();
        let mut batch = words(1..100);
        batch[0] = kind;
        peer.tell(1, batch).await;
        let is_heard = || member.silence(Instant::now()) < before.elapsed() + short;
        until("a sign of life", is_heard).await;
    }
    assert_eq!(a.cluster.counters().rejects.total(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_batch_is_counted_and_its_sender_stays() {
    let server = Server::start("").await;
    let (a, peer) = pair(&server).await;

    for kind in [WORDS, PACKETS] {
        peer.tell(1, vec![kind, 0x10, 0xff]).await;
    }
    a.until_rejects(Reject::Malformed, 2).await;
    peer.tell(1, vec![0; MAX_BATCH + 2]).await;
    a.until_rejects(Reject::Oversized, 1).await;

    assert_eq!((a.cluster.members().len(), a.lost()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_of_a_relay_that_is_no_member_are_refused() {
    let server = Server::start("").await;
    let (a, _peer) = pair(&server).await;
    let stranger = Peer::connect(3, &server.url()).await;

    stranger.tell(1, words([1])).await;

    a.until_rejects(Reject::NoMember, 1).await;
    assert_eq!(a.cluster.members().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_that_the_server_does_not_take_is_dropped_and_counted() {
    let server = Server::start("max_payload: 1024").await;
    let (a, mut peer) = pair(&server).await;
    let large = [0; 2_000];

    push(&a, 1, &[&large]);
    until("the drop", || a.packets_lost() == 1).await;
    push(&a, 2, &[b"small"]);

    let Message::Packets(batch) = peer.next().await else { panic!("no packets") };
    let frame = Frames::<Name>::new(&batch).next().unwrap().unwrap();
    let Frame::Packets(packets) = frame else { panic!("{frame:?}") };
    assert_eq!(packets.run.dest, name(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flood_of_packets_takes_no_word_away() {
    let server = Server::start("").await;
    let (a, peer) = pair(&server).await;
    // One frame of a kind that nobody knows: it is read and skipped.
    let frame = [&[PACKETS, 0x7f][..], &60_000_u32.to_be_bytes(), &[0; 60_000]].concat();
    let flood = Bytes::from(frame);

    for _ in 0..500 {
        peer.tell(1, flood.clone()).await;
    }
    for _ in 0..50 {
        peer.tell(1, vec![WORDS, 0x10, 0xff]).await;
    }

    a.until_rejects(Reject::Malformed, 50).await;
}

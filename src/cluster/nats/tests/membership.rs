//! Who becomes a member, and who is one no longer.

use std::sync::Arc;
use std::time::Instant;

use super::peer::{Peer, beat};
use super::{HOUR, NAME, Relay, SHORT, name, until};
use crate::cluster::Reject;
use crate::cluster::nats::message::Beat;
use crate::ids::{PublicKey, RelayId};
use crate::net::nats::testing::Server;
use crate::wire::cluster::Frame;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_find_each_other_at_once() {
    let server = Server::start("").await;
    let a = Relay::listening(1, &server, HOUR).await;
    let b = Relay::start(2, &server.url(), HOUR);
    a.until_members(1).await;
    b.until_members(1).await;
    let c = Relay::start(3, &server.url(), HOUR);
    for relay in [&a, &b, &c] {
        relay.until_members(2).await;
        assert_eq!(relay.lost(), 0);
    }
    assert_eq!(a.member(2).address, "127.0.0.1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goodbye_is_seen_at_once() {
    let server = Server::start("").await;
    let [a, b] = [1, 2].map(|number| Relay::start(number, &server.url(), HOUR));
    a.until_members(1).await;
    b.until_members(1).await;
    let b_cluster = Arc::clone(&b.cluster);

    b.stop().await;

    a.until_members(0).await;
    assert!(b_cluster.members().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fabric_that_is_dropped_leaves_no_member() {
    let server = Server::start("").await;
    let a = Relay::listening(1, &server, HOUR).await;
    Peer::connect(2, &server.url()).await.say(beat(2, 0, 0).message()).await;
    a.until_members(1).await;

    let cluster = Arc::clone(&a.cluster);
    drop(a);

    until("the end of the members", || cluster.members().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_run_of_a_relay_replaces_the_old_one() {
    let server = Server::start("").await;
    let a = Relay::listening(1, &server, HOUR).await;
    let peer = Peer::connect(2, &server.url()).await;
    peer.say(beat(7, 0, 0).message()).await;
    a.until_members(1).await;
    let old = a.member(2);

    peer.say(beat(8, 0, 0).message()).await;
    until("the end of the old run", || a.lost() == 1).await;
    let new = a.member(2);
    assert!(!Arc::ptr_eq(&old, &new));

    // The old run's goodbye, late, is not the new one's.
    peer.say(beat(7, 0, 0).goodbye()).await;
    peer.say(beat(8, 0, 0).goodbye()).await;
    a.until_members(0).await;
    until("both to be counted", || a.lost() == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_has_lost_us_in_between_makes_us_join_anew() {
    let server = Server::start("").await;
    let [a, b] = [1, 2].map(|number| Relay::start(number, &server.url(), HOUR));
    a.until_members(1).await;
    b.until_members(1).await;
    let (old_a, old_b) = (a.member(2), b.member(1));
    for member in [&old_a, &old_b] {
        // Words go out once the two are a pair.
        assert!(member.outbox.say(&Frame::Missing { id: name(7) }, Instant::now()));
        until("words to go out", || member.outbox.bytes() == 0).await;
    }

    // As after a while in which only one of them was awake. b notices nothing by itself.
    old_a.ending.cancel();
    a.until_members(0).await;
    // Any sign of life of b brings it back at a.
    Peer::connect(2, &server.url()).await.say(beat(2, 0, 0).message()).await;

    until("b to lose a", || b.lost() == 1).await;
    a.until_members(1).await;
    b.until_members(1).await;
    assert!(!Arc::ptr_eq(&a.member(2), &old_a) && !Arc::ptr_eq(&b.member(1), &old_b));
    until("each to be counted", || (a.lost(), b.lost()) == (1, 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terms_are_told_until_they_are_known() {
    let server = Server::start("").await;
    let mut peer = Peer::connect(2, &server.url()).await;
    let _a = Relay::patient(1, &server, SHORT).await;
    peer.say(beat(2, 0, 0).message()).await;

    let first = peer.next_beat().await;
    assert!(first.asks && first.term != 0 && first.seen == 0, "{first:?}");
    assert_eq!(peer.next_beat().await, first);
    peer.tell(1, Beat { asks: true, ..beat(2, 5, first.term) }.message()).await;

    let expected = Beat { seen: 5, asks: false, ..first.clone() };
    // Others of the first kind may have been on their way.
    let mut answer = first.clone();
    while answer == first {
        answer = peer.next_beat().await;
    }
    assert_eq!(answer, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_relay_with_our_id_is_refused_and_named() {
    let server = Server::start("").await;
    let a = Relay::listening(1, &server, HOUR).await;
    let twin = Peer::connect(1, &server.url()).await;
    twin.say(beat(1, 0, 0).message()).await;
    twin.say(beat(9, 0, 0).message()).await;

    a.until_rejects(Reject::Clone, 1).await;
    assert!(a.cluster.members().is_empty() && a.cluster.status().cloned);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_bounded() {
    let server = Server::start("").await;
    let a = Relay::listening(1, &server, HOUR).await;
    let peer = Peer::connect(2, &server.url()).await;
    for number in 0..=256 {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&u16::to_be_bytes(number));
        let relay = RelayId(PublicKey(key));
        let subject = format!("{}.alive.from.{relay}", NAME);
        peer.publish(&subject, beat(3, 0, 0).message()).await;
    }

    a.until_rejects(Reject::TooMany, 1).await;
    assert_eq!(a.cluster.members().len(), 256);
}

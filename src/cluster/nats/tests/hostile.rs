//! Strangers on our subjects, on a server without permissions.

use super::peer::{Peer, beat};
use super::{HOUR, NAME, Relay, id, until};
use crate::cluster::Reject;
use crate::net::nats::testing::Server;

/// Repeatable noise of one length.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ length as u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_of_a_stranger_is_counted_and_changes_nothing() {
    let server = Server::start("").await;
    let a = Relay::listening(1, &server, HOUR).await;
    let member = Peer::connect(2, &server.url()).await;
    member.say(beat(2, 0, 0).message()).await;
    a.until_members(1).await;
    let stranger = Peer::connect(3, &server.url()).await;

    for length in 0..500 {
        stranger.tell(1, noise(length)).await;
        stranger.say(noise(length).into()).await;
    }

    until("the noise to be counted", || a.cluster.counters().rejects.total() == 1_000).await;
    assert_eq!((a.cluster.members().len(), a.lost()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sender_whose_name_is_none_is_refused() {
    let server = Server::start("").await;
    let a = Relay::listening(1, &server, HOUR).await;
    let stranger = Peer::connect(2, &server.url()).await;

    let upper_case = id(0xab).to_string().to_uppercase();
    for name in ["somebody", "0", &upper_case, &id(2).0.to_string()] {
        for subject in
            [format!("{NAME}.alive.from.{name}"), format!("{NAME}.to.{}.from.{name}", id(1))]
        {
            stranger.publish(&subject, beat(2, 0, 0).message()).await;
        }
    }

    a.until_rejects(Reject::BadHello, 8).await;
    assert!(a.cluster.members().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_of_another_version_is_refused() {
    let server = Server::start("").await;
    let a = Relay::listening(1, &server, HOUR).await;
    let other = Peer::connect(2, &server.url()).await;
    let mut message = beat(2, 0, 0).message().to_vec();
    message[1] += 1;

    other.say(message.into()).await;

    a.until_rejects(Reject::OtherCluster, 1).await;
    assert!(a.cluster.members().is_empty());
}

//! Tasks that fail: what they did goes on.

use std::sync::Arc;

use super::peer::{Peer, beat};
use super::{HOUR, Relay, cluster, id, until};
use crate::cluster::nats::members::{Joined, Members};
use crate::cluster::nats::message::PACKETS;
use crate::cluster::nats::writer;
use crate::cluster::testing::{FailsOnce, packet};
use crate::net::nats::testing::Server;

#[tokio::test]
async fn member_to_which_nobody_writes_any_more_leaves() {
    let members = Arc::new(Members::new(cluster(1, HOUR)));
    let joined = members.beat(id(2), &beat(2, 0, 0)).expect("whoever beats is a member");
    let Joined { member, signals } = joined;
    let writer = tokio::spawn(writer::run(Arc::clone(&members), member, signals));
    tokio::task::yield_now().await;

    writer.abort();
    assert!(writer.await.unwrap_err().is_cancelled());

    assert!(members.of(id(2)).is_none() && members.cluster.members().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_are_delivered_again_after_a_batch_that_failed() {
    let server = Server::start("").await;
    let a = Relay::listening(1, &server, HOUR).await;
    let local = FailsOnce::serving(&a.cluster);
    let mut peer = Peer::connect(2, &server.url()).await;
    peer.pair().await;
    let batch = [&[PACKETS][..], &packet()].concat();

    peer.tell(1, batch.clone()).await;
    until("the failure", || a.cluster.counters().panics.value() == 1).await;
    a.until_connected().await;

    // What comes before it listens again is lost.
    for _ in 0..1_000 {
        peer.tell(1, batch.clone()).await;
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        if local.batches() > 1 {
            break;
        }
    }
    assert!(local.batches() > 1, "no packet comes through any more");
    assert_eq!((a.cluster.members().len(), a.lost()), (1, 0));
}

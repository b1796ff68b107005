//! Parts of a mesh that fail: one link, or what all of them need.

use super::super::Tasks;
use super::super::hub::{Hub, Secret};
use super::super::lobby::Lobby;
use super::*;
use crate::cluster::testing::{FailsOnce, packet};

fn hub() -> Arc<Hub> {
    let [key] = keys();
    let relay = relay_id(&key);
    let identity = Identity { relay, boot: [0; 16], name: "test".to_owned(), keepalive: KEEPALIVE };
    let cluster = Cluster::new(identity, Arc::default());
    let endpoint = transport::open(([127, 0, 0, 1], 0).into(), FreeBind::Off).unwrap();
    let address = endpoint.local_addr().unwrap();
    Hub::new(cluster, relay, endpoint, address, None, Secret(None))
}

#[tokio::test]
async fn mesh_that_dials_nobody_any_more_ends_rather_than_going_on_without() {
    let hub = hub();
    let endpoint = hub.endpoint.clone();
    let mut tasks = Tasks::new(hub, Lobby::default(), async { panic!("on purpose") });

    timeout(PATIENCE, tasks.serve(&endpoint)).await.expect("it goes on");
}

#[tokio::test]
async fn mesh_whose_socket_is_gone_ends_rather_than_taking_nobody() {
    let hub = hub();
    let endpoint = hub.endpoint.clone();
    let mut tasks = Tasks::new(hub, Lobby::default(), std::future::pending());
    endpoint.close(Close::Failed.code(), &[]);

    timeout(PATIENCE, tasks.serve(&endpoint)).await.expect("it goes on");
}

#[tokio::test]
async fn batch_that_fails_ends_its_link_and_nothing_else() {
    let [smaller, larger, other] = keys();
    let relay = Relay::start(&smaller, &[], by_secret());
    let local = FailsOnce::serving(&relay.cluster);
    let (staying, _other_lanes) = Puppet::new(&other).link(&relay).await;
    let (connection, [_words, mut packets]) = Puppet::new(&larger).link(&relay).await;
    relay.has(&[&larger, &other]).await;

    let batch = packet();
    packets.write_all(&u32::try_from(batch.len()).unwrap().to_be_bytes()).await.unwrap();
    packets.write_all(&batch).await.unwrap();
    closed_with(&connection, Close::Failed).await;

    relay.has(&[&other]).await;
    assert_eq!((local.batches(), relay.cluster.counters().panics.value()), (1, 1));
    assert!(staying.close_reason().is_none());
}

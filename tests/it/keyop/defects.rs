//! What the original did worse (section 4 of the protocol's description), and this door does not; and
//! the limits that were recorded in part.

use std::time::Duration;

use super::grpc::{PUBLISH, SUBSCRIBE, repeated};
use super::{Site, ids, record, record_by};

fn text(record: &[u8]) -> String {
    String::from_utf8(record.to_vec()).unwrap()
}

/// A record of so many bytes.
fn long(id: &str, channel: &str, length: usize) -> Vec<u8> {
    let record = text(&record(id, channel));
    let filler = "y".repeat(length - record.len() + "{\"x\":1}".len() - 2);
    record.replace("{\"x\":1}", &format!("\"{filler}\"")).into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_and_messages_that_are_too_long_are_answered_as_the_original_does() {
    let site = Site::start(&["--keyop-max-record=65536"]);
    let mut gamma = site.rpc("gamma").await;
    let mut publisher = gamma.publisher().await;
    let long = |id: &str| long(id, "orders", 70_000);
    assert_eq!(publisher.publish(&[long("o1")]).await, "o1");
    assert_eq!(publisher.publish(&[long("o2"), record("g1", "orders")]).await, "g1");
    site.wait_for_records("too_long", 2.0);

    let batch: Vec<_> = (0..50).map(|n| self::long(&format!("b{n}"), "orders", 60_000)).collect();
    assert_eq!(publisher.publish(&batch).await, "b49");

    publisher.say(&vec![0; 12_583_040]).await;
    let too_long = "grpc: received message larger than max (12583040 vs. 11534336)";
    assert_eq!(publisher.status().await, (8, too_long.to_owned()));
    let mut again = gamma.publisher().await;
    assert_eq!(again.publish(&[record("r1", "orders")]).await, "r1", "the connection goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_that_has_been_here_before_is_dropped_and_none_goes_to_who_has_had_it() {
    let site = Site::start(&[]);
    let mut alpha = site.rpc("alpha").await;
    let mut subscriber = alpha.subscriber(&["orders"], false).await;
    let mut beta = site.ws("beta");
    beta.hello("beta", &["orders"], false);
    site.wait_until_subscribed(2);
    let mut publisher = alpha.publisher().await;

    let looped = record_by("l1", "orders", "x", "\"x\",\"localhost\"");
    assert_eq!(publisher.publish(&[looped]).await, "l1");
    site.wait_for_records("loop", 1.0);
    let own = record_by("r1", "orders", "alpha", "\"alpha\"");
    assert_eq!(publisher.publish(&[own, record("r2", "orders")]).await, "r2");

    assert_eq!(ids(&beta.take(2)), ["r1", "r2"]);
    assert_eq!(ids(&subscriber.take(1).await), ["r2"]);

    // Of a batch without a record for the peer, nobody waits for an acknowledgement.
    let own = record_by("r3", "orders", "alpha", "\"alpha\"");
    assert_eq!(publisher.publish(&[own]).await, "r3");
    assert_eq!(publisher.publish(&[record("r4", "orders")]).await, "r4");
    assert_eq!(ids(&subscriber.records().await), ["r4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_without_an_acknowledgement_comes_again_on_the_same_session() {
    let site = Site::start(&["--keyop-ack-timeout=1s"]);
    let mut alpha = site.rpc("alpha").await;
    let mut subscriber = alpha.subscriber(&["orders"], false).await;
    let mut beta = site.ws("beta");
    beta.hello("beta", &["orders"], false);
    site.wait_until_subscribed(2);
    let mut publisher = alpha.publisher().await;
    assert_eq!(publisher.publish(&[record("r1", "orders")]).await, "r1");
    for _ in 0..2 {
        assert_eq!(ids(&subscriber.records().await), ["r1"]);
        assert_eq!(ids(&beta.records()), ["r1"]);
    }
    subscriber.acknowledge("r1").await;
    beta.acknowledge("r1");
    assert_eq!(publisher.publish(&[record("r2", "orders")]).await, "r2");
    assert_eq!(ids(&subscriber.take(1).await), ["r2"]);
    assert_eq!(ids(&beta.records()), ["r2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caller_of_something_else_hears_what_a_server_of_grpc_says() {
    let site = Site::start(&[]);
    let mut alpha = site.rpc("alpha").await;
    let unknown = "unknown method Nope for service federation.v1.FederationService".to_owned();
    let mut call = alpha.call("/federation.v1.FederationService/Nope").await;
    assert_eq!(call.status().await, (12, unknown));
    let mut call = alpha.call(SUBSCRIBE).await;
    call.say(&repeated(2, &[Vec::new()])).await;
    assert_eq!(call.status().await, (3, "first frame must be SubscribeRequest".to_owned()));
    let mut call = alpha.call(PUBLISH).await;
    call.say(&[0xff; 3]).await;
    assert_eq!(call.status().await.0, 13);
    let mut call = alpha.call(PUBLISH).await;
    call.say_raw(vec![1, 0, 0, 0, 0]).await;
    assert_eq!(call.status().await.0, 13);
    let mut calls = Vec::new();
    for _ in 0..4 {
        calls.push(alpha.call(PUBLISH).await);
    }
    assert_eq!(alpha.call(PUBLISH).await.status().await.0, 14, "a peer has four calls at a time");
    assert_eq!(calls[0].publish(&[record("r1", "orders")]).await, "r1");
}

#[test]
fn durable_websocket_peers_are_not_pinged_and_closed_last() {
    let site = Site::start(&["--idle-timeout=1s", "--ping-interval=300ms", "--drain-time=1s"]);
    let mut durable = site.ws("durable");
    durable.hello("durable", &["orders"], false);
    let mut ephemeral = site.ws("ephemeral");
    ephemeral.hello("ephemeral", &["orders"], true);
    assert_eq!(ephemeral.read().unwrap().0, 9, "one that notices is looked after");
    drop(ephemeral);
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(durable.is_silent());
    let mut last = site.ws("late");
    last.hello("late", &["orders"], true);

    site.relay.signal("TERM");

    while last.read().is_some_and(|(opcode, _)| opcode != 8) {}
    assert!(durable.is_silent(), "it is closed behind all others");
    assert_eq!(durable.close().0, 1001);
}

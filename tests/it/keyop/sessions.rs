//! Peers on both transports: what they publish reaches who subscribes, and acknowledgements move.

use std::fs;
use std::time::Duration;

use super::{Site, ids, record, record_by};

fn text(record: &[u8]) -> String {
    String::from_utf8(record.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_goes_from_one_transport_to_the_other_with_the_hub_in_its_route() {
    let site = Site::start(&[]);
    let mut alpha = site.rpc("alpha").await;
    let mut subscriber = alpha.subscriber(&["orders"], false).await;
    let mut publisher = alpha.publisher().await;
    let mut beta = site.ws("beta");
    beta.hello("beta", &["alerts"], false);
    site.wait_until_subscribed(2);

    assert_eq!(beta.publish(&[record("r1", "orders"), record("r2", "orders")]), "r2");
    let records = subscriber.take(2).await;
    assert_eq!(ids(&records), ["r1", "r2"]);
    let sent = text(&record("r1", "orders"));
    let forwarded = sent.replace("\"payload\":", "\"route\":[\"localhost\"],\"payload\":");
    assert_eq!(text(&records[0]), forwarded);

    let by_alpha = record_by("r3", "alerts", "alpha", "\"alpha\"");
    assert_eq!(publisher.publish(std::slice::from_ref(&by_alpha)).await, "r3");
    let records = beta.records();
    assert_eq!(
        text(&records[0]),
        text(&by_alpha).replace("\"alpha\"]", "\"alpha\",\"localhost\"]")
    );
    beta.acknowledge("r3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn durable_peers_resume_where_they_stopped_and_ephemeral_ones_at_the_end() {
    let mut site = Site::start(&[]);
    let mut publisher = site.ws("publisher");
    publisher.hello("publisher", &[], false);
    {
        let mut alpha = site.rpc("alpha").await;
        let mut subscriber = alpha.subscriber(&["orders"], false).await;
        let mut beta = site.ws("beta");
        beta.hello("beta", &["orders"], false);
        let mut gamma = site.ws("gamma");
        gamma.hello("gamma", &["orders"], true);
        site.wait_until_subscribed(3);
        assert_eq!(publisher.publish(&[record("r1", "orders")]), "r1");
        assert_eq!(ids(&subscriber.take(1).await), ["r1"]);
        assert_eq!(ids(&beta.records()), ["r1"]);
        assert_eq!(ids(&gamma.records()), ["r1"]);
        // Without an acknowledgement of beta.
        site.wait_until_acknowledged(1.0);
    }
    site.restart("TERM");
    let mut publisher = site.ws("publisher");
    publisher.hello("publisher", &[], false);
    assert_eq!(publisher.publish(&[record("r2", "orders")]), "r2");

    let mut alpha = site.rpc("alpha").await;
    let mut subscriber = alpha.subscriber(&["orders"], false).await;
    assert_eq!(ids(&subscriber.take(1).await), ["r2"]);
    let mut beta = site.ws("beta");
    beta.hello("beta", &["orders"], false);
    assert_eq!(ids(&beta.take(2)), ["r1", "r2"]);
    let mut gamma = site.ws("gamma");
    gamma.hello("gamma", &["orders"], true);
    assert!(gamma.is_silent(), "an ephemeral peer gets nothing of before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newer_connection_of_a_peer_takes_over_and_gets_what_was_not_acknowledged() {
    let site = Site::start(&[]);
    let mut first = site.rpc("alpha").await;
    let mut subscriber = first.subscriber(&["orders"], false).await;
    site.wait_until_subscribed(1);
    let mut beta = site.ws("beta");
    beta.hello("beta", &[], false);
    assert_eq!(beta.publish(&[record("r1", "orders")]), "r1");
    assert_eq!(ids(&subscriber.records().await), ["r1"]);

    let mut second = site.rpc("alpha").await;
    let mut again = second.subscriber(&["orders"], false).await;

    assert_eq!(ids(&again.take(1).await), ["r1"]);
    assert_eq!(subscriber.status().await.0, 1, "another connection took over");
    first.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn allow_list_is_taken_over_while_peers_are_connected() {
    let peers = |alpha: &str, more: &str| {
        format!("[[keyop.peer]]\nname = \"alpha\"\nsubscribe = [{alpha}]\n{more}")
    };
    let beta = "[[keyop.peer]]\nname = \"beta\"\npublish = [\"orders\"]\n";
    let site = Site::with_config(&peers("\"alerts\"", beta), &[]);
    let mut nobody = site.ws("nobody");
    nobody.say(1, b"{}");
    assert_eq!(nobody.close(), (4403, "not in allowlist".to_owned()));
    let mut alpha = site.ws("alpha");
    alpha.hello("alpha", &["orders", "alerts"], false);
    let mut beta = site.ws("beta");
    beta.hello("beta", &["alerts"], false);
    site.wait_until_subscribed(2);
    assert_eq!(beta.publish(&[record("p1", "alerts"), record("p2", "orders")]), "p2");
    site.wait_for_records("not_allowed", 1.0);
    assert!(alpha.is_silent(), "it may not have the one, and nobody may publish the other");

    let config = site.folder.path().join("relay.toml");
    fs::write(&config, peers("\"orders\"", "[[keyop.peer]]\nname = \"gamma\"\n")).unwrap();
    site.relay.signal("HUP");

    assert_eq!(beta.close(), (4403, "not in allowlist".to_owned()));
    let mut gamma = site.rpc("gamma").await;
    let mut publisher = gamma.publisher().await;
    site.wait_until_subscribed(1);
    assert_eq!(publisher.publish(&[record("p3", "orders")]).await, "p3");
    assert_eq!(ids(&alpha.records()), ["p3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_stops_says_so_to_each_call_and_with_a_close_frame() {
    let site = Site::start(&[]);
    let mut alpha = site.rpc("alpha").await;
    let mut subscriber = alpha.subscriber(&["orders"], false).await;
    let mut publisher = alpha.publisher().await;
    let mut beta = site.ws("beta");
    beta.hello("beta", &["orders"], false);
    site.wait_until_subscribed(2);

    site.relay.signal("TERM");

    assert_eq!(subscriber.status().await.0, 14);
    assert_eq!(publisher.status().await.0, 14);
    alpha.ended().await;
    assert_eq!(beta.close().0, 1001);
}

#[test]
fn long_records_come_whole_in_fragments_and_go_whole() {
    let site = Site::start(&[]);
    let mut alpha = site.ws("alpha");
    alpha.hello("alpha", &["orders"], false);
    site.wait_until_subscribed(1);
    let mut beta = site.ws("beta");
    beta.hello("beta", &[], false);
    let filler = "y".repeat(3_000_000);
    let long = text(&record("long", "orders")).replace("{\"x\":1}", &format!("\"{filler}\""));

    beta.say_in_fragments(2, &super::websocket::batch(&[long.into_bytes()]));

    assert_eq!(beta.text(), "{\"last_id\":\"long\"}");
    let records = alpha.records();
    assert_eq!(records.len(), 1);
    assert!(text(&records[0]).contains(&filler));
    alpha.acknowledge("long");
}

/// `cargo test … soak_idle_peers_of_keyop -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures memory"]
async fn soak_idle_peers_of_keyop() {
    const PEERS: usize = 300;
    let site = Site::start(&["--log-level=info"]);
    let resident = || {
        let status = fs::read_to_string(format!("/proc/{}/status", site.relay.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<usize>().unwrap()
    };
    let mut first = site.rpc("first").await;
    let _kept = first.subscriber(&["orders"], false).await;
    let before = resident();
    let mut peers = Vec::new();
    for number in 0..PEERS {
        let mut peer = site.rpc(&format!("peer-{number}")).await;
        let publisher = peer.publisher().await;
        let subscriber = peer.subscriber(&["orders"], false).await;
        peers.push((peer, publisher, subscriber));
    }
    site.wait_until_subscribed(PEERS + 1);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let each = (resident() - before) as f64 / PEERS as f64;
    eprintln!("{PEERS} idle peers over gRPC and TLS: {each:.1} KiB each");
    assert!(each < 64.0, "{each:.1} KiB");
}

//! Peers that mean harm, or are broken: they cost others nothing.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use super::grpc::{PUBLISH, SUBSCRIBE, request};
use super::{Site, ids, record};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peer_that_resets_calls_as_fast_as_it_can_is_ended_or_served_and_others_are_served() {
    let site = Site::start(&[]);
    let mut hostile = site.rpc("hostile").await;
    for _ in 0..3_000 {
        let Some(mut call) = hostile.try_call(SUBSCRIBE).await else { break };
        call.cancel();
    }
    let mut alpha = site.rpc("alpha").await;
    let mut subscriber = alpha.subscriber(&["orders"], false).await;
    site.wait_until_subscribed(1);
    let mut publisher = alpha.publisher().await;
    assert_eq!(publisher.publish(&[record("r1", "orders")]).await, "r1");
    assert_eq!(ids(&subscriber.take(1).await), ["r1"]);
    site.relay.wait_for_metric("pilot_beacon_wss_panics_total", 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_that_is_none_of_grpc_is_refused_and_the_connection_goes_on() {
    let site = Site::start(&[]);
    let mut alpha = site.rpc("alpha").await;
    for (method, content) in [("GET", "application/grpc"), ("POST", "text/plain")] {
        let mut call = alpha.call_as(PUBLISH, method, content).await;
        assert_eq!(call.http_status().await, 415);
    }
    let mut publisher = alpha.publisher().await;
    assert_eq!(publisher.publish(&[record("r1", "orders")]).await, "r1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriber_that_takes_nothing_delays_neither_its_own_answers_nor_others() {
    let site = Site::start(&[]);
    let mut slow = site.rpc("slow").await;
    let mut never_read = slow.call(SUBSCRIBE).await;
    never_read.say(&request(&["orders"], false)).await;
    let mut own = slow.publisher().await;
    let mut beta = site.ws("beta");
    beta.hello("beta", &["orders"], false);
    site.wait_until_subscribed(2);

    let filler = "y".repeat(200_000);
    for number in 0..10 {
        let id = format!("r{number}");
        let text = String::from_utf8(record(&id, "orders")).unwrap();
        let long = text.replace("{\"x\":1}", &format!("\"{filler}\"")).into_bytes();
        assert_eq!(own.publish(&[long]).await, id);
        assert_eq!(ids(&beta.take(1)), [id]);
    }
    let all = never_read.take(10).await;
    assert_eq!(ids(&all)[9], "r9", "it gets all of them once it reads");
}

#[test]
fn connection_that_says_nothing_or_speaks_neither_protocol_is_ended() {
    let site = Site::start(&["--auth-timeout=1s"]);
    let identity = site.authority.issue("alpha");
    let begun = Instant::now();
    for said in [
        &b""[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n",
        b"\x16\x03\x01",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense",
    ] {
        let mut peer = super::Ws::connect(site.address, &site.authority, &identity).unwrap();
        peer.stream.write_all(said).unwrap();
        let mut answer = Vec::new();
        // The end, by whatever means.
        let _ended = peer.stream.read_to_end(&mut answer);
    }
    assert!(begun.elapsed() < Duration::from_secs(12), "each ends by its deadline");
    let mut peer = site.ws("alpha");
    peer.hello("alpha", &[], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_of_very_many_records_is_refused_on_both_transports() {
    let site = Site::start(&[]);
    let many = vec![b"{}".to_vec(); 65_537];
    let mut alpha = site.rpc("alpha").await;
    let mut publisher = alpha.publisher().await;
    publisher.say(&super::grpc::repeated(1, &many)).await;
    assert_eq!(publisher.status().await.0, 8);
    let mut beta = site.ws("beta");
    beta.hello("beta", &[], false);
    beta.say(2, &super::websocket::batch(&many));
    assert_eq!(beta.close().0, 1002);
    let mut again = alpha.publisher().await;
    assert_eq!(again.publish(&[record("r1", "orders")]).await, "r1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_peer_over_grpc_is_pinged_and_one_that_does_not_answer_is_ended() {
    let flags = ["--ping-interval=200ms", "--pong-timeout=500ms", "--idle-timeout=2s"];
    let site = Site::start(&flags);
    let mut alpha = site.rpc("alpha").await;
    let mut publisher = alpha.publisher().await;
    let identity = site.authority.issue("dead");
    let mut dead = super::Ws::connect(site.address, &site.authority, &identity).unwrap();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let begun = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat();
    dead.stream.write_all(&begun).unwrap();

    let mut heard = Vec::new();
    let _ended = dead.stream.read_to_end(&mut heard);

    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0];
    assert!(heard.windows(ping.len()).any(|bytes| bytes == ping), "{heard:?}");
    site.relay.wait_for_metric("pilot_beacon_wss_sessions_ended_total{reason=\"idle\"}", 1.0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(publisher.publish(&[record("r1", "orders")]).await, "r1", "it answers its pings");
}

#[test]
fn peer_that_names_too_many_channels_is_sent_away_and_the_log_says_why() {
    let site = Site::start(&[]);
    let names: Vec<_> = (0..4_100).map(|number| format!("channel-{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut hostile = site.ws("hostile");

    hostile.hello("hostile", &names, true);

    assert_eq!(hostile.close().0, 1013);
    let line = site.relay.wait_for_line("a peer names more channels than it may");
    assert!(line.contains("passed_over=4") && line.contains("hostile"), "{line}");
    let line = site.relay.wait_for_line("a subscriber is refused");
    assert!(line.contains("channels_of_peer"), "{line}");
    let mut alpha = site.ws("alpha");
    alpha.hello("alpha", &["orders"], true);
    site.wait_until_subscribed(1);
    assert_eq!(alpha.publish(&[record("r1", "alerts")]), "r1");
}

//! `connect` and the demo's transfer against a minimal relay.

// That of the library's own tests.
#[path = "../../../crates/client/tests/client/relay.rs"]
mod relay;
mod transfer;

use std::path::Path;
use std::time::Duration;

use beacon_relay::cli::connect;
use beacon_relay::client::udp;
use beacon_relay::ids::NodeId;
use tokio::net::TcpListener;
use tokio::time::timeout;

use relay::Relay;

const PATIENCE: Duration = Duration::from_secs(10);

fn node(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

fn connect_args(url: &str, key: &Path) -> connect::Args {
    connect::Args {
        url: url.to_owned(),
        node_id: node(1),
        key: key.to_owned(),
        to: Some(node(2)),
        file: None,
        ca: None,
        relay_name: None,
        proxy: None,
        raw: false,
        once: false,
        timeout: None,
    }
}

#[tokio::test]
async fn connect_sends_a_file_in_chunks_says_bye_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (key, path) = (folder.path().join("node.key"), folder.path().join("file"));
    std::fs::write(&key, "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n").unwrap();
    let file: Vec<u8> = (0..12_345_u32).flat_map(u32::to_be_bytes).collect();
    std::fs::write(&path, &file).unwrap();
    let relay = Relay::start(u32::MAX).await;
    let mut peer = udp::Peer::connect(relay.udp, node(2), None, false).await.unwrap();
    let args = connect::Args { file: Some(path), ..connect_args(&relay.url, &key) };

    let receiving = async {
        let mut copy = Vec::new();
        while copy.len() < file.len() {
            let payload = peer.recv().await.unwrap().payload;
            assert!(payload.len() <= 1_200);
            copy.extend_from_slice(&payload);
        }
        copy
    };
    let (ended, copy) = tokio::join!(connect::run(args), timeout(PATIENCE, receiving));
    ended.unwrap();
    assert_eq!(copy.unwrap(), file);
}

#[tokio::test]
async fn connect_that_is_refused_ends_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("node.key");
    std::fs::write(&key, "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let relay = async {
        let mut socket = relay::upgrade(listener.accept().await.unwrap().0).await;
        relay::challenge(&mut socket, None).await.unwrap();
        relay::close(socket, 1008, "auth failed").await;
    };
    let args = connect::Args { file: Some(key.clone()), ..connect_args(&url, &key) };
    let (ended, ()) = tokio::join!(timeout(PATIENCE, connect::run(args)), relay);
    let error = format!("{:#}", ended.unwrap().unwrap_err());
    for part in ["auth failed", "node.key", "enroll 1 "] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(error.lines().count(), 1);
}

#[tokio::test]
async fn connect_once_ends_with_the_first_answer_of_the_node_that_it_sent_to() {
    let folder = tempfile::tempdir().unwrap();
    let (key, path) = (folder.path().join("node.key"), folder.path().join("file"));
    std::fs::write(&key, "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n").unwrap();
    std::fs::write(&path, "question").unwrap();
    let relay = Relay::start(u32::MAX).await;
    let mut peer = udp::Peer::connect(relay.udp, node(2), None, false).await.unwrap();
    let other = udp::Peer::connect(relay.udp, node(3), None, false).await.unwrap();
    let args = connect::Args {
        file: Some(path),
        once: true,
        timeout: Some(PATIENCE),
        ..connect_args(&relay.url, &key)
    };

    let answering = async {
        let question = peer.recv().await.unwrap().payload;
        // Not whom it asked.
        other.send_to(node(1), b"noise").await.unwrap();
        peer.send_to(node(1), b"answer").await.unwrap();
        question
    };
    let (ended, question) = tokio::join!(timeout(PATIENCE, connect::run(args)), answering);
    ended.unwrap().unwrap();
    assert_eq!(&*question, b"question");
}

#[tokio::test]
async fn connect_says_when_nobody_has_taken_the_packet() {
    let folder = tempfile::tempdir().unwrap();
    let (key, path) = (folder.path().join("node.key"), folder.path().join("file"));
    std::fs::write(&key, "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n").unwrap();
    std::fs::write(&path, "anybody?").unwrap();
    let relay = Relay::start(u32::MAX).await;
    let args = connect::Args {
        file: Some(path),
        once: true,
        timeout: Some(Duration::from_millis(300)),
        ..connect_args(&relay.url, &key)
    };
    let error = connect::run(args).await.unwrap_err().to_string();
    for part in ["no answer of node 2 within 0.3 s", "beacon-relay explain 2"] {
        assert!(error.contains(part), "{error}");
    }
}

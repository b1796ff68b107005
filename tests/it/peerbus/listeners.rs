//! The door on a listener of any kind: with TLS, below a prefix, and next to another door.

use beacon_relay::client::peerbus::{Client, Options, Sent};
use beacon_relay::net::tls::Trust;

use super::{Site, write_secret};
use crate::harness::Relay;
use crate::peer::Peer;
use crate::tls::certificates;

/// The longest body of which a message to oneself arrives, but for some bytes.
const LONG: usize = 1_048_000;

#[tokio::test(flavor = "multi_thread")]
async fn longest_messages_cross_tls_below_a_prefix_next_to_another_door() {
    let folder = certificates();
    let at = |file: &str| folder.path().join(file).to_str().unwrap().to_owned();
    write_secret(&folder.path().join("tokens"), "tok\n");
    let table = format!(
        "peerbus_tokens_file = \"{}\"\n[[listener]]\nname = \"bus\"\nbind = \"127.0.0.1:0\"\n\
         doors = [\"pilot\", \"peerbus\"]\npath = \"/bus\"\n\
         tls = [{{ cert = \"{}\", key = \"{}\" }}]\n",
        at("tokens"),
        at("cert.pem"),
        at("key.pem"),
    );
    std::fs::write(at("relay.toml"), table).unwrap();
    let relay = Relay::start(["--config", &at("relay.toml")]);
    let line = relay.wait_for_line("listener=\"bus\"");
    let address = line.split_once("bind=").unwrap().1.split(' ').next().unwrap();

    let mut options = Options::new(format!("wss://{address}/bus/agents"), "alice", "tok");
    options.trust = Trust::CaFile(folder.path().join("ca.pem"));
    let mut alice = Client::start(options).unwrap();
    alice.connected().await.unwrap();
    for letter in ["x", "y"] {
        let body = letter.repeat(LONG);
        assert_eq!(alice.send("alice", &body).await.unwrap(), Sent::Stored);
        let delivery = alice.recv().await.unwrap().unwrap();
        assert!(delivery.read::<String>().unwrap() == body);
        delivery.ack().await;
    }
    alice.close().await.unwrap();
}

#[test]
fn page_of_another_origin_is_refused_and_one_of_its_own_is_not() {
    let site = Site::start(&[]);
    let ask = |origin: &str| {
        let mut peer = Peer::connect(site.address);
        let (status, _) = peer.ask(&format!(
            "GET / HTTP/1.1\r\nHost: {}\r\nOrigin: {origin}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            site.address
        ));
        status
    };
    assert_eq!(ask("http://evil.example"), 403);
    assert_eq!(ask("null"), 403);
    assert_eq!(ask(&format!("http://{}", site.address)), 101);
}

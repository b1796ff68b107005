//! The client of `crates/client` and its example against a real relay.

use std::time::Duration;

use beacon_relay::client::netbird::{
    Client, ConnectError, Credential, Event, Options, PeerId, QuicError, SendError, SessionError,
    Transport, token,
};
use beacon_relay::net::tls::Trust;
use tokio::time::timeout;

use super::{EXPOSED, SECRET, Site, unix_now};
use crate::cells::assert_balance;
use crate::control::ask;
use crate::harness::PATIENCE;

#[allow(dead_code, reason = "its `main` is for the terminal")]
#[path = "../../../crates/client/examples/netbird.rs"]
mod example;

fn peer(name: &str) -> PeerId {
    PeerId::of_name(name)
}

impl Site {
    /// How a peer of this name logs in.
    fn options(&self, name: &str) -> Options {
        let secret = Credential::Secret(SECRET.to_owned());
        Options::new(format!("rel://{}", self.address), peer(name), secret)
    }
}

async fn recv(client: &mut Client) -> Event {
    timeout(PATIENCE, client.recv()).await.expect("an event comes").unwrap().unwrap()
}

#[tokio::test]
async fn clients_subscribe_exchange_packets_and_leave() {
    let site = Site::start(&[]);
    let mut alice = Client::connect(&site.options("alice")).await.unwrap();
    assert_eq!(alice.instance(), EXPOSED);
    alice.subscribe(&[peer("bob"), peer("alice")]).await.unwrap();
    assert_eq!(recv(&mut alice).await, Event::Online(vec![peer("alice")]));
    let mut by_token = site.options("bob");
    by_token.credential = Credential::Token(token(SECRET, unix_now() + 60));
    let mut bob = Client::connect(&by_token).await.unwrap();
    assert_eq!(recv(&mut alice).await, Event::Online(vec![peer("bob")]));
    for size in [0, 1, 125, 126, 1_312, 8_782] {
        let payload = vec![7; size];
        alice.send_to(peer("bob"), &payload).await.unwrap();
        let payload = payload.into();
        assert_eq!(recv(&mut bob).await, Event::Packet { sender: peer("alice"), payload });
    }
    bob.close().await.unwrap();
    assert_eq!(recv(&mut alice).await, Event::Offline(vec![peer("bob")]));
    alice.unsubscribe(&[peer("bob")]).await.unwrap();
    alice.close().await.unwrap();
    site.relay.wait_for_metric("beacon_relay_netbird_subscriptions", 0.0);
    assert_balance(&site.relay);
}

/// All ways from one client to another.
const CELLS: [[Transport; 2]; 4] = [
    [Transport::WebSocket, Transport::WebSocket],
    [Transport::WebSocket, Transport::Quic],
    [Transport::Quic, Transport::WebSocket],
    [Transport::Quic, Transport::Quic],
];

impl Site {
    /// How a peer of this name logs in where there is TLS.
    fn options_over(&self, transport: Transport, name: &str) -> Options {
        let url = format!("rels://{}", self.quic.unwrap());
        let secret = Credential::Secret(SECRET.to_owned());
        let options = Options::new(url, peer(name), secret);
        options.transport(transport).trust(Trust::CaFile(self.ca()))
    }
}

#[tokio::test]
async fn clients_over_quic_and_websocket_with_tls_meet_in_each_cell() {
    let site = Site::with_tls(&[]);
    for [from, to] in CELLS {
        let mut alice = Client::connect(&site.options_over(from, "alice")).await.unwrap();
        alice.subscribe(&[peer("bob")]).await.unwrap();
        let mut bob = Client::connect(&site.options_over(to, "bob")).await.unwrap();
        // At once, before the path is known to carry as much.
        bob.send_to(peer("alice"), &[7; 1_312]).await.unwrap();
        assert_eq!(recv(&mut alice).await, Event::Online(vec![peer("bob")]));
        let payload = vec![7; 1_312].into();
        assert_eq!(recv(&mut alice).await, Event::Packet { sender: peer("bob"), payload });
        for number in 0..100_u32 {
            let sent = [&number.to_be_bytes()[..], &[9; 1_308]].concat();
            alice.send_to(peer("bob"), &sent).await.unwrap();
            let payload = sent.into();
            assert_eq!(recv(&mut bob).await, Event::Packet { sender: peer("alice"), payload });
        }
        bob.close().await.unwrap();
        assert_eq!(recv(&mut alice).await, Event::Offline(vec![peer("bob")]));
        alice.close().await.unwrap();
        // Its number is free again for the next.
        site.relay.wait_for_metric("beacon_relay_sessions{door=\"netbird\"}", 0.0);
    }
    assert_balance(&site.relay);
}

#[tokio::test]
async fn client_over_quic_is_refused_taken_over_and_told_what_does_not_fit() {
    let site = Site::with_tls(&[]);
    let over_quic = |name| site.options_over(Transport::Quic, name);
    let guessed = Credential::Secret("guessed".to_owned());
    let mut guessing = over_quic("eve");
    guessing.credential = guessed;
    let refused = Client::connect(&guessing).await;
    assert!(matches!(refused.unwrap_err(), ConnectError::Refused));
    let mut without_tls = over_quic("eve");
    without_tls.url = format!("rel://{}", site.address);
    let error = Client::connect(&without_tls).await.unwrap_err();
    assert!(matches!(error, ConnectError::Quic(QuicError::NoTls)), "{error}");

    let mut older = Client::connect(&over_quic("alice")).await.unwrap();
    let large = older.send_to(peer("alice"), &[7; 2_000]).await;
    assert!(matches!(large, Err(SendError::TooLarge { bytes: 2_038, .. })), "{large:?}");
    let _newer = Client::connect(&over_quic("alice")).await.unwrap();
    let error = timeout(PATIENCE, older.recv()).await.unwrap().unwrap_err();
    assert!(matches!(error, SessionError::Lost), "{error}");
}

#[test]
fn operators_see_clients_of_both_carriers_and_end_them() {
    let site = Site::with_tls(&[]);
    let mut alice = site.log_in("alice");
    let bob = site.log_in_by_quic("bob");
    let listed = ask(&site.relay, &["peers"]);
    let names: Vec<_> = listed["peers"].as_array().unwrap().iter().collect();
    assert_eq!(names.len(), 2, "{listed}");
    for name in ["alice", "bob"] {
        let name = format!("netbird:{}", peer(name));
        let text = listed.to_string();
        assert!(text.contains(&name), "{name} is not in {text}");
        assert_eq!(ask(&site.relay, &["explain", &name])["door"], "netbird");
        assert_eq!(ask(&site.relay, &["kick", &name])["session"], true);
        assert!(!ask(&site.relay, &["explain", &name]).to_string().is_empty());
    }
    assert_eq!(alice.read(), Some((2, vec![1, 4])));
    assert_eq!(alice.read(), None);
    // What is sent just before the end of a connection over QUIC may be lost.
    assert!(matches!(bob.read().as_deref(), Some([1, 4]) | None));
    assert_eq!(bob.close_reason().0, 0);
    assert_eq!(ask(&site.relay, &["peers"])["peers"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn client_tells_a_refusal_a_takeover_and_a_shutdown_apart() {
    let site = Site::start(&[]);
    let guessed = Credential::Secret("guessed".to_owned());
    let mut refused = site.options("eve");
    refused.credential = guessed;
    let error = Client::connect(&refused).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused), "{error}");

    let mut older = Client::connect(&site.options("alice")).await.unwrap();
    let mut newer = Client::connect(&site.options("alice")).await.unwrap();
    let error = timeout(PATIENCE, older.recv()).await.unwrap().unwrap_err();
    assert!(matches!(error, SessionError::Lost), "{error}");

    site.relay.signal("TERM");
    let error = timeout(PATIENCE, newer.recv()).await.unwrap().unwrap_err();
    assert!(matches!(error, SessionError::Closed), "{error}");
}

#[tokio::test]
async fn example_meets_another() {
    let site = Site::start(&[]);
    let (alice, bob) = (site.options("alice"), site.options("bob"));
    let met = async {
        tokio::join!(example::meet(&alice, peer("bob")), async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            example::meet(&bob, peer("alice")).await
        })
    };
    let (alice, bob) = timeout(PATIENCE, met).await.unwrap();
    assert_eq!((&*alice.unwrap(), &*bob.unwrap()), ("hello", "hello"));
}

//! The client of `crates/client` and its example against a real relay.

use std::time::Duration;

use beacon_relay::client::netbird::{
    Client, ConnectError, Credential, Event, Options, PeerId, SessionError, token,
};
use tokio::time::timeout;

use super::{EXPOSED, SECRET, Site, unix_now};
use crate::cells::assert_balance;
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
    let by_token = Options {
        credential: Credential::Token(token(SECRET, unix_now() + 60)),
        ..site.options("bob")
    };
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

#[tokio::test]
async fn client_tells_a_refusal_a_takeover_and_a_shutdown_apart() {
    let site = Site::start(&[]);
    let guessed = Credential::Secret("guessed".to_owned());
    let refused = Options { credential: guessed, ..site.options("eve") };
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

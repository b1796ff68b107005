//! The client of `crates/client` and its example against a real relay.

use beacon_relay::client::peerbus::{
    Client, Delivery, Options, Refusal, Refused, Secret, SendError, Sent, State,
};
use beacon_relay::wire::peerbus::EVERYBODY;
use tokio::time::timeout;

use super::{Site, write_secret};
use crate::cells::assert_balance;
use crate::harness::PATIENCE;

#[allow(dead_code, reason = "its `main` is for the terminal")]
#[path = "../../../crates/client/examples/peerbus.rs"]
mod example;

const SECRET: &str = "peerbus-test-peerbus-test-peerbu";

impl Site {
    /// How a peer of this name registers.
    fn options(&self, name: &str) -> Options {
        Options::new(format!("ws://{}", self.address), name, "tok")
    }

    async fn client(&self, name: &str) -> Client {
        let mut client = Client::start(self.options(name)).unwrap();
        soon(client.connected()).await.unwrap();
        client
    }
}

async fn soon<T>(awaited: impl Future<Output = T>) -> T {
    timeout(PATIENCE, awaited).await.expect("it comes")
}

async fn recv(client: &mut Client) -> Delivery {
    soon(client.recv()).await.unwrap().expect("a message")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_talk_whether_they_are_there_or_not() {
    let site = Site::start(&[]);
    // Who was never there cannot be written to.
    for name in ["bob", "carol"] {
        site.client(name).await.close().await.unwrap();
    }
    let heard = example::talk(site.options("alice"), "bob", 0);
    assert!(soon(heard).await.unwrap().is_empty());
    let carol = example::talk(site.options("carol"), "bob", 1);
    let bob = example::talk(site.options("bob"), "carol", 2);
    let (carols, bobs) = soon(async { tokio::join!(carol, bob) }).await;
    let hello = |name: &str| (name.to_owned(), "\"hello\"".to_owned());
    assert_eq!(carols.unwrap(), [hello("bob")]);
    assert_eq!(bobs.unwrap(), [hello("alice"), hello("carol")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_receipted_refused_and_broadcast() {
    let site = Site::start(&[]);
    let mut alice = site.client("alice").await;
    let mut bob = site.client("bob").await;
    assert_eq!(soon(alice.peers()).await.unwrap(), ["alice", "bob"]);
    for number in 0..100 {
        assert_eq!(soon(alice.send("bob", &number)).await, Ok(Sent::Stored));
    }
    for number in 0..100 {
        let delivery = recv(&mut bob).await;
        assert_eq!((delivery.from(), delivery.read().unwrap()), ("alice", number));
        delivery.ack().await;
    }
    let refused = soon(alice.send("nobody-ever", &1)).await.unwrap_err();
    assert!(matches!(refused, SendError::Refused { .. }), "{refused}");
    assert_eq!(soon(bob.broadcast(&"all")).await, Ok(Sent::Stored));
    let delivery = recv(&mut alice).await;
    assert!(delivery.is_broadcast());
    delivery.ack().await;
    for client in [alice, bob] {
        soon(client.close()).await.unwrap();
    }
    assert_balance(&site.relay);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_outlive_a_relay_that_is_killed() {
    let mut site = Site::start(&[]);
    let mut bob = site.client("bob").await;
    let alice = site.client("alice").await;
    let (sender, _receiver, mut state) = alice.split();
    let mut all = Vec::new();
    for number in 0..50 {
        all.push(sender.post("bob", &number).await.unwrap());
    }
    let held = recv(&mut bob).await;
    assert_eq!(held.body(), "0");
    site.relay.signal("KILL");
    for number in 50..100 {
        all.push(sender.post("bob", &number).await.unwrap());
    }
    // Known to the client only, which tells the next relay.
    held.ack().await;
    site.start_again_here();
    soon(state.wait_for(|state| matches!(state, State::Connected))).await.unwrap();
    for pending in all {
        soon(pending.sent()).await.unwrap();
    }
    for number in 1..100 {
        let delivery = recv(&mut bob).await;
        assert_eq!(delivery.read::<u32>().unwrap(), number);
        delivery.ack().await;
    }
    soon(bob.close()).await.unwrap();
    let mut bob = site.client("bob").await;
    assert!(timeout(PATIENCE / 40, bob.recv()).await.is_err(), "acknowledged messages came again");
}

#[tokio::test]
async fn signatures_are_good_for_the_relay_and_for_peers() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    write_secret(&secret, SECRET);
    let site = Site::start(&["--peerbus-hmac-secret-file", secret.to_str().unwrap()]);
    let options = |name, secret: &str| site.options(name).secret(Secret::new(secret).unwrap());
    let mut alice = Client::start(options("alice", SECRET)).unwrap();
    let bob = Client::start(options("bob", SECRET)).unwrap();
    soon(alice.connected()).await.unwrap();
    assert_eq!(soon(bob.send("alice", &["<é>"])).await, Ok(Sent::Stored));
    assert_eq!(recv(&mut alice).await.body(), "[\"\\u003cé\\u003e\"]");
    let mallory = Client::start(options("mallory", &"x".repeat(32))).unwrap();
    let sent = soon(mallory.send(EVERYBODY, &1)).await;
    assert!(matches!(sent, Err(SendError::Refused { .. })), "{sent:?}");
}

#[tokio::test]
async fn refused_clients_end() {
    let site = Site::start(&[]);
    let mut owner = site.client("alice").await;
    for (token, refusal) in [("nope", Refusal::Token), ("tok-B", Refusal::Claimed)] {
        let options = Options::new(site.options("alice").url, "alice", token);
        let mut client = Client::start(options).unwrap();
        assert_eq!(soon(client.recv()).await.unwrap_err(), Refused(refusal));
    }
    assert_eq!(soon(owner.send("alice", &1)).await, Ok(Sent::Stored));
    recv(&mut owner).await;
}

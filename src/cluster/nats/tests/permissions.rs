//! The template of deploy/nats: what a relay may do on the server, and what it may not.

use async_nats::ConnectOptions;

use super::peer::{Peer, beat};
use super::{HOUR, NAME, Relay, id};
use crate::cluster::nats::message::{Message, WORDS};
use crate::net::nats::testing::{self, Server};

const TEMPLATE: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/nats/cluster.conf"));

/// The template for the relays 1 and 2; [`Server`] says itself where it listens.
fn filled_in() -> String {
    let [a, b] = [1, 2].map(|number| id(number).to_string());
    TEMPLATE
        .replace("RELAY_A", &a)
        .replace("RELAY_B", &b)
        .replace("\"PASSWORD_A\"", "\"p@ss:a\"")
        .replace("host: \"127.0.0.1\"\nport: 4222\n", "")
}

const RELAY_A: &str = "relay-a:p%40ss:a@";
const RELAY_B: &str = "relay-b:PASSWORD_B@";

#[test]
fn template_is_what_the_server_takes() {
    let said = testing::check(TEMPLATE);
    assert!(said.contains("is valid"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn template_is_enough_for_relays() {
    let server = Server::start(&filled_in()).await;
    let a = Relay::start(1, &server.url_of(RELAY_A), HOUR);
    let b = Relay::start(2, &server.url_of(RELAY_B), HOUR);
    a.until_members(1).await;
    b.until_members(1).await;
    b.stop().await;
    a.until_members(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_speaks_for_another_is_stopped_by_the_server() {
    let server = Server::start(&filled_in()).await;
    let a = Relay::start(1, &server.url_of(RELAY_A), HOUR);
    a.until_connected().await;
    let as_b = ConnectOptions::with_user_and_password("relay-b".into(), "PASSWORD_B".into());
    let mut b = Peer::connect_with(2, &server.url(), as_b).await;
    let everything = b.client.subscribe(">").await.unwrap();
    let of_others = b.client.subscribe(format!("{NAME}.to.{}.from.*", id(1))).await.unwrap();

    for relay in [id(3), id(1)] {
        b.publish(&format!("{NAME}.alive.from.{relay}"), beat(3, 0, 0).message()).await;
        let to_a = format!("{NAME}.to.{}.from.{relay}", id(1));
        b.publish(&to_a, beat(3, 1, 0).message()).await;
        b.publish(&to_a, vec![WORDS, 0xff].into()).await;
    }
    // All of that came before this, on the same connection.
    b.say(beat(2, 0, 0).message()).await;
    a.until_members(1).await;

    assert_eq!(a.member(2).relay, id(2));
    assert_eq!(a.cluster.counters().rejects.total(), 0);
    // b hears what is for b; what is for others it could not even subscribe to.
    assert!(matches!(b.next().await, Message::Beat(_)));
    drop((everything, of_others));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_password_is_tried_again_and_keeps_nobody_up() {
    let server = Server::start(&filled_in()).await;
    let a = Relay::start(1, &server.url_of("relay-a:wrong@"), HOUR);
    let b = Relay::start(2, &server.url_of(RELAY_B), HOUR);
    b.until_connected().await;
    assert_eq!(a.cluster.counters().dialling.value(), 1);
    a.stop().await;
    assert!(b.cluster.members().is_empty());
}

//! NATS is not there, or is not there for a while.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use rustix::process::Signal;

use super::peer::Peer;
use super::{HOUR, Relay, SHORT, name, until};
use crate::cluster::nats::{FIRST_PAUSE, LONGEST_PAUSE, pause};
use crate::net::nats::testing::Server;
use crate::wire::cluster::Frame;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_outlive_a_short_outage() {
    let mut server = Server::start("").await;
    let a = Relay::listening(1, &server, HOUR).await;
    let mut peer = Peer::connect(2, &server.url()).await;
    peer.pair().await;
    let member = a.member(2);

    server.stop();
    until("the loss of the connection", || a.cluster.counters().dialling.value() == 1).await;
    assert!(member.outbox.say(&Frame::Missing { id: name(7) }, Instant::now()));
    assert!(member.outbox.bytes() > 0, "it was handed to a connection that is down");
    server.start_again().await;

    until("what waits to go out", || member.outbox.bytes() == 0).await;
    assert!(Arc::ptr_eq(&a.member(2), &member));
    assert_eq!(a.lost(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_lost_in_a_long_outage_and_come_back() {
    let mut server = Server::start("").await;
    let relays = [1, 2, 3].map(|number| Relay::start(number, &server.url(), SHORT));
    for relay in &relays {
        relay.until_members(2).await;
    }

    server.stop();
    for relay in &relays {
        relay.until_members(0).await;
    }
    server.start_again().await;

    for relay in &relays {
        relay.until_members(2).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_answers_no_more_is_given_up() {
    let server = Server::start("").await;
    let relays = [1, 2].map(|number| Relay::start(number, &server.url(), SHORT));
    for relay in &relays {
        relay.until_members(1).await;
    }

    server.signal(Signal::STOP);
    for relay in &relays {
        relay.until_members(0).await;
        let is_dialling = || relay.cluster.counters().dialling.value() == 1;
        until("the loss of the connection", is_dialling).await;
    }
    server.signal(Signal::CONT);

    for relay in &relays {
        relay.until_members(1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn start_needs_no_nats() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let nobody = format!("nats://{}", free.local_addr().unwrap());
    drop(free);
    let mut server = Server::start("").await;
    let url = format!("{nobody},{}", server.url());
    server.stop();

    let relays = [1, 2].map(|number| Relay::start(number, &url, HOUR));
    assert_eq!(relays[0].cluster.counters().dialling.value(), 1);
    server.start_again().await;

    for relay in &relays {
        relay.until_members(1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_stops_while_nats_is_down() {
    let mut server = Server::start("").await;
    let a = Relay::listening(1, &server, HOUR).await;
    server.stop();
    until("the loss of the connection", || a.cluster.counters().dialling.value() == 1).await;

    a.stop().await;
}

#[test]
fn pauses_double_from_a_quarter_of_a_second_to_two() {
    let longest: Vec<_> = (0..7).map(|failures| pause(failures, u32::MAX).as_millis()).collect();
    assert_eq!(longest, [375, 750, 1_500, 3_000, 3_000, 3_000, 3_000]);
    assert_eq!((pause(0, 0), pause(u32::MAX, 0)), (FIRST_PAUSE / 2, LONGEST_PAUSE / 2));
}

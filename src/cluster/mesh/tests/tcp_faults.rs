//! Lanes over TCP that are wrong, stuck or somebody else's: refused, counted, or given up for
//! QUIC, and nobody else is disturbed.

use std::io::{Read as _, Write as _};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::tcp::{Heard, configs, send, sent_over, start};
use super::*;
use crate::cluster::PacketLane;
use crate::cluster::mesh::hub::HELLO_WITHIN;
use crate::cluster::mesh::lobby::MAX_GREETING;
use crate::cluster::mesh::tcp::testing::{Connection as TcpLane, LOST_AFTER, dial, read_bytes};
use crate::cluster::mesh::tcp::{EXPORTER_LABEL as LANES, LinkSecret, Way as Direction};
use crate::cluster::testing::packet;

/// The secret that lanes of this link are bound to.
fn secret(link: &Connection) -> LinkSecret {
    let mut secret = [0; 32];
    link.export_keying_material(&mut secret, LANES, &[]).unwrap();
    LinkSecret(secret)
}

/// A link of a puppet with the first relay, and that relay.
async fn linked() -> (Relay, Connection, [SendStream; 2], [SigningKey; 3]) {
    let keys: [_; 3] = keys();
    let relay = start(&keys[0], &[]);
    let (link, lanes) = Puppet::new(&keys[1]).link(&relay).await;
    relay.has(&[&keys[1]]).await;
    (relay, link, lanes, keys)
}

async fn lane(relay: &Relay, link: &Connection, key: &SigningKey, way: Direction) -> TcpLane {
    dial(relay.address, &configs(key), way, &secret(link)).await.unwrap()
}

/// Says on the QUIC lane of packets that what follows comes over the other one.
async fn mark(packets: &mut SendStream) {
    packets.write_all(&[0; 4]).await.unwrap();
}

#[tokio::test]
async fn relay_says_that_it_takes_lanes_to_who_has_dialled_it() {
    let (_relay, link, _lanes, _keys) = linked().await;
    let [mut words, _packets] = accept_lanes(&link).await;
    // What it can do else comes before, in a batch of its own or in the same.
    let mut said = Vec::new();
    while !said.ends_with(&[0x23, 0, 0, 0, 0]) {
        let mut length = [0; 4];
        words.read_exact(&mut length).await.unwrap();
        said.resize(u32::from_be_bytes(length).try_into().unwrap(), 0);
        words.read_exact(&mut said).await.unwrap();
    }
}

#[tokio::test]
async fn lane_for_another_link_is_refused_and_counted() {
    let (relay, link, _lanes, keys) = linked().await;
    let wrong = LinkSecret([7; 32]);
    dial(relay.address, &configs(&keys[1]), Direction::Back, &wrong).await.unwrap_err();
    relay.refuses(Reject::WrongSecret).await;

    // The secret of one relay's link is worth nothing to another.
    let (other, _other_lanes) = Puppet::new(&keys[2]).link(&relay).await;
    relay.has(&[&keys[1], &keys[2]]).await;
    dial(relay.address, &configs(&keys[2]), Direction::Back, &secret(&link)).await.unwrap_err();
    until("it is counted", || relay.rejects(Reject::WrongSecret) == 2).await;
    assert!(link.close_reason().is_none() && other.close_reason().is_none());
    assert_eq!(relay.history(), (2, 0));
}

#[tokio::test]
async fn lane_of_an_earlier_link_is_refused() {
    let (relay, link, _lanes, keys) = linked().await;
    let before = secret(&link);
    link.close(Close::Stopping.code(), &[]);
    relay.has(&[]).await;
    let (_link, _lanes) = Puppet::new(&keys[1]).link(&relay).await;
    relay.has(&[&keys[1]]).await;
    dial(relay.address, &configs(&keys[1]), Direction::Forth, &before).await.unwrap_err();
    relay.refuses(Reject::WrongSecret).await;
}

#[tokio::test]
async fn lane_of_a_relay_without_a_link_is_refused_and_counted() {
    let (relay, link, _lanes, keys) = linked().await;
    dial(relay.address, &configs(&keys[2]), Direction::Back, &secret(&link)).await.unwrap_err();
    relay.refuses(Reject::NoMember).await;
    assert_eq!(relay.history(), (1, 0));
}

#[tokio::test]
async fn key_that_is_not_listed_gets_no_lane() {
    let keys: [_; 3] = keys();
    let bind = ([127, 0, 0, 1], 0).into();
    let settings = Settings { tcp: true, ..settings(bind, &keys[0], &[], by_list(&keys[..2])) };
    let relay = Relay::start_as("test", [0; 16], &keys[0], Mesh::bind(settings).unwrap());
    let secret = LinkSecret([7; 32]);
    dial(relay.address, &configs(&keys[2]), Direction::Back, &secret).await.unwrap_err();
    relay.refuses(Reject::Stranger).await;
}

#[tokio::test]
async fn whoever_does_not_speak_tls_is_counted() {
    let (relay, link, _lanes, _keys) = linked().await;
    let address = relay.address;
    let answered = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        // An end or a reset.
        let _ = stream.read_to_end(&mut answer);
    });
    timeout(PATIENCE, answered).await.unwrap().unwrap();
    relay.refuses(Reject::BadHello).await;
    assert!(link.close_reason().is_none());
}

#[tokio::test(start_paused = false)]
async fn handshake_that_does_not_come_is_not_waited_for() {
    let (relay, link, _lanes, _keys) = linked().await;
    let mut slow = TcpStream::connect(relay.address).await.unwrap();
    until("it is being greeted", || relay.cluster.counters().greeting.value() == 1).await;
    // A byte of a hello now and then is no hello.
    let drip = async {
        for byte in [22, 3, 1, 1] {
            slow.try_write(&[byte]).unwrap();
            sleep(HELLO_WITHIN / 5).await;
        }
        slow.read(&mut [0]).await
    };
    assert!(matches!(timeout(PATIENCE, drip).await.unwrap(), Ok(0) | Err(_)));
    assert_eq!(relay.rejects(Reject::Timeout), 1);
    assert!(link.close_reason().is_none());
}

#[tokio::test]
async fn crowd_at_the_tcp_port_is_bounded_and_keeps_no_relay_out() {
    let (relay, link, _lanes, keys) = linked().await;
    let mut crowd = Vec::new();
    for _ in 0..MAX_GREETING + 10 {
        crowd.push(TcpStream::connect(relay.address).await.unwrap());
    }
    until("some gave way", || relay.rejects(Reject::TooMany) == 10).await;
    let most = i64::try_from(MAX_GREETING).unwrap();
    until("the others are greeted", || relay.cluster.counters().greeting.value() == most).await;
    // QUIC has room of its own, and who is quick gets a lane though the crowd is there.
    let (other, _other_lanes) = Puppet::new(&keys[2]).link(&relay).await;
    relay.has(&[&keys[1], &keys[2]]).await;
    lane(&relay, &link, &keys[1], Direction::Back).await;
    assert!(link.close_reason().is_none() && other.close_reason().is_none());
}

#[tokio::test]
async fn what_comes_over_tcp_waits_for_its_mark() {
    let (relay, link, [_words, mut packets], keys) = linked().await;
    let heard = Heard::at(&relay);
    let mut lane = lane(&relay, &link, &keys[1], Direction::Forth).await;
    lane.say(&1_u32.to_be_bytes()).await.unwrap();
    lane.say(&packet()).await.unwrap();
    sleep(Duration::from_millis(50)).await;
    assert_eq!(heard.numbers().len(), 0, "it was read before what was sent before it");
    mark(&mut packets).await;
    until("it is read", || heard.numbers().len() == 1).await;

    // Cut anywhere, and several in one record.
    let three = packet().repeat(3);
    for part in three.chunks(11) {
        lane.say(part).await.unwrap();
    }
    until("all are read", || heard.numbers().len() == 4).await;

    // Back to QUIC, though the lane is not closed.
    mark(&mut packets).await;
    let batch = packet();
    packets.write_all(&u32::try_from(batch.len()).unwrap().to_be_bytes()).await.unwrap();
    packets.write_all(&batch).await.unwrap();
    until("it is read", || heard.numbers().len() == 5).await;
    assert!(read_bytes(&mut lane, 1).await.is_empty(), "the lane is closed");
    assert_eq!((link.close_reason(), relay.history()), (None, (1, 0)));
}

#[tokio::test]
async fn frame_that_is_none_on_a_lane_ends_its_link_only() {
    let too_long = [0xff, 0, 2, 0, 0];
    let malformed = [0x20, 0, 0, 0, 0, 0x02, 0, 0, 0, 1, 9];
    for (bytes, reject) in [(&too_long[..], Reject::Oversized), (&malformed, Reject::Malformed)] {
        let (relay, link, [_words, mut packets], keys) = linked().await;
        let (other, _other_lanes) = Puppet::new(&keys[2]).link(&relay).await;
        relay.has(&[&keys[1], &keys[2]]).await;
        let mut lane = lane(&relay, &link, &keys[1], Direction::Forth).await;
        mark(&mut packets).await;
        lane.say(&[&1_u32.to_be_bytes(), bytes].concat()).await.unwrap();
        closed_with(&link, Close::BadBatch).await;
        relay.has(&[&keys[2]]).await;
        assert_eq!(relay.rejects(reject), 1);
        assert!(other.close_reason().is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lane_that_nobody_reads_is_given_up_for_quic() {
    let (relay, link, _lanes, keys) = linked().await;
    let lane = lane(&relay, &link, &keys[1], Direction::Back).await;
    let [_words, mut packets] = accept_lanes(&link).await;
    let mut length = [0; 4];
    packets.read_exact(&mut length).await.unwrap();
    assert_eq!(length, [0; 4], "no mark");

    // More than the kernel holds of what is not read.
    let mut next = 0;
    let stuck = std::time::Instant::now();
    let sending = async {
        while sent_over(&relay, PacketLane::Quic) == 0 {
            send(&relay, next..next + 1_000);
            next += 1_000;
            sleep(Duration::from_millis(20)).await;
            // What QUIC brings is read, so that it is not stuck as well.
            let mut some = vec![0; 1 << 20];
            let _ = timeout(Duration::from_millis(1), packets.read(&mut some)).await;
        }
    };
    timeout(PATIENCE + LOST_AFTER, sending).await.expect("packets go on to where nobody reads");
    assert!(stuck.elapsed() >= LOST_AFTER, "it was given up too soon");
    assert!(sent_over(&relay, PacketLane::Tcp) > 0);
    assert_eq!((link.close_reason(), relay.history()), (None, (1, 0)));
    drop(lane);
}

#[tokio::test]
async fn newer_lane_replaces_one_that_its_relay_has_lost() {
    let (relay, link, _lanes, keys) = linked().await;
    let [_words, _packets] = accept_lanes(&link).await;
    let mut first = lane(&relay, &link, &keys[1], Direction::Back).await;
    assert_eq!(read_bytes(&mut first, 4).await, 1_u32.to_be_bytes());
    let mut second = lane(&relay, &link, &keys[1], Direction::Back).await;
    assert_eq!(read_bytes(&mut second, 4).await, 3_u32.to_be_bytes());
    assert!(read_bytes(&mut first, 1).await.is_empty(), "the first is closed");
    send(&relay, 0..1);
    assert!(read_bytes(&mut second, 1_000).await.len() > 1_000);
}

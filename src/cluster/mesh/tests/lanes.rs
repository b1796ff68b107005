//! What goes over a link: batches in order, in two lanes, and nothing else.

use std::time::Instant;

use super::*;
use crate::cluster::mesh::link::{Fault, read_batches};
use crate::metrics::{Drop as Dropped, Transport};
use crate::wire::cluster::{DecodeError, Frame, Frames, MAX_BATCH, Run};
use crate::wire::name::Name;
use crate::wire::name::testing::name;

/// Reads batches until `count` frames have come, and gives what `of` makes of each.
async fn frames<T>(
    stream: &mut RecvStream,
    count: usize,
    of: impl Fn(Frame<'_, Name>) -> Vec<T>,
) -> Vec<T> {
    let mut found = Vec::new();
    while found.len() < count {
        let mut length = [0; 4];
        stream.read_exact(&mut length).await.unwrap();
        let mut batch = vec![0; u32::from_be_bytes(length).try_into().unwrap()];
        stream.read_exact(&mut batch).await.unwrap();
        found.extend(Frames::new(&batch).flat_map(|frame| of(frame.unwrap())));
    }
    found
}

#[tokio::test]
async fn words_and_packets_leave_in_order_each_in_its_lane() {
    let [smaller, larger] = keys();
    let relay = Relay::start(&smaller, &[], by_secret());
    let (connection, _lanes) = Puppet::new(&larger).link(&relay).await;
    relay.has(&[&larger]).await;
    let outbox = &relay.member().outbox;
    let run = Run { dest: name(2), sender: name(1), epoch: 3 };
    for number in 0..1_000_u32 {
        let now = Instant::now();
        assert!(outbox.say(&Frame::Find { id: name(number + 1) }, now));
        outbox.push(&run, [number.to_be_bytes()].iter().map(|bytes| &bytes[..]), now);
        if number % 7 == 0 {
            outbox.wake();
            tokio::task::yield_now().await;
        }
    }
    outbox.wake();
    let [mut words, mut packets] = accept_lanes(&connection).await;
    let words = frames(&mut words, 1_000, |frame| {
        if matches!(frame, Frame::About(_)) {
            return vec![];
        }
        let Frame::Find { id } = frame else { panic!("{frame:?}") };
        vec![u32::from_be_bytes(id.bytes().try_into().unwrap()) - 1]
    });
    let packets = frames(&mut packets, 1_000, |frame| {
        let Frame::Packets(packets) = frame else { panic!("{frame:?}") };
        packets.iter().map(|payload| u32::from_be_bytes(payload.try_into().unwrap())).collect()
    });
    let (words, packets) = tokio::join!(words, packets);
    let expected: Vec<_> = (0..1_000).collect();
    assert_eq!((words, packets), (expected.clone(), expected));
    assert_eq!(relay.cluster.traffic.packets_out(Transport::Cluster).0, 1_000);
    assert_eq!(relay.cluster.traffic.packets_queued(), 0);
}

#[tokio::test]
async fn packets_that_a_lost_link_did_not_take_are_counted() {
    let [smaller, larger] = keys();
    let relay = Relay::start(&smaller, &[], by_secret());
    let (connection, _lanes) = Puppet::new(&larger).link(&relay).await;
    relay.has(&[&larger]).await;
    let member = relay.member();
    let run = Run { dest: name(2), sender: name(1), epoch: 3 };
    // More than a window of which nothing is read: the rest stays in the outbox.
    let payload = vec![0; 60_000];
    let pushed = 60;
    for _ in 0..pushed {
        member.outbox.push(&run, [&payload[..]].into_iter(), Instant::now());
    }
    member.outbox.wake();
    let traffic = &relay.cluster.traffic;
    until("the window is full", || {
        let out = traffic.packets_out(Transport::Cluster).0;
        out > 20 && out + traffic.packets_queued() == pushed
    })
    .await;
    connection.close(Close::Failed.code(), &[]);
    relay.has(&[]).await;
    until("nothing is queued", || traffic.packets_queued() == 0).await;
    let out = traffic.packets_out(Transport::Cluster).0;
    assert_eq!(out + traffic.packets_dropped(Dropped::CLUSTER_LOST), pushed);
    assert!(out < pushed);
}

#[tokio::test]
async fn batches_are_read_in_order_through_one_buffer() {
    let [smaller, larger] = keys();
    let (one, other) = (Puppet::new(&smaller), Puppet::new(&larger));
    let dialled = one.endpoint.connect(other.address(), tls::SERVER_NAME).unwrap();
    let (dialled, accepted) = tokio::join!(dialled, other.accept());
    let dialled = dialled.unwrap();
    transport::link(&accepted);
    let lengths = [0, 1, MAX_BATCH, 5, MAX_BATCH - 1, 1_000];
    let mut stream = dialled.open_uni().await.unwrap();
    let writing = tokio::spawn(async move {
        for (n, length) in lengths.into_iter().enumerate() {
            let length_bytes = u32::try_from(length).unwrap().to_be_bytes();
            stream.write_all(&length_bytes).await.unwrap();
            stream.write_all(&vec![u8::try_from(n).unwrap(); length]).await.unwrap();
        }
        stream.finish().unwrap();
        stream.stopped().await
    });
    let mut read = Vec::new();
    let stream = accepted.accept_uni().await.unwrap();
    let fault = read_batches(stream, None, |batch| {
        assert!(batch.iter().all(|byte| usize::from(*byte) == read.len()));
        read.push(batch.len());
        Ok::<_, DecodeError>(())
    });
    assert!(matches!(fault.await.unwrap_err(), Fault::Closed));
    assert_eq!(read, lengths);
    drop(writing);
}

/// Sends these bytes on the words lane of a link to a relay, which ends it for that.
async fn sent(bytes: &[u8], reject: Reject) {
    let keys: [_; 3] = keys();
    let relay = Relay::start(&keys[0], &[], by_secret());
    let bystander = Puppet::new(&keys[2]).link(&relay).await;
    let (connection, [mut words, _packets]) = Puppet::new(&keys[1]).link(&relay).await;
    relay.has(&[&keys[1], &keys[2]]).await;
    words.write_all(bytes).await.unwrap();
    closed_with(&connection, Close::BadBatch).await;
    relay.has(&[&keys[2]]).await;
    let rejects = &relay.cluster.counters().rejects;
    assert_eq!((rejects.of(reject).value(), rejects.total()), (1, 1));
    assert_eq!((bystander.0.close_reason(), relay.history()), (None, (2, 1)));
}

#[tokio::test]
async fn oversized_batch_ends_its_link_only() {
    sent(&u32::try_from(MAX_BATCH + 1).unwrap().to_be_bytes(), Reject::Oversized).await;
    sent(&[0xff; 64], Reject::Oversized).await;
}

#[tokio::test]
async fn batch_that_is_none_ends_its_link_only() {
    // A frame that is longer than its batch.
    sent(&[0, 0, 0, 6, 0x20, 0, 0, 0, 9, 0], Reject::Malformed).await;
}

#[tokio::test]
async fn largest_batches_pass_one_after_the_other() {
    // A frame of a kind that nobody knows fills the batch, and is skipped.
    let mut batch = vec![0; 4 + MAX_BATCH];
    batch[..4].copy_from_slice(&u32::try_from(MAX_BATCH).unwrap().to_be_bytes());
    batch[4] = 0xff;
    batch[5..9].copy_from_slice(&u32::try_from(MAX_BATCH - 5).unwrap().to_be_bytes());
    // Several windows of them; that what follows is refused shows that all were read.
    let mut bytes = batch.repeat(50);
    bytes.extend_from_slice(&[0, 0, 0, 1, 0]);
    sent(&bytes, Reject::Malformed).await;
}

#[tokio::test]
async fn lanes_are_two_and_last_as_long_as_the_link() {
    let [smaller, larger] = keys();
    let relay = Relay::start(&smaller, &[], by_secret());
    for (first, second) in [(&[0][..], &[0][..]), (&[1], &[1]), (&[0], &[2]), (&[0xff], &[0xff])] {
        let before = relay.rejects(Reject::Malformed);
        let connection = Puppet::new(&larger).greet(&relay).await;
        let mut streams = Vec::new();
        for byte in [first, second] {
            let mut stream = connection.open_uni().await.unwrap();
            // The relay may have ended it after the first.
            let _ = stream.write_all(byte).await;
            streams.push(stream);
        }
        closed_with(&connection, Close::BadBatch).await;
        assert_eq!(relay.rejects(Reject::Malformed), before + 1, "{first:?} {second:?}");
        relay.has(&[]).await;
    }
    let (connection, [mut words, _packets]) = Puppet::new(&larger).link(&relay).await;
    relay.has(&[&larger]).await;
    words.finish().unwrap();
    closed_with(&connection, Close::BadBatch).await;
}

#[tokio::test]
async fn bytes_of_a_batch_that_does_not_end_are_no_sign_of_life() {
    let [smaller, larger] = keys();
    let keepalive = Duration::from_millis(200);
    let (boot, name) = ([0; 16], "test".to_owned());
    let identity = Identity { relay: relay_id(&smaller), boot, name, keepalive };
    let cluster = Cluster::new(identity, Arc::new(Traffic::default()));
    let mesh = bind(&smaller, &[], by_secret());
    let (address, stopping) = (mesh.address(), CancellationToken::new());
    let running = tokio::spawn(Arc::clone(&cluster).run(mesh, stopping.clone()));
    let relay = Relay { cluster, address, stopping, running };
    let (connection, [mut words, _packets]) = Puppet::new(&larger).link(&relay).await;

    words.write_all(&100_000_u32.to_be_bytes()).await.unwrap();
    let trickle = async {
        // Ends with the connection.
        while words.write_all(&[0]).await.is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
    };

    tokio::join!(trickle, closed_with(&connection, Close::Silent));
}

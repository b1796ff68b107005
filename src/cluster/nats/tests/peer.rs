//! A relay that the test plays itself, message by message.

use async_nats::{Client, ConnectOptions, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::{NAME, PATIENCE, id};
use crate::cluster::Boot;
use crate::cluster::nats::message::{Beat, Message};
use crate::ids::RelayId;
use crate::wire::cluster::{Frame, Frames};
use crate::wire::name::Name;

pub(super) struct Peer {
    pub(super) id: RelayId,
    pub(super) client: Client,
    inbox: Subscriber,
}

/// A beat of a boot that a number makes.
pub(super) fn beat(boot: u8, term: u64, seen: u64) -> Beat {
    let boot: Boot = [boot; 16];
    Beat { boot, term, seen, asks: false, address: "192.0.2.1".to_owned() }
}

impl Peer {
    pub(super) async fn connect(number: u8, url: &str) -> Self {
        Self::connect_with(number, url, ConnectOptions::new()).await
    }

    pub(super) async fn connect_with(number: u8, url: &str, options: ConnectOptions) -> Self {
        let client = options.connect(url).await.unwrap();
        let id = id(number);
        let inbox = client.subscribe(format!("{NAME}.to.{id}.from.*")).await.unwrap();
        client.flush().await.unwrap();
        Self { id, client, inbox }
    }

    /// Says something to all relays.
    pub(super) async fn say(&self, message: Bytes) {
        self.publish(&format!("{NAME}.alive.from.{}", self.id), message).await;
    }

    /// Says something to one relay.
    pub(super) async fn tell(&self, number: u8, message: impl Into<Bytes>) {
        self.publish(&format!("{NAME}.to.{}.from.{}", id(number), self.id), message.into()).await;
    }

    pub(super) async fn publish(&self, subject: &str, message: Bytes) {
        self.client.publish(Subject::from(subject), message).await.unwrap();
        // A client that is dropped drops what it has not written.
        self.client.flush().await.unwrap();
    }

    /// Becomes a member of relay 1, and has it as one.
    pub(super) async fn pair(&mut self) {
        self.say(beat(2, 0, 0).message()).await;
        let first = self.next_beat().await;
        self.tell(1, Beat { asks: true, ..beat(2, 1, first.term) }.message()).await;
        let answer = self.next_beat().await;
        assert_eq!((answer.seen, answer.asks), (1, false));
    }

    /// The next message for this relay, but for those that only say what a relay can do.
    pub(super) async fn next(&mut self) -> Message {
        loop {
            let message = timeout(PATIENCE, self.inbox.next()).await.expect("nothing comes");
            let message = Message::decode(message.unwrap().payload).unwrap();
            let is_about = |frame| matches!(frame, Ok(Frame::About(_)));
            if !matches!(&message, Message::Words(batch) if Frames::<Name>::new(batch).all(is_about))
            {
                return message;
            }
        }
    }

    /// The next message for this relay, which must be a beat.
    pub(super) async fn next_beat(&mut self) -> Beat {
        let message = self.next().await;
        let Message::Beat(beat) = message else { panic!("{message:?}") };
        beat
    }
}

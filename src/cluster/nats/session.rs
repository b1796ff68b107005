//! One connection to NATS: what comes in, and our beats.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectError, ConnectErrorKind, Event, Subscriber};
use futures_util::{Stream, StreamExt as _, future, stream};
use tokio::select;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::deliveries::{self, Deliveries};
use super::members::{Joined, Members};
use super::message::Message;
use super::subjects::Subjects;
use super::writer;
use crate::cluster::Reject;
use crate::net::nats::Server;

/// Messages that one subscription holds until they are taken. The client knows no bound in
/// bytes; at worst, all of them full batches, these are 256 MiB.
const UNREAD: usize = 2_048;

/// Messages that wait in the client for the connection. As few as do not slow it down: what
/// is in there when the connection stalls is late, while an outbox drops what is old.
const UNSENT: usize = 4;

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_millis(200);

/// A connection with its subscriptions.
pub(super) struct Session {
    pub(super) client: Client,
    ended: CancellationToken,
    beats: Subscriber,
    batches: Subscriber,
}

impl Session {
    /// Connects and subscribes.
    pub(super) async fn open(
        server: &Server,
        members: &Arc<Members>,
    ) -> Result<Self, ConnectError> {
        server.resolve().await?;
        let identity = members.cluster.identity();
        let ended = CancellationToken::new();
        let (events, of_events) = (ended.clone(), Arc::clone(members));
        let options = server
            .options
            .clone()
            .subscription_capacity(UNREAD)
            .client_capacity(UNSENT)
            .name(format!("beacon-relay {}", identity.relay))
            // The client gives a silent server up at the third ping, as we do with a member.
            .ping_interval(identity.keepalive)
            .event_callback(move |event| {
                note(event, &events, &of_events);
                future::ready(())
            });
        let client = options.connect(server.address.clone()).await?;
        let subscribe = async |subject: String| {
            let subscribed = client.subscribe(subject).await;
            subscribed.map_err(|error| ConnectError::with_source(ConnectErrorKind::Io, error))
        };
        let beats = subscribe(members.subjects.all_alive()).await?;
        let batches = subscribe(members.subjects.all_to_us()).await?;
        Ok(Self { client, ended, beats, batches })
    }

    /// Serves the connection until it ends, or, after a goodbye, `stopping` does.
    pub(super) async fn run(self, members: &Arc<Members>, stopping: &CancellationToken) {
        let (deliveries, arrivals) = deliveries::queue();
        // What a relay tells us alone comes in the order in which it said it; beats to all
        // may come before or after.
        let incoming = stream::select(self.beats, self.batches);
        let taking_in = tokio::spawn(arrivals.take_in(Arc::clone(members)));
        let mut taking_in = AbortOnDropHandle::new(taking_in);
        let mut took_in = None;
        let mut tasks = JoinSet::new();
        tasks.spawn(read(incoming, deliveries, Arc::clone(members)));
        tasks.spawn(beat(self.client.clone(), Arc::clone(members)));
        members.client.send_replace(Some(self.client.clone()));
        select! {
            () = stopping.cancelled() => say_goodbye(&self.client, members).await,
            () = self.ended.cancelled() => {}
            Some(ended) = tasks.join_next() => note_end(ended, members),
            ended = &mut taking_in => took_in = Some(ended),
        }
        members.client.send_replace(None);
        tasks.shutdown().await;
        let took_in = match took_in {
            Some(ended) => ended,
            // Nothing is left to it any more, so it ends, after what has come.
            None => taking_in.await,
        };
        note_end(took_in, members);
    }
}

/// Counts a task that has failed: the connection ends with it, and the next one has its own.
fn note_end(ended: Result<(), JoinError>, members: &Members) {
    if let Err(error) = ended {
        members.cluster.counters().panics.increment();
        tracing::error!(%error, "a task of the connection to NATS has failed");
    }
}

/// Takes in what the client has to say.
fn note(event: Event, ended: &CancellationToken, members: &Members) {
    match event {
        Event::Disconnected | Event::Closed => ended.cancel(),
        // For each message that found `UNREAD` others before it.
        Event::SlowConsumer(_) => members.refusals.count(Reject::NoRoom, None),
        Event::ServerError(error) => members.refusals.by_server(&error),
        Event::LameDuckMode => tracing::info!("NATS is about to stop"),
        Event::Connected | Event::Draining | Event::ClientError(_) => {}
    }
}

/// Takes messages in as they come, but for packets, which it leaves to others.
async fn read(
    mut incoming: impl Stream<Item = async_nats::Message> + Unpin,
    deliveries: Deliveries,
    members: Arc<Members>,
) {
    while let Some(message) = incoming.next().await {
        let Some(relay) = Subjects::sender(&message.subject) else {
            members.refusals.count(Reject::BadHello, None);
            continue;
        };
        let taken = match (Message::decode(message.payload), members.of(relay)) {
            (Err(reason), _) => Err(reason),
            (Ok(Message::Beat(beat)), _) => {
                if let Some(Joined { member, signals }) = members.beat(relay, &beat) {
                    members.spawn(writer::run(Arc::clone(&members), member, signals));
                }
                Ok(())
            }
            (Ok(Message::Goodbye(beat)), _) => {
                members.goodbye(relay, beat.boot);
                Ok(())
            }
            (Ok(Message::Words(_) | Message::Packets(_)), None) => Err(Reject::NoMember),
            (Ok(Message::Words(batch)), Some(member)) => {
                members.receive(&member, &batch);
                Ok(())
            }
            (Ok(Message::Packets(batch)), Some(member)) => {
                let left = deliveries.push(member, batch.clone());
                left.inspect_err(|_| members.cluster.give_up(&batch))
            }
        };
        if let Err(reason) = taken {
            members.refusals.count(reason, Some(relay));
        }
    }
}

/// Says to all relays that we are here: at once, and each keep-alive.
async fn beat(client: Client, members: Arc<Members>) {
    let mut ticks = time::interval(members.cluster.identity().keepalive);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let beat = members.beat_to_all(&client).message();
        if client.publish(members.subjects.alive(), beat).await.is_err() {
            return;
        }
    }
}

async fn say_goodbye(client: &Client, members: &Members) {
    let goodbye = async {
        let beat = members.beat_to_all(client).goodbye();
        client.publish(members.subjects.alive(), beat).await.is_ok() && client.flush().await.is_ok()
    };
    // Whom it does not reach, our silence tells.
    let _ = time::timeout(GOODBYE, goodbye).await;
}

//! A client for keyop-messenger hubs: publishes records to channels, and receives the records of
//! subscribed channels.
//!
//! A record counts as published once the hub has acknowledged it. A received batch is acknowledged
//! when the application says so.
//!
//! The client reconnects when a session ends. It then publishes unacknowledged records again, in the
//! same order and with the same ids. The hub delivers unacknowledged batches again; an application
//! that must not process a record twice compares ids.
//!
//! Two transports: gRPC for hubs from v1.5.0 on (feature `grpc`), and WebSocket for earlier ones.
//! Both use mutual TLS; the common name of the client's certificate is its identity.
//!
//! ```no_run
//! use beacon_client::keyop::{Client, Identity, Options, Publication, Transport};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let identity = Identity::new("alpha.crt", "alpha.key");
//! let mut options = Options::new("hub.example.net:7740", "alpha", identity, "ca.crt");
//! options.subscribe = vec!["alerts".to_owned()];
//! let mut client = Client::start(options)?;
//! client.publish(&Publication::new("orders", "com.example.Order", &"one coffee")).await?;
//! while let Some(batch) = client.recv().await? {
//!     for record in batch.envelopes().flatten() {
//!         println!("{} on {}", record.id, record.channel);
//!     }
//!     batch.ack().await;
//! }
//! # Ok(())
//! # }
//! ```

mod batch;
mod error;
mod event;
#[cfg(feature = "grpc")]
mod grpc;
mod keep;
mod letter;
mod link;
mod options;
mod session;
mod tls;
mod websocket;

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::dial::ConnectError;
use crate::keep::keep;

pub use batch::Batch;
pub use error::{Interruption, PublishError, Refused};
pub use keep::State;
pub use letter::{Pending, Publication, Published};
pub use options::{HubName, Identity, Options, Timeouts, Transport};

use keep::{Keeper, SCHEDULE};
use letter::{Letter, Pen};
use session::Outgoing;

/// Records that are queued for the hub, at most.
pub const QUEUE: usize = 1_024;

/// Bytes of all records that are queued or not acknowledged, at most.
pub const QUEUE_BYTES: usize = 32 << 20;

/// A connection to a hub that reconnects automatically.
#[derive(Debug)]
pub struct Client {
    publisher: Publisher,
    receiver: Receiver,
    state: watch::Receiver<State>,
}

impl Client {
    /// Starts to connect; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// An invalid address, or a transport that this build does not have. A hub that cannot be reached,
    /// or certificates that cannot be read, are not errors: they are shown by [`State`] and retried. A
    /// hub that refuses the client ends it: [`Receiver::recv`] returns the reason.
    pub fn start(options: Options) -> Result<Self, ConnectError> {
        let (outgoing, to_send) = mpsc::channel(QUEUE);
        let (delivered, batches) = mpsc::channel(1);
        let (publish, state) = watch::channel(State::Connecting);
        let pen = Arc::new(Pen::of(&options));
        let keeper = Keeper::new(options, to_send, delivered)?;
        let room = Arc::new(Semaphore::new(QUEUE_BYTES));
        Ok(Self {
            publisher: Publisher { pen, outgoing, room },
            receiver: Receiver::spawn(batches, keep(keeper, SCHEDULE, publish)),
            state,
        })
    }

    /// Publishes a record: [`Publisher::publish`].
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub async fn publish<T: Serialize + Sync + ?Sized>(
        &self,
        publication: &Publication<'_, T>,
    ) -> Result<Published, PublishError> {
        self.publisher.publish(publication).await
    }

    /// The publishing half, which can be cloned.
    #[must_use]
    pub const fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// Waits for the next batch: [`Receiver::recv`].
    ///
    /// # Errors
    /// As [`Receiver::recv`].
    pub async fn recv(&mut self) -> Result<Option<Batch>, Refused> {
        self.receiver.recv().await
    }

    /// Waits until a session is open. Over gRPC the hub may still refuse afterwards.
    ///
    /// # Errors
    /// The hub refused.
    pub async fn connected(&mut self) -> Result<(), Refused> {
        self.receiver.connected(&mut self.state).await
    }

    /// Ends the client once all published records are acknowledged. Batches received meanwhile are
    /// delivered again in the next session.
    ///
    /// # Errors
    /// The hub refused before.
    pub async fn close(self) -> Result<(), Refused> {
        let Self { publisher, mut receiver, state: _ } = self;
        publisher.close().await;
        receiver.drain().await
    }

    /// Splits the client into its halves and its state.
    #[must_use]
    pub fn split(self) -> (Publisher, Receiver, watch::Receiver<State>) {
        (self.publisher, self.receiver, self.state)
    }
}

/// The publishing half; clones publish into the same queue. Dropping all leaves the client open for
/// the [`Receiver`].
#[derive(Clone, Debug)]
pub struct Publisher {
    pen: Arc<Pen>,
    outgoing: mpsc::Sender<Outgoing>,
    /// Free bytes of the queue.
    room: Arc<Semaphore>,
}

impl Publisher {
    /// Publishes a record and waits for the hub's acknowledgement, as long as the hub is unreachable.
    ///
    /// # Errors
    /// An invalid record, or the client has ended.
    pub async fn publish<T: Serialize + Sync + ?Sized>(
        &self,
        publication: &Publication<'_, T>,
    ) -> Result<Published, PublishError> {
        self.post(publication).await?.published().await
    }

    /// Queues a record; waits only while the queue is full.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub async fn post<T: Serialize + Sync + ?Sized>(
        &self,
        publication: &Publication<'_, T>,
    ) -> Result<Pending, PublishError> {
        self.post_record(self.pen.write(publication)?).await
    }

    /// Queues an encoded record, for a hub that forwards what others published.
    ///
    /// # Errors
    /// The record is longer than [`Options::max_record`], or the client has ended.
    pub async fn post_record(&self, record: Bytes) -> Result<Pending, PublishError> {
        self.pen.measure(&record)?;
        let permits = u32::try_from(record.len()).expect("records were measured");
        let room = Arc::clone(&self.room).acquire_many_owned(permits).await;
        let room = room.map_err(|_closed| PublishError::Ended)?;
        let (answer, pending) = oneshot::channel();
        let letter = Letter { record, answer, _room: room };
        let queued = self.outgoing.send(Outgoing::Letter(letter)).await;
        queued.map_err(|_| PublishError::Ended)?;
        Ok(Pending::new(pending))
    }

    /// Ends the client once all queued records are acknowledged; [`Receiver::recv`] then returns
    /// `None`.
    pub async fn close(&self) {
        // The client has ended already.
        let _ = self.outgoing.send(Outgoing::Close).await;
    }
}

/// The receiving half. It owns the session: dropping it ends the session immediately.
pub type Receiver = crate::receiver::Receiver<Batch, Refused>;

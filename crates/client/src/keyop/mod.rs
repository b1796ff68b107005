//! A client of keyop-messenger's hubs: it publishes records to channels, each of which counts as
//! published once the hub has acknowledged it, and acknowledges what it has received when the
//! application has dealt with it.
//!
//! It dials again whenever a session ends, and publishes again, in the same order and with the same
//! ids, what was not acknowledged. What the application did not acknowledge comes again: whoever
//! must not deal with a record twice knows it by its id.
//!
//! Both transports are here: gRPC, which hubs speak from v1.5.0 on (with the feature `grpc`), and
//! WebSocket before. Both sides show certificates; who the client is, its certificate says.
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

/// Records that wait for the hub, and batches that wait for the application.
pub const QUEUE: usize = 1_024;

/// What all records that wait for the hub, or for its acknowledgement, may take together, in bytes.
pub const QUEUE_BYTES: usize = 32 << 20;

/// A peer of a hub.
#[derive(Debug)]
pub struct Client {
    publisher: Publisher,
    receiver: Receiver,
    state: watch::Receiver<State>,
}

impl Client {
    /// Starts to dial; must run inside a tokio runtime.
    ///
    /// # Errors
    /// An address that is none, or a transport that this build does not have. A hub that cannot be
    /// reached is no error here, nor are certificates that cannot be read, since they may be renewed
    /// at any time: [`State`] tells. A hub that refuses ends the client: [`Receiver::recv`] tells.
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

    /// The publishing half, to clone.
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

    /// Waits until there is a session. Over gRPC a hub may still refuse then.
    ///
    /// # Errors
    /// The hub refuses.
    pub async fn connected(&mut self) -> Result<(), Refused> {
        self.receiver.connected(&mut self.state).await
    }

    /// Ends the client once all that was published is acknowledged. What is received meanwhile comes
    /// again the next time.
    ///
    /// # Errors
    /// The hub refused before.
    pub async fn close(self) -> Result<(), Refused> {
        let Self { publisher, mut receiver, state: _ } = self;
        publisher.close().await;
        receiver.drain().await
    }

    /// Takes apart the two halves, and the state.
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
    /// Bytes that may still wait.
    room: Arc<Semaphore>,
}

impl Publisher {
    /// Publishes a record, and waits until the hub has acknowledged it. That may be for as long as
    /// there is no hub.
    ///
    /// # Errors
    /// A record that no hub takes; a client that has ended.
    pub async fn publish<T: Serialize + Sync + ?Sized>(
        &self,
        publication: &Publication<'_, T>,
    ) -> Result<Published, PublishError> {
        self.post(publication).await?.published().await
    }

    /// Queues a record behind those before it; waits only while the queue is full.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub async fn post<T: Serialize + Sync + ?Sized>(
        &self,
        publication: &Publication<'_, T>,
    ) -> Result<Pending, PublishError> {
        self.post_record(self.pen.write(publication)?).await
    }

    /// Queues a record as it is, for a hub that passes on what others published.
    ///
    /// # Errors
    /// A record that is longer than [`Options::max_record`]; a client that has ended.
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

    /// Queues the end of the client behind all that was published. [`Receiver::recv`] returns `None`
    /// when it is done.
    pub async fn close(&self) {
        // Over already: there is nobody to say it to.
        let _ = self.outgoing.send(Outgoing::Close).await;
    }
}

/// The receiving half. It owns the client: dropping it ends the session at once.
pub type Receiver = crate::receiver::Receiver<Batch, Refused>;

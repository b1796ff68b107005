//! A client of peerbus, the message bus of AI agents: it stays registered under a name, sends
//! messages that are stored before they count as sent, and acknowledges what it has got.
//!
//! It dials again whenever a session ends. What was sent without a receipt is sent again under the
//! same id, in the same order; what is delivered again, and was handed out already, is not handed
//! out again.
//!
//! ```no_run
//! use beacon_client::peerbus::{Client, Options};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut client = Client::start(Options::new("ws://127.0.0.1:47821", "alice", "the token"))?;
//! client.send("bob", &"hello").await?;
//! while let Some(delivery) = client.recv().await? {
//!     println!("{} says {}", delivery.from(), delivery.body());
//!     delivery.ack().await;
//! }
//! # Ok(())
//! # }
//! ```

mod delivery;
mod error;
mod keep;
mod letter;
mod options;
mod seen;
mod session;

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::dial::{ConnectError, Dialer, Surroundings, Upgrade};
use crate::keep::keep;
use crate::target::Target;
use crate::wire::peerbus::{EVERYBODY, MAX_MESSAGE};

pub use crate::wire::peerbus::Refusal;
pub use delivery::Delivery;
pub use error::{Interruption, Refused, SendError};
pub use keep::State;
pub use letter::{Draft, Pending};
pub use options::{InvalidSecret, Options, Secret, Timeouts, Token};

use keep::{Keeper, SCHEDULE};
use letter::Letter;
use session::Outgoing;

/// Messages that wait in each direction between the sessions and the application, and
/// acknowledgements: as [`crate::QUEUE`].
///
/// A sender waits while its queue is full. Nothing is read while that of deliveries is: a receiver
/// that is not served holds up receipts as well.
pub const QUEUE: usize = crate::QUEUE;

/// What all messages that wait for the broker, or for its receipt, may take together, in bytes:
/// eight of the longest.
pub const QUEUE_BYTES: usize = 8 * MAX_MESSAGE;

/// What became of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sent {
    /// The broker has stored it.
    Stored,
    /// The broker had stored it before: the connection broke between that and the receipt.
    Duplicate,
    /// It was handed to the connection, and no receipt was asked for.
    Written,
}

/// A peer of the bus.
#[derive(Debug)]
pub struct Client {
    sender: Sender,
    receiver: Receiver,
    state: watch::Receiver<State>,
}

impl Client {
    /// Starts to dial; must run inside a tokio runtime.
    ///
    /// # Errors
    /// A URL or certificate authorities that are of no use. A broker that cannot be reached is no
    /// error here: [`State`] tells. One that refuses ends the client:
    /// [`Receiver::recv`] tells.
    pub fn start(options: Options) -> Result<Self, ConnectError> {
        let target = Target::parse_peerbus(&options.url)?;
        let Options { trust, proxy, resolver, headers, .. } = &options;
        let upgrade = Upgrade { headers: headers.clone(), max_message: MAX_MESSAGE };
        let dialer = Dialer::towards(target, upgrade, &Surroundings { trust, proxy, resolver })?;

        let (outgoing, to_send) = mpsc::channel(QUEUE);
        let (delivered, deliveries) = mpsc::channel(QUEUE);
        let (publish, state) = watch::channel(State::Connecting);
        let pen = Arc::new(letter::Pen::of(&options));
        let keeper = Keeper::new(dialer, options, to_send, delivered);
        let room = Arc::new(Semaphore::new(QUEUE_BYTES));
        Ok(Self {
            sender: Sender { pen, outgoing, room },
            receiver: Receiver::spawn(deliveries, keep(keeper, SCHEDULE, publish)),
            state,
        })
    }

    /// Sends a message to one peer: [`Sender::send`].
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub async fn send(
        &self,
        to: &str,
        body: &(impl Serialize + Sync + ?Sized),
    ) -> Result<Sent, SendError> {
        self.sender.send(to, body).await
    }

    /// Sends a message to all who are connected: [`Sender::broadcast`].
    ///
    /// # Errors
    /// As [`Sender::broadcast`].
    pub async fn broadcast(
        &self,
        body: &(impl Serialize + Sync + ?Sized),
    ) -> Result<Sent, SendError> {
        self.sender.broadcast(body).await
    }

    /// The sending half, to clone.
    #[must_use]
    pub const fn sender(&self) -> &Sender {
        &self.sender
    }

    /// Asks who is connected: [`Sender::peers`].
    ///
    /// # Errors
    /// As [`Sender::peers`].
    pub async fn peers(&self) -> Result<Vec<String>, SendError> {
        self.sender.peers().await
    }

    /// Waits for the next message: [`Receiver::recv`].
    ///
    /// # Errors
    /// As [`Receiver::recv`].
    pub async fn recv(&mut self) -> Result<Option<Delivery>, Refused> {
        self.receiver.recv().await
    }

    /// Waits until the broker has let us in.
    ///
    /// # Errors
    /// It refuses.
    pub async fn connected(&mut self) -> Result<(), Refused> {
        self.receiver.connected(&mut self.state).await
    }

    /// Ends the client once all that was sent has left and, where receipts were asked for, was
    /// receipted. What is delivered meanwhile is delivered again the next time.
    ///
    /// # Errors
    /// The broker refused before.
    pub async fn close(self) -> Result<(), Refused> {
        let Self { sender, mut receiver, state: _ } = self;
        sender.close().await;
        receiver.drain().await
    }

    /// Takes apart the two halves, and the state.
    #[must_use]
    pub fn split(self) -> (Sender, Receiver, watch::Receiver<State>) {
        (self.sender, self.receiver, self.state)
    }
}

/// The sending half; clones send into the same queue. Dropping all leaves the client open for the
/// [`Receiver`].
#[derive(Clone, Debug)]
pub struct Sender {
    pen: Arc<letter::Pen>,
    outgoing: mpsc::Sender<Outgoing>,
    /// Bytes that may still wait.
    room: Arc<Semaphore>,
}

impl Sender {
    /// Sends a message to one peer, who may be offline, and waits until the broker has it: for its
    /// receipt, where these were asked for. That may be for as long as there is no broker.
    ///
    /// # Errors
    /// A message that nobody can get, or that the broker refuses; a client that has ended.
    pub async fn send(
        &self,
        to: &str,
        body: &(impl Serialize + Sync + ?Sized),
    ) -> Result<Sent, SendError> {
        self.post(to, body).await?.sent().await
    }

    /// Sends a message to each peer that is connected when it arrives, and waits as
    /// [`Self::send`] does.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn broadcast(
        &self,
        body: &(impl Serialize + Sync + ?Sized),
    ) -> Result<Sent, SendError> {
        self.post(EVERYBODY, body).await?.sent().await
    }

    /// Queues a message behind those before it; waits only while the queue is full. To
    /// [`EVERYBODY`] it is a broadcast.
    ///
    /// # Errors
    /// A message that nobody can get; a client that has ended.
    pub async fn post(
        &self,
        to: &str,
        body: &(impl Serialize + Sync + ?Sized),
    ) -> Result<Pending, SendError> {
        let json = serde_json::to_vec(body).map_err(|error| SendError::Body(error.to_string()))?;
        self.post_json(to, &json).await
    }

    /// As [`Self::post`], with a body that is JSON already. It is signed and sent in compact form.
    ///
    /// # Errors
    /// As [`Self::post`].
    pub async fn post_json(&self, to: &str, json: &[u8]) -> Result<Pending, SendError> {
        self.post_draft(self.draft(to, json)?).await
    }

    /// Checks and signs a message of this JSON, without sending it: a program that keeps messages
    /// knows of each at once whether it can be sent.
    ///
    /// # Errors
    /// A message that nobody can get.
    pub fn draft(&self, to: &str, json: &[u8]) -> Result<Draft, SendError> {
        self.pen.write(to, json)
    }

    /// Queues a message that was checked before, as [`Self::post`] does.
    ///
    /// # Errors
    /// A client that has ended.
    pub async fn post_draft(&self, draft: Draft) -> Result<Pending, SendError> {
        let permits = u32::try_from(draft.bytes()).expect("no longer than a message may be");
        let room = Arc::clone(&self.room).acquire_many_owned(permits).await;
        let room = room.map_err(|_closed| SendError::Ended)?;
        let (answer, pending) = oneshot::channel();
        self.queue(Outgoing::Letter(Letter { draft, answer, _room: room })).await?;
        Ok(Pending::new(pending))
    }

    /// Asks who is connected, this client included.
    ///
    /// # Errors
    /// No answer in time, or a session that ends meanwhile; a client that has ended.
    pub async fn peers(&self) -> Result<Vec<String>, SendError> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.queue(Outgoing::Peers(answer)).await?;
            answered.await.map_err(|_| SendError::NoAnswer)
        };
        timeout(crate::ANSWER, asked).await.unwrap_or(Err(SendError::NoAnswer))
    }

    /// Queues the end of the client behind all that was sent. [`Receiver::recv`] returns `None`
    /// when it is done.
    pub async fn close(&self) {
        // Over already: there is nobody to say it to.
        let _ = self.queue(Outgoing::Close).await;
    }

    async fn queue(&self, outgoing: Outgoing) -> Result<(), SendError> {
        self.outgoing.send(outgoing).await.map_err(|_| SendError::Ended)
    }
}

/// The receiving half. It owns the client: dropping it ends the session at once.
pub type Receiver = crate::receiver::Receiver<Delivery, Refused>;

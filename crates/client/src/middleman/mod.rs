//! A client of middleman's protocol: publishes to topics and hears of them, asks services and is one.
//!
//! It dials again whenever a session ends, and says again what it has subscribed to and allowed, in
//! the same order. Nothing else outlives a session: publications that it had taken may be lost, and
//! requests that were under way fail for who waits for them.
//!
//! ```no_run
//! use beacon_client::middleman::{Client, Event, Options};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut client = Client::start(Options::new("ws://127.0.0.1:8764", "the service key"))?;
//! client.sender().subscribe("news").await?;
//! client.sender().publish("news", "hello").await?;
//! while let Some(event) = client.recv().await? {
//!     if let Event::Publication(publication) = event {
//!         println!("{}: {}", publication.topic, publication.content.body);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod error;
mod event;
mod message;
mod options;
mod outgoing;
mod session;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use beacon_proto::backoff::{between, doubled};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::dial::{ConnectError, Dialer, Surroundings, Upgrade};
use crate::keep::{self, Schedule};
use crate::target::Target;
use crate::wire::middleman::Command;

pub use error::{Interruption, Refused, RequestError, SendError};
pub use event::{Event, Publication, Request};
pub use message::Content;
pub use options::{Key, Options, Timeouts};

use outgoing::{Outgoing, declaration};
use session::Keeper;

/// Longest message in either direction, in bytes: what a relay takes unless it is told otherwise.
pub const MAX_MESSAGE: usize = 1_048_576;

/// Messages that wait in each direction between the sessions and the application: as
/// [`crate::QUEUE`].
///
/// A sender waits while its queue is full. Nothing is read while that of events is: then the broker
/// drops the oldest publications, and answers wait.
pub const QUEUE: usize = crate::QUEUE;

/// Where a client stands.
pub type State = keep::State<Interruption>;

/// Redials after 0.1 s to 5 s, and up to half of it more; a session of 5 s was a good one.
const SCHEDULE: Schedule = Schedule { delay, settled: Duration::from_secs(5) };

fn delay(attempt: u32, random: u32) -> Duration {
    let delay = doubled(Duration::from_millis(100), attempt, Duration::from_secs(5));
    between(delay, delay * 3 / 2, random)
}

/// A service or a client of a broker.
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
    /// error here: [`State`] tells. One that does not know the key ends the client:
    /// [`Receiver::recv`] tells.
    pub fn start(options: Options) -> Result<Self, ConnectError> {
        // Any path is a broker's.
        let target = Target::parse_peerbus(&options.url)?;
        let Options { trust, proxy, resolver, headers, .. } = &options;
        let upgrade = Upgrade { headers: headers.clone(), max_message: MAX_MESSAGE };
        let dialer = Dialer::towards(target, upgrade, &Surroundings { trust, proxy, resolver })?;
        let (outgoing, to_send) = mpsc::channel(QUEUE);
        let (told, events) = mpsc::channel(QUEUE);
        let (publish, state) = watch::channel(State::Connecting);
        let sender = Sender::of(outgoing, &options);
        let keeper = Keeper {
            dialer,
            options,
            outgoing: to_send,
            events: told,
            sender: sender.outgoing.downgrade(),
            declared: Vec::new(),
            session: 0,
        };
        let receiver = Receiver::spawn(events, keep::keep(keeper, SCHEDULE, publish));
        Ok(Self { sender, receiver, state })
    }

    /// The sending half, to clone.
    #[must_use]
    pub const fn sender(&self) -> &Sender {
        &self.sender
    }

    /// Waits for the next event: [`Receiver::recv`].
    ///
    /// # Errors
    /// As [`Receiver::recv`].
    pub async fn recv(&mut self) -> Result<Option<Event>, Refused> {
        self.receiver.recv().await
    }

    /// Waits until the broker has let us in.
    ///
    /// # Errors
    /// It does not know the key.
    pub async fn connected(&mut self) -> Result<(), Refused> {
        self.receiver.connected(&mut self.state).await
    }

    /// Ends the client once all that was sent has left.
    ///
    /// # Errors
    /// The broker has refused before.
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
    outgoing: mpsc::Sender<Outgoing>,
    patience: Duration,
}

impl Sender {
    fn of(outgoing: mpsc::Sender<Outgoing>, options: &Options) -> Self {
        Self { outgoing, patience: options.timeouts.request }
    }

    /// Publishes to all who have subscribed to a topic; waits only while the queue is full.
    ///
    /// # Errors
    /// What no message can be; a client that has ended.
    pub async fn publish(
        &self,
        topic: &str,
        content: impl Into<Content> + Send,
    ) -> Result<(), SendError> {
        let text = message::write(Command::Pub, topic, None, &content.into())?;
        self.queue(Outgoing::Publish(text)).await
    }

    /// Subscribes to a topic, in this session and all that follow.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub async fn subscribe(&self, topic: &str) -> Result<(), SendError> {
        self.declare(Command::Sub, topic).await
    }

    /// Has clients publish to a topic, which services alone can.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub async fn allow_publish(&self, topic: &str) -> Result<(), SendError> {
        self.declare(Command::Epub, topic).await
    }

    /// Has clients subscribe to a topic, which services alone can.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub async fn allow_subscribe(&self, topic: &str) -> Result<(), SendError> {
        self.declare(Command::Esub, topic).await
    }

    /// Becomes a responder of a topic, or one with another worker, which services alone can.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub async fn respond(&self, topic: &str) -> Result<(), SendError> {
        self.declare(Command::Ereq, topic).await
    }

    /// Asks a responder of a topic, and waits for its answer.
    ///
    /// # Errors
    /// What no message can be; an answer that does not come, or tells of a failure.
    pub async fn request(
        &self,
        topic: &str,
        content: impl Into<Content> + Send,
    ) -> Result<Content, RequestError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let rid = NEXT.fetch_add(1, Ordering::Relaxed).to_string();
        let text = message::write(Command::Req, topic, Some(&rid), &content.into())?;
        let (waiting, answer) = oneshot::channel();
        let asked = async {
            self.queue(Outgoing::Request { rid, text, waiting }).await?;
            answer.await.unwrap_or(Err(RequestError::Interrupted))
        };
        timeout(self.patience, asked).await.unwrap_or(Err(RequestError::Late))
    }

    /// Queues the end of the client behind all that was sent.
    pub async fn close(&self) {
        // Over already: there is nobody to say it to.
        let _ = self.queue(Outgoing::Close).await;
    }

    async fn declare(&self, command: Command<'_>, topic: &str) -> Result<(), SendError> {
        self.queue(Outgoing::Declare(declaration(command, topic)?)).await
    }

    async fn queue(&self, outgoing: Outgoing) -> Result<(), SendError> {
        self.outgoing.send(outgoing).await.map_err(|_| SendError::Ended)
    }
}

/// The receiving half. It owns the client: dropping it ends the session at once.
pub type Receiver = crate::receiver::Receiver<Event, Refused>;

//! A client of the relay protocol of NetBird and openZro, over WebSocket and, with the feature
//! `quic`, over QUIC datagrams.
//!
//! [`Client`] is one session and ends with it: to have another, dial again. Packets may be
//! lost on the way, as datagrams may.
//!
//! ```no_run
//! use beacon_client::netbird::{Client, Credential, Event, Options, PeerId};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let (me, friend) = (PeerId::of_name("alice"), PeerId::of_name("bob"));
//! let credential = Credential::Secret("the relay's secret".to_owned());
//! let options = Options::new("rels://relay.example.net", me, credential);
//! let mut client = Client::connect(&options).await?;
//! client.subscribe(&[friend]).await?;
//! while let Some(event) = client.recv().await? {
//!     match event {
//!         Event::Packet { sender, payload } => println!("{sender} sent {} bytes", payload.len()),
//!         Event::Online(peers) if peers.contains(&friend) => client.send_to(friend, b"hi").await?,
//!         Event::Online(_) => {}
//!         // Later versions may say more.
//!         _ => {}
//!         Event::Offline(peers) => println!("{} peers have gone", peers.len()),
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod carrier;
mod driven;
mod error;
mod login;
mod options;
#[cfg(feature = "quic")]
mod quic;
mod session;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::dial::{Dialer, Surroundings, Upgrade};
use crate::target::Target;
use crate::wire::netbird::{self, MAX_MESSAGE, transport_header};

pub use crate::wire::netbird::{MAX_PAYLOAD, PeerId};
#[cfg(feature = "quic")]
pub use error::QuicError;
pub use error::{ConnectError, SessionError};
pub use login::token;
pub use options::{Credential, Options, Timeouts, Transport};

use carrier::Carrier;
use login::LoggedIn;
use session::Outgoing;

/// Messages that wait in each direction between the session and the application: as
/// [`crate::QUEUE`].
pub const QUEUE: usize = crate::QUEUE;

/// What a relay tells a client.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A payload that another peer sent.
    Packet {
        /// The peer that sent it, as the relay says.
        sender: PeerId,
        /// What it sent.
        payload: Bytes,
    },
    /// Peers that the client has subscribed to are connected: once for each subscription.
    Online(Vec<PeerId>),
    /// Peers that the client has subscribed to have gone; each time.
    Offline(Vec<PeerId>),
}

/// Why a message was not sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The message is larger than the relay takes, or over QUIC than the path carries.
    #[error("a message of {bytes} bytes is larger than {most} bytes")]
    TooLarge {
        /// Length of the message, header included.
        bytes: usize,
        /// Length of the longest that can be sent.
        most: usize,
    },
    /// The session is over; [`Receiver::recv`] says why.
    #[error("the session is over")]
    Ended,
}

/// One connected and authenticated session with a relay.
#[derive(Debug)]
pub struct Client {
    sender: Sender,
    receiver: Receiver,
    instance: String,
}

impl Client {
    /// Dials and logs in.
    ///
    /// # Errors
    /// A URL or CA file that is of no use, a relay that cannot be reached in time or refuses.
    pub async fn connect(options: &Options) -> Result<Self, ConnectError> {
        let target = Target::parse_netbird(&options.url).map_err(crate::ConnectError::from)?;
        match options.transport {
            Transport::WebSocket => {
                let Options { trust, proxy, resolver, timeouts, .. } = options;
                let surroundings = Surroundings { trust, proxy, resolver };
                let dialer = Dialer::towards(target, upgrade(options), &surroundings)?;
                let socket = dialer.dial(&mut None, timeouts.connect).await?;
                Ok(Self::of(login::log_in(Carrier::of(socket), options).await?, options))
            }
            #[cfg(feature = "quic")]
            Transport::Quic => {
                let connection = quic::dial(&target, options).await?;
                Ok(Self::of(login::log_in(Carrier::Quic(connection), options).await?, options))
            }
        }
    }

    /// Logs in over a stream that leads to the relay already, as a WebSocket: the URL only names
    /// the relay, and neither its scheme nor a proxy does anything.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        options: &Options,
    ) -> Result<Self, ConnectError> {
        let target = Target::parse_netbird(&options.url).map_err(crate::ConnectError::from)?;
        let dialer = Dialer::over_streams_of(target, upgrade(options), &options.resolver);
        let socket = dialer.dial_over(Box::new(stream), options.timeouts.connect).await?;
        Ok(Self::of(login::log_in(Carrier::of(socket), options).await?, options))
    }

    fn of(LoggedIn { carrier, instance }: LoggedIn, options: &Options) -> Self {
        let (outgoing, to_send) = mpsc::channel(QUEUE);
        let (delivered, events) = mpsc::channel(QUEUE);
        let largest = carrier.largest();
        let session = session::run(carrier, to_send, delivered, options.timeouts);
        Self {
            sender: Sender { outgoing, largest },
            receiver: Receiver::spawn(events, session),
            instance,
        }
    }

    /// The URL at which the relay wants to be found, which clients tell each other.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Sends a payload to another peer: [`Sender::send_to`].
    ///
    /// # Errors
    /// As [`Sender::send_to`].
    pub async fn send_to(&self, dest: PeerId, payload: &[u8]) -> Result<(), SendError> {
        self.sender.send_to(dest, payload).await
    }

    /// Asks to be told of these peers' coming and going: [`Sender::subscribe`].
    ///
    /// # Errors
    /// As [`Sender::subscribe`].
    pub async fn subscribe(&self, peers: &[PeerId]) -> Result<(), SendError> {
        self.sender.subscribe(peers).await
    }

    /// Ends subscriptions: [`Sender::unsubscribe`].
    ///
    /// # Errors
    /// As [`Sender::unsubscribe`].
    pub async fn unsubscribe(&self, peers: &[PeerId]) -> Result<(), SendError> {
        self.sender.unsubscribe(peers).await
    }

    /// Waits for the next event: [`Receiver::recv`].
    ///
    /// # Errors
    /// As [`Receiver::recv`].
    pub async fn recv(&mut self) -> Result<Option<Event>, SessionError> {
        self.receiver.recv().await
    }

    /// Sends what is queued, says that it leaves, and waits a second at most for the relay to end
    /// the connection.
    ///
    /// # Errors
    /// The session ended before, for another reason.
    pub async fn close(self) -> Result<(), SessionError> {
        let (sender, mut receiver) = self.split();
        sender.close().await;
        receiver.drain().await
    }

    /// The sending half, to clone.
    #[must_use]
    pub const fn sender(&self) -> &Sender {
        &self.sender
    }

    /// Takes the halves apart, to send while receiving.
    #[must_use]
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }
}

fn upgrade(options: &Options) -> Upgrade {
    Upgrade { headers: options.headers.clone(), max_message: MAX_MESSAGE }
}

/// The sending half; clones send into the same queue. Dropping all leaves the session open for the
/// [`Receiver`].
#[derive(Clone, Debug)]
pub struct Sender {
    outgoing: mpsc::Sender<Outgoing>,
    largest: Largest,
}

/// How long a message may be.
#[derive(Clone, Debug)]
enum Largest {
    /// So many bytes.
    Fixed(usize),
    /// What the path carries at the moment.
    #[cfg(feature = "quic")]
    Path(quic::Path),
}

impl Largest {
    fn bytes(&self) -> usize {
        match self {
            Self::Fixed(bytes) => *bytes,
            #[cfg(feature = "quic")]
            Self::Path(path) => path.largest().min(MAX_MESSAGE),
        }
    }
}

impl Sender {
    /// Sends a payload of at most [`MAX_PAYLOAD`] bytes to `dest`; over QUIC, of what the path
    /// carries in one datagram. Waits while the queue is full.
    ///
    /// # Errors
    /// A payload that is too large; a session that is over.
    pub async fn send_to(&self, dest: PeerId, payload: &[u8]) -> Result<(), SendError> {
        let header = transport_header(dest);
        self.queue([&header[..], payload].concat()).await
    }

    /// Asks to be told of these peers' coming and going, anew where that was asked before.
    ///
    /// # Errors
    /// A session that is over.
    pub async fn subscribe(&self, peers: &[PeerId]) -> Result<(), SendError> {
        for peers in peers.chunks(self.ids()) {
            for message in netbird::subscribe(peers) {
                self.queue(message).await?;
            }
        }
        Ok(())
    }

    /// Ends subscriptions to these peers.
    ///
    /// # Errors
    /// A session that is over.
    pub async fn unsubscribe(&self, peers: &[PeerId]) -> Result<(), SendError> {
        for peers in peers.chunks(self.ids()) {
            for message in netbird::unsubscribe(peers) {
                self.queue(message).await?;
            }
        }
        Ok(())
    }

    /// Queues the end of the session behind all that was sent. [`Receiver::recv`] returns `None`
    /// when it is done.
    pub async fn close(&self) {
        // Over already: there is nobody to say it to.
        let _ = self.outgoing.send(Outgoing::Close).await;
    }

    /// How many ids one message holds, which over QUIC is one datagram.
    fn ids(&self) -> usize {
        (self.largest.bytes().saturating_sub(2) / PeerId::LENGTH).max(1)
    }

    async fn queue(&self, message: Vec<u8>) -> Result<(), SendError> {
        let most = self.largest.bytes();
        if message.len() > most {
            return Err(SendError::TooLarge { bytes: message.len(), most });
        }
        let sent = self.outgoing.send(Outgoing::Message(message.into())).await;
        sent.map_err(|_| SendError::Ended)
    }
}

/// The receiving half. It owns the session: dropping it ends the session at once.
pub type Receiver = crate::receiver::Receiver<Event, SessionError>;

//! The client library: dials a relay, proves who the node is, sends and receives.
//!
//! [`Options`] say where to connect, as whom and how. [`Client`] is one session and ends with it.
//! [`Reconnecting`] keeps a session alive and redials with the fleet's [`backoff`]. [`udp::Peer`] is a node that uses UDP instead.
//! Packets may be lost on the way, as datagrams may: who needs all of them acknowledges.
//! [`netbird`] is a client of the protocol of NetBird and openZro instead, and [`peerbus`] one of the
//! message bus of AI agents, where nothing is lost; [`middleman`] publishes, asks and answers, and
//! [`keyop`] is a peer of federated hubs.
//!
//! ```no_run
//! use beacon_client::{Options, read_key};
//! use beacon_client::ids::NodeId;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let (me, friend) = (NodeId::new(4242).unwrap(), NodeId::new(4243).unwrap());
//! let key = read_key("node.key".as_ref())?.key;
//! let mut client = Options::new("wss://relay.example.net", me, key).connect().await?;
//! client.send_to(friend, b"hello").await?;
//! while let Some(delivery) = client.recv().await? {
//!     println!("{} sent {} bytes", delivery.sender, delivery.payload.len());
//! }
//! # Ok(())
//! # }
//! ```

pub mod backoff;
mod dial;
pub mod keep;
pub mod key_file;
pub mod keyop;
mod login;
pub mod middleman;
pub mod net;
pub mod netbird;
mod options;
pub mod peerbus;
mod proxy;
pub mod receiver;
mod reconnect;
mod session;
mod setters;
mod socket;
mod target;
pub mod udp;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::ids::NodeId;
use crate::wire::beacon::{self, MAX_WSS_PACKET, RELAY_HEADER};

pub use beacon_wire as wire;
pub use beacon_wire::ids;
pub use bytes::Bytes;
/// The TLS of [`net::tls`].
pub use rustls;

/// Keys of nodes, as [`Options`] take them.
pub use ed25519_dalek::SigningKey;
/// The crate whose errors [`SessionError`] and [`ConnectError`] have, and whose headers [`Options`].
pub use tokio_tungstenite::tungstenite;
pub use tungstenite::http;

pub use dial::{ConnectError, upgrade_request};
pub use key_file::{KeyFile, KeyFileError, read_key};
pub use login::LoginError;
pub use options::{Options, Timeouts};
pub use proxy::{InvalidProxy, Proxy, ProxyError, ProxyUrl, Tunnel};
pub use reconnect::{Interruption, Reconnecting, State};
pub use session::SessionError;
pub use target::{InvalidUrl, Target};

use dial::Dialer;
use session::Outgoing;
use socket::Socket;

/// Longest payload of [`Sender::send_to`], in bytes.
///
/// 65_527 = 65_536 (largest packet) - 9 (header of a Relay packet).
/// A relay passes so much on to clients like this one; to deployed daemons over WebSocket
/// 32,763 bytes at most (SPEC §2.5).
pub const MAX_PAYLOAD: usize = MAX_WSS_PACKET - RELAY_HEADER;

/// Packets that wait in each direction between the session and the application.
///
/// A sender waits while its queue is full. A full queue of deliveries stops reading from
/// the socket, so that the relay drops what does not fit its own queue; a relay also ends
/// a session whose pings stay unanswered for long because of it.
pub const QUEUE: usize = 256;

/// Longest wait for the answer to a ping or a Discover.
const ANSWER: Duration = Duration::from_secs(10);

/// A payload that another node sent.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Delivery {
    /// The node that sent it, as the relay says.
    pub sender: NodeId,
    /// What it sent.
    pub payload: Bytes,
}

impl Delivery {
    /// A payload that a node sent, for what stands in for a relay.
    #[must_use]
    pub const fn new(sender: NodeId, payload: Bytes) -> Self {
        Self { sender, payload }
    }
}

/// Why a packet was not sent, or a question was not answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The packet is larger than one WebSocket frame of the protocol.
    #[error("a packet of {bytes} bytes is larger than {MAX_WSS_PACKET} bytes")]
    TooLarge {
        /// Length of the packet, header included.
        bytes: usize,
    },
    /// The session is over; [`Receiver::recv`] says why.
    #[error("the session is over")]
    Ended,
    /// The relay did not answer in time, or the session ended meanwhile.
    #[error("no answer from the relay")]
    NoAnswer,
}

/// One connected and authenticated session with a relay.
#[derive(Debug)]
pub struct Client {
    sender: Sender,
    receiver: Receiver,
}

impl Client {
    /// Dials and logs in.
    ///
    /// # Errors
    /// A URL or CA file that is of no use, a relay that cannot be reached in time or
    /// refuses, and a challenge that must not be signed.
    pub async fn connect(options: &Options) -> Result<Self, ConnectError> {
        let dialer = Dialer::new(options)?;
        Ok(Self::of(dialer.log_in(options).await?, options))
    }

    /// Logs in over a stream that leads to the relay already: the URL only names it, and neither
    /// its scheme nor a proxy does anything.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        options: &Options,
    ) -> Result<Self, ConnectError> {
        let dialer = Dialer::over_streams(options)?;
        Ok(Self::of(dialer.log_in_over(Box::new(stream), options).await?, options))
    }

    fn of(socket: Socket, options: &Options) -> Self {
        let timeouts = options.timeouts;
        let (sender, receiver) = halves(options.node, async move |mut outgoing, deliveries| {
            session::run(socket, &mut outgoing, &deliveries, &timeouts).await
        });
        Self { sender, receiver }
    }

    /// Sends a payload to another node: [`Sender::send_to`].
    ///
    /// # Errors
    /// As [`Sender::send_to`].
    pub async fn send_to(&self, dest: NodeId, payload: &[u8]) -> Result<(), SendError> {
        self.sender.send_to(dest, payload).await
    }

    /// Sends a whole beacon packet: [`Sender::send_packet`].
    ///
    /// # Errors
    /// As [`Sender::send_packet`].
    pub async fn send_packet(&self, packet: &[u8]) -> Result<(), SendError> {
        self.sender.send_packet(packet).await
    }

    /// Waits for the next delivery: [`Receiver::recv`].
    ///
    /// # Errors
    /// As [`Receiver::recv`].
    pub async fn recv(&mut self) -> Result<Option<Delivery>, SessionError> {
        self.receiver.recv().await
    }

    /// Asks for the address that the relay sees: [`Sender::discover`].
    ///
    /// # Errors
    /// As [`Sender::discover`].
    pub async fn discover(&self) -> Result<SocketAddr, SendError> {
        self.sender.discover().await
    }

    /// Measures a round trip to the relay: [`Sender::ping`].
    ///
    /// # Errors
    /// As [`Sender::ping`].
    pub async fn ping(&self) -> Result<Duration, SendError> {
        self.sender.ping().await
    }

    /// Sends what is queued, says bye, and waits a second at most for the relay's close.
    ///
    /// # Errors
    /// The session ended before, for another reason.
    pub async fn bye(self) -> Result<(), SessionError> {
        let (sender, mut receiver) = self.split();
        sender.bye().await;
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

/// The two halves of a client, over queues that `task` serves.
fn halves<T, E>(
    node: NodeId,
    task: impl FnOnce(Outbound, Inbound) -> T,
) -> (Sender, receiver::Receiver<Delivery, E>)
where
    T: Future<Output = Result<(), E>> + Send + 'static,
    E: Send + 'static,
{
    let (outgoing, to_send) = mpsc::channel(QUEUE);
    let (delivered, deliveries) = mpsc::channel(QUEUE);
    let receiver = receiver::Receiver::spawn(deliveries, task(to_send, delivered));
    (Sender { node, outgoing }, receiver)
}

type Outbound = mpsc::Receiver<Outgoing>;
type Inbound = mpsc::Sender<Delivery>;

/// The sending half; clones send into the same queue. Dropping all leaves the session open for the
/// [`Receiver`].
#[derive(Clone, Debug)]
pub struct Sender {
    node: NodeId,
    outgoing: mpsc::Sender<Outgoing>,
}

impl Sender {
    /// Sends a payload of at most [`MAX_PAYLOAD`] bytes to `dest`; waits while the queue is full.
    ///
    /// # Errors
    /// A payload that is too large; a session that is over.
    pub async fn send_to(&self, dest: NodeId, payload: &[u8]) -> Result<(), SendError> {
        let mut packet = Vec::with_capacity(RELAY_HEADER + payload.len());
        beacon::encode_relay(self.node, dest, payload, &mut packet);
        self.send_owned(packet.into()).await
    }

    /// Sends a whole beacon packet of at most [`MAX_WSS_PACKET`] bytes.
    ///
    /// # Errors
    /// A packet that is too large; a session that is over.
    pub async fn send_packet(&self, packet: &[u8]) -> Result<(), SendError> {
        self.send_owned(Bytes::copy_from_slice(packet)).await
    }

    async fn send_owned(&self, packet: Bytes) -> Result<(), SendError> {
        if packet.len() > MAX_WSS_PACKET {
            return Err(SendError::TooLarge { bytes: packet.len() });
        }
        self.queue(Outgoing::Packet(packet)).await
    }

    /// Asks for the address that the relay sees, for 10 s at most.
    ///
    /// # Errors
    /// No answer in time; a session that is over.
    pub async fn discover(&self) -> Result<SocketAddr, SendError> {
        let mut packet = Vec::new();
        beacon::encode_discover(self.node, None, false, &mut packet);
        self.ask(|answer| Outgoing::Discover(packet.into(), answer)).await
    }

    /// Measures a round trip to the relay, for 10 s at most.
    ///
    /// # Errors
    /// No answer in time; a session that is over.
    pub async fn ping(&self) -> Result<Duration, SendError> {
        self.ask(Outgoing::Ping).await
    }

    async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Outgoing,
    ) -> Result<T, SendError> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.queue(question(answer)).await?;
            answered.await.map_err(|_| SendError::NoAnswer)
        };
        timeout(ANSWER, asked).await.unwrap_or(Err(SendError::NoAnswer))
    }

    /// Queues the graceful end behind all that was sent. [`Receiver::recv`] returns `None`
    /// when it is done; on a [`Reconnecting`] that is not connected, that waits for a session.
    pub async fn bye(&self) {
        // Over already: there is nobody to say it to.
        let _ = self.queue(Outgoing::Bye).await;
    }

    async fn queue(&self, outgoing: Outgoing) -> Result<(), SendError> {
        self.outgoing.send(outgoing).await.map_err(|_| SendError::Ended)
    }
}

/// The receiving half. It owns the session: dropping it ends the session at once.
pub type Receiver = receiver::Receiver<Delivery, SessionError>;

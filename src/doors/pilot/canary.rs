//! The relay's own client at its own listener: connects, logs in, sends itself a packet and
//! waits for it, as a peer would.
//!
//! The listener knows its connection by the address that it comes from, which nobody else can
//! have, and hides its session: it is in the table, found and routed to as any other, and no
//! list, count, limit or other relay learns of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::Pilot;
use crate::client::{Client, ConnectError, Options, SendError, SessionError};
use crate::ids::NodeId;
use crate::session::Server;
use crate::udp::{Exchange, SECRET};
use crate::wire::beacon;

/// The node that the canary is. Nobody else logs in by this id, and over UDP nothing is
/// registered by it.
pub(super) const NODE: NodeId = NodeId::new(u32::MAX).expect("not 0");

/// Stands in the URL of a connection that is there already.
const HOST: &str = "canary";

/// Bytes of a canary's packet: enough that no other packet is taken for it.
const PAYLOAD: usize = 16;

/// Why a canary was not served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CanaryError {
    /// There is no way to the listener, or no descriptor or randomness for it.
    #[error("cannot connect to the listener: {0}")]
    Connect(#[source] std::io::Error),
    /// The upgrade or the login was refused.
    #[error(transparent)]
    Login(Box<ConnectError>),
    /// The session ended before the packet was back.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The packet could not be sent.
    #[error("the packet was not sent: {0}")]
    Send(#[from] SendError),
    /// The session said bye before the packet was back.
    #[error("the session ended without the packet")]
    Ended,
    /// Not done in time.
    #[error("not done within {0:?}")]
    Late(Duration),
    /// Not served at one of several listeners.
    #[error("at {listener}: {error}")]
    At {
        /// Where the listener is reached.
        listener: String,
        /// Why it was not served there.
        #[source]
        error: Box<Self>,
    },
}

/// What flies.
pub struct Canary {
    pilot: Arc<Pilot>,
    server: Arc<Server>,
}

impl std::fmt::Debug for Canary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Canary").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Canary {
    /// A canary for the listeners of a server that speak this door.
    #[must_use]
    pub const fn new(pilot: Arc<Pilot>, server: Arc<Server>) -> Self {
        Self { pilot, server }
    }

    /// Does at each listener what a node does: connects, logs in, and sends itself a Relay
    /// packet, which the sink has to hand back. Returns the time that the slowest took; for one
    /// caller at a time. It counts nowhere.
    ///
    /// # Errors
    /// What went wrong at one of them, or that it was not done within `limit` there.
    pub async fn fly(&self, limit: Duration) -> Result<Duration, CanaryError> {
        let listeners: Vec<_> = self.server.listeners_of(super::KIND.name).collect();
        let is_alone = listeners.len() == 1;
        let mut slowest = Duration::ZERO;
        // One after the other: at two listeners at once it would take over from itself.
        for listener in listeners {
            let flight = timeout(limit, self.there_and_back(listener)).await;
            let flight = flight.map_err(|_| CanaryError::Late(limit)).flatten();
            let took =
                flight.map_err(|error| if is_alone { error } else { self.at(listener, error) })?;
            slowest = slowest.max(took);
        }
        Ok(slowest)
    }

    /// That a flight went wrong at this one of several listeners.
    fn at(&self, listener: usize, error: CanaryError) -> CanaryError {
        let listener = match self.server.entrance(listener) {
            Ok(entrance) => entrance.to_string(),
            Err(_) => "a listener that cannot be reached".to_owned(),
        };
        CanaryError::At { listener, error: Box::new(error) }
    }

    async fn there_and_back(&self, listener: usize) -> Result<Duration, CanaryError> {
        let began = Instant::now();
        let dialling = self.server.dial(listener).map_err(CanaryError::Connect)?;
        let _expected = self.server.expect(listener, dialling.origin().clone());
        let stream = dialling.connect().await.map_err(CanaryError::Connect)?;

        let mut options = Options::new(format!("ws://{HOST}"), NODE, self.pilot.canary.clone());
        options.relay_name.clone_from(&self.pilot.login.load().relay_name);
        let client = Client::connect_over(stream, &options).await;
        let mut client = client.map_err(|error| CanaryError::Login(Box::new(error)))?;

        let mut payload = [0; PAYLOAD];
        getrandom::fill(&mut payload).map_err(|error| CanaryError::Connect(error.into()))?;
        client.send_to(NODE, &payload).await?;
        loop {
            match client.recv().await? {
                Some(delivery) if *delivery.payload == payload => break,
                Some(_) => {}
                None => return Err(CanaryError::Ended),
            }
        }
        let took = began.elapsed();
        client.bye().await?;
        Ok(took)
    }
}

impl CanaryError {
    /// Whether the relay did not get to it, rather than that something was in the way.
    #[must_use]
    pub fn is_late(&self) -> bool {
        match self {
            Self::Late(_) => true,
            Self::At { error, .. } => error.is_late(),
            Self::Connect(_) | Self::Login(_) | Self::Session(_) | Self::Send(_) | Self::Ended => {
                false
            }
        }
    }
}

/// What the relay's own client says over UDP: asks for its address and sends itself a packet, as a node would; with the answers that a
/// node would get.
#[must_use]
pub fn script(client: SocketAddr, secret: &[u8; SECRET]) -> Vec<Exchange> {
    let mut question = Vec::new();
    // Nobody's: or a thread that comes to it much later would make a node of it.
    beacon::encode_address_question(&mut question);
    question.extend_from_slice(secret);
    let mut reply = Vec::new();
    beacon::encode_discover_reply(client, &mut reply);

    let mut packet = Vec::new();
    beacon::encode_relay(NODE, NODE, secret, &mut packet);
    let mut delivered = beacon::deliver_header(NODE).to_vec();
    delivered.extend_from_slice(secret);

    vec![Exchange { packet: question, answer: reply }, Exchange { packet, answer: delivered }]
}

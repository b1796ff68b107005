//! The relay's own client at its own listener: connects, logs in, sends itself a packet and
//! waits for it, as a peer would.
//!
//! It is no peer. The listener knows its connection by the address that it comes from, which
//! nobody else can have, and serves it at a door of its own: the same code and the same sink,
//! but a table, a gate, counters and accounts that nobody else looks at.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ed25519_dalek::SigningKey;
use parking_lot::Mutex;
use tokio::time::timeout;

use super::{Counters, Door, Gate, Settings};
use crate::client::{Client, ConnectError, Options, SendError, SessionError};
use crate::ids::{NodeId, PublicKey};
use crate::net::entrance::{Entrance, Origin};
use crate::peers::{Realm, Table};

/// Names the canary at its own door, where nobody else is.
const NODE: NodeId = NodeId::new(u32::MAX).expect("not 0");

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

/// What a listener needs to serve its canary.
pub(super) struct Canary<S> {
    pub(super) door: Arc<Door<S>>,
    entrance: std::io::Result<Entrance>,
    key: SigningKey,
    expected: Mutex<Option<Origin>>,
}

/// Makes the listener expect a canary for as long as this lives.
struct Expected<'a>(&'a Mutex<Option<Origin>>);

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

impl<S> Canary<S> {
    /// The canary of a door, with a key that only this process knows.
    pub(super) fn new(door: &Door<S>, entrance: std::io::Result<Entrance>) -> Self {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).expect("the system has randomness once it has booted");
        let key = SigningKey::from_bytes(&seed);
        let public = PublicKey(key.verifying_key().to_bytes());
        let table = Arc::new(Table::new(usize::MAX, 0));
        let counters = Arc::<Counters>::default();
        let door = Door {
            realm: Realm::Canary,
            settings: ArcSwap::from_pointee(settings(&door.settings.load())),
            keys: Arc::new(move |node| (node == NODE).then_some(public)),
            sink: Arc::clone(&door.sink),
            gate: Arc::new(Gate::new(Arc::clone(&table), Arc::clone(&counters))),
            table,
            traffic: Arc::default(),
            counters,
            sessions: Arc::default(),
        };
        Self { door: Arc::new(door), entrance, key, expected: Mutex::default() }
    }

    /// Serves the canary by other settings from here on.
    pub(super) fn update(&self, new: &Settings) {
        self.door.settings.store(Arc::new(settings(new)));
    }

    /// Whether a connection from there is the canary's.
    pub(super) fn is_from(&self, origin: impl FnOnce() -> std::io::Result<Origin>) -> bool {
        let expected = self.expected.lock();
        expected.is_some() && origin().is_ok_and(|origin| Some(&origin) == expected.as_ref())
    }

    /// Does all that a peer does, within `limit`; the time from the connection to the packet.
    pub(super) async fn fly(&self, limit: Duration) -> Result<Duration, CanaryError> {
        timeout(limit, self.there_and_back()).await.map_err(|_| CanaryError::Late(limit))?
    }

    /// That a flight went wrong at this one of several listeners.
    pub(super) fn at_listener(&self, error: CanaryError) -> CanaryError {
        let listener = match &self.entrance {
            Ok(entrance) => entrance.to_string(),
            Err(_) => "a listener that cannot be reached".to_owned(),
        };
        CanaryError::At { listener, error: Box::new(error) }
    }

    async fn there_and_back(&self) -> Result<Duration, CanaryError> {
        let connect = |error: &std::io::Error| CanaryError::Connect(error.kind().into());
        let entrance = self.entrance.as_ref().map_err(connect)?;
        let began = Instant::now();
        let dialling = entrance.dial().map_err(CanaryError::Connect)?;
        *self.expected.lock() = Some(dialling.origin().clone());
        let _expected = Expected(&self.expected);
        let stream = dialling.connect().await.map_err(CanaryError::Connect)?;

        let mut options = Options::new(format!("ws://{HOST}"), NODE, self.key.clone());
        options.relay_name.clone_from(&self.door.settings.load().relay_name);
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

/// The settings of a canary's door: those of the peers, but that it is no client behind a
/// proxy, and that nobody is limited.
fn settings(of_peers: &Settings) -> Settings {
    Settings {
        trusted_proxies: Vec::new(),
        upgrade_rate: 0,
        max_waiting: usize::MAX,
        ..of_peers.clone()
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

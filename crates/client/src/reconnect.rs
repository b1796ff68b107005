//! Keeps a session alive: dials again whenever it ends, with the fleet's back-off.

use tokio::sync::watch;

use super::backoff;
use super::dial::{ConnectError, Dialer};
use super::keep::{self, End, Schedule, Sessions, keep};
use super::options::Options;
use super::session::{self, SessionError};
use super::socket::Socket;
use super::{Delivery, Inbound, Outbound, SendError, Sender, halves, receiver};
use crate::ids::NodeId;

/// Where a [`Reconnecting`] stands.
pub type State = keep::State<Interruption>;

/// The receiving half of a [`Reconnecting`], which it owns: dropping it ends the session at once.
type Receiver = receiver::Receiver<Delivery, Interruption>;

const SCHEDULE: Schedule = Schedule { delay: backoff::delay, settled: backoff::SETTLED };

/// What ended a session or prevented it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Interruption {
    /// There was no session.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The session ended.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// A session that is dialled again whenever it ends, until a bye or a drop.
///
/// Both queues outlive the sessions: what is sent while there is none waits, and
/// [`Self::send_to`] waits once [`QUEUE`](super::QUEUE) packets do. What a session had
/// taken and not delivered when it broke is lost.
///
/// As long as there was no session yet, it also ends where it is refused [`Options::refusals`] times
/// in a row and a person has to change something ([`ConnectError::needs_attention`]): the relay
/// does not know the node's key, its certificate is not trusted, or it is another relay. Once it has
/// been let in, such a refusal ends nothing, since a relay's directory may be wrong for a while:
/// [`State`] tells.
#[derive(Debug)]
pub struct Reconnecting {
    sender: Sender,
    receiver: Receiver,
    state: watch::Receiver<State>,
}

impl Reconnecting {
    /// Starts to dial; must run inside a tokio runtime.
    ///
    /// # Errors
    /// A URL or certificate authorities that are of no use. A relay that cannot be reached
    /// or refuses is no error here: [`Self::connected`] and [`Self::recv`] tell.
    pub fn start(options: Options) -> Result<Self, ConnectError> {
        let dialer = Dialer::new(&options)?;
        let (publish, state) = watch::channel(State::Connecting);
        let (sender, receiver) = halves(options.node, |outgoing, deliveries| {
            let patience = Some(options.refusals).filter(|refusals| *refusals > 0);
            keep(Nodes { dialer, options, outgoing, deliveries, patience }, SCHEDULE, publish)
        });
        Ok(Self { sender, receiver, state })
    }

    /// Waits until there is a session.
    ///
    /// # Errors
    /// Why there will be none, as [`Self::recv`].
    pub async fn connected(&mut self) -> Result<(), Interruption> {
        self.receiver.connected(&mut self.state).await
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Sends a payload to another node: [`Sender::send_to`].
    ///
    /// # Errors
    /// As [`Sender::send_to`].
    pub async fn send_to(&self, dest: NodeId, payload: &[u8]) -> Result<(), SendError> {
        self.sender.send_to(dest, payload).await
    }

    /// The sending half, to clone.
    #[must_use]
    pub const fn sender(&self) -> &Sender {
        &self.sender
    }

    /// Waits for the next delivery, of this session or one that follows; `None` after a bye.
    /// Cancel-safe.
    ///
    /// # Errors
    /// A person has to change something before there can be a first session; told once.
    pub async fn recv(&mut self) -> Result<Option<Delivery>, Interruption> {
        self.receiver.recv().await
    }

    /// Sends what is queued, says bye, and waits a second at most for the relay's close; for a
    /// session first, where there is none.
    ///
    /// # Errors
    /// As [`Self::recv`].
    pub async fn bye(self) -> Result<(), Interruption> {
        let (sender, mut receiver, _state) = self.split();
        sender.bye().await;
        receiver.drain().await
    }

    /// Takes apart the two halves, and the state.
    #[must_use]
    pub fn split(self) -> (Sender, Receiver, watch::Receiver<State>) {
        (self.sender, self.receiver, self.state)
    }
}

/// The sessions of a node.
struct Nodes {
    dialer: Dialer,
    options: Options,
    outgoing: Outbound,
    deliveries: Inbound,
    /// How many more refusals in a row end it; `None` where none does.
    patience: Option<u32>,
}

impl Sessions for Nodes {
    type Socket = Socket;
    type Cause = Interruption;
    type Last = Result<(), Interruption>;

    async fn connect(&mut self) -> Result<Socket, End<Interruption, Self::Last>> {
        let error = match self.dialer.log_in(&self.options).await {
            Ok(socket) => {
                self.patience = None;
                return Ok(socket);
            }
            Err(error) => error,
        };
        if let Some(patience) = &mut self.patience {
            *patience = if error.needs_attention() { *patience - 1 } else { self.options.refusals };
            if *patience == 0 {
                return Err(End::Final(Err(error.into())));
            }
        }
        Err(End::Again(error.into()))
    }

    async fn run(&mut self, socket: Socket) -> End<Interruption, Self::Last> {
        let Self { outgoing, deliveries, options, .. } = self;
        match session::run(socket, outgoing, deliveries, &options.timeouts).await {
            Ok(()) => End::Final(Ok(())),
            Err(error) => End::Again(error.into()),
        }
    }
}

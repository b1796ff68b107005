//! Keeps a session alive: dials again whenever it ends, with the fleet's back-off.

use tokio::sync::watch;

use super::backoff;
use super::dial::{ConnectError, Dialer};
use super::keep::{self, End, Schedule, Sessions, keep};
use super::options::Options;
use super::session::{self, SessionError};
use super::socket::Socket;
use super::{Client, Inbound, Outbound, Receiver, Sender};

/// Where a [`Reconnecting`] stands.
pub type State = keep::State<Interruption>;

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
/// [`Sender::send_to`] waits once [`QUEUE`](super::QUEUE) packets do. What a session had
/// taken and not delivered when it broke is lost.
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
    /// or refuses is no error here: [`State`] tells.
    pub fn start(options: Options) -> Result<Self, ConnectError> {
        let dialer = Dialer::new(&options)?;
        let (publish, state) = watch::channel(State::Connecting);
        let node = options.node;
        let client = Client::over(node, async move |outgoing, deliveries| {
            keep(Nodes { dialer, options, outgoing, deliveries }, SCHEDULE, publish).await;
            Ok(())
        });
        let (sender, receiver) = client.split();
        Ok(Self { sender, receiver, state })
    }

    /// Takes apart the two halves, and the state.
    ///
    /// The receiver's `recv` returns no error: it goes on with the next session.
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
}

impl Sessions for Nodes {
    type Socket = Socket;
    type Cause = Interruption;
    type Last = ();

    async fn connect(&mut self) -> Result<Socket, End<Interruption, ()>> {
        self.dialer.log_in(&self.options).await.map_err(|error| End::Again(error.into()))
    }

    async fn run(&mut self, socket: Socket) -> End<Interruption, ()> {
        let Self { outgoing, deliveries, options, .. } = self;
        match session::run(socket, outgoing, deliveries, &options.timeouts).await {
            Ok(()) => End::Final(()),
            Err(error) => End::Again(error.into()),
        }
    }
}

//! Keeps a session alive: dials again whenever it ends, with the fleet's back-off.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::backoff::Backoff;
use super::dial::{ConnectError, Dialer};
use super::options::Options;
use super::session::{self, SessionError};
use super::{Client, Inbound, Outbound, Receiver, Sender};

/// Where a [`Reconnecting`] stands.
#[derive(Clone, Debug)]
pub enum State {
    /// Dialling and logging in.
    Connecting,
    /// Logged in.
    Connected,
    /// Waiting to dial again.
    Waiting {
        /// For how long.
        delay: Duration,
        /// What ended the session or prevented it.
        cause: Arc<Interruption>,
    },
}

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
    /// or refuses is no error here: [`State::Waiting`] tells.
    pub fn start(options: Options) -> Result<Self, ConnectError> {
        let dialer = Dialer::new(&options)?;
        let (publish, state) = watch::channel(State::Connecting);
        let client = Client::over(options.node, async move |outgoing, deliveries| {
            keep_alive(&dialer, &options, outgoing, deliveries, &publish).await;
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

async fn keep_alive(
    dialer: &Dialer,
    options: &Options,
    mut outgoing: Outbound,
    deliveries: Inbound,
    publish: &watch::Sender<State>,
) {
    let mut backoff = Backoff::default();
    loop {
        publish.send_replace(State::Connecting);
        let cause = match dialer.log_in(options).await {
            Ok(socket) => {
                publish.send_replace(State::Connected);
                let since = Instant::now();
                let ended =
                    session::run(socket, &mut outgoing, &deliveries, &options.timeouts).await;
                backoff.session_ended(since.elapsed());
                match ended {
                    Ok(()) => return,
                    Err(error) => Interruption::from(error),
                }
            }
            Err(error) => Interruption::from(error),
        };
        // Without randomness there is no jitter, but still a wait that grows.
        let delay = backoff.next_delay(getrandom::u32().unwrap_or(u32::MAX));
        publish.send_replace(State::Waiting { delay, cause: Arc::new(cause) });
        sleep(delay).await;
    }
}

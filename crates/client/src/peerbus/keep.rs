//! Keeps a client registered: dials again whenever a session ends.

use std::sync::Arc;
use std::time::Duration;

use beacon_proto::backoff::{between, doubled};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::{self, Message};

use super::QUEUE;
use super::delivery::{Acked, Delivery};
use super::error::{Interruption, Refused, is_final};
use super::letter::Pen;
use super::options::Options;
use super::session::{self, Memory, Outgoing, Queues, Terms};
use crate::SessionError;
use crate::dial::{ConnectError, Dialer};
use crate::socket::Socket;
use crate::wire::peerbus::{FromBroker, Refusal, register};

/// Shortest and longest wait before a redial, without what is added at random: of the original.
const FLOOR: Duration = Duration::from_millis(100);
const CEILING: Duration = Duration::from_secs(5);

/// A session that lived this long was a good one: the next redial starts from the floor.
///
/// Two clients with one name and one token replace each other as soon as they are registered; a
/// registration alone is no success, as it is to the original's clients, which make thousands of
/// connections so.
const SETTLED: Duration = CEILING;

/// Where a client stands.
#[derive(Clone, Debug)]
pub enum State {
    /// Dialling and registering.
    Connecting,
    /// Registered.
    Connected,
    /// Waiting to dial again.
    Waiting {
        /// For how long.
        delay: Duration,
        /// What ended the session or prevented it.
        cause: Arc<Interruption>,
    },
}

/// What a client's task owns.
pub(super) struct Keeper {
    dialer: Dialer,
    options: Options,
    queues: Queues,
    memory: Memory,
    publish: watch::Sender<State>,
}

impl Keeper {
    pub(super) fn new(
        dialer: Dialer,
        options: Options,
        outgoing: mpsc::Receiver<Outgoing>,
        deliveries: mpsc::Sender<Delivery>,
        publish: watch::Sender<State>,
    ) -> Self {
        let (acknowledge, acks) = mpsc::channel(QUEUE);
        let queues = Queues { outgoing, deliveries, acks, acknowledge };
        Self { dialer, options, queues, memory: Memory::default(), publish }
    }

    /// Until the application ends it, or the broker refuses it for good.
    pub(super) async fn run(mut self) -> Result<(), Refused> {
        let pen = Pen::of(&self.options);
        let Options { receipts, timeouts, .. } = self.options;
        let terms = Terms { pen: &pen, receipts, timeouts };
        let mut attempt = 0;
        loop {
            self.publish.send_replace(State::Connecting);
            let connecting = connect(&self.dialer, &self.options);
            let cause = match noting(&mut self.queues.acks, &mut self.memory, connecting).await {
                Ok(socket) => {
                    self.publish.send_replace(State::Connected);
                    let since = Instant::now();
                    let Self { queues, memory, .. } = &mut self;
                    let ended = session::run(socket, queues, memory, &terms).await;
                    if since.elapsed() >= SETTLED {
                        attempt = 0;
                    }
                    match ended {
                        Ok(()) => return Ok(()),
                        Err(_) if self.memory.is_done() => return Ok(()),
                        Err(error) => Interruption::from(error),
                    }
                }
                Err(Interruption::Refused(refusal)) if is_final(refusal) => {
                    return Err(Refused(refusal));
                }
                Err(interruption) => interruption,
            };
            // Without randomness there is no jitter, but still a wait that grows.
            let delay = delay(attempt, getrandom::u32().unwrap_or(u32::MAX));
            attempt = attempt.saturating_add(1);
            self.publish.send_replace(State::Waiting { delay, cause: Arc::new(cause) });
            noting(&mut self.queues.acks, &mut self.memory, sleep(delay)).await;
        }
    }
}

/// The wait before redial number `attempt` (from 0): doubled each time, and up to half of it more.
fn delay(attempt: u32, random: u32) -> Duration {
    let delay = doubled(FLOOR, attempt, CEILING);
    between(delay, delay * 3 / 2, random)
}

/// Awaits something without a session. What is acknowledged meanwhile is noted, and said when the
/// broker delivers it again.
async fn noting<T>(
    acks: &mut mpsc::Receiver<Acked>,
    memory: &mut Memory,
    awaited: impl Future<Output = T>,
) -> T {
    tokio::pin!(awaited);
    loop {
        tokio::select! {
            output = &mut awaited => return output,
            Some(Acked(held)) = acks.recv() => memory.seen.acked(held.origin),
        }
    }
}

/// Dials and registers.
async fn connect(dialer: &Dialer, options: &Options) -> Result<Socket, Interruption> {
    let mut reached = None;
    let registered: Result<Socket, Interruption> = async {
        let mut socket = dialer.dial(&mut reached, options.timeouts.connect).await?;
        let limit = options.timeouts.register;
        let late = |_| ConnectError::Timeout { step: "the registration", limit };
        timeout(limit, log_in(&mut socket, options)).await.map_err(late)??;
        Ok(socket)
    }
    .await;
    if registered.is_err() {
        dialer.demote(reached);
    }
    registered
}

async fn log_in(socket: &mut Socket, options: &Options) -> Result<(), Interruption> {
    let json = register(&options.token.0, &options.name, options.receipts);
    let text = String::from_utf8(json).expect("made of strings");
    let broken = |error: tungstenite::Error| SessionError::from(error);
    socket.send(Message::text(text)).await.map_err(broken)?;
    loop {
        match socket.next().await.transpose().map_err(broken)? {
            Some(Message::Text(text)) => {
                return match FromBroker::parse(text.as_bytes()) {
                    Ok(FromBroker::Peers(_)) => Ok(()),
                    Ok(
                        FromBroker::Deliver { .. } | FromBroker::Receipt { .. } | FromBroker::Other,
                    )
                    | Err(_) => Err(Interruption::Unexpected),
                };
            }
            Some(Message::Close(frame)) => {
                let refusal = frame
                    .as_ref()
                    .and_then(|frame| Refusal::of_close(frame.code.into(), frame.reason.as_str()));
                // The library has queued the answer to the close.
                let _ = socket.flush().await;
                return Err(match refusal {
                    Some(refusal) => Interruption::Refused(refusal),
                    None => SessionError::closed(frame).into(),
                });
            }
            None => return Err(SessionError::closed(None).into()),
            Some(Message::Binary(_)) => return Err(Interruption::Unexpected),
            // The library answers pings.
            Some(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_a_tenth_of_a_second_to_five() {
        let waits: Vec<_> = (0..8).map(|attempt| delay(attempt, 0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        assert_eq!(delay(u32::MAX, u32::MAX), CEILING * 3 / 2);
    }
}

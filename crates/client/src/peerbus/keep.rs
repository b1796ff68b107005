//! The sessions of a client: dials, registers, and notes what is acknowledged in between.

use std::time::Duration;

use beacon_proto::backoff::{between, doubled};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::{self, Message};

use super::QUEUE;
use super::delivery::{Acked, Delivery};
use super::error::{Interruption, Refused, is_final};
use super::letter::Pen;
use super::options::Options;
use super::session::{self, Memory, Outgoing, Queues, Terms};
use crate::SessionError;
use crate::dial::{ConnectError, Dialer};
use crate::keep::{self, End, Schedule, Sessions};
use crate::socket::Socket;
use crate::wire::peerbus::{FromBroker, Refusal, register};

/// Shortest and longest wait before a redial, without what is added at random: of the original.
const FLOOR: Duration = Duration::from_millis(100);
const CEILING: Duration = Duration::from_secs(5);

/// A session that lived as long as the longest wait was a good one.
///
/// Two clients with one name and one token replace each other as soon as they are registered; a
/// registration alone is no success, as it is to the original's clients, which make thousands of
/// connections so.
pub(super) const SCHEDULE: Schedule = Schedule { delay, settled: CEILING };

/// Where a client stands.
pub type State = keep::State<Interruption>;

/// What a client's task owns.
pub(super) struct Keeper {
    dialer: Dialer,
    options: Options,
    pen: Pen,
    queues: Queues,
    memory: Memory,
}

impl Keeper {
    pub(super) fn new(
        dialer: Dialer,
        options: Options,
        outgoing: mpsc::Receiver<Outgoing>,
        deliveries: mpsc::Sender<Delivery>,
    ) -> Self {
        let (acknowledge, acks) = mpsc::channel(QUEUE);
        let queues = Queues { outgoing, deliveries, acks, acknowledge };
        let pen = Pen::of(&options);
        Self { dialer, options, pen, queues, memory: Memory::default() }
    }
}

/// Until the application ends it, or the broker refuses it for good.
impl Sessions for Keeper {
    type Socket = Socket;
    type Cause = Interruption;
    type Last = Result<(), Refused>;

    async fn connect(&mut self) -> Result<Socket, End<Interruption, Self::Last>> {
        let Self { dialer, options, queues, memory, .. } = self;
        match noting(&mut queues.acks, memory, connect(dialer, options)).await {
            Ok(socket) => Ok(socket),
            Err(Interruption::Refused(refusal)) if is_final(refusal) => {
                Err(End::Final(Err(Refused(refusal))))
            }
            Err(interruption) => Err(End::Again(interruption)),
        }
    }

    async fn run(&mut self, socket: Socket) -> End<Interruption, Self::Last> {
        let Self { options, pen, queues, memory, .. } = self;
        let Options { receipts, timeouts, .. } = *options;
        let terms = Terms { pen, receipts, timeouts };
        match session::run(socket, queues, memory, &terms).await {
            Ok(()) => End::Final(Ok(())),
            Err(_) if memory.is_done() => End::Final(Ok(())),
            Err(error) => End::Again(error.into()),
        }
    }

    async fn pause(&mut self, delay: Duration) {
        noting(&mut self.queues.acks, &mut self.memory, sleep(delay)).await;
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

//! The sessions of a client: dials, proves who it is, and begins where the last one ended.

use std::sync::Arc;
use std::time::Duration;

use beacon_proto::backoff::{between, doubled};
use rustls::pki_types::ServerName;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::batch::{Acked, Batch};
use super::error::{Interruption, Over, Refused};
#[cfg(feature = "grpc")]
use super::grpc;
use super::link::Link;
use super::options::{HubName, Options, Transport};
use super::session::{self, Memory, Outgoing, Queues};
use super::{tls, websocket};
use crate::dial::ConnectError;
use crate::keep::{self, End, Schedule, Sessions};
use crate::net::dial::Destination;
use crate::target::{InvalidUrl, Target};

/// The wait before a redial, of the original: 500 ms, doubled up to 60 s, and 20 % more or less.
const FLOOR: Duration = Duration::from_millis(500);
const CEILING: Duration = Duration::from_secs(60);

/// A session that lived so long was a good one: the next redial is the first in a row.
pub(super) const SCHEDULE: Schedule = Schedule { delay, settled: Duration::from_secs(10) };

/// Where a client stands.
pub type State = keep::State<Interruption>;

/// What both sides agree on in the handshake. The original's hubs over WebSocket agree on nothing.
#[cfg(feature = "grpc")]
const HTTP_2: &[u8] = b"h2";

/// What a client's task owns.
pub(super) struct Keeper {
    dialer: Dialer,
    queues: Queues,
    memory: Memory,
}

/// What can be prepared once for all redials.
struct Dialer {
    target: Target,
    /// The name that the certificate must have.
    hub: ServerName<'static>,
    destination: Destination,
    options: Arc<Options>,
}

impl Keeper {
    pub(super) fn new(
        options: Options,
        outgoing: mpsc::Receiver<Outgoing>,
        batches: mpsc::Sender<Batch>,
    ) -> Result<Self, ConnectError> {
        let target = Target::parse_keyop(&options.address)?;
        let name = match &options.hub_name {
            HubName::Is(name) => name.clone(),
            HubName::Host | HubName::Any => target.host.clone(),
        };
        let hub = ServerName::try_from(name).map_err(|_| InvalidUrl::Host)?;
        if options.transport == Transport::Grpc && !cfg!(feature = "grpc") {
            return Err(InvalidUrl::Grpc.into());
        }
        let destination = Destination::new(&target.host, target.port, options.resolver.clone());
        let (acknowledge, acks) = mpsc::channel::<Acked>(1);
        let queues = Queues { outgoing, batches, acks, acknowledge };
        let dialer = Dialer { target, hub, destination, options: Arc::new(options) };
        Ok(Self { dialer, queues, memory: Memory::default() })
    }
}

impl Dialer {
    async fn dial(&self) -> Result<Link, Over> {
        let limit = self.options.timeouts.connect;
        let late = |_| ConnectError::Timeout { step: "connecting", limit };
        let opened = timeout(limit, self.open()).await;
        opened.map_err(late)?
    }

    async fn open(&self) -> Result<Link, Over> {
        let options = Arc::clone(&self.options);
        let alpn: &[&[u8]] = match options.transport {
            #[cfg(feature = "grpc")]
            Transport::Grpc => &[HTTP_2],
            #[cfg(not(feature = "grpc"))]
            Transport::Grpc => &[],
            Transport::WebSocket => &[],
        };
        // The files may be on a disk that hangs.
        let prepared = spawn_blocking(move || tls::client_config(&options, alpn)).await;
        let config = prepared.expect("nothing of it panics").map_err(ConnectError::from)?;
        let tcp = self.destination.connect().await.map_err(|source| ConnectError::Unreachable {
            authority: self.options.address.clone(),
            source,
        })?;
        let reached = tcp.peer_addr().ok();
        let opened = async {
            let connecting = TlsConnector::from(Arc::new(config)).connect(self.hub.clone(), tcp);
            let stream = connecting.await.map_err(|source| ConnectError::Handshake { source })?;
            match self.options.transport {
                #[cfg(feature = "grpc")]
                Transport::Grpc => {
                    if stream.get_ref().1.alpn_protocol() != Some(HTTP_2) {
                        return Err(Interruption::NoHub("it does not agree on HTTP/2").into());
                    }
                    let authority = &self.options.address;
                    let link = grpc::open(Box::new(stream), authority, &self.options).await?;
                    Ok(Link::Grpc(Box::new(link)))
                }
                #[cfg(not(feature = "grpc"))]
                Transport::Grpc => Err(ConnectError::from(InvalidUrl::Grpc).into()),
                Transport::WebSocket => {
                    let stream = Box::new(stream);
                    let link = websocket::open(stream, &self.target, &self.options).await?;
                    Ok(Link::WebSocket(Box::new(link)))
                }
            }
        };
        let opened = opened.await;
        if let (Err(_), Some(address)) = (&opened, reached) {
            self.destination.demote(address);
        }
        opened
    }
}

/// Until the application ends it, or the hub refuses it for good.
impl Sessions for Keeper {
    type Socket = Link;
    type Cause = Interruption;
    type Last = Result<(), Refused>;

    async fn connect(&mut self) -> Result<Link, End<Interruption, Self::Last>> {
        forgetting(&mut self.queues.acks, self.dialer.dial()).await.map_err(end)
    }

    async fn run(&mut self, link: Link) -> End<Interruption, Self::Last> {
        let Self { dialer, queues, memory } = self;
        match session::run(link, queues, memory, &dialer.options.timeouts).await {
            Ok(()) => End::Final(Ok(())),
            Err(_) if memory.is_done() => End::Final(Ok(())),
            Err(over) => end(over),
        }
    }

    async fn pause(&mut self, delay: Duration) {
        forgetting(&mut self.queues.acks, sleep(delay)).await;
    }
}

/// Awaits something without a session. What is acknowledged meanwhile comes again.
async fn forgetting<T>(acks: &mut mpsc::Receiver<Acked>, awaited: impl Future<Output = T>) -> T {
    tokio::pin!(awaited);
    loop {
        tokio::select! {
            output = &mut awaited => return output,
            Some(_) = acks.recv() => {}
        }
    }
}

fn end(over: Over) -> End<Interruption, Result<(), Refused>> {
    match over {
        Over::Interrupted(cause) => End::Again(cause),
        Over::Refused(refused) => End::Final(Err(refused)),
    }
}

/// The wait before redial number `attempt` (from 0).
fn delay(attempt: u32, random: u32) -> Duration {
    let delay = doubled(FLOOR, attempt, CEILING);
    between(delay * 4 / 5, delay * 6 / 5, random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_those_of_the_original() {
        for (attempt, shortest, longest) in
            [(0, 400, 600), (1, 800, 1_200), (6, 25_600, 38_400), (7, 48_000, 72_000)]
        {
            assert_eq!(delay(attempt, 0), Duration::from_millis(shortest));
            assert_eq!(delay(attempt, u32::MAX), Duration::from_millis(longest));
        }
    }
}

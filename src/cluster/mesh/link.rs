//! A link between two relays: what the member's outbox holds goes out, and what comes goes
//! to [`Cluster::receive`](crate::cluster::Cluster::receive).
//!
//! Words and packets have a stream of their own in each direction, which opens with the
//! lane's byte. A batch is its length, u32 big-endian, and its bytes. The streams last as
//! long as the link. Packets go over TCP instead where a lane is up there ([`tcp`]); an empty
//! batch marks each change.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use quinn::{Connection, RecvStream, SendStream, WriteError};
use tokio::task::JoinSet;

use super::canonical;
use super::close::{self, Close};
use super::hello::Role;
use super::hub::{Hub, Link};
use super::lane::{LANES, Lane};
use super::tcp::{self, Turns, Way};
use crate::cluster::{Batch, Member, PacketLane, Reject};
use crate::metrics::Word as _;
use crate::wire::cluster::{DecodeError, Frame, MAX_BATCH};

/// Carries batches until the link ends, for whatever reason, and ends the membership.
pub(super) async fn run(hub: Arc<Hub>, link: Link) {
    let Link { connection, member, first, role, tcp } = link;
    let mut lanes = JoinSet::new();
    let writer = Writer {
        hub: Arc::clone(&hub),
        connection: connection.clone(),
        member: Arc::clone(&member),
        tcp: Arc::clone(&tcp),
    };
    let writer = Arc::new(writer);
    lanes.spawn(Arc::clone(&writer).write_words());
    lanes.spawn(writer.write_packets());
    let opened = Default::default();
    let reader = Arc::new(Reader { hub: Arc::clone(&hub), member, tcp, opened });
    let member = &reader.member;
    if let Some(configs) = &hub.tcp {
        lanes.spawn(Arc::clone(&reader).read_tcp());
        match role {
            Role::Accept => _ = member.outbox.say(&Frame::TakesTcp, Instant::now()),
            Role::Dial => {
                for way in [Way::Forth, Way::Back] {
                    let (address, configs) = (connection.remote_address(), configs.clone());
                    lanes.spawn(Arc::clone(&reader).dial_tcp(way, address, configs));
                }
            }
        }
    }
    let mut accepted = 0;
    if let Some(stream) = first {
        accepted += 1;
        lanes.spawn(Arc::clone(&reader).read(stream));
    }
    let (close, reason) = loop {
        tokio::select! {
            () = member.ending.cancelled() => break (Close::Silent, Close::Silent.word()),
            error = connection.closed() => break (Close::Dropped, close::reason(&error)),
            Ok(stream) = connection.accept_uni(), if accepted < LANES => {
                accepted += 1;
                lanes.spawn(Arc::clone(&reader).read(stream));
            }
            Some(ended) = lanes.join_next() => match ended {
                Ok(Ok(())) => {}
                // With its connection, which the branch above tells about.
                Ok(Err(Fault::Closed)) if connection.close_reason().is_some() => {}
                Ok(Err(fault)) => {
                    hub.warn(fault.reject(), canonical(connection.remote_address()), &fault);
                    break (Close::BadBatch, Close::BadBatch.word());
                }
                Err(error) => {
                    hub.cluster.counters().panics.increment();
                    tracing::error!(relay = %member.relay, %error, "a lane has failed");
                    break (Close::Failed, Close::Failed.word());
                }
            },
        }
    };
    connection.close(close.code(), &[]);
    hub.links.end(member, reason);
    // The streams are gone and the outbox is closed: every lane comes to its end.
    while lanes.join_next().await.is_some() {}
}

/// What another relay did wrong on its lanes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum Fault {
    /// The stream's first byte names no lane, or one that has a stream already.
    #[error("a stream of lane {0}")]
    Lane(u8),
    /// The stream ended, alone or with its connection.
    #[error("a lane was closed")]
    Closed,
    /// A batch over the limit.
    #[error("a batch of {0} bytes")]
    Oversized(usize),
    /// A batch that is none.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
}

impl Fault {
    fn reject(&self) -> Reject {
        match self {
            Self::Oversized(_) => Reject::Oversized,
            Self::Lane(_) | Self::Closed | Self::Malformed(_) => Reject::Malformed,
        }
    }
}

/// What the writers of a link share.
struct Writer {
    hub: Arc<Hub>,
    connection: Connection,
    member: Arc<Member>,
    tcp: Arc<tcp::Lanes>,
}

impl Writer {
    /// Writes words until the link is gone.
    async fn write_words(self: Arc<Self>) -> Result<(), Fault> {
        let mut stream = self.open(Lane::Words).await?;
        while let Some(batch) = self.member.outbox.next_words().await {
            self.send(&mut stream, batch).await?;
        }
        Ok(())
    }

    /// Writes packets until the link is gone: over TCP where there is a lane.
    async fn write_packets(self: Arc<Self>) -> Result<(), Fault> {
        let mut stream = self.open(Lane::Packets).await?;
        let mut marks = 0;
        let counters = self.hub.cluster.counters();
        loop {
            tokio::select! {
                biased;
                lane = self.tcp.outgoing.next() => {
                    let tcp::Lane { connection, over: _over } = lane;
                    self.mark(&mut stream, &mut marks).await?;
                    let replaced = self.tcp.outgoing.filled();
                    match tcp::write(connection, marks, &self.member, counters, replaced).await {
                        tcp::Over::Closed => return Ok(()),
                        tcp::Over::Lost => self.mark(&mut stream, &mut marks).await?,
                    }
                }
                batch = self.member.outbox.next_packets() => {
                    let Some(batch) = batch else { return Ok(()) };
                    let packets = batch.packets();
                    self.send(&mut stream, batch).await?;
                    counters.lane_packets.of(PacketLane::Quic).add(packets);
                }
            }
        }
    }

    async fn open(&self, lane: Lane) -> Result<SendStream, Fault> {
        // The other side grants both streams in the handshake.
        let mut stream = self.connection.open_uni().await.map_err(|_| Fault::Closed)?;
        stream.set_priority(i32::from(lane == Lane::Words)).map_err(|_| Fault::Closed)?;
        stream.write_all(&[lane as u8]).await.map_err(|_| Fault::Closed)?;
        Ok(stream)
    }

    /// Says that what follows goes over the other lane of packets.
    async fn mark(&self, stream: &mut SendStream, marks: &mut u32) -> Result<(), Fault> {
        *marks = marks.wrapping_add(1);
        write_batch(stream, &[]).await.map_err(|_| Fault::Closed)
    }

    async fn send(&self, stream: &mut SendStream, batch: Batch) -> Result<(), Fault> {
        if write_batch(stream, &batch.bytes).await.is_err() {
            self.member.outbox.lost(&batch);
            return Err(Fault::Closed);
        }
        self.member.outbox.sent(batch);
        Ok(())
    }
}

async fn write_batch(stream: &mut SendStream, batch: &[u8]) -> Result<(), WriteError> {
    // An outbox makes no batch over MAX_BATCH.
    let length = u32::try_from(batch.len()).unwrap_or(u32::MAX);
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(batch).await
}

/// What the readers of a link share.
struct Reader {
    hub: Arc<Hub>,
    member: Arc<Member>,
    tcp: Arc<tcp::Lanes>,
    opened: [AtomicBool; LANES as usize],
}

impl Reader {
    /// Gives the cluster what comes on one stream until the link is gone.
    async fn read(self: Arc<Self>, mut stream: RecvStream) -> Result<(), Fault> {
        let mut lane = [0];
        stream.read_exact(&mut lane).await.map_err(|_| Fault::Closed)?;
        let [lane] = lane;
        let opened = self.opened.get(usize::from(lane)).ok_or(Fault::Lane(lane))?;
        if opened.swap(true, Ordering::Relaxed) {
            return Err(Fault::Lane(lane));
        }
        let turns = (lane == Lane::Packets as u8).then_some(&self.tcp.turns);
        let take = |batch: &[u8]| self.hub.cluster.receive(&self.member, batch, Instant::now());
        read_batches(stream, turns, take).await
    }

    /// Gives the cluster what comes over TCP until the link is gone.
    async fn read_tcp(self: Arc<Self>) -> Result<(), Fault> {
        let read = async {
            loop {
                let tcp::Lane { connection, over: _over } = self.tcp.incoming.next().await;
                tcp::read(connection, &self.tcp.turns, &self.hub.cluster, &self.member).await?;
            }
        };
        self.member.ending.run_until_cancelled(read).await.unwrap_or(Ok(()))
    }

    /// Keeps a lane over TCP until the link is gone, if the other side takes one.
    async fn dial_tcp(
        self: Arc<Self>,
        way: Way,
        address: SocketAddr,
        configs: tcp::Configs,
    ) -> Result<(), Fault> {
        let dial = async {
            self.member.takes_tcp().await;
            tcp::keep(way, address, self.member.relay, configs, Arc::clone(&self.tcp)).await;
        };
        self.member.ending.run_until_cancelled(dial).await;
        Ok(())
    }
}

/// Hands on each batch of a stream, through one buffer. Where the stream takes turns with another
/// lane, an empty batch marks each change.
///
/// # Errors
/// Why the stream is not read further.
pub(super) async fn read_batches(
    mut stream: RecvStream,
    turns: Option<&Turns>,
    mut take: impl FnMut(&[u8]) -> Result<(), DecodeError>,
) -> Result<(), Fault> {
    let mut buffer = Vec::new();
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length).await.map_err(|_| Fault::Closed)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > MAX_BATCH {
            return Err(Fault::Oversized(length));
        }
        if length == 0
            && let Some(turns) = turns
        {
            turns.mark().await;
        }
        if buffer.len() < length {
            buffer.resize(length, 0);
        }
        let batch = buffer.get_mut(..length).expect("the buffer has grown to the length");
        stream.read_exact(batch).await.map_err(|_| Fault::Closed)?;
        take(batch)?;
    }
}

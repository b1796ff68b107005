//! A link between two relays: what the member's outbox holds goes out, and what comes goes
//! to [`Cluster::receive`](crate::cluster::Cluster::receive).
//!
//! Words and packets have a stream of their own in each direction, which opens with the
//! lane's byte. A batch is its length, u32 big-endian, and its bytes. The streams last as
//! long as the link.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use quinn::{Connection, RecvStream, SendStream, WriteError};
use tokio::task::JoinSet;

use super::canonical;
use super::close::{self, Close};
use super::hub::{Hub, Link};
use super::lane::{LANES, Lane};
use crate::cluster::{Batch, Member, Reject};
use crate::metrics::Word as _;
use crate::wire::cluster::{DecodeError, MAX_BATCH};

/// Carries batches until the link ends, for whatever reason, and ends the membership.
pub(super) async fn run(hub: Arc<Hub>, link: Link) {
    let Link { connection, member, first } = link;
    let mut lanes = JoinSet::new();
    for lane in [Lane::Words, Lane::Packets] {
        lanes.spawn(write(lane, connection.clone(), Arc::clone(&member)));
    }
    let reader = Arc::new(Reader { hub: Arc::clone(&hub), member, opened: Default::default() });
    let member = &reader.member;
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

/// Writes what waits in one lane until the link is gone.
async fn write(lane: Lane, connection: Connection, member: Arc<Member>) -> Result<(), Fault> {
    // The other side grants both streams in the handshake.
    let mut stream = connection.open_uni().await.map_err(|_| Fault::Closed)?;
    stream.set_priority(i32::from(lane == Lane::Words)).map_err(|_| Fault::Closed)?;
    stream.write_all(&[lane as u8]).await.map_err(|_| Fault::Closed)?;
    loop {
        let batch = match lane {
            Lane::Words => member.outbox.next_words().await,
            Lane::Packets => member.outbox.next_packets().await,
        };
        let Some(batch) = batch else { return Ok(()) };
        if write_batch(&mut stream, &batch).await.is_err() {
            member.outbox.lost(&batch);
            return Err(Fault::Closed);
        }
        member.outbox.sent(&batch);
    }
}

async fn write_batch(stream: &mut SendStream, batch: &Batch) -> Result<(), WriteError> {
    // An outbox makes no batch over MAX_BATCH.
    let length = u32::try_from(batch.bytes.len()).unwrap_or(u32::MAX);
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(&batch.bytes).await
}

/// What the readers of a link share.
struct Reader {
    hub: Arc<Hub>,
    member: Arc<Member>,
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
        read_batches(stream, |batch| self.hub.cluster.receive(&self.member, batch, Instant::now()))
            .await
    }
}

/// Hands on each batch of a stream, through one buffer.
///
/// # Errors
/// Why the stream is not read further.
pub(super) async fn read_batches(
    mut stream: RecvStream,
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
        if buffer.len() < length {
            buffer.resize(length, 0);
        }
        let batch = buffer.get_mut(..length).expect("the buffer has grown to the length");
        stream.read_exact(batch).await.map_err(|_| Fault::Closed)?;
        take(batch)?;
    }
}

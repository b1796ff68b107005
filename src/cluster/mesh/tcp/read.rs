//! The incoming half of a lane: each read is decrypted at once, and all whole frames of it are
//! routed as one batch.

use std::cell::RefCell;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::thread::LocalKey;
use std::time::Instant;

use tokio::task::consume_budget;

use super::connection::{Connection, Failure, MOST_CARRIED};
use super::turns::Turns;
use crate::cluster::mesh::link::Fault;
use crate::cluster::{Cluster, Member};
use crate::wire::cluster::whole_frames;

/// Bytes of one read.
const READ: usize = 256 << 10;

/// What is still read after the lane's turn is over, in bytes: all that the kernel may hold.
const LAST: usize = 16 << 20;

thread_local! {
    /// Ciphertext that comes in.
    static INCOMING: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// Plaintext of it.
    static PLAIN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends a thread's buffer; where it is lent already, an empty one.
fn lend<T>(scratch: &'static LocalKey<RefCell<Vec<u8>>>, to: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let mut buffer = scratch.take();
    let result = to(&mut buffer);
    scratch.set(buffer);
    result
}

/// Gives the cluster what comes on a lane, from its turn on, until the turn is over or the
/// connection is.
///
/// # Errors
/// What came is no frame: the link is to end.
pub(in crate::cluster::mesh) async fn read(
    mut connection: Connection,
    turns: &Turns,
    cluster: &Cluster,
    member: &Arc<Member>,
) -> Result<(), Fault> {
    let Ok(mark) = connection.hear().await else { return Ok(()) };
    let Some(turn) = turns.begin(u32::from_be_bytes(mark)).await else { return Ok(()) };
    let mut reader = Reader { connection, cluster, member };
    let mut over = pin!(turn.over());
    // What came with the mark.
    let mut first = std::mem::take(&mut reader.connection.plain);
    let done = reader.hand_on(&first)?;
    first.drain(..done);
    reader.connection.plain = first;
    loop {
        tokio::select! {
            biased;
            () = &mut over => return reader.read_the_last(),
            ready = reader.connection.stream.readable() => {
                if ready.is_err() {
                    return Ok(());
                }
            }
        }
        match reader.read_once() {
            Ok(_) => {}
            Err(Ended::Fault(fault)) => return Err(fault),
            Err(Ended::Connection(Failure::Lost(error)))
                if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(Ended::Connection(failure)) => {
                tracing::debug!(relay = %member.relay, error = %failure, "a lane has ended");
                return Ok(());
            }
        }
        consume_budget().await;
    }
}

/// Why no more is read.
enum Ended {
    Connection(Failure),
    Fault(Fault),
}

impl<T: Into<Failure>> From<T> for Ended {
    fn from(error: T) -> Self {
        Self::Connection(error.into())
    }
}

struct Reader<'a> {
    connection: Connection,
    cluster: &'a Cluster,
    member: &'a Arc<Member>,
}

impl Reader<'_> {
    /// Reads what is there, though the writer has gone back to QUIC: it was sent before.
    fn read_the_last(&mut self) -> Result<(), Fault> {
        let mut read = 0;
        while read < LAST {
            match self.read_once() {
                Ok(more) => read += more,
                Err(Ended::Fault(fault)) => return Err(fault),
                Err(Ended::Connection(_)) => break,
            }
        }
        Ok(())
    }

    /// Reads once; how many bytes that were.
    fn read_once(&mut self) -> Result<usize, Ended> {
        lend(&INCOMING, |incoming| lend(&PLAIN, |plain| self.read_into(incoming, plain)))
    }

    fn read_into(&mut self, incoming: &mut Vec<u8>, plain: &mut Vec<u8>) -> Result<usize, Ended> {
        let Connection { stream, tls, carry, plain: waiting, out } = &mut self.connection;
        let carried = carry.len();
        if incoming.len() < carried + READ {
            incoming.resize(carried + READ.max(MOST_CARRIED), 0);
        }
        let room = incoming.get_mut(carried..).unwrap_or_default();
        let read = stream.try_read(room)?;
        if read == 0 {
            return Err(Failure::Gone.into());
        }
        let incoming = incoming.get_mut(..carried + read).unwrap_or_default();
        incoming.get_mut(..carried).unwrap_or_default().copy_from_slice(carry);
        plain.clear();
        plain.append(waiting);
        let done = tls.open(incoming, |payload| plain.extend_from_slice(payload), out)?;
        let rest = incoming.get(done..).unwrap_or_default();
        if rest.len() > MOST_CARRIED {
            return Err(Failure::TooMuch.into());
        }
        carry.clear();
        carry.extend_from_slice(rest);
        if !out.waiting().is_empty() {
            // An answer of the protocol's. What the kernel does not take now goes with the next.
            match stream.try_write(out.waiting()) {
                Ok(taken) => out.sent(taken),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        let handed = self.hand_on(plain).map_err(Ended::Fault)?;
        let rest = plain.get(handed..).unwrap_or_default();
        self.connection.plain.extend_from_slice(rest);
        if self.connection.tls.has_ended() { Err(Failure::Gone.into()) } else { Ok(read) }
    }

    /// Has the whole frames routed; how many bytes they are.
    fn hand_on(&self, plain: &[u8]) -> Result<usize, Fault> {
        let end = whole_frames(plain).map_err(|error| Fault::Oversized(error.length))?;
        let frames = plain.get(..end).unwrap_or_default();
        if !frames.is_empty() {
            self.cluster.receive(self.member, frames, Instant::now())?;
        }
        Ok(end)
    }
}

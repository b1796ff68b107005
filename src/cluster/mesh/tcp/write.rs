//! The outgoing half of a lane: each batch of the outbox is encrypted and written at once.

use std::sync::Arc;

use tokio::time::timeout;

use super::connection::{Connection, Failure, LOST_AFTER};
use crate::cluster::{Batch, Counters, Member, PacketLane};

/// Why no more is written.
#[derive(Debug)]
pub(in crate::cluster::mesh) enum Over {
    /// The outbox is closed: the link is over.
    Closed,
    /// The connection is lost, or another has taken its place: packets go over QUIC.
    Lost,
}

/// Writes the packets of the outbox, which follow this mark, until the lane is over; `replaced`
/// comes when there is another.
pub(in crate::cluster::mesh) async fn write(
    connection: Connection,
    mark: u32,
    member: &Arc<Member>,
    counters: &Counters,
    replaced: impl Future<Output = ()>,
) -> Over {
    let mut writer = Writer { connection };
    let mut replaced = std::pin::pin!(replaced);
    if writer.send(&mark.to_be_bytes()).await.is_err() {
        return Over::Lost;
    }
    loop {
        let batch = tokio::select! {
            batch = member.outbox.next_packets() => batch,
            () = writer.ended() => return Over::Lost,
            () = &mut replaced => return Over::Lost,
        };
        let Some(batch) = batch else { return Over::Closed };
        let Batch { bytes, .. } = &batch;
        if let Err(failure) = writer.send(bytes).await {
            tracing::debug!(relay = %member.relay, error = %failure, "a lane has ended");
            member.outbox.lost(&batch);
            return Over::Lost;
        }
        counters.lane_packets.of(PacketLane::Tcp).add(batch.packets());
        member.outbox.sent(batch);
    }
}

struct Writer {
    connection: Connection,
}

impl Writer {
    /// Encrypts and writes; what the kernel takes nothing of for too long is lost.
    async fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Connection { tls, carry, out, .. } = &mut self.connection;
        tls.seal(bytes, carry, out)?;
        while !self.connection.out.waiting().is_empty() {
            let before = self.connection.out.waiting().len();
            let flushed = timeout(LOST_AFTER, self.connection.flush()).await;
            match flushed {
                Ok(flushed) => flushed?,
                Err(_) if self.connection.out.waiting().len() < before => {}
                Err(_) => return Err(Failure::Timeout),
            }
        }
        Ok(())
    }

    /// Waits for the end of the connection: the other side has nothing to say on it. Cancel-safe.
    async fn ended(&mut self) {
        while self.connection.receive().await.is_ok() && self.connection.plain.is_empty() {
            if self.connection.flush().await.is_err() {
                return;
            }
        }
    }
}

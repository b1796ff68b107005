//! Packets that came and wait to be taken in, apart from the words: a flood of them keeps no
//! word waiting, and takes no room from words.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::members::Members;
use crate::cluster::{Member, Reject};

/// Bytes that may wait: twice what an outbox holds.
const ROOM: usize = 8 << 20;

/// What a batch costs besides its own bytes.
const COST: usize = 128;

/// Where batches of packets are left.
pub(super) struct Deliveries {
    room: Arc<Semaphore>,
    // `room` bounds it: batches are small or large, so a number would say nothing.
    queue: mpsc::UnboundedSender<Delivery>,
}

/// The other end, where they are taken in.
pub(super) struct Arrivals(mpsc::UnboundedReceiver<Delivery>);

struct Delivery {
    member: Arc<Member>,
    batch: Bytes,
    _room: OwnedSemaphorePermit,
}

/// A queue, empty.
pub(super) fn queue() -> (Deliveries, Arrivals) {
    let (queue, arrivals) = mpsc::unbounded_channel();
    (Deliveries { room: Arc::new(Semaphore::new(ROOM)), queue }, Arrivals(arrivals))
}

impl Deliveries {
    /// Leaves a batch, if there is room.
    pub(super) fn push(&self, member: Arc<Member>, batch: Bytes) -> Result<(), Reject> {
        let bytes = u32::try_from(COST + batch.len()).map_err(|_| Reject::Oversized)?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(bytes);
        let _room = room.map_err(|_| Reject::NoRoom)?;
        self.queue.send(Delivery { member, batch, _room }).map_err(|_| Reject::NoRoom)
    }
}

impl Arrivals {
    /// Takes in all that is left, until nothing can be left any more.
    pub(super) async fn take_in(mut self, members: Arc<Members>) {
        while let Some(Delivery { member, batch, _room }) = self.0.recv().await {
            members.receive(&member, &batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::nats::tests::{SHORT, cluster, id};
    use crate::wire::cluster::MAX_BATCH;

    #[test]
    fn room_is_counted_in_bytes_and_comes_back() {
        let member = cluster(1, SHORT).joined(id(2), String::new());
        let (deliveries, mut arrivals) = queue();
        let push = |length| deliveries.push(Arc::clone(&member), vec![0; length].into());
        let fit = ROOM / (COST + MAX_BATCH);
        for _ in 0..fit {
            assert_eq!(push(MAX_BATCH), Ok(()));
        }
        assert_eq!(push(MAX_BATCH), Err(Reject::NoRoom));

        assert!(arrivals.0.try_recv().is_ok());
        assert_eq!(push(MAX_BATCH), Ok(()));
    }
}

//! What is on our channels, for other hubs.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::party::FromBus;
use super::{Hub, Over};
use crate::bus::{self, Address};
use crate::client::keyop::Publisher;
use crate::doors::keyop::deliver::may_have_passed;

impl Hub {
    /// Publishes the bus's batches; each counts once the hub has acknowledged all of its records.
    pub(super) async fn publish(
        &self,
        publisher: &Publisher,
        address: &Address,
        from_bus: &mut mpsc::Receiver<FromBus>,
    ) -> Over {
        while let Some(FromBus::Batch(party, batch)) = from_bus.recv().await {
            let mut pending = Vec::with_capacity(batch.records.len());
            for record in &batch.records {
                if may_have_passed(&record.body, &self.settings.name) {
                    self.shared.meters.left_out.increment();
                    continue;
                }
                let posted = publisher.post_record(Bytes::from_owner(Arc::clone(&record.body)));
                match posted.await {
                    Ok(posted) => pending.push(posted),
                    // The receiving half says why.
                    Err(_) => return std::future::pending().await,
                }
            }
            let count = pending.len() as u64;
            for posted in pending {
                if posted.published().await.is_err() {
                    return std::future::pending().await;
                }
            }
            self.meters.published.add(count);
            let party: Arc<dyn bus::Party> = party;
            self.shared.bus.acknowledge_records(address, &party, batch.number);
        }
        Over::Failed("its session is over")
    }
}

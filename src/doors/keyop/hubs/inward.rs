//! What other hubs have on their channels, for ours.

use std::sync::Arc;

use tokio::sync::watch;

use super::party::Party;
use super::{Hub, Over};
use crate::bus::{self, Address, Published, To};
use crate::client::keyop::{Batch, Receiver};
use crate::doors::keyop::publish::Judged;
use crate::wire::keyop::Event;

impl Hub {
    /// Takes batches until there are no more; each is acknowledged once its records are committed.
    pub(super) async fn take(
        &self,
        receiver: &mut Receiver,
        address: &Address,
        mut current: watch::Receiver<Option<Arc<Party>>>,
    ) -> Over {
        loop {
            let batch = match receiver.recv().await {
                Ok(Some(batch)) => batch,
                Ok(None) => return Over::Failed("its client has ended"),
                Err(refused) => return Over::Refused(refused.reason),
            };
            // The bus may not have heard yet of the session that it came in.
            let party = current.wait_for(Option::is_some).await.map(|party| party.clone());
            let Ok(Some(party)) = party else { return Over::Failed("its session is over") };
            self.submit(&batch, address, &party);
            let is_over = async {
                let is_other = |now: &Option<Arc<Party>>| {
                    now.as_ref().is_none_or(|now| !Arc::ptr_eq(now, &party))
                };
                // Nobody follows the sessions any more: they are over.
                let _ = current.wait_for(is_other).await;
            };
            tokio::select! {
                kept = party.kept() => match kept {
                    Ok(()) => batch.ack().await,
                    // In the next session it comes again.
                    Err(_) => return Over::Failed("the bus keeps nothing"),
                },
                // The session has ended: it comes again.
                () = is_over => {}
            }
        }
    }

    fn submit(&self, batch: &Batch, address: &Address, party: &Arc<Party>) {
        let may_publish = |channel: &str| self.settings.subscribe.contains(channel);
        let mut submissions = Vec::new();
        for record in batch.records() {
            match self.shared.judge(record, may_publish) {
                Judged::Nothing(taken) => self.shared.meters.taken.add(taken, 1),
                Judged::Refused(record, taken) => {
                    submissions.push(self.shared.drop_record(&self.settings.name, &record, taken));
                }
                Judged::Good(record, body) => {
                    self.shared.audit.note(Event {
                        event: "forward",
                        message_id: &record.id,
                        channel: &record.channel,
                        direction: "inbound",
                        peer: &self.settings.name,
                        ..Event::default()
                    });
                    self.meters.taken.increment();
                    let to = To::Channel(record.channel);
                    submissions.push(Published { to, id: record.id, body: body.into() });
                }
            }
        }
        party.expect(submissions.len());
        let from: Arc<dyn bus::Party> = Arc::clone(party) as _;
        self.shared.bus.publish(address, &from, submissions);
    }
}

//! The messages that the bus has delivered, until the host has them.

use std::time::Duration;

use beacon_client::peerbus::{Delivery, Receiver, Refused};
use parking_lot::Mutex;
use rmcp::model::RequestId;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::ledger::{Ledger, Limits};

/// What is held of the bus at most. The bus itself hands out 256 messages and 1 MiB, unless its
/// operator wants more.
const HELD: Limits = Limits { messages: 4_096, bytes: 16 * 1_048_576 };

/// What one result holds. A host that cuts results loses what it cuts, so this is below what the
/// common ones take.
const RESULT: Limits = Limits { messages: 100, bytes: 65_536 };

/// Bytes of a message besides its body and its names, in a result.
const FRAME: usize = 128;

/// The messages of a session with a host.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    ledger: Mutex<Ledger<RequestId, Delivery>>,
    arrived: Notify,
    freed: Notify,
}

impl Inbox {
    /// Takes what the bus delivers, until the client ends.
    pub(crate) async fn fill(&self, receiver: &mut Receiver) -> Result<(), Refused> {
        loop {
            while !self.ledger.lock().has_room(HELD) {
                self.freed.notified().await;
            }
            let Some(delivery) = receiver.recv().await? else { return Ok(()) };
            let bytes = FRAME + delivery.body().len() + delivery.from().len();
            self.ledger.lock().arrived(delivery, bytes);
            self.arrived.notify_waiters();
        }
    }

    /// The host makes a call.
    pub(crate) fn called(&self, call: RequestId) {
        self.ledger.lock().called(call);
    }

    /// The result of a call has left.
    pub(crate) fn written(&self, call: &RequestId) {
        self.ledger.lock().written(call);
    }

    /// The host has received the result of a call, which it has shown otherwise than by a call.
    pub(crate) fn received(&self, call: &RequestId) {
        self.ledger.lock().received(call);
    }

    /// The host wants no result of a call.
    pub(crate) fn withdrawn(&self, call: &RequestId) {
        self.ledger.lock().withdrawn(call);
        self.arrived.notify_waiters();
    }

    /// Tells the bus of what the host has received.
    pub(crate) async fn acknowledge(&self) {
        let proven = self.ledger.lock().take_proven();
        if !proven.is_empty() {
            self.freed.notify_one();
        }
        for delivery in proven {
            delivery.ack().await;
        }
    }

    /// Moves messages into the result of a call; how many are left.
    pub(crate) fn take<T>(
        &self,
        call: &RequestId,
        show: impl FnMut(&Delivery) -> T,
    ) -> (Vec<T>, usize) {
        let mut ledger = self.ledger.lock();
        let taken = ledger.take(call, RESULT, show);
        (taken, ledger.waiting())
    }

    /// Waits until there is a message, for this long at most.
    pub(crate) async fn wait(&self, patience: Duration) {
        let end = Instant::now() + patience;
        loop {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            // Before the look: what arrives in between wakes it.
            arrived.as_mut().enable();
            if self.ledger.lock().waiting() > 0 {
                return;
            }
            tokio::select! {
                () = arrived => {}
                () = sleep_until(end) => return,
            }
        }
    }
}

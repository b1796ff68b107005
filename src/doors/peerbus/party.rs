//! A peer, as the bus sees it: somebody to deliver to, behind its session.

use std::borrow::Cow;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::meters::Meters;
use crate::bus::{Outcome, Outgoing, Party, Receipt};
use crate::peers::{Arrival, End, Record};
use crate::session::Session;
use crate::wire::peerbus::{self, MAX_MESSAGE, ReceiptResult};

/// The peer of a session.
pub(super) struct Peer {
    /// Weak, since who keeps a session keeps its socket.
    session: Weak<Session>,
    generation: u64,
    meters: Arc<Meters>,
}

impl Peer {
    pub(super) fn new(session: &Arc<Session>, meters: Arc<Meters>) -> Self {
        let generation = session.generation();
        Self { session: Arc::downgrade(session), generation, meters }
    }
}

impl Party for Peer {
    fn generation(&self) -> u64 {
        self.generation
    }

    fn deliver(&self, messages: &[Outgoing], now: Instant) -> usize {
        let Some(session) = self.session.upgrade().filter(|session| session.is_open()) else {
            return 0;
        };
        let mut taken = 0;
        for Outgoing { key, body } in messages {
            let frame = peerbus::deliver(key, body);
            if frame.len() > MAX_MESSAGE {
                // Its recipient would end the connection, and get it again, for ever. It is left
                // without an acknowledgement, and becomes a dead letter.
                self.meters.undeliverable.increment();
                tracing::warn!(
                    peer = %session.id(),
                    bytes = frame.len(),
                    "a message is longer than any client takes, and was not delivered"
                );
            } else {
                let record = Record { head: &[], body: &frame };
                if session.push(std::iter::once(record), &Arrival::ours(now)).queued == 0 {
                    // What came later would be before it: it begins again, in order.
                    session.end(End::Overflow);
                    break;
                }
            }
            taken += 1;
        }
        session.flush(now);
        taken
    }

    fn receipts(&self, receipts: &[Receipt], now: Instant) {
        let Some(session) = self.session.upgrade() else { return };
        for Receipt { id, outcome } in receipts {
            let (result, reason) = match outcome {
                Outcome::Stored => (ReceiptResult::Stored, Cow::Borrowed("")),
                Outcome::Partly { stored, of } => {
                    (ReceiptResult::Stored, format!("{stored} of {of}").into())
                }
                Outcome::Duplicate => (ReceiptResult::Duplicate, "".into()),
                Outcome::Refused(_) => (ReceiptResult::Refused, outcome.word().into()),
            };
            session.push_notice(&peerbus::receipt(id, result, &reason));
        }
        session.flush(now);
    }

    fn hold(&self, held: bool) {
        if let Some(session) = self.session.upgrade() {
            session.hold(held);
        }
    }

    fn replace(&self) {
        if let Some(session) = self.session.upgrade() {
            session.end(End::Replaced);
        }
    }

    fn withdraw(&self) {
        if let Some(session) = self.session.upgrade() {
            tracing::info!(peer = %session.id(), "ended a session: its name was given to another");
            session.end(End::KeyWithdrawn);
        }
    }
}

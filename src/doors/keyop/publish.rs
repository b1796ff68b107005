//! What peers publish: judged, given to the bus, and acknowledged once it is committed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::connected::connected;
use super::drops::Taken;
use super::ingest::{Fate, Record, Via};
use super::meters::Speaks;
use super::{Shared, websocket};
use crate::bus::{Outcome, Published, Receipt, To};
use crate::peers::End;
use crate::session::{Session, Status, http2};
use crate::wire::keyop::channel::{MAX_NAME, is_dead_letter, is_name};
use crate::wire::keyop::grpc::publish_ack;
use crate::wire::keyop::websocket::ack;
use crate::wire::keyop::{Envelope, Event};

/// Longest id of a record, in bytes: peers make 36.
const MAX_ID: usize = 256;

/// What a record is, once it was looked at.
pub(super) enum Judged {
    /// It has no id that could be acknowledged.
    Nothing(Taken),
    /// It counts as new, and goes no further than into the audit log.
    Refused(Record, Taken),
    /// It is for the bus, in this form.
    Good(Record, Vec<u8>),
}

impl Shared {
    /// Takes the records of a batch, which is acknowledged when the last of them is safe.
    pub(super) fn publish<'a>(
        &self,
        session: &Session,
        via: Via,
        records: impl Iterator<Item = &'a [u8]>,
        now: Instant,
    ) {
        let connected = connected(&session.data);
        let mut judged = Vec::new();
        let mut submissions = Vec::new();
        for record in records {
            let may_publish =
                |channel: &str| self.policy.load().may_publish(&connected.name, channel);
            let record = match self.judge(record, may_publish) {
                Judged::Nothing(taken) => {
                    self.meters.taken.add(taken, 1);
                    continue;
                }
                Judged::Refused(record, taken) => {
                    submissions.push(self.drop_record(&connected.name, &record, taken));
                    record
                }
                Judged::Good(record, body) => {
                    let to = To::Channel(Arc::clone(&record.channel));
                    let id = Arc::clone(&record.id);
                    submissions.push(Published { to, id, body: body.into() });
                    record
                }
            };
            judged.push(record);
        }
        // First, since the bus may answer at once.
        connected.state.lock().batches.push(via, judged);
        if submissions.is_empty() {
            return self.acknowledge_batches(session, now);
        }
        self.bus.publish(&connected.address, connected.party(), submissions);
    }

    /// Looks at a record of somebody who may publish to some channels.
    pub(super) fn judge(&self, record: &[u8], may_publish: impl Fn(&str) -> bool) -> Judged {
        let envelope = match Envelope::parse(record) {
            Ok(envelope) if envelope.id.len() <= MAX_ID => envelope,
            Ok(_) => return Judged::Nothing(Taken::NoId),
            Err(invalid) => return Judged::Nothing(invalid.into()),
        };
        let refused = |fate, taken| {
            // A name that no channel may have can be as long as a record.
            let channel = &*envelope.channel;
            let channel = channel.get(..channel.floor_char_boundary(MAX_NAME)).unwrap_or(channel);
            Judged::Refused(Record::new(Arc::from(&*envelope.id), channel.into(), fate), taken)
        };
        if record.len() > self.max_record.load(Ordering::Relaxed) {
            return refused(Fate::TooLong, Taken::TooLong);
        }
        let channel = &*envelope.channel;
        let taken = if !is_name(channel) {
            Taken::BadChannel
        } else if is_dead_letter(channel) {
            Taken::DeadLetter
        } else if !may_publish(channel) {
            Taken::NotAllowed
        } else if envelope.route.contains(&self.hub) {
            Taken::Loop
        } else {
            let (id, channel) = (Arc::from(&*envelope.id), Arc::from(channel));
            let record = Record::new(id, channel, Fate::Submitted);
            return Judged::Good(record, envelope.forwarded_by(&self.hub));
        };
        refused(Fate::Dropped, taken)
    }

    /// Counts a record that a peer may not publish, and tells the log and the audit file of it; what
    /// goes into the audit log.
    pub(super) fn drop_record(&self, peer: &str, record: &Record, taken: Taken) -> Published {
        self.meters.taken.add(taken, 1);
        let (event, detail) = match taken {
            Taken::Loop => ("loop_dropped", "own name in route"),
            Taken::TooLong => ("policy_violation", "record too large"),
            Taken::BadChannel => ("policy_violation", "invalid channel name"),
            Taken::DeadLetter => ("policy_violation", "dead-letter channel"),
            Taken::NotAllowed
            | Taken::Malformed
            | Taken::Version
            | Taken::Time
            | Taken::NoId
            | Taken::NotStored
            | Taken::Stored
            | Taken::Duplicate => ("policy_violation", "publish not allowed"),
        };
        tracing::debug!(peer, channel = &*record.channel, event, detail, "dropped a record");
        self.audit.note(Event {
            event,
            message_id: &record.id,
            channel: &record.channel,
            direction: "inbound",
            peer,
            detail,
            ..Event::default()
        });
        let channel = Arc::clone(&record.channel);
        let to = To::Dropped { channel, is_loop: taken == Taken::Loop };
        Published { to, id: Arc::clone(&record.id), body: Arc::default() }
    }

    /// Notes what the bus says of records, and acknowledges batches that are done.
    pub(super) fn settle(&self, session: &Session, receipts: &[Receipt], now: Instant) {
        let peer = connected(&session.data);
        let mut is_lost = false;
        {
            let mut state = peer.state.lock();
            for Receipt { id, outcome } in receipts {
                let (fate, taken) = match outcome {
                    Outcome::Stored | Outcome::Partly { .. } => (Fate::Stored, Taken::Stored),
                    Outcome::Duplicate => (Fate::Duplicate, Taken::Duplicate),
                    Outcome::Refused(_) => {
                        self.meters.taken.add(Taken::NotStored, 1);
                        is_lost = true;
                        break;
                    }
                };
                let Some(record) = state.batches.settle(id, fate) else { continue };
                self.meters.taken.add(taken, 1);
                if fate == Fate::Stored && self.audit.is_on() {
                    self.audit.note(Event {
                        event: "forward",
                        message_id: &record.id,
                        channel: &record.channel,
                        direction: "inbound",
                        peer: &peer.name,
                        ..Event::default()
                    });
                }
            }
        }
        if is_lost {
            // Without an acknowledgement its sender has it, and sends it again.
            tracing::debug!(peer = %session.id(), "a record was not stored: its sender keeps it");
            return session.end(End::NotStored);
        }
        self.acknowledge_batches(session, now);
    }

    /// Acknowledges the batches of which all is known, in order.
    pub(super) fn acknowledge_batches(&self, session: &Session, now: Instant) {
        let peer = connected(&session.data);
        let mut answers = Vec::new();
        let mut finished = Vec::new();
        {
            let mut state = peer.state.lock();
            while let Some(answer) = state.batches.pop() {
                answers.push(answer);
            }
            let is_done = |state: &super::connected::State, at: usize| {
                let call = state.calls.get(at)?;
                (call.is_finished && !state.batches.has(call.id)).then_some(call.id)
            };
            finished.extend((0..state.calls.len()).filter_map(|at| is_done(&state, at)));
            finished.iter().for_each(|call| state.remove_call(*call));
        }
        for (via, last_id) in answers {
            match via {
                Via::WebSocket => websocket::push_text(session, &ack(&last_id)),
                Via::Call(call) => http2::push_answer(session, call, &publish_ack(&last_id)),
            }
        }
        for call in finished {
            http2::push_end(session, call, &Status { code: 0, message: "".into() });
        }
        debug_assert!(peer.speaks == Speaks::Grpc || peer.state.lock().calls.is_empty());
        session.flush(now);
    }
}

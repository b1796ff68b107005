//! The two methods of peers from v1.5.0 on: Publish, and Subscribe.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::connected::{Call, Wanted, connected};
use super::drops::KeyopDrop;
use super::ingest::Via;
use super::{Keyop, MOST_RECORDS};
use crate::peers::End;
use crate::relay::Message as Routed;
use crate::session::{CallEnd, CallId, Calls, Outcome, Session, Status, http2};
use crate::wire::Frames;
use crate::wire::keyop::grpc::{
    Method, Refusal, SubscribeFrame, encode_message, max_message, read_publish_batch, take_message,
};

/// Calls of one peer at a time, beyond which others are refused: clients make two.
const MOST_CALLS: usize = 4;

/// Longest message to Subscribe: more than all channels that a peer may name take.
const MAX_SUBSCRIBE: usize = 1_048_576;

/// What a caller is told.
pub(super) fn status(refusal: &Refusal<'_>) -> Status {
    let message = refusal.message();
    let message = encode_message(&message).into_owned();
    Status { code: refusal.code().number(), message: message.into() }
}

/// All is well.
const OK: Status = Status { code: 0, message: Cow::Borrowed("") };

impl Calls for Keyop {
    fn begin(&self, session: &Arc<Session>, id: CallId, path: &str) -> Result<(), Status> {
        let method = Method::of(path).map_err(|refusal| status(&refusal))?;
        let peer = connected(&session.data);
        if !self.shared.policy.load().admits(&peer.name) {
            return Err(status(&Refusal::NotAllowed));
        }
        let mut state = peer.state.lock();
        if state.calls.len() >= MOST_CALLS {
            return Err(status(&Refusal::Unavailable));
        }
        state.calls.push(Call {
            id,
            method,
            received: BytesMut::new(),
            has_subscribed: false,
            is_finished: false,
        });
        Ok(())
    }

    fn data(&self, session: &Arc<Session>, id: CallId, data: &[u8], now: Instant) {
        if !session.is_open() {
            return;
        }
        let peer = connected(&session.data);
        let mut bytes = Some(data);
        loop {
            let taken = {
                let mut state = peer.state.lock();
                let Some(call) = state.call(id) else { return };
                if let Some(data) = bytes.take() {
                    call.received.extend_from_slice(data);
                }
                let longest = match call.method {
                    Method::Publish => max_message(self.max_record()),
                    Method::Subscribe => MAX_SUBSCRIBE,
                };
                let taken = take_message(&mut call.received, longest);
                if call.received.is_empty() {
                    // An idle call owns no buffer.
                    call.received = BytesMut::new();
                }
                taken.map(|message| message.map(|message| (call.method, message)))
            };
            let handled = match taken {
                Ok(None) => return,
                Ok(Some((Method::Publish, message))) => self.publish(session, id, &message, now),
                Ok(Some((Method::Subscribe, message))) => {
                    self.subscribe(session, id, &message, now)
                }
                Err(refusal) => Err(refusal),
            };
            if let Err(refusal) = handled {
                self.end_call(session, id, &status(&refusal), now);
                return;
            }
        }
    }

    fn ended(&self, session: &Arc<Session>, id: CallId, how: CallEnd) {
        let peer = connected(&session.data);
        let now = Instant::now();
        let is_publish = {
            let mut state = peer.state.lock();
            let Some(call) = state.call(id) else { return };
            call.is_finished = true;
            call.method == Method::Publish
        };
        match (how, is_publish) {
            // Behind the acknowledgements of what it has sent.
            (CallEnd::Finished, true) => self.shared.acknowledge_batches(session, now),
            (CallEnd::Finished, false) => self.end_call(session, id, &OK, now),
            (CallEnd::Cancelled, _) => self.forget_call(session, id),
        }
    }

    fn refuse(&self, path: &str, outcome: Outcome) -> Status {
        // A client that hears that it may not gives up for good.
        let why =
            if outcome == Outcome::AuthFail { Refusal::NotAllowed } else { Refusal::Unavailable };
        status(&Method::of(path).err().unwrap_or(why))
    }

    fn farewell(&self, end: End) -> Status {
        status(match end {
            End::KeyWithdrawn => &Refusal::NotAllowed,
            End::Replaced => &Refusal::TakenOver,
            End::Violation => &Refusal::Malformed,
            End::ShuttingDown => &Refusal::Stopping,
            End::PeerLeft
            | End::PeerClosed
            | End::ConnectionLost
            | End::Idle
            | End::WriteTimeout
            | End::Overflow
            | End::Kicked
            | End::NotStored
            | End::Failed => &Refusal::Unavailable,
        })
    }
}

impl Keyop {
    /// Takes a batch.
    fn publish(
        &self,
        session: &Arc<Session>,
        id: CallId,
        message: &Bytes,
        now: Instant,
    ) -> Result<(), Refusal<'static>> {
        let records = read_publish_batch(message);
        self.count(session, message, records.is_ok(), now);
        let records = records.map_err(|_| Refusal::Malformed)?;
        let bytes = records.iter().count();
        if bytes > MOST_RECORDS {
            return Err(Refusal::TooLong { bytes, longest: MOST_RECORDS });
        }
        self.note_publisher(session, connected(&session.data));
        self.shared.publish(session, Via::Call(id), records.iter(), now);
        Ok(())
    }

    /// Takes what a subscriber says.
    fn subscribe(
        &self,
        session: &Arc<Session>,
        id: CallId,
        message: &Bytes,
        now: Instant,
    ) -> Result<(), Refusal<'static>> {
        let frame = SubscribeFrame::parse(message);
        self.count(session, message, frame.is_ok(), now);
        let frame = frame.map_err(|_| Refusal::Malformed)?;
        let peer = connected(&session.data);
        let is_first = {
            let mut state = peer.state.lock();
            let Some(call) = state.call(id) else { return Ok(()) };
            !std::mem::replace(&mut call.has_subscribed, true)
        };
        match frame {
            SubscribeFrame::Request(request) if is_first => {
                let named = request.channels.iter().map(Cow::Borrowed);
                let wanted = self.wanted(&peer.name, named, request.is_ephemeral);
                self.subscribe_by(session, id, wanted, now);
                Ok(())
            }
            SubscribeFrame::Ack(_) | SubscribeFrame::Empty if is_first => Err(Refusal::FirstFrame),
            SubscribeFrame::Ack(last_id) => {
                self.shared.acknowledged(peer, last_id);
                Ok(())
            }
            // It changes nothing, as with the original.
            SubscribeFrame::Request(_) | SubscribeFrame::Empty => Ok(()),
        }
    }

    /// Has a call deliver what the peer wants; one before it that did is over.
    fn subscribe_by(&self, session: &Arc<Session>, id: CallId, wanted: Wanted, now: Instant) {
        let peer = connected(&session.data);
        if self.shared.effective(&peer.name, &wanted).is_empty() {
            return self.end_call(session, id, &OK, now);
        }
        let before = {
            let mut state = peer.state.lock();
            let before = state.subscriber;
            if let Some(before) = before {
                state.remove_call(before);
            }
            state.wanted = Some(wanted);
            state.subscriber = Some(id);
            before
        };
        if let Some(before) = before {
            http2::push_end(session, before, &status(&Refusal::TakenOver));
            session.flush(now);
        }
        // What another call had, and was not acknowledged there. The bus waits for that: it has
        // nothing else for this one.
        let in_flight = peer.state.lock().in_flight.clone();
        self.shared.subscribe(peer);
        self.note_connected(session, peer);
        if let Some(batch) = in_flight {
            self.shared.send(session, &batch, now);
        }
    }

    /// Ends a call, and what it was for.
    fn end_call(&self, session: &Arc<Session>, id: CallId, status: &Status, now: Instant) {
        self.forget_call(session, id);
        http2::push_end(session, id, status);
        session.flush(now);
    }

    fn forget_call(&self, session: &Arc<Session>, id: CallId) {
        let peer = connected(&session.data);
        let was_subscriber = {
            let mut state = peer.state.lock();
            let was_subscriber = state.subscriber == Some(id);
            state.remove_call(id);
            if was_subscriber {
                state.wanted = None;
            }
            was_subscriber
        };
        if was_subscriber {
            self.shared.subscribe(peer);
        }
    }

    /// Counts a message.
    fn count(&self, session: &Arc<Session>, message: &Bytes, is_good: bool, now: Instant) {
        let whole = 0..message.len();
        let frames = Frames::new(message, std::slice::from_ref(&whole));
        self.router.take(self, session, frames, now, |_, _| {
            if is_good {
                Routed::Handled
            } else {
                Routed::Dropped { reason: KeyopDrop::MALFORMED, dest: None }
            }
        });
    }
}

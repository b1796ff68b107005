//! Publications, requests and answers.

use std::time::Instant;

use super::requests::rid_of;
use super::{
    Broker, CID, Class, Command, Connection, Encoder, Grant, Guid, Handled, Head, Ids, Message,
    Output, PRIVATE, Pending, REQUEST_ID, RID, Refusal, Role, Slot, UID,
};

impl<P> Broker<P> {
    pub(super) fn publish(
        &self,
        slot: Slot,
        message: &Message<'_>,
        out: &mut Output,
    ) -> Result<Handled, Refusal> {
        self.check_topic(message.target)?;
        let sender = self.connections.there(slot);
        let found = self.topics.find(message.target).map(|key| self.topics.get(key));
        let is_granted = found.is_some_and(|topic| topic.grants(Grant::Publish));
        if sender.role == Role::Client && !is_granted {
            return Err(Refusal::NotTrusted);
        }
        if let Some(guid) = message.target.strip_prefix(PRIVATE) {
            return Ok(self.publish_to(guid, sender, message, out));
        }
        let Some(topic) = found else { return Ok(Handled::Published { copies: 0 }) };
        let clients_may = topic.grants(Grant::Subscribe);
        let mark = out.mark();
        let mut copies = 0;
        for subscriber in &topic.subscribers {
            if clients_may || subscriber.role == Role::Service {
                if copies == 0 {
                    encode_publication(message, sender, out);
                }
                out.deliver(self.connections.id(subscriber.slot), Class::Publication, mark);
                copies += 1;
            }
        }
        Ok(Handled::Published { copies })
    }

    /// Publishes to a connection's own channel.
    fn publish_to(
        &self,
        guid: &str,
        sender: &Connection<P>,
        message: &Message<'_>,
        out: &mut Output,
    ) -> Handled {
        let slot = guid.parse().ok().and_then(|guid: Guid| self.connections.of_guid(guid));
        let Some(slot) = slot else { return Handled::Published { copies: 0 } };
        let mark = out.mark();
        encode_publication(message, sender, out);
        out.deliver(self.connections.id(slot), Class::Publication, mark);
        Handled::Published { copies: 1 }
    }

    /// Asks a responder. Whatever is refused is also answered, if the request has an id.
    pub(super) fn request(
        &mut self,
        slot: Slot,
        message: &Message<'_>,
        now: Instant,
        out: &mut Output,
    ) -> Result<Handled, Refusal> {
        self.check_topic(message.target)?;
        let ids = Ids::of(&message.headers);
        if ids.are_longer_than(self.limits.text_bytes) {
            return Err(Refusal::IdTooLong);
        }
        let asked = self.ask(slot, message, &ids, now, out);
        asked.or_else(|refusal| {
            let requester = self.connections.id(slot);
            out.error(requester, refusal, Command::Req, message.target, self.limits.text_bytes);
            let mark = out.mark();
            if ids.encode_failure(&mut out.bytes, message.target, refusal) {
                out.deliver(requester, Class::Answer, mark);
            }
            Ok(Handled::Refused(refusal))
        })
    }

    fn ask(
        &mut self,
        slot: Slot,
        message: &Message<'_>,
        ids: &Ids<'_>,
        now: Instant,
        out: &mut Output,
    ) -> Result<Handled, Refusal> {
        let requester = self.connections.there(slot);
        if !self.may(requester.role, message.target, Grant::Publish) {
            return Err(Refusal::NotTrusted);
        }
        if !self.limits.admits_request(requester.asking.len(), self.requests.len()) {
            return Err(Refusal::TooManyRequests);
        }
        let key = self.topics.find(message.target).ok_or(Refusal::NoResponder)?;
        let chosen = self.topics.get_mut(key).choose().ok_or(Refusal::NoResponder)?;
        chosen.outstanding += 1;
        let responder = chosen.slot;
        let head = Head::new(message.target, ids);
        let pending = Pending::new(slot, responder, key, head, now, self.limits.timeout);
        let rid = self.requests.add(pending);
        self.connections.there_mut(slot).asking.insert(rid);
        self.connections.there_mut(responder).asked.insert(rid);

        let mark = out.mark();
        let mut encoder = Encoder::begin(&mut out.bytes, Command::Req, message.target);
        encoder.header(RID, &rid.to_string());
        encode_rest(encoder, message, self.connections.there(slot), &[RID]);
        out.deliver(self.connections.id(responder), Class::Request { rid }, mark);
        Ok(Handled::Asked)
    }

    pub(super) fn answer(
        &mut self,
        slot: Slot,
        message: &Message<'_>,
        now: Instant,
        out: &mut Output,
    ) -> Result<Handled, Refusal> {
        self.check_topic(message.target)?;
        let role = self.connections.there(slot).role;
        if !self.may(role, message.target, Grant::Publish) {
            return Err(Refusal::NotTrusted);
        }
        let Some(rid) = rid_of(message) else { return Ok(Handled::Ignored) };
        let is_asked = self.requests.get(rid).is_some_and(|pending| pending.responder == slot);
        if !is_asked {
            return Err(Refusal::NoRequest);
        }
        let pending = self.forget(rid).ok_or(Refusal::NoRequest)?;
        // The requester's own ids stand at the beginning.
        let left_out: &[&str] =
            if pending.head.has_request_id { &[RID, REQUEST_ID] } else { &[RID] };
        let responder = self.connections.there(slot);
        let mark = out.mark();
        pending.head.encode_answer(&mut out.bytes, |bytes| {
            encode_rest(Encoder::resume(bytes), message, responder, left_out);
        });
        out.deliver(self.connections.id(pending.requester), Class::Answer, mark);
        Ok(Handled::Answered { waited: now.saturating_duration_since(pending.began) })
    }

    /// Tells the requester that its request has failed.
    pub(super) fn fail(&mut self, rid: u64, refusal: Refusal, out: &mut Output) {
        let Some(pending) = self.forget(rid) else { return };
        out.failed(refusal);
        let requester = self.connections.id(pending.requester);
        let topic = pending.head.topic();
        out.error(requester, refusal, Command::Req, topic, self.limits.text_bytes);
        let mark = out.mark();
        if pending.head.encode_failure(&mut out.bytes, refusal) {
            out.deliver(requester, Class::Answer, mark);
        }
    }

    /// Removes a request from all tables.
    pub(super) fn forget(&mut self, rid: u64) -> Option<Pending> {
        let pending = self.requests.remove(rid)?;
        if let Some(requester) = self.connections.get_mut(pending.requester) {
            requester.asking.remove(&rid);
        }
        if let Some(responder) = self.connections.get_mut(pending.responder) {
            responder.asked.remove(&rid);
        }
        // A responder keeps its share until it is gone.
        if let Some(responder) = self.topics.get_mut(pending.topic).responder_mut(pending.responder)
        {
            responder.outstanding -= 1;
        }
        Some(pending)
    }

    pub(super) fn set_user(
        &mut self,
        slot: Slot,
        message: &Message<'_>,
    ) -> Result<Handled, Refusal> {
        if self.connections.there(slot).role == Role::Client || message.target != "UID" {
            return Ok(Handled::Ignored);
        }
        let value = |name| message.headers.find(name).map_or("", |header| header.value);
        let uid = value("Setuid");
        if uid.len() > self.limits.text_bytes {
            return Err(Refusal::IdTooLong);
        }
        let guid = value("Forcid").parse().map_err(|_| Refusal::NoConnection)?;
        let slot = self.connections.of_guid(guid).ok_or(Refusal::NoConnection)?;
        self.connections.there_mut(slot).uid = uid.into();
        Ok(Handled::UserSet)
    }
}

fn encode_publication<P>(message: &Message<'_>, sender: &Connection<P>, out: &mut Output) {
    let encoder = Encoder::begin(&mut out.bytes, Command::Pub, message.target);
    encode_rest(encoder, message, sender, &[]);
}

/// Writes a message on: all headers but those `left_out`, who it is from, and the body.
fn encode_rest<P>(
    mut encoder: Encoder<'_>,
    message: &Message<'_>,
    from: &Connection<P>,
    left_out: &[&str],
) {
    for header in message.headers.iter() {
        let is_own = header.is(CID) || header.is(UID);
        if !is_own && !left_out.iter().any(|name| header.is(name)) {
            encoder.forward(header);
        }
    }
    let guid = from.guid.text();
    encoder.header(CID, str::from_utf8(&guid).expect("digits are ASCII"));
    encoder.header(UID, &from.uid);
    encoder.finish(message.body);
}

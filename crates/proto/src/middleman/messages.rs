//! Publications, requests and answers.

use std::time::Instant;

use super::requests::rid_of;
use super::{
    Broker, CID, Chosen, Class, Command, Connection, Encoder, Ended, Grant, Guid, Handled, Head,
    Ids, Message, Output, PRIVATE, Pending, RID, Refusal, RelayMessage, Requester, Role, Slot,
    TopicKey, UID,
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
        let Some(topic) = found else { return Ok(Handled::Published { copies: 0, relays: 0 }) };
        let clients_may = topic.grants(Grant::Subscribe);
        let elsewhere = topic.remotes.iter().filter(|remote| remote.share.subscribes);
        let relays = elsewhere.clone().count();
        let begin = out.mark();
        if relays > 0 {
            RelayMessage::begin_publication(&mut out.bytes);
        }
        let mark = out.mark();
        let is_heard = |role| clients_may || role == Role::Service;
        if relays > 0 || topic.subscribers.iter().any(|subscriber| is_heard(subscriber.role)) {
            encode_publication(message, sender, out);
        }
        elsewhere.for_each(|remote| out.forward(remote.link, begin));
        let mut copies = 0;
        for subscriber in topic.subscribers.iter().filter(|other| is_heard(other.role)) {
            out.deliver(self.connections.id(subscriber.slot), Class::Publication, mark);
            copies += 1;
        }
        Ok(Handled::Published { copies, relays })
    }

    /// Publishes to a connection's own channel.
    fn publish_to(
        &self,
        guid: &str,
        sender: &Connection<P>,
        message: &Message<'_>,
        out: &mut Output,
    ) -> Handled {
        let Ok(guid) = guid.parse::<Guid>() else {
            return Handled::Published { copies: 0, relays: 0 };
        };
        if let Some(slot) = self.connections.of_guid(guid) {
            let mark = out.mark();
            encode_publication(message, sender, out);
            out.deliver(self.connections.id(slot), Class::Publication, mark);
            return Handled::Published { copies: 1, relays: 0 };
        }
        let mut relays = 0;
        for link in self.links.of_maker(guid.maker()) {
            let mark = out.mark();
            RelayMessage::begin_publication(&mut out.bytes);
            encode_publication(message, sender, out);
            out.forward(link, mark);
            relays += 1;
        }
        Handled::Published { copies: 0, relays }
    }

    /// Asks a responder.
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
        let requester = self.connections.there(slot);
        if !self.may(requester.role, message.target, Grant::Publish) {
            return Err(Refusal::NotTrusted);
        }
        if !self.limits.admits_request(requester.asking.len(), self.requests.len()) {
            return Err(Refusal::TooManyRequests);
        }
        let key = self.topics.find(message.target).ok_or(Refusal::NoResponder)?;
        let chosen = self.topics.get_mut(key).choose().ok_or(Refusal::NoResponder)?;
        let timeout = self.limits.timeout;
        let has_request_id = ids.has_request_id();
        let requester = Requester::Connection { slot, head: Head::new(message.target, &ids) };
        let rid = self.add_request(Pending::new(requester, chosen, key, now, timeout));

        let mark = out.mark();
        let requester = self.connections.there(slot);
        match chosen {
            Chosen::Connection(responder) => {
                let mut encoder = Encoder::begin(&mut out.bytes, Command::Req, message.target);
                encoder.header(RID, &rid.to_string());
                encode_rest(encoder, message, requester, &[RID]);
                out.deliver(self.connections.id(responder), Class::Request { rid }, mark);
            }
            Chosen::Relay(link) => {
                let millis = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
                let bytes = &mut out.bytes;
                RelayMessage::begin_request(bytes, rid, millis, has_request_id, message.target);
                encode_rest(Encoder::resume(bytes), message, requester, &[RID]);
                out.forward(link, mark);
            }
        }
        self.announce(key, out);
        Ok(Handled::Asked)
    }

    /// Notes a request where it is looked for. Its responder counts it already.
    pub(super) fn add_request(&mut self, pending: Pending) -> u64 {
        let rid = self.requests.next_rid();
        match pending.requester {
            Requester::Connection { slot, .. } => {
                self.connections.there_mut(slot).asking.insert(rid);
            }
            Requester::Relay { link, id, .. } => self.links.asks(link, id, rid),
        }
        self.has_to_answer(pending.responder, rid);
        self.requests.add(pending)
    }

    fn has_to_answer(&mut self, responder: Chosen, rid: u64) {
        match responder {
            Chosen::Connection(slot) => {
                self.connections.there_mut(slot).asked.insert(rid);
            }
            Chosen::Relay(link) => self.links.is_asked(link, rid),
        }
    }

    /// Has another responder answer a request, which counts it already.
    pub(super) fn is_asked_instead(&mut self, rid: u64, responder: Chosen, out: &mut Output) {
        let Some(pending) = self.requests.get_mut(rid) else { return };
        let before = std::mem::replace(&mut pending.responder, responder);
        let topic = pending.topic;
        self.has_to_answer(responder, rid);
        self.has_not_to_answer(before, topic, rid, out);
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
        let asked = self.requests.get(rid).map(|pending| pending.responder);
        if asked != Some(Chosen::Connection(slot)) {
            return Err(Refusal::NoRequest);
        }
        let pending = self.forget(rid, out).ok_or(Refusal::NoRequest)?;
        let responder = self.connections.there(slot);
        let mark = out.mark();
        match &pending.requester {
            Requester::Connection { slot, head } => {
                head.begin_answer(&mut out.bytes);
                let encoder = Encoder::resume(&mut out.bytes);
                encode_rest(encoder, message, responder, pending.requester.unwanted());
                out.deliver(self.connections.id(*slot), Class::Answer, mark);
                out.has_ended(pending.answered(now));
            }
            Requester::Relay { link, id, .. } => {
                let outstanding = self.topics.get(pending.topic).outstanding();
                let outstanding = u32::try_from(outstanding).unwrap_or(u32::MAX);
                RelayMessage::begin_answer(&mut out.bytes, *id, outstanding);
                let encoder = Encoder::resume(&mut out.bytes);
                encode_rest(encoder, message, responder, pending.requester.unwanted());
                out.forward(*link, mark);
            }
        }
        Ok(Handled::Answered)
    }

    /// Tells the requester that its request has failed.
    pub(super) fn fail(&mut self, rid: u64, refusal: Refusal, out: &mut Output) {
        let Some(pending) = self.forget(rid, out) else { return };
        match &pending.requester {
            Requester::Connection { slot, head } => {
                out.has_ended(Ended::Failed(refusal));
                let requester = self.connections.id(*slot);
                let most = self.limits.text_bytes;
                out.error(requester, refusal, Command::Req, head.topic(), most);
                let mark = out.mark();
                if head.encode_failure(&mut out.bytes, refusal) {
                    out.deliver(requester, Class::Answer, mark);
                }
            }
            Requester::Relay { link, id, .. } => {
                out.tell(*link, RelayMessage::Failed { id: *id, failure: refusal.failure() });
            }
        }
    }

    /// Tells the relay that was asked, if one was, that nobody waits for its answer.
    pub(super) fn cancel(&self, rid: u64, out: &mut Output) {
        let asked = self.requests.get(rid).map(|pending| pending.responder);
        if let Some(Chosen::Relay(link)) = asked {
            out.tell(link, RelayMessage::Cancel { id: rid });
        }
    }

    /// Removes a request from all tables.
    pub(super) fn forget(&mut self, rid: u64, out: &mut Output) -> Option<Pending> {
        let pending = self.requests.remove(rid)?;
        match pending.requester {
            Requester::Connection { slot, .. } => {
                if let Some(requester) = self.connections.get_mut(slot) {
                    requester.asking.remove(&rid);
                }
            }
            Requester::Relay { link, id, .. } => self.links.has_answer(link, id),
        }
        self.has_not_to_answer(pending.responder, pending.topic, rid, out);
        Some(pending)
    }

    fn has_not_to_answer(&mut self, responder: Chosen, key: TopicKey, rid: u64, out: &mut Output) {
        let topic = self.topics.get_mut(key);
        match responder {
            Chosen::Connection(slot) => {
                if let Some(responder) = self.connections.get_mut(slot) {
                    responder.asked.remove(&rid);
                }
                // A responder keeps its share until it is gone.
                let responder = topic.responder_mut(slot).expect("it has a share");
                responder.outstanding -= 1;
                self.announce(key, out);
            }
            Chosen::Relay(link) => {
                self.links.has_answered(link, rid);
                let remote = topic.remote_mut(link).expect("its share is kept until it answers");
                remote.outstanding -= 1;
                self.tidy_remote(key, link);
            }
        }
    }

    pub(super) fn set_user(
        &mut self,
        slot: Slot,
        message: &Message<'_>,
        out: &mut Output,
    ) -> Result<Handled, Refusal> {
        if self.connections.there(slot).role == Role::Client || message.target != "UID" {
            return Ok(Handled::Ignored);
        }
        let value = |name| message.headers.find(name).map_or("", |header| header.value);
        let uid = value("Setuid");
        if uid.len() > self.limits.text_bytes {
            return Err(Refusal::IdTooLong);
        }
        let guid: Guid = value("Forcid").parse().map_err(|_| Refusal::NoConnection)?;
        if let Some(slot) = self.connections.of_guid(guid) {
            self.connections.there_mut(slot).set_user(uid);
            return Ok(Handled::UserSet);
        }
        let mut links = self.links.of_maker(guid.maker()).peekable();
        // Whether the connection is there is not known here.
        links.peek().ok_or(Refusal::NoConnection)?;
        links.for_each(|link| out.tell(link, RelayMessage::User { guid, uid }));
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
    encoder.lines(&from.stamp);
    encoder.finish(message.body);
}

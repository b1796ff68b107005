//! What relays of a cluster do for each other's connections.
//!
//! Over each link a relay says first what its connections have of each topic, and then each
//! change; so a publication crosses once to each relay that has a subscriber, and a request goes
//! to a relay whose responders have fewer requests for each worker, where no responder here is
//! free. The other relay chooses the responder, and answers. A GUID says which relay its
//! connection is at. A relay whose responders have gone meanwhile returns the request, and another
//! is asked. When a link ends, what the other relay had is gone, and what it was asked has failed.
//!
//! Another relay is trusted to have checked what its clients may do; what it sends is still held
//! to the grammar and to the bounds.

use std::time::{Duration, Instant};

use beacon_wire::middleman::TopicShare;

use super::{
    Broker, Chosen, Class, Command, Encoder, Grant, Guid, Handled, LinkId, Message, Output,
    PRIVATE, Pending, RID, Refusal, RelayMessage, Remote, Requester, Role, TopicKey, Violation,
};

/// A request as another relay forwards it.
struct Forwarded<'a> {
    id: u64,
    timeout: Duration,
    has_request_id: bool,
    topic: &'a str,
    tail: &'a [u8],
}

impl<P> Broker<P> {
    /// Begins a link: tells the other relay all that it has to know. `maker` is in the GUIDs of
    /// the connections here.
    pub fn link_up(&mut self, link: LinkId, maker: [u8; 5], out: &mut Output) {
        self.link_down(link, out);
        self.links.add(link);
        out.tell(link, RelayMessage::Begin { maker });
        for topic in self.topics.iter_mut() {
            if let Some(share) = topic.announcement() {
                out.tell(link, RelayMessage::Topic { share, topic: &topic.name });
            }
        }
    }

    /// Ends a link. What the other relay was asked has failed.
    pub fn link_down(&mut self, link: LinkId, out: &mut Output) {
        let Some(known) = self.links.get(link) else { return };
        // Each takes what it needs of the link out of its tables, perhaps a whole topic.
        let asked: Vec<_> = known.asked.iter().copied().collect();
        for rid in asked {
            self.fail(rid, Refusal::RelayLost, out);
        }
        let Some(gone) = self.links.remove(link) else { return };
        for rid in gone.asking.into_values() {
            self.forget(rid, out);
        }
        for key in gone.topics {
            self.topics.get_mut(key).remotes.retain(|remote| remote.link != link);
            self.topics.tidy(key);
        }
    }

    /// Does what another relay says.
    ///
    /// # Errors
    /// It says what relays do not say. The link is to be ended.
    pub fn from_relay(
        &mut self,
        link: LinkId,
        message: &[u8],
        now: Instant,
        out: &mut Output,
    ) -> Result<Handled, Violation> {
        let message = RelayMessage::parse(message).map_err(|_| Violation)?;
        // What came late over a link that has ended means nothing.
        let Some(known) = self.links.get_mut(link) else { return Ok(Handled::Ignored) };
        match message {
            RelayMessage::Begin { maker } => match known.maker.replace(maker) {
                Some(_) => Err(Violation),
                None => Ok(Handled::Noted),
            },
            RelayMessage::Topic { share, topic } => self.take_share(link, share, topic),
            RelayMessage::Publication { frame } => self.publish_here(frame, out),
            RelayMessage::User { guid, uid } => Ok(self.set_user_here(guid, uid)),
            RelayMessage::Request { id, timeout_ms, has_request_id, topic, tail } => {
                let timeout = Duration::from_millis(timeout_ms.into());
                let request = Forwarded { id, timeout, has_request_id, topic, tail };
                self.ask_here(link, &request, now, out)
            }
            RelayMessage::Answer { id, outstanding, tail } => {
                self.take_answer(link, id, outstanding, tail, now, out)
            }
            RelayMessage::Failed { id, failure } => {
                if self.is_asked(link, id) {
                    self.fail(id, Refusal::of(failure), out);
                }
                Ok(Handled::Noted)
            }
            RelayMessage::Returned { id, tail } => {
                if self.is_asked(link, id) {
                    self.ask_again(link, id, tail, now, out)?;
                }
                Ok(Handled::Noted)
            }
            RelayMessage::Cancel { id } => {
                if let Some(rid) = known.asking.get(&id).copied() {
                    self.forget(rid, out);
                }
                Ok(Handled::Noted)
            }
        }
    }

    /// Tells the other relays what has changed in a topic.
    pub(super) fn announce(&mut self, key: TopicKey, out: &mut Output) {
        if self.links.is_empty() {
            return;
        }
        let topic = self.topics.get_mut(key);
        let Some(share) = topic.news() else { return };
        let mark = out.mark();
        RelayMessage::Topic { share, topic: &topic.name }.encode(&mut out.bytes);
        self.links.ids().for_each(|link| out.forward(link, mark));
    }

    /// Removes the share of another relay, if it has none and is asked nothing.
    pub(super) fn tidy_remote(&mut self, key: TopicKey, link: LinkId) {
        let remotes = &mut self.topics.get_mut(key).remotes;
        let before = remotes.len();
        remotes.retain(|remote| remote.link != link || !remote.is_unused());
        if remotes.len() == before {
            return;
        }
        if let Some(link) = self.links.get_mut(link) {
            link.topics.remove(&key);
        }
        self.topics.tidy(key);
    }

    fn take_share(
        &mut self,
        link: LinkId,
        share: TopicShare,
        topic: &str,
    ) -> Result<Handled, Violation> {
        let is_known = self.topics.find(topic).is_some();
        let is_none = TopicShare { outstanding: 0, ..share } == TopicShare::default();
        // No connection here could use a longer one.
        if topic.len() > self.limits.text_bytes || is_none && !is_known {
            return Ok(Handled::Noted);
        }
        let known = self.links.get_mut(link).ok_or(Violation)?;
        let key = self.topics.find_or_add(topic);
        let all = self.limits.all;
        let most = all.subscriptions + all.grants + all.workers;
        if !known.topics.contains(&key) && known.topics.len() >= most {
            self.topics.tidy(key);
            return Err(Violation);
        }
        known.topics.insert(key);
        let topic = self.topics.get_mut(key);
        match topic.remote_mut(link) {
            Some(remote) => remote.share = share,
            None => topic.remotes.push(Remote { link, share, outstanding: 0 }),
        }
        self.tidy_remote(key, link);
        Ok(Handled::Noted)
    }

    /// Delivers a publication of another relay to the connections here.
    fn publish_here(&self, frame: &[u8], out: &mut Output) -> Result<Handled, Violation> {
        let message = Message::parse(frame).map_err(|_| Violation)?;
        if message.command != Command::Pub {
            return Err(Violation);
        }
        if frame.len() > self.limits.message_bytes {
            return Ok(Handled::Lost);
        }
        let mark = out.mark();
        out.bytes.extend_from_slice(frame);
        let mut copies = 0;
        let mut deliver = |slot| {
            out.deliver(self.connections.id(slot), Class::Publication, mark);
            copies += 1;
        };
        if let Some(guid) = message.target.strip_prefix(PRIVATE) {
            let slot = guid.parse().ok().and_then(|guid| self.connections.of_guid(guid));
            slot.into_iter().for_each(&mut deliver);
        } else if let Some(key) = self.topics.find(message.target) {
            let topic = self.topics.get(key);
            let clients_may = topic.grants(Grant::Subscribe);
            let heard = topic.subscribers.iter();
            let heard = heard.filter(|other| clients_may || other.role == Role::Service);
            heard.map(|subscriber| subscriber.slot).for_each(&mut deliver);
        }
        Ok(Handled::Published { copies, relays: 0 })
    }

    fn set_user_here(&mut self, guid: Guid, uid: &str) -> Handled {
        if uid.len() > self.limits.text_bytes {
            return Handled::Ignored;
        }
        let slot = self.connections.of_guid(guid);
        let Some(slot) = slot else { return Handled::Ignored };
        self.connections.there_mut(slot).set_user(uid);
        Handled::UserSet
    }

    /// Asks a responder here for another relay.
    fn ask_here(
        &mut self,
        link: LinkId,
        request: &Forwarded<'_>,
        now: Instant,
        out: &mut Output,
    ) -> Result<Handled, Violation> {
        let Forwarded { id, timeout, has_request_id, topic, tail } = *request;
        let asking = &self.links.get(link).ok_or(Violation)?.asking;
        if asking.contains_key(&id) {
            return Err(Violation);
        }
        // One relay leaves half of what is free to all others.
        let free = self.limits.all.requests.saturating_sub(self.requests.len());
        if asking.len() >= free {
            let failure = Refusal::TooManyRequests.failure();
            out.tell(link, RelayMessage::Failed { id, failure });
            return Ok(Handled::Refused(Refusal::TooManyRequests));
        }
        let rid = self.requests.next_rid();
        let mark = out.mark();
        compose_request(&mut out.bytes, topic, rid, tail)?;
        if out.mark() - mark > self.limits.message_bytes {
            out.bytes.truncate(mark);
            let failure = Refusal::MessageTooLong.failure();
            out.tell(link, RelayMessage::Failed { id, failure });
            return Ok(Handled::Refused(Refusal::MessageTooLong));
        }
        let key = self.topics.find(topic);
        let chosen = key.and_then(|key| Some((key, self.topics.get_mut(key).choose_here()?)));
        let Some((key, responder)) = chosen else {
            out.bytes.truncate(mark);
            out.tell(link, RelayMessage::Returned { id, tail });
            return Ok(Handled::Refused(Refusal::NoResponder));
        };
        out.deliver(self.connections.id(responder), Class::Request { rid }, mark);
        let requester = Requester::Relay { link, id, has_request_id };
        let responder = Chosen::Connection(responder);
        let timeout = timeout.min(self.limits.timeout);
        self.add_request(Pending::new(requester, responder, key, now, timeout));
        self.announce(key, out);
        Ok(Handled::Asked)
    }

    /// Asks somebody else, as long as the requester waits: the relay that was asked has no
    /// responder any more.
    fn ask_again(
        &mut self,
        link: LinkId,
        rid: u64,
        tail: &[u8],
        now: Instant,
        out: &mut Output,
    ) -> Result<(), Violation> {
        let Some(pending) = self.requests.get(rid) else { return Ok(()) };
        // Only requests of connections are forwarded.
        let Requester::Connection { head, .. } = &pending.requester else {
            return Err(Violation);
        };
        let mark = out.mark();
        compose_request(&mut out.bytes, head.topic(), rid, tail)?;
        if out.mark() - mark > self.limits.message_bytes {
            out.bytes.truncate(mark);
            return Err(Violation);
        }
        let key = pending.topic;
        let topic = self.topics.get_mut(key);
        if let Some(remote) = topic.remote_mut(link) {
            // Until it says that it has some again.
            remote.share.workers = 0;
        }
        let Some(chosen) = topic.choose() else {
            out.bytes.truncate(mark);
            self.fail(rid, Refusal::NoResponder, out);
            return Ok(());
        };
        match chosen {
            Chosen::Connection(responder) => {
                out.deliver(self.connections.id(responder), Class::Request { rid }, mark);
            }
            Chosen::Relay(other) => {
                out.bytes.truncate(mark);
                let left = pending.deadline.saturating_duration_since(now).as_millis();
                let request = RelayMessage::Request {
                    id: rid,
                    timeout_ms: u32::try_from(left).unwrap_or(u32::MAX),
                    has_request_id: head.has_request_id(),
                    topic: head.topic(),
                    tail,
                };
                out.tell(other, request);
            }
        }
        self.is_asked_instead(rid, chosen, out);
        self.announce(key, out);
        Ok(())
    }

    fn is_asked(&self, link: LinkId, id: u64) -> bool {
        let asked = self.requests.get(id).map(|pending| pending.responder);
        asked == Some(Chosen::Relay(link))
    }

    /// Gives the answer of another relay to who has asked.
    fn take_answer(
        &mut self,
        link: LinkId,
        id: u64,
        outstanding: u32,
        tail: &[u8],
        now: Instant,
        out: &mut Output,
    ) -> Result<Handled, Violation> {
        let Some(pending) = self.requests.get(id) else { return Ok(Handled::Ignored) };
        // Only requests of connections are forwarded.
        let Requester::Connection { slot, head } = &pending.requester else {
            return Err(Violation);
        };
        if pending.responder != Chosen::Relay(link) {
            return Err(Violation);
        }
        let mark = out.mark();
        head.begin_answer(&mut out.bytes);
        out.bytes.extend_from_slice(tail);
        if Message::parse(&out.bytes[mark..]).is_err() {
            out.bytes.truncate(mark);
            return Err(Violation);
        }
        if out.mark() - mark > self.limits.message_bytes {
            out.bytes.truncate(mark);
            self.fail(id, Refusal::MessageTooLong, out);
            return Ok(Handled::Refused(Refusal::MessageTooLong));
        }
        out.deliver(self.connections.id(*slot), Class::Answer, mark);
        out.has_ended(pending.answered(now));
        if let Some(remote) = self.topics.get_mut(pending.topic).remote_mut(link) {
            remote.share.outstanding = outstanding;
        }
        self.forget(id, out);
        Ok(Handled::Answered)
    }
}

/// Appends a request that came from another relay as its responder gets it.
///
/// # Errors
/// It is no request for that topic; nothing is appended.
fn compose_request(out: &mut Vec<u8>, topic: &str, rid: u64, tail: &[u8]) -> Result<(), Violation> {
    let mark = out.len();
    let mut encoder = Encoder::begin(out, Command::Req, topic);
    encoder.header(RID, &rid.to_string());
    out.extend_from_slice(tail);
    if Message::parse(&out[mark..]).map(|message| message.target) == Ok(topic) {
        return Ok(());
    }
    out.truncate(mark);
    Err(Violation)
}

//! What peers subscribe to, and the batches that they get.

use std::sync::{Arc, Weak};
use std::time::Instant;

use memchr::memmem;

use super::Shared;
use super::connected::{Connected, Delivery, Wanted, connected};
use super::meters::Speaks;
use super::websocket;
use crate::bus::{Batch, Outgoing, Party, Receipt, Subscription};
use crate::peers::End;
use crate::session::{Session, http2};
use crate::wire::keyop::grpc::hub_batch;
use crate::wire::keyop::websocket::push_record;
use crate::wire::keyop::{Envelope, Event};

impl Shared {
    /// What a peer may have of what it wants.
    pub(super) fn effective(&self, peer: &str, wanted: &Wanted) -> Vec<Arc<str>> {
        let policy = self.policy.load();
        let may = |channel: &&String| policy.may_subscribe(peer, channel);
        wanted.channels.iter().filter(may).map(|channel| Arc::from(channel.as_str())).collect()
    }

    /// Has the bus deliver what a peer wants and may have.
    pub(super) fn subscribe(&self, peer: &Connected) {
        let (channels, is_ephemeral) = {
            let mut state = peer.state.lock();
            let wanted = state.wanted.clone().unwrap_or_default();
            state.channels = self.effective(&peer.name, &wanted);
            (state.channels.clone(), wanted.is_ephemeral)
        };
        let is_subscriber = !channels.is_empty();
        let subscription = Subscription { channels, is_ephemeral };
        self.bus.subscribe(&peer.address, peer.party(), subscription);
        self.count_subscriber(peer, is_subscriber);
    }

    /// Sends a peer a batch.
    pub(super) fn send(self: &Arc<Self>, session: &Arc<Session>, batch: &Batch, now: Instant) {
        let peer = connected(&session.data);
        let kept = self.for_peer(peer, batch);
        if kept.is_empty() {
            return self.acknowledge_later(session, batch.number);
        }
        let channel_of = |record: &Outgoing| {
            let envelope = self.audit.is_on().then(|| Envelope::parse(&record.body));
            let envelope = envelope.and_then(Result::ok);
            envelope.map_or_else(|| "".into(), |envelope| Arc::from(&*envelope.channel))
        };
        let records = kept.iter().map(|record| (Arc::clone(&record.key), channel_of(record)));
        let delivery = Delivery { number: batch.number, records: records.collect(), sent: now };
        let subscriber = {
            let mut state = peer.state.lock();
            if peer.speaks == Speaks::Grpc && state.subscriber.is_none() {
                // Its call has ended: the next one gets it.
                return;
            }
            state.sent(delivery);
            state.subscriber
        };
        self.meters.delivered.add(kept.len() as u64);
        let bodies = kept.iter().map(|record| &*record.body);
        let pushed = match subscriber {
            Some(call) => http2::push_data(session, call, &hub_batch(bodies), now),
            None => {
                let mut message = Vec::new();
                bodies.for_each(|record| push_record(&mut message, record));
                websocket::push_batch(session, &message, now)
            }
        };
        if pushed.queued == 0 {
            // What comes later would be before it: it begins again, in order.
            session.end(End::Overflow);
        }
        session.flush(now);
    }

    /// The records of a batch that are for a peer whose name is not in their routes.
    fn for_peer<'a>(&self, peer: &Connected, batch: &'a Batch) -> Vec<&'a Outgoing> {
        let is_for_peer = |record: &&Outgoing| !may_have_passed(&record.body, &peer.name);
        let kept: Vec<_> = batch.records.iter().filter(is_for_peer).collect();
        let left_out = batch.records.len() - kept.len();
        self.meters.left_out.add(left_out as u64);
        kept
    }

    /// Acknowledges a batch of which the peer gets nothing, once the bus's thread is elsewhere: it
    /// may have locked what the acknowledgement needs.
    fn acknowledge_later(self: &Arc<Self>, session: &Arc<Session>, number: u64) {
        let shared = Arc::clone(self);
        let session = Arc::downgrade(session);
        self.runtime.spawn(async move {
            if let Some(session) = session.upgrade() {
                let peer = connected(&session.data);
                shared.bus.acknowledge_records(&peer.address, peer.party(), number);
            }
        });
    }

    /// Counts a peer among those that are subscribed to something, or not any more.
    pub(super) fn count_subscriber(&self, peer: &Connected, is_one: bool) {
        let was_one = std::mem::replace(&mut peer.state.lock().is_subscriber, is_one);
        self.meters.subscribers.add(i64::from(is_one) - i64::from(was_one));
    }

    /// The same, where the allow list gives the peer others than before.
    pub(super) fn subscribe_anew(&self, peer: &Connected) {
        let is_changed = {
            let state = peer.state.lock();
            let wanted = state.wanted.as_ref();
            wanted.is_some_and(|wanted| self.effective(&peer.name, wanted) != state.channels)
        };
        if is_changed {
            self.subscribe(peer);
        }
    }

    /// A peer says that it has a batch, by the id of one of its records; of none where it had all of
    /// them before.
    pub(super) fn acknowledged(&self, peer: &Connected, last_id: &str) {
        let delivery = peer.state.lock().acknowledged(last_id);
        let Some(Delivery { number, records, sent }) = delivery else {
            return self.meters.stray.increment();
        };
        self.bus.acknowledge_records(&peer.address, peer.party(), number);
        self.meters.acknowledged.increment();
        if !self.audit.is_on() {
            return;
        }
        let took = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
        for (id, channel) in &records {
            self.audit.note(Event {
                event: "forward",
                message_id: id,
                channel,
                direction: "outbound",
                peer: &peer.name,
                send_duration_us: took,
                ..Event::default()
            });
        }
    }
}

/// The peer of a session, as the bus sees it.
pub(super) struct Peer {
    shared: Arc<Shared>,
    /// Weak, since who keeps a session keeps its socket.
    session: Weak<Session>,
    generation: u64,
}

impl Peer {
    pub(super) fn new(session: &Arc<Session>, shared: Arc<Shared>) -> Self {
        let generation = session.generation();
        Self { shared, session: Arc::downgrade(session), generation }
    }

    fn session(&self) -> Option<Arc<Session>> {
        self.session.upgrade().filter(|session| session.is_open())
    }
}

/// Whether a record has passed this peer, or was published by it. Few records have its name in them:
/// the others are not read.
pub(super) fn may_have_passed(record: &[u8], peer: &str) -> bool {
    let is_escaped = |bytes: &[u8]| memmem::find(bytes, b"\\u").is_some();
    let is_plain =
        peer.bytes().all(|byte| matches!(byte, b' '..=b'~') && !b"\"\\<>&".contains(&byte));
    let has_name = || memmem::find(record, peer.as_bytes()).is_some();
    if is_plain && !has_name() && !is_escaped(record) {
        return false;
    }
    Envelope::parse(record).is_ok_and(|envelope| envelope.route.contains(peer))
}

impl Party for Peer {
    fn generation(&self) -> u64 {
        self.generation
    }

    /// Nothing waits in the mailboxes of these peers.
    fn deliver(&self, _: &[Outgoing], _: Instant) -> usize {
        0
    }

    fn records(&self, batch: &Batch, now: Instant) {
        let Some(session) = self.session() else { return };
        let peer = connected(&session.data);
        let is_on_its_way = {
            let mut state = peer.state.lock();
            let before = state.deliveries.back();
            let is_again = before.is_some_and(|delivery| delivery.number == batch.number);
            state.in_flight = Some(batch.clone());
            is_again && session.backlog(now).records > 0
        };
        if !is_on_its_way {
            self.shared.send(&session, batch, now);
        }
    }

    fn receipts(&self, receipts: &[Receipt], now: Instant) {
        if let Some(session) = self.session() {
            self.shared.settle(&session, receipts, now);
        }
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
            const MESSAGE: &str = "ended a session: there are too many channels or cursors, or its name was given to another";
            let peer = session.id();
            if self.shared.withdrawals.is_due(Instant::now()) {
                tracing::warn!(%peer, "{MESSAGE}");
            } else {
                tracing::debug!(%peer, "{MESSAGE}");
            }
            // It may come back: who hears that it may not gives up for good.
            session.end(End::NotStored);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_goes_to_no_peer_that_is_in_its_route_however_that_is_written() {
        let record = |route: &str| {
            format!(
                "{{\"v\":1,\"id\":\"1\",\"channel\":\"alpha\",\"route\":[{route}],\"payload\":1}}"
            )
        };
        for (route, has_passed) in [
            (r#""alpha","hub""#, true),
            (r#""\u0061lpha""#, true),
            (r#""alphas""#, false),
            (r#""beta""#, false),
        ] {
            assert_eq!(may_have_passed(record(route).as_bytes(), "alpha"), has_passed, "{route}");
        }
        assert!(may_have_passed(record(r#""a\u003cb""#).as_bytes(), "a<b"));
        assert!(!may_have_passed(br#"{"v":1,"id":"1","payload":"alpha"}"#, "alpha"));
    }
}

//! The broker, behind one lock.

mod listed;
mod reading;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use prometheus::proto::MetricFamily;
use tokio::sync::Notify;
use tokio::time::sleep_until;

pub(super) use self::reading::Reading;
use super::MiddlemanDrop;
use super::meters::{self, Meters};
use crate::cluster::{Channel, ChannelOwner, Said};
use crate::config::Config;
use crate::metrics::Drop;
use crate::peers::{Arrival, Filled, Record};
use crate::proto::middleman::{
    self, Class, ConnectionId, Handled, Limits, LinkId, Output, Refusal, Role,
};
use crate::session::{Session, TopicOrder, Topics};
use crate::wire::middleman::{Command, Guid, Message, RelayMessage};

type Broker = middleman::Broker<Arc<Session>>;

/// The broker, with what it has to say.
///
/// What it wants delivered is in the outboxes before the lock is free, and written to sockets
/// after that: once for each read of a session, and once for each batch of another relay.
pub(super) struct Hub {
    state: Mutex<State>,
    /// There is a deadline before the one that is waited for.
    sooner: Notify,
    /// What the GUIDs of this relay have in common.
    maker: [u8; 5],
    meters: Meters,
}

struct State {
    broker: Broker,
    output: Output,
    /// Sessions whose outboxes were filled by messages of other relays since they were flushed.
    filled: Filled,
    /// The channels to other relays.
    links: BTreeMap<LinkId, Arc<Channel>>,
    /// When requests are looked at next.
    alarm: Option<Instant>,
}

/// The bounds of the broker.
fn limits(config: &Config) -> Limits {
    let defaults = Limits::default();
    let Some(middleman) = &config.middleman else { return defaults };
    Limits { timeout: middleman.request_timeout, message_bytes: middleman.max_message, ..defaults }
}

impl Hub {
    pub(super) fn new(config: &Config, maker: [u8; 5]) -> Self {
        let state = State {
            broker: Broker::new(limits(config)),
            output: Output::default(),
            filled: Filled::default(),
            links: BTreeMap::new(),
            alarm: None,
        };
        let (state, sooner) = (Mutex::new(state), Notify::new());
        Self { state, sooner, maker, meters: Meters::default() }
    }

    /// Goes on by these settings.
    pub(super) fn update(&self, config: &Config) {
        self.state.lock().broker.set_limits(limits(config));
    }

    /// A session can be found; `None` where another has its GUID.
    pub(super) fn connect(
        &self,
        session: &Arc<Session>,
        role: Role,
        guid: Guid,
    ) -> Option<ConnectionId> {
        self.state.lock().broker.connect(Arc::clone(session), role, guid)
    }

    /// What there is of the first topics in this order. No more is kept than is listed, since
    /// everybody waits meanwhile.
    pub(super) fn topics(&self, order: TopicOrder, most: usize) -> Topics {
        let state = self.state.lock();
        let total = state.broker.counts().topics;
        Topics { total, topics: listed::first(state.broker.topics(), order, most) }
    }

    /// Begins to take the messages of a read.
    pub(super) const fn reading(&self) -> Reading<'_> {
        Reading::of(self)
    }

    /// Counts what became of a message; why it had no effect.
    fn count(&self, message: &Message<'_>, handled: Handled) -> Result<(), Drop> {
        let kind = match handled {
            Handled::Refused(refusal) => {
                self.meters.refused.of(refusal).increment();
                if message.command == Command::Req {
                    self.meters.requests.add(meters::Request::Refused, 1);
                }
                return Err(reason(refusal));
            }
            Handled::Ignored => meters::Handled::Ignored,
            Handled::Subscribed
            | Handled::Published { .. }
            | Handled::Granted
            | Handled::Asked
            | Handled::Answered
            | Handled::UserSet
            | Handled::Noted
            | Handled::Lost => meters::Handled::of(&message.command),
        };
        self.meters.handled.add(kind, 1);
        Ok(())
    }

    /// A session is over.
    pub(super) fn disconnect(&self, id: ConnectionId, now: Instant) {
        self.settle(now, |state| {
            state.broker.disconnect(id, &mut state.output);
        });
    }

    /// Fails requests whose time is over, as long as the relay runs.
    pub(super) async fn keep_time(&self) {
        loop {
            let next = {
                let mut state = self.state.lock();
                state.alarm = state.broker.next_deadline();
                state.alarm
            };
            match next {
                None => self.sooner.notified().await,
                Some(deadline) => {
                    tokio::select! {
                        () = sleep_until(deadline.into()) => {}
                        () = self.sooner.notified() => {}
                    }
                }
            }
            let now = Instant::now();
            self.settle(now, |state| state.broker.expire(now, &mut state.output));
        }
    }

    /// Has the broker do something beside the messages of a batch, and delivers what it says.
    fn settle<T>(&self, now: Instant, act: impl FnOnce(&mut State) -> T) -> T {
        let result = self.act(now, act);
        self.flush(now);
        result
    }

    /// The same, but what it says is written by the next [`Self::flush`].
    fn act<T>(&self, now: Instant, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let result = act(&mut state);
        // Taken out meanwhile, since the broker is asked for the sessions.
        let mut filled = std::mem::take(&mut state.filled);
        self.deliver(&mut state, now, |session| filled.note(session));
        state.filled = filled;
        self.set_alarm(&mut state);
        result
    }

    /// Writes what the sockets take of what was delivered.
    fn flush(&self, now: Instant) {
        let mut filled = std::mem::take(&mut self.state.lock().filled);
        for session in filled.drain() {
            session.flush(now);
        }
    }

    /// Puts what the broker says into outboxes.
    fn deliver(&self, state: &mut State, now: Instant, mut filled: impl FnMut(&Arc<Session>)) {
        // More than one round only where somebody takes no more: each request fails once, each
        // link ends once.
        while !state.output.is_empty() {
            state.output.ended().iter().for_each(|ended| self.meters.note(*ended));
            let mut refused = Vec::new();
            for (id, class, message) in state.output.deliveries() {
                let Some(session) = state.broker.peer(id) else { continue };
                if self.push(session, class, message, now) {
                    filled(session);
                } else if let Class::Request { rid } = class {
                    refused.push(rid);
                }
            }
            let mut broken = Vec::new();
            for (link, message) in state.output.to_relays() {
                if !self.forward(state.links.get(&link), message, now) {
                    broken.push(link);
                }
            }
            let State { broker, output, links, .. } = state;
            output.clear();
            for rid in refused {
                broker.undelivered(rid, output);
            }
            for link in broken {
                links.remove(&link);
                broker.link_down(link, output);
            }
        }
    }

    /// Sends another relay a message; false where the link ends over it.
    fn forward(&self, channel: Option<&Arc<Channel>>, message: &[u8], now: Instant) -> bool {
        let Some(channel) = channel else { return true };
        let parsed = RelayMessage::parse(message);
        let is_publication = matches!(parsed, Ok(RelayMessage::Publication { .. }));
        match channel.say(message, is_publication, now) {
            Said::Queued => true,
            Said::Lost => {
                self.meters.lost.increment();
                true
            }
            Said::Broken => false,
        }
    }

    /// Queues a message for a peer; false where there is no room.
    fn push(&self, session: &Session, class: Class, message: &[u8], now: Instant) -> bool {
        let pushed = match class {
            Class::Publication => {
                let record = Record { head: &[], body: message };
                session.push(std::iter::once(record), &Arrival::ours(now))
            }
            Class::Request { .. } => session.offer_kept(message, now),
            Class::Answer | Class::Error => session.push_kept(message, now),
        };
        let lost = pushed.evicted + if class == Class::Publication { pushed.refused } else { 0 };
        if lost > 0 {
            self.meters.lost.add(lost);
        }
        if pushed.queued == 0 {
            return false;
        }
        self.meters.delivered.add(class.into(), 1);
        true
    }

    /// Has requests looked at in time.
    fn set_alarm(&self, state: &mut State) {
        let Some(deadline) = state.broker.next_deadline() else { return };
        if state.alarm.is_none_or(|alarm| deadline < alarm) {
            state.alarm = Some(deadline);
            self.sooner.notify_one();
        }
    }

    pub(super) fn families(&self, families: &mut Vec<MetricFamily>) {
        let counts = self.state.lock().broker.counts();
        self.meters.families(counts, families);
    }

    pub(super) fn numbers(&self, numbers: &mut BTreeMap<&'static str, usize>) {
        let counts = self.state.lock().broker.counts();
        numbers.insert("middleman_peers", counts.connections);
        numbers.insert("middleman_topics", counts.topics);
        numbers.insert("middleman_requests", counts.requests);
    }
}

/// The brokers of a cluster are one: over each channel they tell each other what they have.
impl ChannelOwner for Hub {
    fn channel_up(&self, channel: &Arc<Channel>) {
        let link = LinkId(channel.number);
        self.settle(Instant::now(), |state| {
            state.links.insert(link, Arc::clone(channel));
            state.broker.link_up(link, self.maker, &mut state.output);
        });
    }

    fn channel_down(&self, channel: &Channel) {
        let link = LinkId(channel.number);
        self.settle(Instant::now(), |state| {
            state.links.remove(&link);
            state.broker.link_down(link, &mut state.output);
        });
    }

    fn channel_heard(&self, channel: &Channel, message: &[u8], now: Instant) -> bool {
        let link = LinkId(channel.number);
        let handled =
            self.act(now, |state| state.broker.from_relay(link, message, now, &mut state.output));
        if handled == Ok(Handled::Lost) {
            self.meters.lost.increment();
        }
        handled.is_ok()
    }

    fn channels_settled(&self, now: Instant) {
        self.flush(now);
    }
}

/// The row of a refusal.
const fn reason(refusal: Refusal) -> Drop {
    use Refusal as Why;

    if matches!(refusal, Why::NotTrusted) {
        MiddlemanDrop::NOT_TRUSTED
    } else if matches!(refusal, Why::NoRequest) {
        MiddlemanDrop::NO_REQUEST
    } else if matches!(refusal, Why::NoConnection) {
        MiddlemanDrop::NO_CONNECTION
    } else if matches!(refusal, Why::MessageTooLong) {
        MiddlemanDrop::TOO_LARGE_TO_DELIVER
    } else if matches!(refusal, Why::TopicTooLong | Why::IdTooLong) {
        MiddlemanDrop::TOO_LONG
    } else if matches!(
        refusal,
        Why::TooManySubscriptions | Why::TooManyGrants | Why::TooManyWorkers | Why::TooManyRequests
    ) {
        MiddlemanDrop::TOO_MANY
    } else {
        MiddlemanDrop::NO_RESPONDER
    }
}

//! The broker, behind one lock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use prometheus::proto::MetricFamily;
use tokio::sync::Notify;
use tokio::time::sleep_until;

use super::MiddlemanDrop;
use super::meters::{self, Meters};
use crate::cluster::{Channel, ChannelOwner, Said};
use crate::config::Config;
use crate::metrics::Drop;
use crate::peers::{Arrival, Record};
use crate::proto::middleman::{
    self, Class, ConnectionId, Handled, Limits, LinkId, Output, Refusal, Role,
};
use crate::relay::Turn;
use crate::session::{Session, Topic};
use crate::wire::middleman::{Body, Command, ERROR, Encoder, Guid, Message, RelayMessage};

type Broker = middleman::Broker<Arc<Session>>;

/// The broker, with what it has to say.
///
/// What it wants delivered is in the outboxes before the lock is free, and written to sockets
/// behind it.
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
    /// The channels to other relays.
    links: BTreeMap<LinkId, Arc<Channel>>,
    /// When requests are looked at next.
    alarm: Option<Instant>,
}

/// The bounds of the broker.
fn limits(config: &Config) -> Limits {
    let defaults = Limits::default();
    let timeout = config.middleman.as_ref().map(|middleman| middleman.request_timeout);
    Limits { timeout: timeout.unwrap_or(defaults.timeout), ..defaults }
}

impl Hub {
    pub(super) fn new(config: &Config, maker: [u8; 5]) -> Self {
        let state = State {
            broker: Broker::new(limits(config)),
            output: Output::default(),
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

    /// What there is of each topic, in the order of their names.
    pub(super) fn topics(&self) -> Vec<Topic> {
        let mut topics: Vec<_> = {
            let state = self.state.lock();
            let topics = state.broker.topics();
            topics
                .map(|topic| Topic {
                    name: topic.name.to_owned(),
                    subscribers: topic.subscribers,
                    clients_publish: topic.clients_publish,
                    clients_subscribe: topic.clients_subscribe,
                    responders: topic.responders,
                    workers: topic.workers,
                    outstanding: topic.outstanding,
                })
                .collect()
        };
        topics.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        topics
    }

    /// Takes a message of a connection.
    ///
    /// # Errors
    /// It had no effect, and why. Its sender was told, where the original tells it.
    pub(super) fn take(
        &self,
        id: ConnectionId,
        message: &Message<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Drop> {
        let mut state = self.state.lock();
        let State { broker, output, .. } = &mut *state;
        let handled = broker.handle(id, message, turn.now, output);
        self.deliver(&mut state, turn.now, |session| turn.out.flush_later(session));
        self.set_alarm(&mut state);
        drop(state);
        let kind = match handled {
            Handled::Refused(refusal) => {
                self.meters.refused.of(refusal).increment();
                return Err(reason(refusal));
            }
            Handled::Ignored => meters::Handled::Ignored,
            Handled::Subscribed
            | Handled::Published { .. }
            | Handled::Granted
            | Handled::Asked
            | Handled::Answered { .. }
            | Handled::UserSet
            | Handled::Noted => meters::Handled::of(&message.command),
        };
        self.meters.handled.add(kind, 1);
        Ok(())
    }

    /// Tells a sender that its message is too long for those that it is for.
    pub(super) fn refuse_length(&self, session: &Session, message: &Message<'_>, now: Instant) {
        let mut error = Vec::new();
        let text = format!("Too long {} {}", message.command.as_str(), message.target);
        Encoder::begin(&mut error, Command::Pub, ERROR).finish(Body::of(&text));
        self.push(session, Class::Error, &error, now);
        session.flush(now);
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
        let mut filled = Vec::new();
        let mut state = self.state.lock();
        let result = act(&mut state);
        self.deliver(&mut state, now, |session| filled.push(Arc::clone(session)));
        self.set_alarm(&mut state);
        drop(state);
        for session in filled {
            session.flush(now);
        }
        result
    }

    /// Puts what the broker says into outboxes.
    fn deliver(&self, state: &mut State, now: Instant, mut filled: impl FnMut(&Arc<Session>)) {
        // More than one round only where somebody takes no more: each request fails once, each
        // link ends once.
        while !state.output.is_empty() {
            for failure in state.output.failures() {
                self.meters.refused.of(*failure).increment();
            }
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
        let handled = self
            .settle(now, |state| state.broker.from_relay(link, message, now, &mut state.output));
        handled.is_ok()
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

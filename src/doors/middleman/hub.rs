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
use crate::config::Config;
use crate::metrics::Drop;
use crate::peers::{Arrival, Record};
use crate::proto::middleman::{self, Class, ConnectionId, Handled, Limits, Output, Refusal, Role};
use crate::relay::Turn;
use crate::session::Session;
use crate::wire::middleman::{Body, Command, ERROR, Encoder, Guid, Message};

type Broker = middleman::Broker<Arc<Session>>;

/// The broker, with what it has to say.
///
/// What it wants delivered is in the outboxes before the lock is free, and written to sockets
/// behind it.
pub(super) struct Hub {
    state: Mutex<State>,
    /// There is a deadline before the one that is waited for.
    sooner: Notify,
    meters: Meters,
}

struct State {
    broker: Broker,
    output: Output,
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
    pub(super) fn new(config: &Config) -> Self {
        let state =
            State { broker: Broker::new(limits(config)), output: Output::default(), alarm: None };
        Self { state: Mutex::new(state), sooner: Notify::new(), meters: Meters::default() }
    }

    /// Goes on by these settings.
    pub(super) fn update(&self, config: &Config) {
        self.state.lock().broker.set_limits(limits(config));
    }

    /// A session can be found.
    pub(super) fn connect(&self, session: &Arc<Session>, role: Role, guid: Guid) -> ConnectionId {
        let id = self.state.lock().broker.connect(Arc::clone(session), role, guid);
        id.expect("96 random bits are another's GUID at no time")
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
            _ => meters::Handled::of(&message.command),
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
        self.settle(now, |broker, output| {
            broker.disconnect(id, output);
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
            self.settle(now, |broker, output| broker.expire(now, output));
        }
    }

    /// Has the broker do something beside the messages of a batch, and delivers what it says.
    fn settle(&self, now: Instant, act: impl FnOnce(&mut Broker, &mut Output)) {
        let mut filled = Vec::new();
        let mut state = self.state.lock();
        let State { broker, output, .. } = &mut *state;
        act(broker, output);
        self.deliver(&mut state, now, |session| filled.push(Arc::clone(session)));
        drop(state);
        for session in filled {
            session.flush(now);
        }
    }

    /// Puts what the broker says into outboxes.
    fn deliver(&self, state: &mut State, now: Instant, mut filled: impl FnMut(&Arc<Session>)) {
        // More than one round only where responders take no more: each request fails once.
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
            let State { broker, output, .. } = state;
            output.clear();
            for rid in refused {
                broker.undelivered(rid, output);
            }
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

/// The row of a refusal.
const fn reason(refusal: Refusal) -> Drop {
    match refusal {
        Refusal::NotTrusted => MiddlemanDrop::NOT_TRUSTED,
        Refusal::NoResponder
        | Refusal::ResponderGone
        | Refusal::ResponderBusy
        | Refusal::RelayLost
        | Refusal::TimedOut => MiddlemanDrop::NO_RESPONDER,
        Refusal::NoRequest => MiddlemanDrop::NO_REQUEST,
        Refusal::NoConnection => MiddlemanDrop::NO_CONNECTION,
        Refusal::TopicTooLong | Refusal::IdTooLong => MiddlemanDrop::TOO_LONG,
        _ => MiddlemanDrop::TOO_MANY,
    }
}

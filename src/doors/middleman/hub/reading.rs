//! The messages of one read of a session.

use parking_lot::MutexGuard;

use super::{Broker, Hub, State};
use crate::metrics::Drop;
use crate::proto::middleman::{ConnectionId, Handled, Output, Refusal};
use crate::relay::Turn;
use crate::wire::middleman::Message;

/// Deliveries after which others that wait for the broker have their turn.
const TURN: usize = 256;

/// The messages of one read: the broker is locked from the first of them to the last, unless there
/// are many to deliver and others wait. The time of requests is looked at once.
pub(in super::super) struct Reading<'a> {
    hub: &'a Hub,
    state: Option<MutexGuard<'a, State>>,
    /// Deliveries since others had their turn.
    delivered: usize,
}

impl<'a> Reading<'a> {
    pub(super) const fn of(hub: &'a Hub) -> Self {
        Self { hub, state: None, delivered: 0 }
    }

    /// Takes a message of a connection.
    ///
    /// # Errors
    /// It had no effect, and why. Its sender was told, where the original tells it.
    pub(in super::super) fn take(
        &mut self,
        id: ConnectionId,
        message: &Message<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Drop> {
        let now = turn.now;
        let handled = self.act(turn, |broker, output| broker.handle(id, message, now, output));
        self.hub.count(message, handled)
    }

    /// Refuses a message that is too long for those that it is for.
    ///
    /// # Errors
    /// Always: it has no effect, and why.
    pub(in super::super) fn refuse_length(
        &mut self,
        id: ConnectionId,
        message: &Message<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Drop> {
        let refusal = Refusal::MessageTooLong;
        let handled = self.act(turn, |broker, output| broker.refuse(id, message, refusal, output));
        self.hub.count(message, handled)
    }

    fn act(
        &mut self,
        turn: &mut Turn<'_>,
        act: impl FnOnce(&mut Broker, &mut Output) -> Handled,
    ) -> Handled {
        let state = self.state.get_or_insert_with(|| self.hub.state.lock());
        let State { broker, output, .. } = &mut **state;
        let handled = act(broker, output);
        self.delivered += output.deliveries().len();
        self.hub.deliver(state, turn.now, |session| turn.out.flush_later(session));
        if self.delivered >= TURN {
            self.delivered = 0;
            MutexGuard::bump(state);
        }
        handled
    }
}

impl std::ops::Drop for Reading<'_> {
    fn drop(&mut self) {
        if let Some(state) = &mut self.state {
            self.hub.set_alarm(state);
        }
    }
}

//! A login of a node whose sessions take over from each other again and again waits before it
//! becomes one of them (SPEC §5.3). Until then the session that is there serves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tracing::info;

use super::client_address::Client;
use super::connection::Turn;
use super::counters::RefusalReason;
use super::login::{Accepted, Conversation, Failed};
use super::{Door, FrameSink, Outcome, Session, Settings};
use crate::directory::Lookup;
use crate::ids::NodeId;
use crate::metrics::What;
use crate::peers::{Delay, NotDelayed};
use crate::wire::websocket::CloseCode;

/// How often a login that waits looks whether a session still serves its node.
const LOOK: Duration = Duration::from_millis(100);

/// A login gives up for one of a later connection.
fn superseded(node: NodeId) -> Failed {
    let close = Some((CloseCode::Normal, "replaced"));
    Failed { node: Some(node), ..Failed::new(Outcome::Superseded, close) }
}

impl<S: FrameSink> Door<S> {
    /// Waits until a login that has succeeded may take over from the session of its node, if
    /// one serves it. It is no longer one of those that have not logged in.
    pub(super) async fn await_turn(
        &self,
        conversation: &mut Conversation<'_>,
        accepted: &Accepted,
        client: &Client,
        turn: Turn,
        settings: &Settings,
    ) -> Result<(), Failed> {
        let node = accepted.reply.node;
        let now = Instant::now();
        let is_newer = |session: &Arc<Session>| session.generation() > turn.generation;
        if self.table.session(node).as_ref().is_some_and(is_newer) {
            return Err(superseded(node));
        }
        // With those that have not logged in they share the descriptors that are for both.
        let most = (settings.max_waiting / 4).max(1);
        let is_served = self.is_served(node, now);
        let delay = match self.table.delay(node, turn.generation, is_served, most, now) {
            Ok(None) => return Ok(()),
            Ok(Some(delay)) => delay,
            Err(NotDelayed::Superseded) => return Err(superseded(node)),
            Err(NotDelayed::Crowded) => {
                let close = Some((CloseCode::TryAgain, "too many logins"));
                let failed = Failed::new(Outcome::CrowdedOut, close);
                return Err(Failed { node: Some(node), ..failed });
            }
        };
        self.counters.delayed.increment();
        self.note(What::Delayed, Some(node), client.address, "");
        let seconds = delay.due.saturating_duration_since(now).as_secs_f64();
        info!(%node, seconds, "a login waits, since sessions of its node replace each other");
        let waited = async {
            self.wait(conversation, node, &delay).await?;
            self.look_again(accepted).await
        };
        waited.await.map_err(|failed| Failed { node: Some(node), ..failed })
    }

    async fn wait(
        &self,
        conversation: &mut Conversation<'_>,
        node: NodeId,
        delay: &Delay<NodeId>,
    ) -> Result<(), Failed> {
        tokio::select! {
            () = sleep_until(delay.due.into()) => Ok(()),
            () = self.unserved(node) => Ok(()),
            () = delay.superseded() => Err(superseded(node)),
            () = self.gate.drain_begins() => {
                let close = Some((CloseCode::GoingAway, "shutting down"));
                Err(Failed::new(Outcome::Draining, close))
            }
            failed = conversation.listen() => Err(failed),
        }
    }

    /// Whether the key still is the node's: its session would have ended in the meantime.
    async fn look_again(&self, accepted: &Accepted) -> Result<(), Failed> {
        let refused = |reason| Err(Failed::refused(Outcome::AuthFail, Some(reason)));
        match self.keys.lookup(accepted.reply.node).await {
            Lookup::Key(key) if key == accepted.reply.public_key => Ok(()),
            Lookup::Key(_) => refused(RefusalReason::OtherKey),
            Lookup::Unknown => refused(RefusalReason::UnknownNode),
            Lookup::Unavailable => Err(Failed::refused(Outcome::Unavailable, None)),
        }
    }

    /// Whether a session serves the node that a login could take over from.
    fn is_served(&self, node: NodeId, now: Instant) -> bool {
        let here = self.table.session(node).is_some_and(|session| session.is_open());
        here || self.sink.has_session_elsewhere(node, now)
    }

    /// Waits until no session serves the node: then nothing is taken over.
    async fn unserved(&self, node: NodeId) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if !self.is_served(node, Instant::now()) {
                return;
            }
        }
    }
}

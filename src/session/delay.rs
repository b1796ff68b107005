//! A login of a peer whose sessions take over from each other again and again waits before it
//! becomes one of them (SPEC §5.3). Until then the session that is there serves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use tracing::info;

use super::attempt::Attempt;
use super::{Conversation, Door, Outcome, Refusal, Session, Settings, Welcome};
use crate::cluster::Cluster;
use crate::metrics::What;
use crate::peers::{Delay, NotDelayed};
use crate::wire::name::Name;

/// How often a login that waits looks whether a session still serves its peer.
const LOOK: Duration = Duration::from_millis(100);

impl Attempt<'_> {
    /// Waits until a login that has succeeded may take over from the session of its peer, if
    /// one serves it. It is no longer one of those that have not logged in.
    pub(super) async fn await_turn(
        self,
        door: &dyn Door,
        conversation: &mut Conversation<'_>,
        welcome: &Welcome,
        settings: &Settings,
    ) -> Result<(), Refusal> {
        if self.turn.is_probe {
            return Ok(());
        }
        let table = &self.site.shared.table;
        let generation = self.turn.generation;
        let node = welcome.principal.name;
        let refused = |outcome| Refusal::new(outcome, door.refusal(outcome)).of(node);
        let now = Instant::now();
        // What will not take over in the end puts no other login off.
        let stays = |session: &Arc<Session>| {
            !session.gives_way_to(&welcome.principal, welcome.takeover, generation)
        };
        if table.session(node).as_ref().is_some_and(stays) {
            return Err(refused(Outcome::Superseded));
        }
        // With those that have not logged in they share the descriptors that are for both.
        let most = (settings.max_waiting / 4).max(1);
        let is_served = self.is_served(node, now);
        let delay = match table.delay(node, generation, is_served, most, now) {
            Ok(None) => return Ok(()),
            Ok(Some(delay)) => delay,
            Err(NotDelayed::Superseded) => return Err(refused(Outcome::Superseded)),
            Err(NotDelayed::Crowded) => return Err(refused(Outcome::CrowdedOut)),
        };
        self.site.shared.counters.delayed.increment();
        self.note(What::Delayed, Some(node), conversation.client().address, "");
        let seconds = delay.due.saturating_duration_since(now).as_secs_f64();
        info!(%node, seconds, "a login waits, since sessions of its node replace each other");
        let waited = async {
            self.wait(door, conversation, node, &delay).await?;
            let again = timeout(settings.timing.auth_timeout, door.greet_again(welcome));
            again.await.unwrap_or_else(|_| Err(refused(Outcome::AuthTimeout)))
        };
        waited.await.map_err(|refusal| refusal.of(node))
    }

    async fn wait(
        self,
        door: &dyn Door,
        conversation: &mut Conversation<'_>,
        node: Name,
        delay: &Delay,
    ) -> Result<(), Refusal> {
        let outcome = tokio::select! {
            () = sleep_until(delay.due.into()) => return Ok(()),
            () = self.unserved(node) => return Ok(()),
            () = delay.superseded() => Outcome::Superseded,
            () = self.site.shared.gate.drain_begins() => Outcome::Draining,
            refusal = conversation.listen(|kind, message| door.while_waiting(kind, message)) => {
                return Err(refusal);
            }
        };
        Err(Refusal::new(outcome, door.refusal(outcome)))
    }

    /// Whether a session serves the peer that a login could take over from.
    fn is_served(self, node: Name, now: Instant) -> bool {
        let shared = &self.site.shared;
        let elsewhere = |cluster: &Arc<Cluster>| cluster.has_session_elsewhere(node, None, now);
        shared.table.session(node).is_some_and(|session| session.is_open())
            || shared.cluster.as_ref().is_some_and(elsewhere)
    }

    /// Waits until no session serves the peer: then nothing is taken over.
    async fn unserved(self, node: Name) {
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

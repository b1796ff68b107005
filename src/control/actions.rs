//! The dispatcher: carries actions out, whoever asked, and writes them down.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::proto::MetricFamily;
use serde::Serialize;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tracing::info;

use super::answers::{self, Foreign, Kicked, Peer, Peers, Thrown, Top};
use super::audit::Audit;
use super::audit_log::AuditPage;
use super::explain::Explanation;
use super::guesses::{Guesses, Untold};
use super::orders::Task;
use super::queues::Queues;
use super::recorder::Recorded;
use super::{Action, BadRequest, Health, Parts, Refused};
use crate::cluster::Elsewhere;
use crate::config::AuditPolicy;
use crate::metrics::{Event, Labelled, What, family};
use crate::peers::End;
use crate::session::NotNotified;
use crate::wire::name::Name;
use crate::words;

/// Actions that are carried out at a time: a list of all peers takes memory and a core.
const AT_ONCE: usize = 4;

/// How often the audit log is asked whether it takes a line about wrong tokens again.
const TELL_INTERVAL: Duration = Duration::from_secs(5);

/// Longest time for which a peer is kept out, in seconds: a year.
const MOST_KEPT_OUT_SECONDS: u64 = 365 * 24 * 60 * 60;

/// Most peers and talkers that one answer lists.
const MOST_ROWS: usize = 100_000;

words! {
    /// How an action ended.
    enum Outcome {
        Ok => "ok",
        Failed => "failed",
    }
}

/// Carries actions out.
#[derive(Debug)]
pub struct Actions {
    parts: Parts,
    audit: Audit,
    places: Arc<Semaphore>,
    outcomes: Labelled<Outcome>,
    /// What was refused before it was an action.
    pub(super) bad_requests: Labelled<BadRequest>,
    /// Those who show wrong tokens over HTTP.
    guesses: Guesses,
    /// Somebody has just shown one.
    wants_telling: Notify,
}

impl Actions {
    /// A dispatcher that keeps its audit log in the state folder.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub fn start(parts: Parts, state_dir: &Path) -> io::Result<Arc<Self>> {
        let translators = parts.config.borrow().translators.clone();
        Ok(Arc::new(Self {
            audit: Audit::start(state_dir, Arc::clone(&parts.health))?,
            parts,
            places: Arc::new(Semaphore::new(AT_ONCE)),
            outcomes: Labelled::default(),
            bad_requests: Labelled::default(),
            guesses: Guesses::new(translators),
            wants_telling: Notify::new(),
        }))
    }

    /// How the control socket and the audit log are.
    pub(super) fn health(&self) -> &Arc<Health> {
        &self.parts.health
    }

    /// Waits until a part of this has ended, which only a bug of ours makes it do.
    pub async fn failed(&self) {
        self.audit.failed().await;
    }

    /// Frees a place of the operators' port: the oldest connection that waits to hear that its
    /// token is wrong hears it now.
    pub fn give_way(&self) {
        self.guesses.give_way();
    }

    /// Counts and audits a wrong token, and waits until this address may hear so. `place` is that
    /// of its connection at the operators' port, which it keeps until then.
    pub(super) async fn refuse_token(
        self: &Arc<Self>,
        from: SocketAddr,
        place: Arc<OwnedSemaphorePermit>,
    ) {
        self.bad_requests.of(BadRequest::WrongToken).increment();
        self.guesses.note(from);
        self.wants_telling.notify_one();
        let turn = self.guesses.turn(from.ip());
        // In a task of its own: who does not wait for the answer has no place for the next guess
        // meanwhile either. So there are no more of these than places.
        let waited = tokio::spawn(async move {
            turn.await;
            drop(place);
        });
        let _ended = waited.await;
    }

    /// Writes down who shows wrong tokens, as few lines as may be; for ever.
    pub async fn audit_guesses(&self) {
        let mut ticks = interval(TELL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.wants_telling.notified() => {}
                // What was more than the log took then is written when it takes more.
                _ = ticks.tick() => {}
            }
            while let Some(Untold { attempts, from }) = self.guesses.to_tell(now()) {
                let by = from.map_or_else(|| "http others".to_owned(), |(_, from)| by_http(from));
                // A failure is counted and logged.
                let _written = self.audit.write_wrong_tokens(attempts, &by).await;
            }
        }
    }

    /// Carries an action out, writes it down, and returns its answer as JSON. `by` says for
    /// the log who asked.
    ///
    /// # Errors
    /// Why it was not carried out.
    pub async fn run(self: &Arc<Self>, action: Action, by: String) -> Result<String, Refused> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let actions = Arc::clone(self);
        // In a task of its own: who goes away meanwhile keeps nothing from being written down.
        let done = tokio::spawn(async move {
            let result = actions.carry_out_and_write(action, by).await;
            drop(place);
            result
        });
        done.await.unwrap_or(Err(Refused::Internal))
    }

    async fn carry_out_and_write(
        self: &Arc<Self>,
        action: Action,
        by: String,
    ) -> Result<String, Refused> {
        let result = match self.write_ahead(&action, &by).await {
            Ok(()) => self.carry_out(&action).await,
            Err(refused) => Err(refused),
        };
        let (outcome, text) = match &result {
            Ok(_) => (Outcome::Ok, "ok".to_owned()),
            Err(refused) => (Outcome::Failed, refused.to_string()),
        };
        self.outcomes.of(outcome).increment();
        if !action.is_a_probe() {
            // A failure is counted and logged.
            let _written = self.audit.write(&action, &by, &text).await;
        }
        result
    }

    /// Writes down what is about to change something, where that is asked for.
    async fn write_ahead(&self, action: &Action, by: &str) -> Result<(), Refused> {
        let is_required = self.parts.config.borrow().audit == AuditPolicy::Required;
        if is_required && action.changes_something() {
            let written = self.audit.write(action, by, "begun").await;
            written.map_err(|error| Refused::NotAudited(error.to_string()))?;
        }
        Ok(())
    }

    async fn carry_out(self: &Arc<Self>, action: &Action) -> Result<String, Refused> {
        if let Some(answer) = self.ask_leader(action).await {
            return answer;
        }
        let orders = &self.parts.orders;
        let now = Instant::now();
        match *action {
            Action::Readiness {} => json(&(self.parts.readiness)()),
            Action::Status {} => self.answer(|parts| Ok((parts.status)())).await,
            Action::Peers { limit, sort, after } => {
                let limit = limit.min(MOST_ROWS);
                self.answer(move |parts| Ok(Peers::of(parts, limit, sort, after, now))).await
            }
            Action::Peer { node } => {
                let peer = Peer::of(node, &self.parts, now);
                if peer.over.is_none() && peer.kept_out.is_none() {
                    return Err(Refused::NotHere(node));
                }
                json(&peer)
            }
            Action::Top { count, .. } => {
                self.answer(move |parts| Ok(Top::of(&parts.traffic, count.min(MOST_ROWS), now)))
                    .await
            }
            Action::Record { after } => {
                let after = after.unwrap_or_default();
                self.answer(move |parts| {
                    let events = parts.traffic.events.recent(usize::MAX);
                    let news = events.into_iter().rev().filter(|event| event.number > after);
                    Ok(news.map(Recorded::from).collect::<Vec<_>>())
                })
                .await
            }
            Action::AuditLog { from, ref chain } => {
                let chain = chain.clone();
                self.answer(move |parts| AuditPage::of(parts, from, chain.as_deref())).await
            }
            Action::Explain { node } => json(&Explanation::of(node, &self.parts).await),
            Action::Kick { node, seconds } => self.kick(node, seconds, now),
            Action::Enrolment { node } => {
                let enrolment = self.parts.door_of(node).and_then(|door| door.enrolment(node));
                let none =
                    || format!("the door of {node} keeps no list of peers; name a peer of another");
                json(&enrolment.ok_or_else(|| Refused::Failed(none()))?)
            }
            Action::Notify { node } => self.notify(node).await,
            Action::Switch { ref switch, on } => self.throw(switch, on),
            Action::Drain {} => {
                self.note(None, "drain");
                json(&orders.give(Task::Drain).await?)
            }
            Action::Reload { force } => {
                self.note(None, "reload");
                json(&orders.give(Task::Reload { force }).await?)
            }
            Action::LogLevel { ref filter } => {
                self.note(None, "log-level");
                json(&orders.give(Task::Log(filter.clone())).await?)
            }
            Action::Topics { limit } => {
                self.answer(move |parts| answers::topics(parts, limit.min(MOST_ROWS))).await
            }
            Action::Names { limit } => json(&self.queues()?.names(limit.min(MOST_ROWS)).await?),
            Action::ReleaseName { ref name } => {
                let released = self.queues()?.release(name.clone()).await?;
                self.note(None, "release-name");
                json(&released)
            }
            Action::BindName { ref name, ref label } => {
                let bound = self.queues()?.bind(name.clone(), label.clone()).await?;
                self.note(None, "bind-name");
                json(&bound)
            }
            Action::Queues { limit } => json(&self.queues()?.queues(limit.min(MOST_ROWS)).await?),
            Action::Queue { ref name } => json(&self.queues()?.queue(name.clone()).await?),
            Action::PeekQueue { ref name, limit } => {
                json(&self.queues()?.peek(name.clone(), limit).await?)
            }
            Action::PurgeQueue { ref name } => {
                let purged = self.queues()?.purge(name.clone()).await?;
                self.note(None, "purge-queue");
                json(&purged)
            }
            Action::DeadLetters { ref name, limit } => {
                json(&self.queues()?.dead_letters(name.clone(), limit).await?)
            }
            Action::RequeueDeadLetters { ref name } => {
                let requeued = self.queues()?.requeue(name).await?;
                self.note(None, "requeue-dead-letters");
                json(&requeued)
            }
            Action::Channels { limit } => {
                json(&self.queues()?.channels(limit.min(MOST_ROWS)).await?)
            }
            Action::Channel { ref name, limit } => {
                json(&self.queues()?.channel(name.clone(), limit.min(MOST_ROWS)).await?)
            }
            Action::PeekChannel { ref name, limit } => {
                json(&self.queues()?.peek_channel(name.clone(), limit).await?)
            }
            Action::PurgeChannel { ref name } => {
                let purged = self.queues()?.purge_channel(name.clone()).await?;
                self.note(None, "purge-channel");
                json(&purged)
            }
            Action::RemoveChannel { ref name } => {
                let removed = self.queues()?.remove_channel(name.clone()).await?;
                self.note(None, "remove-channel");
                json(&removed)
            }
            Action::ForgetCursor { ref name, ref peer } => {
                let forgotten = self.queues()?.forget_cursor(name.clone(), peer.clone()).await?;
                self.note(None, "forget-cursor");
                json(&forgotten)
            }
        }
    }

    fn kick(&self, node: Name, seconds: Option<u64>, now: Instant) -> Result<String, Refused> {
        let table = &self.parts.table;
        if let Some(seconds) = seconds {
            let time = Duration::from_secs(seconds.min(MOST_KEPT_OUT_SECONDS));
            // First: it would be back at once.
            table.keep_out(node, time, now).map_err(|error| Refused::Failed(error.to_string()))?;
        }
        if seconds == Some(0) {
            self.note(Some(node), "let-in");
            return json(&Kicked { node, session: false, endpoint: false, seconds });
        }
        let session = table.session(node);
        if let Some(session) = &session {
            session.end(End::Kicked);
        }
        let (session, endpoint) = (session.is_some(), table.forget(node));
        if !session && !endpoint && seconds.is_none() {
            return Err(Refused::NotHere(node));
        }
        self.note(Some(node), "kick");
        json(&Kicked { node, session, endpoint, seconds })
    }

    /// The message bus, where a door has one.
    pub(super) fn queues(&self) -> Result<&Queues, Refused> {
        let none = || {
            Refused::Failed(
                "this relay has no message bus; give a listener a door that has messages"
                    .to_owned(),
            )
        };
        self.parts.queues.as_ref().ok_or_else(none)
    }

    fn throw(&self, name: &str, on: bool) -> Result<String, Refused> {
        let switches = &self.parts.switches;
        let Some(switch) = switches.find(name) else {
            let names: Vec<_> = switches.iter().map(|(name, _)| name).collect();
            return Err(Refused::Failed(format!(
                "`{name}` is no switch; write one of {}",
                names.join(", ")
            )));
        };
        let was_on = switch.set(on);
        let kind = switch.kind;
        if on != was_on {
            info!(switch = kind.name, on, "an operator has thrown a switch");
        }
        self.note(None, if on { kind.on } else { kind.off });
        json(&Thrown { switch: kind.name, on, was_on })
    }

    async fn notify(&self, node: Name) -> Result<String, Refused> {
        let notified = match self.parts.door_of(node) {
            Some(door) => door.notify(node, Instant::now()),
            None => Err(NotNotified::NotHere),
        };
        match notified {
            Ok(notified) => {
                self.note(Some(node), "notify");
                json(&answers::Notified::of(node, notified))
            }
            Err(NotNotified::NotHere) => Err(self.elsewhere(node).await),
            Err(NotNotified::Refused(reason)) => Err(Refused::Failed(reason)),
        }
    }

    /// Says of a node that is not here where it is, as far as that is known.
    async fn elsewhere(&self, node: Name) -> Refused {
        let Parts { cluster, .. } = &self.parts;
        if let Some(Foreign { kind, address }) = Peer::of(node, &self.parts, Instant::now()).foreign
        {
            return Refused::Failed(format!(
                "the {kind} at {address} serves node {node}; ask there"
            ));
        }
        let found = match cluster {
            Some(cluster) => cluster.find(node).await,
            None => None,
        };
        match found {
            Some(Elsewhere { relay, address, .. }) => {
                Refused::Failed(format!("node {node} is at relay {relay} ({address}); ask there"))
            }
            None => Refused::NotHere(node),
        }
    }

    fn note(&self, peer: Option<Name>, reason: &'static str) {
        self.parts.traffic.events.note(Event { peer, reason, ..Event::new(What::Action) });
    }

    /// An answer that takes a while to gather, on a thread that nobody waits for.
    async fn answer<T: Serialize>(
        self: &Arc<Self>,
        gather: impl FnOnce(&Parts) -> Result<T, Refused> + Send + 'static,
    ) -> Result<String, Refused> {
        let actions = Arc::clone(self);
        let gathered = spawn_blocking(move || gather(&actions.parts).and_then(|t| json(&t)));
        gathered.await.unwrap_or(Err(Refused::Internal))
    }

    /// Appends the families of actions to a scrape.
    pub fn families(&self, families: &mut Vec<MetricFamily>) {
        self.audit.families(families);
        self.parts.health.families(families);
        families.extend([
            family::labelled(
                "pilot_beacon_control_actions_total",
                "Actions of operators, by how they ended.",
                "result",
                &self.outcomes,
            ),
            family::labelled(
                "pilot_beacon_control_rejects_total",
                "Requests for actions that were none, or that nobody may make.",
                "reason",
                &self.bad_requests,
            ),
        ]);
    }
}

fn json<T: Serialize>(answer: &T) -> Result<String, Refused> {
    serde_json::to_string(answer).map_err(|_| Refused::Internal)
}

/// The time, which tests can move.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Who asks over HTTP, for the audit log.
pub(super) fn by_http(from: SocketAddr) -> String {
    format!("http {}", SocketAddr::new(from.ip().to_canonical(), from.port()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing;

    #[tokio::test(start_paused = true)]
    async fn last_guesses_were_not_in_the_audit_log_until_somebody_guessed_again() {
        const GUESSES: u64 = 15;
        let folder = tempfile::tempdir().unwrap();
        let (parts, _ordered) = testing::parts(folder.path());
        let actions = Actions::start(parts, folder.path()).unwrap();
        let told = Arc::clone(&actions);
        let _telling = tokio::spawn(async move { told.audit_guesses().await });
        let places = Arc::new(Semaphore::new(1));
        let from = SocketAddr::from(([192, 0, 2, 1], 1_000));

        for _ in 0..GUESSES {
            let place = Arc::clone(&places).acquire_owned().await.unwrap();
            actions.refuse_token(from, Arc::new(place)).await;
        }

        let began = Instant::now();
        let audit = folder.path().join("audit.jsonl");
        let mut lines: Vec<serde_json::Value> = Vec::new();
        while lines.iter().filter_map(|line| line["argument"]["attempts"].as_u64()).sum::<u64>()
            < GUESSES
        {
            assert!(began.elapsed() < Duration::from_secs(20), "{lines:?}");
            // The clock of the tasks, not of the thread that writes.
            tokio::time::sleep(TELL_INTERVAL).await;
            std::thread::yield_now();
            let text = std::fs::read_to_string(&audit).unwrap_or_default();
            lines = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        }
        assert!(lines.iter().all(|line| line["by"] == "http 192.0.2.1:1000"), "{lines:?}");
        assert_eq!(actions.bad_requests.of(BadRequest::WrongToken).value(), GUESSES);
    }

    #[tokio::test(start_paused = true)]
    async fn place_was_free_for_the_next_guess_as_soon_as_the_client_had_gone() {
        let folder = tempfile::tempdir().unwrap();
        let (parts, _ordered) = testing::parts(folder.path());
        let actions = Actions::start(parts, folder.path()).unwrap();
        let places = Arc::new(Semaphore::new(1));
        let from = SocketAddr::from(([192, 0, 2, 1], 1_000));
        let place = Arc::new(Arc::clone(&places).acquire_owned().await.unwrap());

        let refused = actions.refuse_token(from, place);
        let gone = tokio::time::timeout(Duration::from_millis(5), refused).await;

        assert!(gone.is_err(), "it is to wait for a second");
        assert_eq!(places.available_permits(), 0);
        actions.give_way();
        let _place = places.acquire().await.unwrap();
    }
}

//! Certificates that the relay gets and renews itself, by ACME (RFC 8555): what is kept from the
//! last time is shown at once, and what is due is ordered by one task, one after the other.
//!
//! The relay serves on whatever becomes of an order: a certificate stays until there is a better
//! one, and while there is none, handshakes are refused.

mod authority;
mod http;
mod problem;
mod schedule;
mod store;

use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use prometheus::proto::MetricFamily;
use tokio::time::sleep;
use tracing::{info, warn};

use self::authority::{Authority, blocking};
use self::problem::{Outcome, Problem};
use self::schedule::{Schedule, too_many};
use self::store::{Held, Store, Unusable};
use crate::admin::{AcmeCertificate, Part};
use crate::config::{AcmeName, Config, Listener};
use crate::control::rfc3339;
use crate::metrics::{Event, Labelled, Traffic, What, Word as _, family};
use crate::net::tls::{Certificates, Challenges, Term};

/// Longest time without a look at what is due: somebody may have set the clock.
const LOOK: Duration = Duration::from_secs(60);

/// Shortest time between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// The certificates of all listeners that get them by ACME.
pub(super) struct Acme {
    authority: Option<Authority>,
    challenges: Arc<Challenges>,
    orders: Vec<Order>,
    outcomes: Labelled<Outcome>,
    traffic: Arc<Traffic>,
}

impl fmt::Debug for Acme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acme").field("orders", &self.orders).finish_non_exhaustive()
    }
}

/// One certificate, for the names of a listener; listeners of the same names share it.
#[derive(Debug)]
struct Order {
    names: Vec<AcmeName>,
    store: Store,
    certificates: Arc<Certificates>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    schedule: Schedule,
    /// The certificate in force.
    held: Option<Term>,
    /// It, as long as the state folder does not take it.
    unsaved: Option<String>,
    /// Why the last order brought none.
    problem: Option<Problem>,
    /// Unix time, in seconds.
    last_success: Option<u64>,
}

impl Acme {
    /// Shows what is kept for these listeners, and has the rest ordered once it [runs](Self::run).
    pub(super) async fn open(
        config: &Config,
        listeners: &[Listener],
        traffic: &Arc<Traffic>,
    ) -> Arc<Self> {
        let challenges = Arc::<Challenges>::default();
        let mut orders: Vec<Order> = Vec::new();
        let mut authority = None;
        // A listener of the configuration may not be there, but none is there without it.
        if let Some(said) = config.acme() {
            let store = Store::new(&config.state_dir, said.directory.as_str());
            for Listener { acme, .. } in listeners {
                let is_new = || orders.iter().all(|order| !order.is_for(acme));
                if !acme.is_empty() && is_new() {
                    orders.push(Order::open(acme.clone(), store.clone()).await);
                }
            }
            authority = Some(Authority::new(said, store, Arc::clone(&challenges)));
        }
        let (outcomes, traffic) = (Labelled::default(), Arc::clone(traffic));
        Arc::new(Self { authority, challenges, orders, outcomes, traffic })
    }

    /// What a listener of these names shows.
    pub(super) fn certificates(&self, names: &[AcmeName]) -> Option<Arc<Certificates>> {
        let order = self.orders.iter().find(|order| order.is_for(names))?;
        Some(Arc::clone(&order.certificates))
    }

    /// The challenges that all listeners answer, where there can be any.
    pub(super) fn challenges(&self) -> Option<Arc<Challenges>> {
        (!self.orders.is_empty()).then(|| Arc::clone(&self.challenges))
    }

    /// Orders what is due, for ever.
    pub(super) async fn run(self: Arc<Self>) {
        let Some(authority) = self.authority.as_ref().filter(|_| !self.orders.is_empty()) else {
            return pending().await;
        };
        loop {
            for order in &self.orders {
                order.save().await;
                if order.due_in().is_zero() {
                    self.attempt(authority, order).await;
                }
            }
            let due = self.orders.iter().map(Order::due_in).min().unwrap_or(LOOK);
            sleep(due.clamp(PAUSE, LOOK)).await;
        }
    }

    async fn attempt(&self, authority: &Authority, order: &Order) {
        let recent = order.failed_of_late().await;
        if let (Some(wait), _) = recent {
            order.wait(wait);
            return;
        }
        let (_, mut failed) = recent;
        let before = failed.clone();
        failed.push(unix_now());
        // Before the order, so that a crash counts, and nothing is ordered that cannot be kept.
        let ended = match order.note_failed(failed).await {
            Ok(()) => self.order(authority, order).await,
            Err(error) => {
                let text = format!("the state folder cannot be written: {error}");
                Err(Problem::new(Outcome::Storage, text))
            }
        };
        let outcome = ended.as_ref().map_or_else(|problem| problem.outcome, |()| Outcome::Ok);
        self.outcomes.of(outcome).increment();
        self.traffic.events.note(Event { reason: outcome.word(), ..Event::new(What::Certificate) });
        let is_counted = ended.as_ref().is_err_and(Problem::is_counted);
        if let Err(problem) = ended {
            order.failed(problem);
        }
        if !is_counted {
            // One that is counted too much makes a restart wait, no more.
            let _not_kept = order.note_failed(before).await;
        }
    }

    /// Makes one order and shows what comes of it.
    async fn order(&self, authority: &Authority, order: &Order) -> Result<(), Problem> {
        let names = order.shown();
        info!(names, "orders a certificate");
        let text = authority.order(&order.names).await?;
        let held = store::parse(&text, &order.names);
        let held =
            held.map_err(|reason| Problem::new(Outcome::Invalid, reason).of_certificate())?;
        let term = order.show(held, Some(text));
        order.save().await;
        let now = unix_now();
        if term.not_after <= now || term.not_before > now {
            let text = format!(
                "the new certificate is good from {} to {}: is the clock of this machine right?",
                shown(term.not_before),
                shown(term.not_after)
            );
            return Err(Problem::new(Outcome::Clock, text));
        }
        order.succeeded(&term);
        let until = shown(term.not_after);
        info!(names, until, "new connections get the new certificate");
        Ok(())
    }

    /// Appends the families to a scrape.
    pub(super) fn families(&self, families: &mut Vec<MetricFamily>) {
        // Without a sample there is no family, and without names there is nothing to count.
        if self.orders.is_empty() {
            return;
        }
        families.push(family::labelled(
            "beacon_relay_acme_orders_total",
            "Orders of certificates, by how they ended.",
            "result",
            &self.outcomes,
        ));
        let now = unix_now();
        #[allow(clippy::cast_precision_loss)] // the exposition format is f64
        let gauge = |name: &str, help: &str, value: &dyn Fn(&Order) -> Option<u64>| {
            let samples = self
                .orders
                .iter()
                .filter_map(|order| Some(([order.names.first()?.as_str()], value(order)? as f64)));
            let samples: Vec<_> = samples.collect();
            let samples = samples.iter().map(|(labels, value)| (labels.as_slice(), *value));
            family::gauge_values(name, help, &["name"], samples)
        };
        families.push(gauge(
            "beacon_relay_acme_next_order_timestamp_seconds",
            "When a certificate is ordered next, in Unix time.",
            &|order| Some(now + order.due_in().as_secs()),
        ));
        if self.orders.iter().any(|order| order.state.lock().last_success.is_some()) {
            families.push(gauge(
                "beacon_relay_acme_last_success_timestamp_seconds",
                "When the certificate in force was got, in Unix time.",
                &|order| order.state.lock().last_success,
            ));
        }
    }

    /// Whether all names have a good certificate.
    pub(super) fn part(&self) -> Part {
        let parts = self.orders.iter().map(|order| order.part(unix_now()));
        // The worst, and of several the first.
        parts
            .reduce(|worst, part| if part.condition > worst.condition { part } else { worst })
            .unwrap_or_else(|| Part::ok("not in use"))
    }

    /// What operators see of each certificate; nothing where none is got by ACME.
    pub(super) fn status(&self) -> Option<Vec<AcmeCertificate>> {
        let certificates = || self.orders.iter().map(|order| order.status(unix_now())).collect();
        (!self.orders.is_empty()).then(certificates)
    }
}

impl Order {
    /// With what is kept for these names, if that is good.
    async fn open(names: Vec<AcmeName>, store: Store) -> Self {
        let (of, from) = (names.clone(), store.clone());
        let kept = blocking(move || from.certificate(&of, unix_now())).await;
        let (certificates, state) = (Certificates::new(Vec::new()), Mutex::default());
        let order = Self { names, store, certificates, state };
        match kept {
            Ok(held) => {
                let term = order.show(held, None);
                order.state.lock().last_success = Some(term.not_before);
                let until = shown(term.not_after);
                info!(names = order.shown(), until, "shows the certificate of the last time");
            }
            Err(Unusable { reason: None, .. }) => {}
            Err(Unusable { path, reason: Some(reason) }) => {
                let path = path.display();
                warn!(%path, reason, "a kept certificate is of no use: a new one will replace it");
            }
        }
        order
    }

    /// Whether its certificate is for these names and no others.
    fn is_for(&self, names: &[AcmeName]) -> bool {
        self.names.len() == names.len() && names.iter().all(|name| self.names.contains(name))
    }

    fn shown(&self) -> String {
        self.names.iter().map(AcmeName::as_str).collect::<Vec<_>>().join(",")
    }

    fn due_in(&self) -> Duration {
        self.state.lock().schedule.due_in(Instant::now(), unix_now())
    }

    /// Shows a certificate from here on; `unsaved` is its text where that is not kept yet.
    fn show(&self, Held { certified, term }: Held, unsaved: Option<String>) -> Term {
        self.certificates.exchange(vec![Arc::new(certified)]);
        let mut state = self.state.lock();
        state.schedule.holds(term.not_before, term.not_after, random());
        state.held = Some(term.clone());
        state.unsaved = unsaved;
        term
    }

    /// Keeps the certificate in force, where that is not done.
    async fn save(&self) {
        let Some(text) = self.state.lock().unsaved.clone() else { return };
        let (names, store) = (self.names.clone(), self.store.clone());
        match blocking(move || store.save_certificate(&names, &text)).await {
            Ok(()) => self.state.lock().unsaved = None,
            Err(error) => {
                warn!(names = self.shown(), %error, "the certificate in force is not kept: it is lost with the process");
            }
        }
    }

    /// How long no order may be made since so many have failed, and when those were.
    async fn failed_of_late(&self) -> (Option<Duration>, Vec<u64>) {
        let (store, key) = (self.store.clone(), self.store.key(&self.names));
        let mut failed = blocking(move || store.failed()).await;
        too_many(&failed.remove(&key).unwrap_or_default(), unix_now())
    }

    async fn note_failed(&self, times: Vec<u64>) -> std::io::Result<()> {
        let (store, key) = (self.store.clone(), self.store.key(&self.names));
        blocking(move || store.save_failed(&key, times)).await
    }

    /// As many orders have failed in an hour as may.
    fn wait(&self, wait: Duration) {
        let mut state = self.state.lock();
        let wait = state.schedule.wait_at_least(wait, Instant::now());
        let seconds = wait.as_secs();
        let failed = "several orders have failed within an hour, as the log says";
        state.problem.get_or_insert_with(|| Problem::new(Outcome::Validation, failed));
        warn!(
            names = self.shown(),
            seconds, "waits for the next order: authorities allow few that fail in an hour"
        );
    }

    fn succeeded(&self, term: &Term) {
        let mut state = self.state.lock();
        let life = Duration::from_secs(term.not_after.saturating_sub(term.not_before));
        state.schedule.succeeded(life, Instant::now());
        state.problem = None;
        state.last_success = Some(unix_now());
    }

    fn failed(&self, problem: Problem) {
        let mut state = self.state.lock();
        let wait = state.schedule.failed(
            problem.is_counted(),
            problem.retry_after,
            random(),
            Instant::now(),
        );
        let (names, result, seconds) = (self.shown(), problem.outcome.word(), wait.as_secs());
        let until = state.held.as_ref().map(|term| shown(term.not_after));
        warn!(names, result, error = %problem, seconds, until, "no certificate came of an order");
        state.problem = Some(problem);
    }

    fn part(&self, now: u64) -> Part {
        let (names, due) = (self.shown(), self.due_in().as_secs());
        let state = self.state.lock();
        let why = state.problem.as_ref().map_or_else(
            || "it is being ordered".to_owned(),
            |problem| format!("{problem}; the next order is in {due} s"),
        );
        let remedy =
            state.problem.as_ref().map_or(Outcome::Ok.remedy(), |problem| problem.outcome.remedy());
        match &state.held {
            None => Part::failed(format!("no certificate for {names} yet: {why}"), remedy),
            Some(term) if term.not_after <= now => {
                let reason = format!("the certificate for {names} has expired: {why}");
                Part::failed(reason, remedy)
            }
            Some(term) => {
                let until = shown(term.not_after);
                let good = format!("a certificate for {names} until {until}");
                if state.problem.is_some() {
                    Part::degraded(format!("{good}, not renewed: {why}"), remedy)
                } else if state.unsaved.is_some() {
                    let reason = format!("{good}, which the state folder does not take");
                    Part::degraded(reason, Outcome::Storage.remedy())
                } else {
                    Part::ok(good)
                }
            }
        }
    }

    fn status(&self, now: u64) -> AcmeCertificate {
        let next_order_in = self.due_in();
        let state = self.state.lock();
        AcmeCertificate {
            names: self.names.iter().map(|name| name.as_str().to_owned()).collect(),
            expires_at: state.held.as_ref().map(|term| shown(term.not_after)),
            next_order_at: shown(now + next_order_in.as_secs()),
            error: state.problem.as_ref().map(ToString::to_string),
        }
    }
}

/// A moment of Unix time, for people.
fn shown(unix: u64) -> String {
    UNIX_EPOCH.checked_add(Duration::from_secs(unix)).map(rfc3339).unwrap_or_default()
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Without randomness, which the system has, nothing is spread.
fn random() -> u32 {
    getrandom::u32().unwrap_or_default()
}

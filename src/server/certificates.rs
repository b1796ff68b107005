//! The certificates of listeners that speak TLS themselves: read at the start, watched since.
//!
//! Files that have changed, and are still since, are read again; what is good is shown to new
//! connections from then on, and nobody is disconnected. What is not leaves everything as it was.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use prometheus::proto::MetricFamily;
use rustls::sign::CertifiedKey;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use super::StartError;
use super::acme::Acme;
use crate::config::{self, TlsPair, UnusablePair};
use crate::metrics::{Labelled, family};
use crate::net::tls::{Acceptor, Certificates};
use crate::proto::watch::{POLL, Stamp, Watch};
use crate::words;

words! {
    /// How a reading of changed files ended.
    enum Outcome {
        Ok => "ok",
        Failed => "failed",
    }
}

/// The certificates of all listeners that have any.
#[derive(Debug)]
pub(super) struct Keeper {
    of_listeners: Vec<OfListener>,
    acme: Arc<Acme>,
    outcomes: Labelled<Outcome>,
}

/// Those of one listener; without pairs where ACME brings them.
#[derive(Debug)]
struct OfListener {
    label: String,
    pairs: Vec<TlsPair>,
    certificates: Arc<Certificates>,
    /// Of the certificate and the key of each pair.
    watches: Mutex<Vec<[Watch; 2]>>,
}

impl Keeper {
    /// Reads them, and makes what each listener speaks TLS with, if it does. Those that ACME
    /// brings may come later.
    ///
    /// # Errors
    /// A file that is of no use any more, although the configuration was.
    pub(super) async fn open(
        listeners: &[config::Listener],
        acme: Arc<Acme>,
    ) -> Result<(Arc<Self>, Vec<Option<Acceptor>>), StartError> {
        let (of_listeners, outcomes) = (Vec::new(), Labelled::default());
        let mut keeper = Self { of_listeners, acme, outcomes };
        let mut acceptors = Vec::new();
        for listener in listeners {
            let (label, pairs) = (listener.label().to_owned(), listener.tls.clone());
            let loaded = if let Some(certificates) = keeper.acme.certificates(&listener.acme) {
                OfListener { label, pairs, certificates, watches: Mutex::default() }
            } else if pairs.is_empty() {
                acceptors.push(None);
                continue;
            } else {
                let loaded = spawn_blocking(move || OfListener::open(label, pairs)).await;
                loaded.expect("loading does not panic")?
            };
            let acceptor = Acceptor::new(Arc::clone(&loaded.certificates))?;
            // An authority comes to port 443, whichever listener is there.
            acceptors.push(Some(match keeper.acme.challenges() {
                Some(challenges) => acceptor.with_challenges(challenges),
                None => acceptor,
            }));
            keeper.of_listeners.push(loaded);
        }
        Ok((Arc::new(keeper), acceptors))
    }

    /// Reads again what has changed, for ever.
    pub(super) async fn watch(self: Arc<Self>) {
        if self.of_listeners.is_empty() {
            return std::future::pending().await;
        }
        let mut ticks = interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let keeper = Arc::clone(&self);
            // A panic there is a bug, and ends no watch.
            if let Err(panic) = spawn_blocking(move || keeper.look(Instant::now())).await {
                error!(%panic, "certificates not looked at: the old ones stay");
                self.outcomes.of(Outcome::Failed).increment();
            }
        }
    }

    fn look(&self, now: Instant) {
        for listener in &self.of_listeners {
            let outcome = match listener.look(now) {
                None => continue,
                Some(Ok(())) => {
                    info!(listener = listener.label, "new connections get the new certificates");
                    Outcome::Ok
                }
                Some(Err(error)) => {
                    warn!(listener = listener.label, %error, "certificates not read: the old ones stay");
                    Outcome::Failed
                }
            };
            self.outcomes.of(outcome).increment();
        }
    }

    /// Those that the relay gets itself.
    pub(super) const fn acme(&self) -> &Arc<Acme> {
        &self.acme
    }

    /// Whether each of these listeners, if it has certificates, has one that is good, and none that
    /// has ended.
    pub(super) fn are_valid(&self, labels: &[String], now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut asked = self.of_listeners.iter().filter(|of| labels.contains(&of.label));
        asked.all(|of| {
            let ends = of.certificates.ends();
            !ends.is_empty() && ends.iter().all(|end| end.at > now)
        })
    }

    /// Appends the families to a scrape.
    pub(super) fn families(&self, families: &mut Vec<MetricFamily>) {
        let ends: Vec<_> = self
            .of_listeners
            .iter()
            .flat_map(|of| of.certificates.ends().into_iter().map(|end| (of.label.clone(), end)))
            .collect();
        #[allow(clippy::cast_precision_loss)] // the exposition format is f64
        let ends: Vec<_> = ends
            .iter()
            .map(|(label, end)| ([label.as_str(), end.name.as_str()], end.at as f64))
            .collect();
        // Without a sample there is no family.
        if !ends.is_empty() {
            families.push(family::gauge_values(
                "beacon_relay_tls_certificate_expiry_timestamp_seconds",
                "When a certificate ends, in Unix time.",
                &["listener", "name"],
                ends.iter().map(|(labels, end)| (labels.as_slice(), *end)),
            ));
        }
        families.push(family::labelled(
            "beacon_relay_tls_reloads_total",
            "Readings of certificates whose files have changed.",
            "result",
            &self.outcomes,
        ));
        self.acme.families(families);
    }
}

impl OfListener {
    fn open(label: String, pairs: Vec<TlsPair>) -> Result<Self, UnusablePair> {
        // The stamps come first: a write during the reading then shows as a change.
        let watches = pairs.iter().map(|pair| [&pair.cert, &pair.key].map(|path| watch(path)));
        let watches = Mutex::new(watches.collect());
        let certificates = Certificates::new(load(&pairs)?);
        Ok(Self { label, pairs, certificates, watches })
    }

    /// Looks at the files, and reads all of them where one has changed and is still.
    fn look(&self, now: Instant) -> Option<Result<(), UnusablePair>> {
        let mut watches = self.watches.lock();
        let mut is_due = false;
        for (pair, [cert, key]) in self.pairs.iter().zip(watches.iter_mut()) {
            is_due |= cert.poll(now, stamp(&pair.cert));
            is_due |= key.poll(now, stamp(&pair.key));
        }
        is_due.then(|| load(&self.pairs).map(|new| self.certificates.exchange(new)))
    }
}

fn load(pairs: &[TlsPair]) -> Result<Vec<Arc<CertifiedKey>>, UnusablePair> {
    pairs.iter().map(|pair| pair.load().map(Arc::new)).collect()
}

fn watch(path: &Path) -> Watch {
    Watch::new(stamp(path))
}

/// The file's present state; `None` where there is none to see.
fn stamp(path: &Path) -> Option<Stamp> {
    fs::metadata(path).ok().map(|file| Stamp::of(&file))
}

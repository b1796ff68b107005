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
use crate::config::{self, ClientTrust, TlsPair, TrustedAuthorities, UnusablePair};
use crate::metrics::{Labelled, family};
use crate::net::tls::{self, Acceptor, Authorities, AuthoritiesError, Certificates, Clients};
use crate::peers::{End, Table};
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
    /// Where its clients need certificates.
    clients: Option<OfClients>,
    /// Why changed files were not taken over, until they are.
    trouble: Mutex<Option<String>>,
}

/// What judges the certificates of a listener's clients.
#[derive(Debug)]
struct OfClients {
    trust: ClientTrust,
    clients: Arc<Clients>,
    /// Of each of its files.
    watches: Mutex<Vec<Watch>>,
    /// Why changed files were not taken over, until they are.
    trouble: Mutex<Option<String>>,
}

/// The certificates of a listener that reads them from files.
#[derive(Debug)]
pub(super) struct OfFiles {
    /// The listener's label.
    pub(super) listener: String,
    /// When each certificate that it shows ends.
    pub(super) ends: Vec<tls::End>,
    /// Why changed files were not taken over, where they were not.
    pub(super) trouble: Option<String>,
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
                OfListener {
                    label,
                    pairs,
                    certificates,
                    watches: Mutex::default(),
                    clients: None,
                    trouble: Mutex::default(),
                }
            } else if pairs.is_empty() {
                acceptors.push(None);
                continue;
            } else {
                let trust = listener.client_trust.clone();
                let loaded = spawn_blocking(move || OfListener::open(label, pairs, trust)).await;
                loaded.expect("loading does not panic")?
            };
            let certificates = Arc::clone(&loaded.certificates);
            if let Some(OfClients { clients, .. }) = &loaded.clients {
                acceptors.push(Some(Acceptor::with_clients(certificates, Arc::clone(clients))?));
                keeper.of_listeners.push(loaded);
                continue;
            }
            let acceptor = Acceptor::new(certificates)?;
            // An authority comes to port 443, whichever listener is there.
            acceptors.push(Some(match keeper.acme.challenges() {
                Some(challenges) => acceptor.with_challenges(challenges),
                None => acceptor,
            }));
            keeper.of_listeners.push(loaded);
        }
        Ok((Arc::new(keeper), acceptors))
    }

    /// Reads again what has changed, for ever, and ends sessions whose certificate is revoked.
    pub(super) async fn watch(self: Arc<Self>, table: Arc<Table>) {
        if self.of_listeners.is_empty() {
            return std::future::pending().await;
        }
        let mut ticks = interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let keeper = Arc::clone(&self);
            let table = Arc::clone(&table);
            // A panic there is a bug, and ends no watch.
            if let Err(panic) = spawn_blocking(move || keeper.look(&table, Instant::now())).await {
                error!(%panic, "certificates not looked at: the old ones stay");
                self.outcomes.of(Outcome::Failed).increment();
            }
        }
    }

    fn look(&self, table: &Table, now: Instant) {
        let clients = self.of_listeners.iter().filter_map(|listener| {
            let looked = listener.clients.as_ref()?.look(now)?;
            Some((&listener.label, looked))
        });
        for (label, looked) in clients {
            let outcome = match looked {
                Ok(()) => {
                    info!(listener = label, "clients are judged by the new authorities and lists");
                    end_revoked(table);
                    Outcome::Ok
                }
                Err(error) => {
                    warn!(listener = label, %error, "authorities of clients not read: the old ones stay");
                    Outcome::Failed
                }
            };
            self.outcomes.of(outcome).increment();
        }
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

    /// Those that are read from files, by listener.
    pub(super) fn of_files(&self) -> Vec<OfFiles> {
        let with_files = self.of_listeners.iter().filter(|of| !of.pairs.is_empty());
        let of_files = with_files.map(|of| {
            let of_clients =
                || of.clients.as_ref().and_then(|clients| clients.trouble.lock().clone());
            let trouble = of.trouble.lock().clone().or_else(of_clients);
            OfFiles { listener: of.label.clone(), ends: of.certificates.ends(), trouble }
        });
        of_files.collect()
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
    fn open(
        label: String,
        pairs: Vec<TlsPair>,
        trust: Option<ClientTrust>,
    ) -> Result<Self, UnusablePair> {
        // The stamps come first: a write during the reading then shows as a change.
        let watches = pairs.iter().map(|pair| [&pair.cert, &pair.key].map(|path| watch(path)));
        let watches = Mutex::new(watches.collect());
        let certificates = Certificates::new(load(&pairs)?);
        let clients = trust.map(OfClients::open).transpose()?;
        let trouble = Mutex::default();
        Ok(Self { label, pairs, certificates, watches, clients, trouble })
    }

    /// Looks at the files, and reads all of them where one has changed and is still.
    fn look(&self, now: Instant) -> Option<Result<(), UnusablePair>> {
        let mut watches = self.watches.lock();
        let mut is_due = false;
        for (pair, [cert, key]) in self.pairs.iter().zip(watches.iter_mut()) {
            is_due |= cert.poll(now, stamp(&pair.cert));
            is_due |= key.poll(now, stamp(&pair.key));
        }
        is_due.then(|| {
            let read = load(&self.pairs).map(|new| self.certificates.exchange(new));
            *self.trouble.lock() = read.as_ref().err().map(ToString::to_string);
            read
        })
    }
}

impl OfClients {
    fn open(trust: ClientTrust) -> Result<Self, UnusablePair> {
        // The stamps come first, as with certificates.
        let watches = Mutex::new(trust.files().map(watch).collect());
        let unusable = |error: AuthoritiesError| UnusablePair {
            path: trust.ca.clone(),
            reason: error.to_string(),
        };
        let clients = Clients::new(authorities(trust.load()?)).map_err(unusable)?;
        Ok(Self { trust, clients, watches, trouble: Mutex::default() })
    }

    /// Looks at the files, and reads all of them where one has changed and is still.
    fn look(&self, now: Instant) -> Option<Result<(), UnusablePair>> {
        let mut watches = self.watches.lock();
        let mut is_due = false;
        for (file, watch) in self.trust.files().zip(watches.iter_mut()) {
            is_due |= watch.poll(now, stamp(file));
        }
        let unusable = |error: AuthoritiesError| UnusablePair {
            path: self.trust.ca.clone(),
            reason: error.to_string(),
        };
        is_due.then(|| {
            let read = self.trust.load();
            let read =
                read.and_then(|new| self.clients.exchange(authorities(new)).map_err(unusable));
            *self.trouble.lock() = read.as_ref().err().map(ToString::to_string);
            read
        })
    }
}

fn authorities(loaded: TrustedAuthorities) -> Authorities {
    Authorities::new(loaded.certificates, loaded.revoked)
}

/// Ends the sessions of those whose certificate has been revoked.
fn end_revoked(table: &Table) {
    for session in table.all_sessions() {
        let is_revoked = session.certified.as_ref().is_some_and(|certified| certified.is_revoked());
        if is_revoked && session.is_open() {
            info!(peer = %session.id(), "ended a session: its certificate was revoked");
            session.end(End::KeyWithdrawn);
        }
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

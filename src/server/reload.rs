//! Takes over what has changed in the configuration and the key file while everything runs.
//!
//! All of it is read and checked first; then each part is handed its new settings. What is
//! wrong leaves everything as it was.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::proto::MetricFamily;
use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{Level, debug, enabled, info, warn};

use super::bus;
use super::core::Core;
use super::doors::Doors;
use super::last_reload::LastReload;
use super::service::Service;
use super::{Host, SetLogFilter, settings};
use crate::config::{self, Config, Difference, Loaded, LogFilter, Source};
use crate::doors::pilot::directory::{self, Reload};
use crate::metrics::{Event, Labelled, What, Word as _, family};
use crate::proto::watch::{POLL, Stamp, Watch};
use crate::words;

/// Reloads at a time: one that runs, and those that wait for it. Fewer than the actions of
/// operators at a time, so that reloads that hang leave room for others.
const RELOADS: usize = 3;

/// Time after which a reload that still reads is worth a warning: 10,000,000 keys take less.
const LONG: Duration = Duration::from_secs(15);

/// What a reload has changed.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Changes {
    /// Of the settings; nothing where they were not read from anywhere.
    #[serde(flatten)]
    pub settings: Difference,
    /// Of the keys in the key file, and of those that the registry was believed to have changed.
    pub keys: Reload,
}

/// Why a reload left everything as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// A setting is wrong, or a file that one names.
    #[error(transparent)]
    Settings(#[from] config::Error),
    /// The key file cannot be used, or has lost or changed more than half of its keys.
    #[error(transparent)]
    Keys(#[from] directory::ReloadError),
    /// The files were not taken, but the registry is believed.
    #[error(
        "{error}; but the registry is believed, as was asked: {} keys removed, {} changed",
        .registry.removed,
        .registry.changed
    )]
    AllButRegistry {
        /// What became of the files.
        error: Box<Self>,
        /// What the registry has changed of the keys.
        registry: Reload,
    },
    /// Too many wait for one that does not end.
    #[error("{RELOADS} reloads have not ended: does a file that they read not answer?")]
    Busy,
}

words! {
    /// How a reload ended.
    enum Outcome {
        Ok => "ok",
        Failed => "failed",
        Busy => "busy",
    }
}

/// The parts that are told of new settings.
pub(super) struct Parts {
    pub(super) core: Arc<Core>,
    pub(super) doors: Arc<Doors>,
    pub(super) service: Arc<Service>,
}

/// Reloads a relay, on its own when the configuration file changes.
pub struct Reloader {
    parts: Parts,
    source: Option<Source>,
    set_log_filter: Option<SetLogFilter>,
    /// What was read and is in force, where there is a source; held while a reload runs, so that
    /// two never overtake each other.
    in_force: tokio::sync::Mutex<Option<Loaded>>,
    places: Semaphore,
    config: watch::Sender<Arc<Config>>,
    file: Arc<Mutex<Watch>>,
    outcomes: Labelled<Outcome>,
    last: Arc<LastReload>,
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloader").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Reloader {
    /// A reloader of these parts, which run by `config`.
    pub(super) fn new(
        parts: Parts,
        config: watch::Sender<Arc<Config>>,
        last: Arc<LastReload>,
        host: &mut Host,
    ) -> Arc<Self> {
        let (source, layers) = host.settings.take().unzip();
        let loaded = |layers| Loaded { layers, config: Config::clone(&config.borrow()) };
        let in_force = tokio::sync::Mutex::new(layers.map(loaded));
        let file = Watch::new(source.as_ref().and_then(Source::file).and_then(stamp));
        Arc::new(Self {
            parts,
            source,
            set_log_filter: host.set_log_filter.take(),
            in_force,
            places: Semaphore::new(RELOADS),
            config,
            file: Arc::new(Mutex::new(file)),
            outcomes: Labelled::default(),
            last,
        })
    }

    /// What is in force, and what will be.
    pub(super) fn config(&self) -> watch::Receiver<Arc<Config>> {
        self.config.subscribe()
    }

    /// Reads the configuration and the key file again, and says in the log and the answer what
    /// came of it. Nobody is disconnected but nodes whose own key went.
    ///
    /// `force` takes a key file that has lost or changed more than half of its keys. It also takes
    /// what is held back of the registry's answers, at once and whatever becomes of the files. One
    /// runs at a time, and lasts as long as the files do not answer; two more wait for it.
    ///
    /// # Errors
    /// Something that cannot be used, or too many that wait; everything stays as it was but for
    /// [`ReloadError::AllButRegistry`].
    pub async fn reload(&self, force: bool) -> Result<Changes, ReloadError> {
        let registry = if force { self.parts.core.directory.force() } else { Reload::default() };
        match self.reload_files(force).await {
            Ok(mut changes) => {
                changes.keys.removed += registry.removed;
                changes.keys.changed += registry.changed;
                Ok(changes)
            }
            Err(error) if registry == Reload::default() => Err(error),
            Err(error) => Err(ReloadError::AllButRegistry { error: Box::new(error), registry }),
        }
    }

    async fn reload_files(&self, force: bool) -> Result<Changes, ReloadError> {
        let Ok(_place) = self.places.try_acquire() else {
            warn!(error = %ReloadError::Busy, "not reloaded: everything stays as it was");
            self.count(Outcome::Busy);
            return Err(ReloadError::Busy);
        };
        let mut in_force = self.in_force.lock().await;
        self.parts.service.reloading();
        let result = self.take_over(&mut in_force, force).await;
        self.parts.service.ready();
        result
    }

    async fn take_over(
        &self,
        in_force: &mut Option<Loaded>,
        force: bool,
    ) -> Result<Changes, ReloadError> {
        match self.read(force).await {
            Ok((new, keys)) => {
                let settings = match (&mut *in_force, new) {
                    (Some(in_force), Some(new)) => self.apply(in_force, &new),
                    _ => Difference::default(),
                };
                let filter = in_force.as_ref().map(|loaded| loaded.config.log_level.clone());
                let changed = settings.applied.iter().any(|change| change.key == "log_level");
                let filter = filter.filter(|_| changed);
                // A filter that hides what follows comes after it, one that shows it before.
                let is_heard = enabled!(Level::INFO);
                if !is_heard {
                    self.set_log_filter(filter.as_ref());
                }
                self.last.succeeded(&settings);
                tell(&settings);
                self.count(Outcome::Ok);
                info!(
                    applied = settings.applied.len(),
                    needs_restart = settings.needs_restart.len(),
                    added = keys.added,
                    removed = keys.removed,
                    changed = keys.changed,
                    "reloaded"
                );
                if is_heard {
                    self.set_log_filter(filter.as_ref());
                }
                Ok(Changes { settings, keys })
            }
            Err(error) => {
                self.last.failed(error.to_string());
                self.count(Outcome::Failed);
                warn!(%error, "not reloaded: everything stays as it was");
                Err(error)
            }
        }
    }

    /// Checks the settings, then the keys, which are in force when this returns.
    async fn read(&self, force: bool) -> Result<(Option<Loaded>, Reload), ReloadError> {
        debug!("reading settings and keys again");
        let (source, directory) = (self.source.clone(), self.parts.core.directory.clone());
        let file = Arc::clone(&self.file);
        let mut reading = spawn_blocking(move || {
            if let Some(path) = source.as_ref().and_then(Source::file) {
                // Before the reading: a write meanwhile then shows as a change.
                let stamp = stamp(path);
                file.lock().mark_read(stamp);
            }
            let new = source.map(|source| source.read()).transpose()?;
            Ok((new, directory.reload(force)?))
        });
        let read = match timeout(LONG, &mut reading).await {
            Ok(read) => read,
            Err(_) => {
                let slow = "a reload takes long: does a file that it reads not answer?";
                self.last.failed(slow.to_owned());
                warn!("{slow}");
                reading.await
            }
        };
        read.expect("a reload does not panic")
    }

    /// Hands each part what is new. None of this can fail.
    fn apply(&self, in_force: &mut Loaded, new: &Loaded) -> Difference {
        let (updated, difference) = in_force.updated(new);
        let config = &updated.config;
        let Parts { core, doors, .. } = &self.parts;
        if !difference.applied.is_empty() {
            doors.update(config);
            if let Some(bus) = &core.bus {
                bus.update(bus::settings(config));
            }
            core.router.update(settings::rates(config, 1));
            core.overlay.update(settings::rules(config, doors.udp_address()));
            core.directory.set_patience(config.auth_timeout);
            core.overlay.beacons().believe_all(config.open_gossip);
            core.table.allow_endpoints(config.max_nodes);
            self.config.send_replace(Arc::new(config.clone()));
        }
        for warning in &new.config.warnings {
            warn!(reason = %warning, "questionable setting");
        }
        *in_force = updated;
        difference
    }

    /// Reloads whenever the configuration file has changed and been still since, for ever.
    pub(super) async fn watch(self: Arc<Self>) {
        let Some(path) = self.source.as_ref().and_then(Source::file) else {
            return std::future::pending().await;
        };
        let mut ticks = interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let path = path.clone();
            let Ok(stamp) = spawn_blocking(|| stamp(path)).await else { continue };
            let is_due = self.file.lock().poll(Instant::now(), stamp);
            if is_due {
                // What came of it is in the log and the metrics.
                let _reported = self.reload(false).await;
            }
        }
    }

    fn set_log_filter(&self, filter: Option<&LogFilter>) {
        if let (Some(set), Some(filter)) = (&self.set_log_filter, filter) {
            set(filter);
        }
    }

    fn count(&self, outcome: Outcome) {
        self.outcomes.of(outcome).increment();
        let event = Event { reason: outcome.word(), ..Event::new(What::Reloaded) };
        self.parts.core.traffic.events.note(event);
    }

    /// Appends the families of reloads to a scrape.
    pub(super) fn families(&self, families: &mut Vec<MetricFamily>) {
        families.push(family::labelled(
            "pilot_beacon_reloads_total",
            "Reloads: asked for, or since the configuration file has changed.",
            "result",
            &self.outcomes,
        ));
        self.last.families(families);
    }
}

/// Says what has changed.
fn tell(difference: &Difference) {
    for change in &difference.applied {
        let config::Change { key, old, new } = change;
        info!(setting = key, %old, %new, "a setting has changed");
    }
    for change in &difference.needs_restart {
        let config::Change { key, old, new } = change;
        warn!(setting = key, %old, %new, "a changed setting needs a restart");
    }
}

/// The file's present state; `None` where there is none to see.
fn stamp(path: PathBuf) -> Option<Stamp> {
    fs::metadata(path).ok().map(|file| Stamp::of(&file))
}

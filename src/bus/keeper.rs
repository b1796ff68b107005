//! The thread that keeps the store in order: its space, checkpoints of the audit log, and the end
//! of what is old: reads and writes of its own, which the thread of messages does not wait for.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::clock::system_now;
use super::{Settings, Shared};
use crate::proto::bus::Millis;
use crate::store::audit::{Checkpoints, cut_before};
use crate::store::{Space, StoreError};

/// How often the space is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How often old dead letters and old entries of the audit log are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// The space that new messages leave to acknowledgements and logins: a twentieth, within these
/// bounds, in bytes.
const LEAST_RESERVE: u64 = 4 << 20;
const MOST_RESERVE: u64 = 256 << 20;

/// What the thread has.
struct Keeper {
    shared: Arc<Shared>,
    settings: Settings,
    key: SigningKey,
    checkpoints: Checkpoints,
    is_full: Arc<AtomicBool>,
}

/// What the bus's thread has of it: whether the disk is full, and how to tell it new settings. It
/// ends when that is dropped.
pub(super) struct Kept {
    pub(super) is_full: Arc<AtomicBool>,
    pub(super) settings: Sender<Settings>,
}

/// Starts the thread.
pub(super) fn start(
    shared: Arc<Shared>,
    settings: &Settings,
    key: SigningKey,
    checkpoint_file: Option<PathBuf>,
    ending: CancellationToken,
) -> io::Result<(Kept, JoinHandle<()>)> {
    let is_full = Arc::new(AtomicBool::new(false));
    let checkpoints = Checkpoints::new(key.clone(), checkpoint_file);
    let settings = settings.clone();
    let mut keeper = Keeper { shared, settings, key, checkpoints, is_full: Arc::clone(&is_full) };
    // A bus that starts on a full disk begins full.
    keeper.look();
    let (settings, news) = channel();
    let thread = std::thread::Builder::new().name("bus-keeper".to_owned()).spawn(move || {
        let _ending = ending.drop_guard();
        keeper.run(&news);
    })?;
    Ok((Kept { is_full, settings }, thread))
}

impl Keeper {
    fn run(mut self, news: &Receiver<Settings>) {
        let mut next_checkpoint = Instant::now() + Checkpoints::INTERVAL;
        let mut next_sweep = Instant::now() + SWEEP;
        loop {
            match news.recv_timeout(LOOK) {
                Ok(settings) => self.settings = settings,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.look();
            let now = Instant::now();
            if now >= next_checkpoint {
                next_checkpoint = now + Checkpoints::INTERVAL;
                self.write_checkpoint();
            }
            if now >= next_sweep {
                next_sweep = now + SWEEP;
                self.sweep();
            }
        }
        self.write_checkpoint();
    }

    /// Looks whether there is room for new messages.
    fn look(&mut self) {
        let Space { used, free } = match self.shared.store.space() {
            Ok(space) => space,
            Err(error) => {
                warn!(%error, "the space of the store is not known");
                return;
            }
        };
        let reserve = ((used + free) / 20).clamp(LEAST_RESERVE, MOST_RESERVE);
        let was_full = self.is_full.load(Ordering::Relaxed);
        // A little more to begin again, or it would flap.
        let needed = if was_full { reserve + reserve / 4 } else { reserve };
        let is_full = free < needed;
        self.is_full.store(is_full, Ordering::Relaxed);
        match (was_full, is_full) {
            (false, true) => {
                warn!(bytes = free, "the disk is full: new messages wait or are refused")
            }
            (true, false) => info!(bytes = free, "there is room for messages again"),
            (false, false) | (true, true) => {}
        }
        self.shared.meters.note_space(Space { used, free }, is_full);
    }

    fn write_checkpoint(&mut self) {
        if let Err(error) = self.checkpoints.write(&*self.shared.store, system_now()) {
            warn!(%error, "no checkpoint of the audit log");
        }
    }

    fn sweep(&self) {
        let now = self.shared.clock.now();
        let before = |age: u64| Millis(now.0.saturating_sub(age));
        let Settings { limits, audit_retention, .. } = &self.settings;
        if let Err(error) = self.shared.store.drop_dead_letters(before(limits.retention)) {
            self.report(&error, "old dead letters are kept");
        }
        let age = u64::try_from(audit_retention.as_millis()).unwrap_or(u64::MAX);
        // Its entries are of the system's clock: old is what both clocks say is old.
        let system = system_now();
        let old = before(age).min(Millis(system.0.saturating_sub(age)));
        match cut_before(&*self.shared.store, old, system, &self.key) {
            Ok(0) => {}
            Ok(entries) => info!(entries, "old entries of the audit log are removed"),
            Err(error) => self.report(&error, "old entries of the audit log are kept"),
        }
    }

    /// Says what the store did not do; that it is damaged, once.
    fn report(&self, error: &StoreError, what: &str) {
        let is_damaged = matches!(error, StoreError::Damaged(_));
        if !is_damaged || self.shared.meters.damaged(error) {
            warn!(%error, "{what}");
        }
    }
}

//! The thread that keeps the store in order: its space, checkpoints of the audit log, and the end
//! of what is old: reads and writes of its own, which the thread of messages does not wait for.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::clock::system_now;
use super::{Settings, Shared};
use crate::proto::bus::Millis;
use crate::store::audit::{Checkpoints, cut_before, cut_beyond};
use crate::store::{Most, Space, StoreError};

/// How often the space is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How often old dead letters and old entries of the audit log are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// Dead letters of a mailbox, at most: this part of what may wait in it.
const LETTERS: u64 = 10;

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
    /// What the log said last.
    is_told_full: bool,
    room: Arc<Room>,
}

/// The room for new messages: what was free beyond the reserve when it was last looked at, less
/// what was appended since. A fast sender does not come to the reserve between two looks.
#[derive(Debug, Default)]
pub(super) struct Room {
    is_full: AtomicBool,
    left: AtomicU64,
}

impl Room {
    pub(super) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// So much was appended. It is in a journal as a row of the log, will be there as a row of its
    /// mailbox, then in files; and the audit log tells of it.
    pub(super) fn take(&self, bytes: usize) {
        let bytes = 4 * bytes as u64;
        // One thread takes; who looks puts a new number there.
        let left = self.left.load(Ordering::Relaxed).saturating_sub(bytes);
        self.left.store(left, Ordering::Relaxed);
        if left == 0 && bytes > 0 {
            self.is_full.store(true, Ordering::Relaxed);
        }
    }

    /// Notes what is free; whether that is too little.
    fn look(&self, space: Space) -> bool {
        let Space { used, free } = space;
        let reserve = used.saturating_add(free) / 20;
        let reserve = reserve.clamp(LEAST_RESERVE, MOST_RESERVE);
        let was_full = self.is_full();
        // A little more to begin again, or it would flap.
        let needed = if was_full { reserve + reserve / 4 } else { reserve };
        self.left.store(free.saturating_sub(reserve), Ordering::Relaxed);
        self.is_full.store(free < needed, Ordering::Relaxed);
        free < needed
    }
}

/// What the bus's thread has of it: whether the disk is full, and how to tell it new settings. It
/// ends when that is dropped.
pub(super) struct Kept {
    pub(super) room: Arc<Room>,
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
    let room = Arc::<Room>::default();
    let checkpoints = Checkpoints::new(key.clone(), checkpoint_file);
    let settings = settings.clone();
    let mut keeper =
        Keeper { shared, settings, key, checkpoints, is_told_full: false, room: Arc::clone(&room) };
    // A bus that starts on a full disk begins full.
    keeper.look();
    let (settings, news) = channel();
    let thread = std::thread::Builder::new().name("bus-keeper".to_owned()).spawn(move || {
        let _ending = ending.drop_guard();
        keeper.run(&news);
    })?;
    Ok((Kept { room, settings }, thread))
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
            self.bound_audit();
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
        let space = match self.shared.store.space() {
            Ok(space) => space,
            Err(error) => {
                warn!(%error, "the space of the store is not known");
                return;
            }
        };
        let bytes = space.free;
        let is_full = self.room.look(space);
        match (self.is_told_full, is_full) {
            (false, true) => warn!(bytes, "the disk is full: new messages wait or are refused"),
            (true, false) => info!(bytes, "there is room for messages again"),
            (false, false) | (true, true) => {}
        }
        self.is_told_full = is_full;
        self.shared.meters.note_space(space, is_full);
    }

    /// Looks whether the audit log takes too much: a flood of messages fills a disk within minutes.
    fn bound_audit(&self) {
        let store = &*self.shared.store;
        match cut_beyond(store, self.settings.audit_max_bytes, system_now(), &self.key) {
            Ok(0) => {}
            Ok(entries) => info!(entries, "entries of the audit log are removed: it is too long"),
            Err(error) => self.report(&error, "an audit log that is too long is kept"),
        }
        if let Ok(bytes) = store.audit_bytes() {
            self.shared.meters.note_audit(bytes);
        }
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
        let letters = |quota: u64| usize::try_from(quota.div_ceil(LETTERS)).unwrap_or(usize::MAX);
        let most =
            Most { messages: letters(limits.quota_messages), bytes: letters(limits.quota_bytes) };
        match self.shared.store.trim_dead_letters(most) {
            Ok(0) => {}
            Ok(letters) => {
                self.shared.meters.letters_dropped(letters);
                warn!(letters, "mailboxes have too many dead letters: the oldest are removed");
            }
            Err(error) => self.report(&error, "dead letters are kept that are too many"),
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

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn space(free: u64) -> Space {
        Space { used: 100 * MIB - free, free }
    }

    #[test]
    fn disk_is_full_from_the_reserve_on_until_there_is_a_quarter_more() {
        let room = Room::default();
        assert!(!room.look(space(5 * MIB)));
        assert!(room.look(space(5 * MIB - 1)) && room.is_full());
        assert!(room.look(space(6 * MIB)), "it does not flap");
        assert!(!room.look(space(6 * MIB + MIB / 4)) && !room.is_full());
    }

    #[test]
    fn what_is_appended_between_two_looks_does_not_come_to_the_reserve() {
        let room = Room::default();
        room.look(space(11 * MIB));
        room.take(1 << 20);
        assert!(!room.is_full());
        room.take(1 << 19);
        assert!(room.is_full(), "6 MiB are journal and files of what was appended");
        room.take(0);
        assert!(!room.look(space(8 * MIB)), "it was less");
    }
}

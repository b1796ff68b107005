//! What is told when the disk has it: turns whose commits were handed to the kernel wait here, in
//! order, where somebody waits for the disk.

use std::time::{Duration, Instant};

use tracing::{error, warn};

use super::super::Durable;
use super::super::health::Call;
use super::super::syncing::Progress;
use super::{GIVEN_UP, LAST_TRIES, RETRY, Replies, Worker};
use crate::proto::bus::{Effect, Turn};
use crate::store::Commit;

/// Turns that wait for the disk, and the bytes of their messages: then no more is taken.
const UNTOLD: usize = 256;
const UNTOLD_BYTES: usize = 16 << 20;

/// How long acknowledgements are without the disk, where each message waits for it.
const ACKNOWLEDGEMENTS: Duration = Duration::from_millis(200);

/// A turn that the disk may not have.
pub(super) struct Untold {
    /// The commit that the disk is to have before.
    number: u64,
    /// To be repeated where the disk fails.
    pub(super) commit: Commit,
    /// What its messages count as.
    bytes: usize,
    replies: Replies,
    effects: Vec<Effect>,
}

/// What the messages that are delivered count as.
fn delivered_bytes(effects: &[Effect]) -> usize {
    let of = |effect: &Effect| match effect {
        Effect::Deliver { message, .. } => message.cost(),
        Effect::Records { records, .. } => records.iter().map(|record| record.cost()).sum(),
        Effect::Load(_) | Effect::Withdraw { .. } => 0,
    };
    effects.iter().map(of).sum()
}

impl Worker {
    /// Tells what a turn comes to: at once, or when the disk has its commit and all before it.
    pub(super) fn tell_when_durable(
        &mut self,
        mut commit: Commit,
        replies: Replies,
        turn: &mut Turn,
    ) {
        let is_awaited = self.settings.durable == Durable::Each && commit.is_awaited();
        if is_awaited {
            self.shared.syncing.want(self.committed);
            self.unsynced = None;
        }
        let says = replies.is_some() || !turn.effects.is_empty() || !commit.is_empty();
        if is_awaited || (says && !self.untold.is_empty()) {
            let effects = std::mem::take(&mut turn.effects);
            let number = match self.untold.back() {
                Some(last) if !is_awaited => last.number,
                _ => self.committed,
            };
            let bytes = turn.appended_bytes + delivered_bytes(&effects);
            self.untold_bytes += bytes;
            self.untold.push_back(Untold { number, commit, bytes, replies, effects });
            return;
        }
        self.tell(replies, &mut turn.effects);
        commit.changes.clear();
        commit.audit.clear();
        self.commit = commit;
    }

    /// Tells what the disk has by now; after it has failed, commits the rest again. False where the
    /// bus stops and the store takes nothing.
    pub(super) fn tell_durable(&mut self) -> bool {
        let Progress { done, failures } = self.shared.syncing.progress();
        while self.untold.front().is_some_and(|untold| untold.number <= done) {
            self.tell_first();
        }
        if failures != self.failures {
            if !self.write(&Commit::default()) {
                return false;
            }
            self.failures = failures;
            self.shared.syncing.resume(failures);
        }
        true
    }

    /// Tells recipients first: of sender and recipient, the one that has more to do begins earlier.
    fn tell(&self, replies: Replies, effects: &mut Vec<Effect>) {
        self.carry_out(effects);
        self.reply(replies);
    }

    fn tell_first(&mut self) {
        let Some(untold) = self.untold.pop_front() else { return };
        let Untold { bytes, replies, mut effects, .. } = untold;
        self.untold_bytes -= bytes;
        self.tell(replies, &mut effects);
    }

    /// Whether the next turn waits for the disk.
    pub(in crate::bus) fn is_much_untold(&self) -> bool {
        self.untold.len() >= UNTOLD || self.untold_bytes >= UNTOLD_BYTES
    }

    /// Waits while very much waits for the disk. False where the bus stops and the disk does not
    /// take it.
    pub(super) fn wait_for_disk(&mut self) -> bool {
        let mut gives_up: Option<Instant> = None;
        while self.is_much_untold() {
            if self.shared.inbox.is_closed() {
                let until = *gives_up.get_or_insert_with(|| Instant::now() + LAST_TRIES);
                if Instant::now() >= until {
                    return false;
                }
            }
            let seen = self.shared.syncing.progress();
            if !self.tell_durable() {
                return false;
            }
            if self.is_much_untold() {
                self.shared.syncing.wait(seen, Instant::now() + RETRY);
            }
        }
        true
    }

    /// When the disk is to be asked although nobody waits for it.
    pub(super) fn next_sync(&self) -> Option<Instant> {
        let interval = match self.settings.durable {
            Durable::Each => ACKNOWLEDGEMENTS,
            Durable::Every(interval) => interval,
            Durable::Never => return None,
        };
        self.unsynced.map(|since| since + interval)
    }

    pub(super) fn want_sync_if_due(&mut self, now: Instant) {
        if self.next_sync().is_some_and(|at| at <= now) {
            self.shared.syncing.want(self.committed);
            self.unsynced = None;
        }
    }

    /// Has the disk take the rest, and tells it where the store has all of it.
    pub(in crate::bus) fn finish(&mut self) {
        self.shared.syncing.close();
        let synced = self.store.sync();
        if let Err(error) = &synced {
            self.shared.meters.failed(Call::Sync, error);
            warn!(%error, "the disk does not take what was committed last");
        }
        // After a failure nobody knows what the disk has, whatever it says since.
        let has_failed = self.shared.syncing.progress().failures != self.failures;
        if self.is_whole && synced.is_ok() && !has_failed {
            while !self.untold.is_empty() {
                self.tell_first();
            }
        } else if !self.untold.is_empty() {
            error!("{GIVEN_UP}");
        }
    }
}

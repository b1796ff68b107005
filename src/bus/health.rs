//! Whether the bus takes messages, and since when it does not.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::store::StoreError;

/// A call of the store that has not ended for so long hangs.
const HUNG: Duration = Duration::from_secs(2);

/// Whether the bus takes messages.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Health {
    /// It does.
    #[default]
    Serving,
    /// It does, and cannot read some of what was stored.
    Damaged(String),
    /// It does, through another relay; something is wrong that may be felt.
    Limited(Trouble),
    /// The disk has only what acknowledgements and logins need: new messages wait or are refused.
    Full,
    /// The store takes nothing; everything waits.
    Unavailable(Trouble),
}

/// What is wrong with the store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Trouble {
    /// Why it cannot be used.
    pub reason: String,
    /// Since when.
    pub since: Instant,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serving => f.write_str("serving"),
            Self::Damaged(reason) => write!(f, "serving what can be read: {reason}"),
            Self::Full => f.write_str("full: new messages wait or are refused"),
            Self::Limited(trouble) | Self::Unavailable(trouble) => trouble.fmt(f),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, for {} s", self.reason, self.since.elapsed().as_secs())
    }
}

/// What the bus has the store do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Call {
    Commit,
    Sync,
    /// Looks a message up.
    Find,
    /// Reads a backlog.
    Read,
}

/// Calls that fail, each until one of its kind succeeds.
#[derive(Debug, Default)]
pub(super) struct Failing {
    commit: Option<Trouble>,
    sync: Option<Trouble>,
    find: Option<Trouble>,
    read: Option<Trouble>,
}

impl Failing {
    const fn of(&mut self, call: Call) -> &mut Option<Trouble> {
        match call {
            Call::Commit => &mut self.commit,
            Call::Sync => &mut self.sync,
            Call::Find => &mut self.find,
            Call::Read => &mut self.read,
        }
    }

    pub(super) fn failed(&mut self, call: Call, error: &StoreError, now: Instant) {
        let of = self.of(call);
        let since = of.as_ref().map_or(now, |trouble| trouble.since);
        *of = Some(Trouble { reason: error.to_string(), since });
    }

    pub(super) fn succeeded(&mut self, call: Call) {
        *self.of(call) = None;
    }

    /// What has failed for longest.
    pub(super) fn longest(&self) -> Option<&Trouble> {
        let all = [&self.commit, &self.sync, &self.find, &self.read];
        all.into_iter().flatten().min_by_key(|trouble| trouble.since)
    }
}

/// Whether a thread is at work, and since when: one that calls the store may not come back.
#[derive(Debug)]
pub(super) struct Watch {
    began: Instant,
    /// Milliseconds after that, and one; 0 while the thread waits for work.
    since: AtomicU64,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), since: AtomicU64::new(0) }
    }

    /// The thread begins to work.
    pub(super) fn begin(&self, now: Instant) {
        let after = now.saturating_duration_since(self.began).as_millis();
        let after = u64::try_from(after).unwrap_or(u64::MAX - 1);
        self.since.store(after + 1, Ordering::Relaxed);
    }

    /// It has ended its work.
    pub(super) fn end(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    /// What is wrong where it has worked for too long.
    pub(super) fn hung(&self, now: Instant) -> Option<Trouble> {
        let after = self.since.load(Ordering::Relaxed).checked_sub(1)?;
        let since = self.began + Duration::from_millis(after);
        let reason = || "the disk does not answer".to_owned();
        (now.saturating_duration_since(since) >= HUNG).then(|| Trouble { reason: reason(), since })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(reason: &str) -> StoreError {
        StoreError::Unavailable(reason.to_owned())
    }

    #[test]
    fn call_fails_from_its_first_failure_until_one_of_its_kind_succeeds() {
        let t0 = Instant::now();
        let t1 = t0 + Duration::from_secs(1);
        let mut failing = Failing::default();
        failing.failed(Call::Sync, &broken("first"), t0);
        failing.failed(Call::Sync, &broken("second"), t1);
        failing.failed(Call::Commit, &broken("full"), t1);

        let longest = failing.longest().unwrap();
        assert!(longest.since == t0 && longest.reason.ends_with("second"), "{longest:?}");
        failing.succeeded(Call::Commit);
        assert_eq!(failing.longest().unwrap().since, t0, "a commit is no sync");
        failing.succeeded(Call::Sync);
        assert_eq!(failing.longest(), None);
    }

    #[test]
    fn thread_that_works_for_two_seconds_hangs() {
        let watch = Watch::new();
        let t0 = watch.began + Duration::from_secs(5);
        assert_eq!(watch.hung(t0), None);
        watch.begin(t0);
        assert_eq!(watch.hung(t0 + HUNG / 2), None);
        assert_eq!(watch.hung(t0 + HUNG).unwrap().since, t0);
        watch.end();
        assert_eq!(watch.hung(t0 + HUNG), None);
    }
}

//! When a relay may lead, and for how long it does: sans-IO, by a monotonic clock.
//!
//! Whoever leads appends something at least each second and serves for 3 s after the last append
//! that it knows of, counted from before it was sent. Another leads only after 4 s without any. So
//! two never serve at a time, however late messages come: clocks have only to run alike for 4 s.
//! That the log has one leader does not depend on that: an append names the position before it.

use std::time::{Duration, Instant};

use super::record::{Author, Entry};
use crate::ids::RelayId;

/// How long a leader serves after its last append.
pub(super) const LEASE: Duration = Duration::from_secs(3);

/// How long a leader lets pass without an append.
pub(super) const RENEW: Duration = Duration::from_secs(1);

/// How long a log is silent before another leads.
pub(super) const SILENCE: Duration = Duration::from_secs(4);

/// What the log says of who leads, as one that follows it knows it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Reign {
    /// Who led last; nobody in a log that is new.
    pub(super) last: Option<Author>,
    /// Whether it has said that it leads no more.
    pub(super) is_over: bool,
}

impl Reign {
    /// Takes the author of a record, and what it says.
    pub(super) const fn note(&mut self, author: Author, entry: &Entry) {
        self.last = Some(author);
        self.is_over = matches!(entry, Entry::Resignation);
    }

    /// The number of the next epoch.
    pub(super) fn next_epoch(&self) -> u64 {
        self.last.map_or(1, |last| last.epoch + 1)
    }

    /// When a relay may try to lead, where nothing new comes after `silent_since`.
    pub(super) fn vacant_at(&self, relay: RelayId, silent_since: Instant) -> Instant {
        let is_free = self.is_over || self.last.is_none_or(|last| last.relay == relay);
        if is_free { silent_since } else { silent_since + SILENCE }
    }
}

/// How long what was appended last lets this relay serve.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Lease {
    renewed: Instant,
}

impl Lease {
    /// From an append that was sent at this time, and is there.
    pub(super) const fn since(sent: Instant) -> Self {
        Self { renewed: sent }
    }

    /// Another append is there that was sent at this time.
    pub(super) fn renew(&mut self, sent: Instant) {
        self.renewed = self.renewed.max(sent);
    }

    /// Whether the relay may serve.
    pub(super) fn holds(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.renewed) < LEASE
    }

    /// Since when the relay may not serve; nothing while it may.
    pub(super) fn lapsed(&self, now: Instant) -> Option<Instant> {
        (!self.holds(now)).then(|| self.renewed + LEASE)
    }

    /// Whether something is to be appended although there is nothing to say.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.renewed) >= RENEW
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PublicKey;

    fn author(relay: u8, epoch: u64) -> Author {
        Author { epoch, relay: RelayId(PublicKey([relay; 32])), process: 1 }
    }

    #[test]
    fn log_without_a_leader_is_free_at_once() {
        let now = Instant::now();
        let mut reign = Reign::default();
        let ours = author(1, 1).relay;
        assert_eq!((reign.next_epoch(), reign.vacant_at(ours, now)), (1, now));
        reign.note(author(2, 7), &Entry::Renewal);
        assert_eq!((reign.next_epoch(), reign.vacant_at(ours, now)), (8, now + SILENCE));
        reign.note(author(2, 7), &Entry::Resignation);
        assert_eq!(reign.vacant_at(ours, now), now);
        reign.note(author(1, 8), &Entry::Epoch);
        assert_eq!(reign.vacant_at(ours, now), now, "its own process led last");
    }

    #[test]
    fn lease_ends_before_anybody_else_may_lead() {
        let sent = Instant::now();
        let mut lease = Lease::since(sent);
        assert!(lease.holds(sent + LEASE - Duration::from_millis(1)));
        assert!(!lease.holds(sent + LEASE) && LEASE < SILENCE);
        assert_eq!(lease.lapsed(sent + SILENCE), Some(sent + LEASE));
        assert!(!lease.is_due(sent + RENEW - Duration::from_millis(1)));
        assert!(lease.is_due(sent + RENEW));
        lease.renew(sent + RENEW);
        assert!(lease.holds(sent + LEASE) && !lease.is_due(sent + RENEW));
        lease.renew(sent);
        assert!(lease.holds(sent + LEASE), "an answer that comes late takes nothing back");
    }
}

//! What one credential may take of the relay: sessions, and copies of broadcasts.
//!
//! A credential has as many names as it wants to register, each with a session; were they bounded
//! one by one, all of them together would be bounded by nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::proto::limit::{Bucket, Rate};

/// Copies of broadcasts a second, which leave the bus room for the messages of others, and at once
/// as many as a relay has peers, twice.
const COPIES: Rate = Rate::per_second(10_000).with_burst(100_000);

/// A copy counts once more for each so many bytes: they are written to the disk for each recipient.
const COPY_BYTES: usize = 4_096;

/// The budgets of all credentials that have had a session.
#[derive(Debug, Default)]
pub(super) struct Budgets(Mutex<HashMap<[u8; 32], Arc<Budget>>>);

/// What a credential has taken.
#[derive(Debug, Default)]
pub(super) struct Budget {
    sessions: AtomicUsize,
    copies: Mutex<Bucket>,
}

/// A session's place among those of its credential.
#[derive(Debug)]
pub(super) struct Place(Arc<Budget>);

impl Budgets {
    /// That of a credential. There are as many as tokens files had credentials since the last
    /// [`Self::prune`].
    pub(super) fn of(&self, owner: [u8; 32]) -> Arc<Budget> {
        Arc::clone(self.0.lock().entry(owner).or_default())
    }

    /// Forgets those of whom nothing is taken.
    pub(super) fn prune(&self, now: Instant) {
        let is_in_use = |budget: &Arc<Budget>| {
            Arc::strong_count(budget) > 1 || !budget.copies.lock().is_full(now)
        };
        self.0.lock().retain(|_, budget| is_in_use(budget));
    }
}

impl Budget {
    /// A place for one more session, where there are fewer than `most`.
    pub(super) fn place(self: Arc<Self>, most: usize) -> Option<Place> {
        let one_more = |sessions| (sessions < most).then_some(sessions + 1);
        let taken = self.sessions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.ok().map(|_| Place(self))
    }
}

impl Place {
    /// Whether the credential may send a broadcast of so many bytes to so many.
    pub(super) fn admits_broadcast(&self, recipients: usize, bytes: usize, now: Instant) -> bool {
        let copies = recipients.saturating_mul(1 + bytes / COPY_BYTES);
        self.0.copies.lock().take(COPIES, copies as u64, now)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ONE: [u8; 32] = [1; 32];
    const OTHER: [u8; 32] = [2; 32];

    #[test]
    fn place_is_free_again_when_its_session_is_gone() {
        let budgets = Budgets::default();
        let first = budgets.of(ONE).place(2).unwrap();
        let _second = budgets.of(ONE).place(2).unwrap();
        assert!(budgets.of(ONE).place(2).is_none());
        assert!(budgets.of(OTHER).place(2).is_some(), "others have their own");
        drop(first);
        assert!(budgets.of(ONE).place(2).is_some());
    }

    #[test]
    fn copies_of_all_sessions_of_a_credential_are_counted_together() {
        let budgets = Budgets::default();
        let now = Instant::now();
        let places = [(); 2].map(|()| budgets.of(ONE).place(2).unwrap());
        let other = budgets.of(OTHER).place(2).unwrap();
        let broadcasts = (0..1_000).flat_map(|_| &places);
        let taken = broadcasts.filter(|place| place.admits_broadcast(1_000, 300, now)).count();
        assert_eq!(taken, 100);
        assert!(other.admits_broadcast(1_000, 300, now));
        let soon = now + Duration::from_millis(100);
        assert!(places[0].admits_broadcast(1_000, 300, soon));
        assert!(!places[1].admits_broadcast(1_000, 300, soon));
    }

    #[test]
    fn long_copy_counts_as_several() {
        let budgets = Budgets::default();
        let place = budgets.of(ONE).place(1).unwrap();
        let now = Instant::now();
        let taken = (0..1_000).filter(|_| place.admits_broadcast(100, 1 << 20, now)).count();
        assert_eq!(taken, 3, "100,000 of 25,700 each");
    }

    #[test]
    fn reconnecting_refills_nothing_and_a_budget_in_use_is_not_forgotten() {
        let budgets = Budgets::default();
        let now = Instant::now();
        assert!(budgets.of(ONE).place(1).unwrap().admits_broadcast(100_000, 0, now));
        budgets.prune(now);
        assert!(!budgets.of(ONE).place(1).unwrap().admits_broadcast(1, 0, now));
        budgets.prune(now + Duration::from_secs(10));
        assert_eq!(budgets.0.lock().len(), 0);
        let place = budgets.of(ONE).place(1).unwrap();
        budgets.prune(now);
        assert!(budgets.of(ONE).place(1).is_none(), "it has a session");
        drop(place);
    }
}

//! Who was kicked for some time, and is not let in again before it is over.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Table;
use crate::wire::name::Name;

/// Peers that are kept out at a time, at most: operators kick by hand.
pub const MOST_KEPT_OUT: usize = 10_000;

/// As many peers are kept out as can be.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{MOST_KEPT_OUT} peers are kept out already; take this one's key away instead")]
pub struct TooManyKicks;

/// Peers that are kept out, each until its time.
#[derive(Debug, Default)]
pub(super) struct Kicks {
    /// Nobody takes the lock while there are none.
    count: AtomicUsize,
    until: Mutex<HashMap<Name, Instant>>,
}

impl Table {
    /// Keeps a peer out for this time from `now` on, whatever was said of it before; none lets
    /// it in again.
    ///
    /// # Errors
    /// Too many are kept out.
    pub fn keep_out(&self, id: Name, time: Duration, now: Instant) -> Result<(), TooManyKicks> {
        let Kicks { count, until } = &self.kicks;
        let mut until = until.lock();
        until.retain(|_, end| *end > now);
        until.remove(&id);
        if !time.is_zero() {
            if until.len() >= MOST_KEPT_OUT {
                return Err(TooManyKicks);
            }
            until.insert(id, now + time);
        }
        count.store(until.len(), Ordering::Relaxed);
        Ok(())
    }

    /// For how long a peer is kept out yet; `None` where it is not.
    #[must_use]
    pub fn kept_out(&self, id: Name, now: Instant) -> Option<Duration> {
        let Kicks { count, until } = &self.kicks;
        if count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let end = *until.lock().get(&id)?;
        end.checked_duration_since(now).filter(|rest| !rest.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::name::Realm;

    fn name(number: u32) -> Name {
        Name::new(Realm(200), &number.to_be_bytes())
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn peer_is_kept_out_until_its_time_is_over_or_it_is_let_in() {
        let (table, t0) = (Table::new(1, 1), Instant::now());
        table.keep_out(name(7), MINUTE, t0).unwrap();

        assert_eq!(table.kept_out(name(7), t0), Some(MINUTE));
        assert_eq!(table.kept_out(name(8), t0), None);
        assert_eq!(table.kept_out(name(7), t0 + MINUTE), None);
        table.keep_out(name(7), Duration::ZERO, t0).unwrap();
        assert_eq!(table.kept_out(name(7), t0), None);
    }

    #[test]
    fn few_peers_are_kept_out_and_old_ones_make_room() {
        let (table, t0) = (Table::new(1, 1), Instant::now());
        for number in 1..=u32::try_from(MOST_KEPT_OUT).unwrap() {
            table.keep_out(name(number), MINUTE, t0).unwrap();
        }
        assert_eq!(table.keep_out(name(20_000), MINUTE, t0), Err(TooManyKicks));
        assert_eq!(table.keep_out(name(1), 2 * MINUTE, t0), Ok(()), "it is among them");
        assert_eq!(table.keep_out(name(20_000), MINUTE, t0 + MINUTE), Ok(()));
    }
}

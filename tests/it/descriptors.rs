//! The descriptors of this process, of which tests with thousands of connections take most:
//! run side by side, two of them may need more than there are.

use parking_lot::{Condvar, Mutex};
use rustix::process::{Resource, getrlimit, setrlimit};

/// Enough for all tests that do not ask.
const OTHERS: u64 = 2_000;

static TAKEN: Mutex<u64> = Mutex::new(0);
static GIVEN_BACK: Condvar = Condvar::new();

/// So many descriptors, to be dropped after whatever uses them.
pub(crate) struct Descriptors(u64);

impl Descriptors {
    /// Raises the limit of this process, and so of what it starts, after waiting for tests
    /// that leave too few.
    pub(crate) fn take(count: u64) -> Self {
        let mut limit = getrlimit(Resource::Nofile);
        let most = limit.maximum.unwrap_or(u64::MAX);
        assert!(count + OTHERS <= most, "ulimit -Hn is below {}", count + OTHERS);
        let mut taken = TAKEN.lock();
        GIVEN_BACK.wait_while(&mut taken, |taken| *taken + count + OTHERS > most);
        *taken += count;
        // Never lowered: others count on what they have.
        let wanted = getrlimit(Resource::Nofile).current.unwrap_or(most).max(*taken + OTHERS);
        limit.current = Some(wanted);
        setrlimit(Resource::Nofile, limit).unwrap();
        Self(count)
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        *TAKEN.lock() -= self.0;
        GIVEN_BACK.notify_all();
    }
}

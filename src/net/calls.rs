//! Counts the system calls of the packet path: what a batch saves, and a test holds.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A system call of the packet path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Call {
    /// Reading from a stream.
    Read,
    /// Writing to a stream.
    Write,
    /// Receiving datagrams.
    Receive,
    /// Sending datagrams.
    Send,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Receive, Self::Send];

    /// The word of its metric.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Receive => "receive",
            Self::Send => "send",
        }
    }
}

const SHARDS: usize = 16;
const CALLS: usize = Call::ALL.len();

#[repr(align(128))]
struct Shard([AtomicU64; CALLS]);

static COUNTS: [Shard; SHARDS] = [const { Shard([const { AtomicU64::new(0) }; CALLS]) }; SHARDS];

/// Counts one call, in the calling thread's own place.
#[allow(clippy::indexing_slicing)] // taken modulo the length; a call is below the array's
pub(super) fn count(call: Call) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
    }
    COUNTS[SHARD.get()].0[call as usize].fetch_add(1, Ordering::Relaxed);
    #[cfg(test)]
    MADE_HERE.with_borrow_mut(|made| made[call as usize] += 1);
}

#[cfg(test)]
thread_local! {
    static MADE_HERE: std::cell::RefCell<[u64; CALLS]> = const { std::cell::RefCell::new([0; CALLS]) };
}

/// How often a test's own thread has made a call.
#[cfg(test)]
#[allow(clippy::indexing_slicing)] // a call is below the array's length
pub(super) fn made_here(call: Call) -> u64 {
    MADE_HERE.with_borrow(|made| made[call as usize])
}

/// How often this process has made a call.
#[must_use]
#[allow(clippy::indexing_slicing)] // a call is below the array's length
pub fn made(call: Call) -> u64 {
    COUNTS.iter().map(|shard| shard.0[call as usize].load(Ordering::Relaxed)).sum()
}

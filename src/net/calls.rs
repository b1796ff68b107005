//! Counts the system calls of the packet path: what a batch saves, and a test holds.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::metrics::Word as _;
use crate::words;

words! {
    /// A system call of the packet path.
    pub enum Call {
        /// Reading from a stream.
        Read => "read",
        /// Writing to a stream.
        Write => "write",
        /// Receiving datagrams.
        Receive => "receive",
        /// Sending datagrams.
        Send => "send",
    }
}

const SHARDS: usize = 16;
const CALLS: usize = Call::ALL.len();

#[repr(align(128))]
struct Shard([AtomicU64; CALLS]);

static COUNTS: [Shard; SHARDS] = [const { Shard([const { AtomicU64::new(0) }; CALLS]) }; SHARDS];

/// Counts one call, in the calling thread's own place.
#[allow(clippy::indexing_slicing)] // taken modulo the length; `index` is below the array's
pub(super) fn count(call: Call) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
    }
    COUNTS[SHARD.get()].0[call.index()].fetch_add(1, Ordering::Relaxed);
}

/// How often this process has made a call.
#[must_use]
#[allow(clippy::indexing_slicing)] // `index` is below the array's length
pub fn made(call: Call) -> u64 {
    COUNTS.iter().map(|shard| shard.0[call.index()].load(Ordering::Relaxed)).sum()
}

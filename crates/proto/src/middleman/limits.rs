//! The bounds of a broker.

use std::time::Duration;

/// What a broker is bounded by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Longest topic, user id, and id of a request, in bytes: 65,535 at most, which is the longest
    /// that one relay can tell another.
    pub text_bytes: usize,
    /// Longest message as it is delivered, in bytes. What comes from another relay is held to it,
    /// whose bound may be another.
    pub message_bytes: usize,
    /// What one connection may have.
    pub each: Bounds,
    /// What all connections together may have.
    pub all: Bounds,
    /// A request that has no answer for so long has failed.
    pub timeout: Duration,
}

/// Most entries of each table.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Bounds {
    /// Subscriptions.
    pub subscriptions: usize,
    /// Grants: of clients' publications and of clients' subscriptions to a topic.
    pub grants: usize,
    /// Workers: how often connections became responders of topics.
    pub workers: usize,
    /// Requests without an answer. A connection never has more than an eighth of what the others
    /// leave, so that few connections cannot keep all others from asking.
    pub requests: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            text_bytes: 255,
            message_bytes: 1 << 20,
            each: Bounds { subscriptions: 1_000, grants: 1_000, workers: 1_000, requests: 10_000 },
            all: Bounds {
                subscriptions: 1_000_000,
                grants: 100_000,
                workers: 100_000,
                requests: 100_000,
            },
            timeout: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// Whether a connection with `mine` requests may have one more, of `all` that there are.
    pub(super) const fn admits_request(&self, mine: usize, all: usize) -> bool {
        let Some(free) = self.all.requests.checked_sub(all) else { return false };
        free > 0 && mine < self.each.requests && mine <= free / 8
    }
}

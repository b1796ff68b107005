//! The bounds of a bus.

use super::channels::ChannelLimits;

/// What a bus is bounded by. Times are in milliseconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Messages that a recipient has and has not acknowledged, at most.
    pub window: usize,
    /// What they count as, in bytes, at most; one message whatever it counts as.
    pub window_bytes: usize,
    /// Messages that wait in a mailbox, at most.
    pub quota_messages: u64,
    /// What they count as, in bytes, at most.
    pub quota_bytes: u64,
    /// A message that has waited so long is removed.
    pub retention: u64,
    /// Names, at most; one owner has no more than half of them.
    pub names: usize,
    /// A name without messages, whose owner was away for so long, is forgotten.
    pub name_expiry: u64,
    /// What the copies of one broadcast count as, in bytes, at most.
    pub broadcast_bytes: usize,
    /// A message that is not acknowledged for so long is delivered again; twice as long the next
    /// time, up to 64 times.
    pub redelivery: u64,
    /// A message with so many deliveries that stayed without an acknowledgement for `redelivery`
    /// becomes a dead letter.
    pub attempts: u16,
    /// Accepted messages that are remembered, to tell duplicates: two entries each, one for who sent
    /// it and one for each key.
    pub remembered: usize,
    /// For how long they are.
    pub remembered_for: u64,
    /// What channels are bounded by.
    pub channels: ChannelLimits,
}

impl Limits {
    /// How long a message that was tried so often waits for its acknowledgement.
    #[must_use]
    pub fn patience(&self, attempts: u16) -> u64 {
        self.redelivery.saturating_mul(1 << attempts.min(6))
    }
}

impl Default for Limits {
    fn default() -> Self {
        const MINUTE: u64 = 60_000;
        const DAY: u64 = 24 * 60 * MINUTE;
        Self {
            window: 256,
            window_bytes: 1 << 20,
            quota_messages: 100_000,
            quota_bytes: 256 << 20,
            retention: 7 * DAY,
            names: 100_000,
            name_expiry: 30 * DAY,
            broadcast_bytes: 64 << 20,
            redelivery: MINUTE,
            attempts: 16,
            remembered: 262_144,
            remembered_for: 60 * MINUTE,
            channels: ChannelLimits::default(),
        }
    }
}

//! Another relay of the cluster, while a link to it is up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::clock::{Clock, Notice};
use super::line::Lines;
use super::outbox::Outbox;
use crate::ids::RelayId;
use crate::wire::cluster::{Frame, Reading};

/// A relay with an authenticated link to us.
#[derive(Debug)]
pub struct Member {
    /// Who it is.
    pub relay: RelayId,
    /// Where the link leads, for people to read.
    pub address: String,
    /// Since when the link is up.
    pub since: Instant,
    /// What waits for it.
    pub outbox: Arc<Outbox>,
    /// Ends when the relay has been silent for too long, or the cluster ends: the fabric
    /// closes the link then, and says that the member left.
    pub ending: CancellationToken,
    heard_ms: AtomicU64,
    draining: AtomicBool,
    takes_tcp: CancellationToken,
    /// Hash of what it tells its peers that should be the same at all relays; 0 for nothing.
    told: AtomicU64,
    pub(super) told_notice: Notice,
    clock: Mutex<Clock>,
    pub(super) clock_notice: Notice,
    /// Takeovers that were held back, as they were last looked at.
    pub(super) held_back: AtomicU64,
    pub(super) takeover_notice: Notice,
    pub(super) lines: Lines,
}

impl Member {
    pub(super) fn new(relay: RelayId, address: String, outbox: Outbox) -> Self {
        Self {
            relay,
            address,
            since: Instant::now(),
            outbox: Arc::new(outbox),
            ending: CancellationToken::new(),
            heard_ms: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            takes_tcp: CancellationToken::new(),
            told: AtomicU64::new(0),
            told_notice: Notice::default(),
            clock: Mutex::default(),
            clock_notice: Notice::default(),
            held_back: AtomicU64::new(0),
            takeover_notice: Notice::default(),
            lines: Lines::default(),
        }
    }

    /// Notes a sign of life.
    pub(super) fn heard(&self, now: Instant) {
        let ms = now.saturating_duration_since(self.since).as_millis();
        self.heard_ms.store(u64::try_from(ms).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// For how long nothing was heard of it.
    #[must_use]
    pub fn silence(&self, now: Instant) -> Duration {
        let heard = Duration::from_millis(self.heard_ms.load(Ordering::Relaxed));
        now.saturating_duration_since(self.since).saturating_sub(heard)
    }

    /// Tells it what our clock shows.
    pub(super) fn tell_clock(&self, unix_ms: u64, now: Instant) {
        let reading = self.clock.lock().reading(unix_ms, now);
        self.outbox.say(&Frame::Clock(reading), now);
    }

    /// Takes in what its clock shows.
    pub(super) fn hear_clock(&self, reading: Reading, unix_ms: u64, now: Instant) {
        self.clock.lock().hear(reading, unix_ms, now);
    }

    /// By how much its clock is ahead of ours, in milliseconds; `None` where it has not told.
    #[must_use]
    pub fn clock_ahead_ms(&self) -> Option<i64> {
        self.clock.lock().ahead_ms()
    }

    /// Notes a hash of what it tells its peers that should be the same at all relays.
    pub(super) fn tells(&self, told: u64) {
        self.told.store(told, Ordering::Relaxed);
    }

    /// Whether it tells its peers something else than a relay that has this hash, where both
    /// tell something.
    pub(super) fn tells_otherwise(&self, own: u64) -> bool {
        let told = self.told.load(Ordering::Relaxed);
        own != 0 && told != 0 && own != told
    }

    /// Notes that it takes packets over TCP as well.
    pub(super) fn offers_tcp(&self) {
        self.takes_tcp.cancel();
    }

    /// Waits until it has said that it takes packets over TCP as well.
    pub(super) async fn takes_tcp(&self) {
        self.takes_tcp.cancelled().await;
    }

    /// Notes that it takes no new peers; true the first time.
    pub(super) fn drains(&self) -> bool {
        !self.draining.swap(true, Ordering::Relaxed)
    }

    /// Whether it takes no new peers.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

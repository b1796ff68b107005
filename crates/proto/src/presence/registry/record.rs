//! What a home knows of one peer, and for how long.

use std::time::{Duration, Instant};

use beacon_wire::cluster::Ownership;

use crate::presence::members::Slot;

/// How long after a session only another session may follow it elsewhere.
pub(super) const SESSION_SHADOW: Duration = Duration::from_secs(90);

/// How long a home remembers what is over, so that a late word does not bring it back.
pub(super) const MEMORY: Duration = Duration::from_secs(30);

/// The serial of a tombstone whose owner did not leave: its relay did.
pub(super) const LOST: u64 = u64::MAX;

/// Tenths of a second since the start: 4 bytes last for 13 years.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(in crate::presence) struct Tick(u32);

impl Tick {
    pub(super) const LENGTH: Duration = Duration::from_millis(100);

    pub(in crate::presence) fn at(start: Instant, now: Instant) -> Self {
        let since = now.saturating_duration_since(start).as_millis();
        Self(u32::try_from(since / Self::LENGTH.as_millis()).unwrap_or(u32::MAX))
    }

    /// The time since an earlier one, to a tenth of a second.
    pub(in crate::presence) fn since(self, earlier: Self) -> Duration {
        Self::LENGTH * self.0.saturating_sub(earlier.0)
    }
}

/// What a home knows of a peer. There may be millions: 32 bytes.
#[derive(Clone, Copy, Debug)]
pub(in crate::presence) struct Record {
    pub(in crate::presence) epoch: u64,
    pub(in crate::presence) serial: u64,
    pub(super) credential: u64,
    /// When it was granted, or when it ended.
    pub(super) since: Tick,
    pub(in crate::presence) owner: Slot,
    pub(in crate::presence) ownership: Ownership,
    pub(super) life: Life,
}

/// Whether the owner of a record still has the peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Life {
    Live,
    /// Live, but a grave of before is still in its queue.
    Revived,
    /// The record is a tombstone, and has a grave.
    Over,
}

impl Record {
    pub(in crate::presence) fn live(&self) -> bool {
        self.life != Life::Over
    }

    /// The serial that is over, if its owner has said so.
    pub(in crate::presence) fn left(&self) -> Option<u64> {
        Some(self.serial).filter(|serial| !self.live() && *serial != LOST)
    }

    /// How long a tombstone of it stays.
    pub(super) const fn memory(&self) -> Duration {
        match self.ownership {
            Ownership::Session => SESSION_SHADOW,
            Ownership::Endpoint | Ownership::Gateway => MEMORY,
        }
    }

    /// Which of the graves are for it.
    pub(super) const fn sort(&self) -> Sort {
        match self.ownership {
            Ownership::Session => Sort::Proved,
            Ownership::Endpoint | Ownership::Gateway => Sort::Unproved,
        }
    }
}

/// Tombstones of what proved nothing are kept apart: there is not as much room for them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sort {
    Unproved,
    Proved,
}

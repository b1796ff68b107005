//! How much may be on its way over a link, so that neither end has to keep what the other cannot
//! take.

/// Bytes on their way in one direction, between any two relays: from there on nothing more is said.
pub(super) const WINDOW: usize = 4 << 20;

/// The part of the window that is taken in before the other end hears of it.
const TELL: usize = 8;

/// What is on its way over a link, and what has come and the other end does not know of.
#[derive(Debug)]
pub(super) struct Credit {
    window: usize,
    in_transit: usize,
    untold: usize,
}

impl Credit {
    /// Nothing is on its way.
    pub(super) const fn new(window: usize) -> Self {
        Self { window, in_transit: 0, untold: 0 }
    }

    /// Whether more may be said.
    pub(super) const fn has_room(&self) -> bool {
        self.in_transit < self.window
    }

    /// So many bytes were said.
    pub(super) const fn sent(&mut self, bytes: usize) {
        self.in_transit += bytes;
    }

    /// The other end has taken so many.
    pub(super) const fn returned(&mut self, bytes: u32) {
        self.in_transit = self.in_transit.saturating_sub(bytes as usize);
    }

    /// So many have come; returns what the other end is to be told of, where it is enough.
    pub(super) fn took(&mut self, bytes: usize) -> Option<u32> {
        self.untold += bytes;
        if self.untold < self.window / TELL {
            return None;
        }
        u32::try_from(std::mem::take(&mut self.untold)).ok()
    }
}

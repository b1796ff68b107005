//! Finds the source that holds most of an outbox, in constant time and space.

/// Identifies a source of packets within an outbox.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SourceTag(pub u64);

/// A majority vote over the bytes that came (Boyer and Moore), with the bytes that the
/// candidate holds since it became one.
///
/// The count is never too high: what the candidate queued before its candidacy is not in it,
/// and leaves the outbox first.
#[derive(Debug)]
pub(super) struct Heavy {
    candidate: Option<SourceTag>,
    votes: u64,
    /// Runs from this number on are counted in `bytes`.
    since: u64,
    bytes: usize,
}

impl Heavy {
    pub(super) const fn new() -> Self {
        Self { candidate: None, votes: 0, since: 0, bytes: 0 }
    }

    /// Run `number` of `source` brought `bytes`.
    pub(super) fn came(&mut self, source: SourceTag, number: u64, bytes: usize) {
        let weight = bytes as u64;
        if self.candidate == Some(source) {
            self.votes += weight;
            self.bytes += bytes;
        } else if self.votes >= weight {
            self.votes -= weight;
        } else {
            let votes = weight - self.votes;
            *self = Self { candidate: Some(source), votes, since: number, bytes };
        }
    }

    /// `bytes` of run `number` of `source` left.
    pub(super) fn left(&mut self, source: SourceTag, number: u64, bytes: usize) {
        if self.candidate == Some(source) && number >= self.since {
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    /// Whether `source` holds more than half of `all` bytes.
    pub(super) fn holds_most(&self, source: SourceTag, all: usize) -> bool {
        self.candidate == Some(source) && self.bytes > all / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flood_is_found_among_others_and_forgotten_when_it_left() {
        let (flood, other) = (SourceTag(1), SourceTag(2));
        let mut heavy = Heavy::new();
        for number in 0..100 {
            heavy.came(other, number * 2, 10);
            heavy.came(flood, number * 2 + 1, 100);
        }
        assert!(heavy.holds_most(flood, 11_000));
        assert!(!heavy.holds_most(other, 11_000));
        for number in 0..80 {
            heavy.left(flood, number * 2 + 1, 100);
        }
        assert!(!heavy.holds_most(flood, 11_000));
    }
}

//! Who holds how much of an outbox: exact for the sources that hold most, a bound for all others.
//!
//! The question is asked only of a full outbox, once for each record that comes, so counting
//! all runs each time would make a flood cost the square of its length. [`Shares::count`]
//! finds every source with more than a fourth of the queue (Misra and Gries: three counters),
//! and those have exact accounts as records come and leave. Of all others it is known that none
//! holds more than a bound, which grows by each byte that comes from any of them. As long as
//! the bound is below a half, the answer needs no look at the queue: so a fourth of the queue
//! has to come before it is counted again, which bounds the cost for each byte that comes.

use super::Source;
use super::chunk::Run;

/// Sources with exact accounts: whoever is none of them holds at most a fourth.
const KNOWN: usize = 3;

/// What a source holds, in bytes with their bookkeeping.
#[derive(Clone, Copy, Debug)]
struct Share {
    source: Source,
    bytes: usize,
}

/// The shares of the queue that its sources hold.
#[derive(Debug)]
pub(super) struct Shares {
    known: [Option<Share>; KNOWN],
    /// No source that is not known holds more than this.
    others: usize,
}

impl Shares {
    /// Counts the runs of the queue, each of them twice.
    pub(super) fn count<'a>(runs: impl Iterator<Item = &'a Run> + Clone) -> Self {
        let mut shares = Self { known: [None; KNOWN], others: 0 };
        for run in runs.clone() {
            shares.vote(run.source, run.cost());
        }
        // The votes say who may hold much, not how much.
        for share in shares.known.iter_mut().flatten() {
            share.bytes = 0;
        }
        for run in runs {
            if let Some(share) = shares.known_mut(run.source) {
                share.bytes += run.cost();
            }
        }
        shares
    }

    /// A vote of so many bytes: whoever has no counter cancels the votes of all who have one.
    /// A byte that is cancelled takes one of each counter with it, four in all, so no source
    /// loses more than a fourth of all bytes.
    fn vote(&mut self, source: Source, bytes: usize) {
        if let Some(share) = self.known_mut(source) {
            share.bytes += bytes;
            return;
        }
        let least = self.known.iter().map(|known| known.map_or(0, |share| share.bytes)).min();
        let cancelled = least.unwrap_or(0).min(bytes);
        self.others += cancelled;
        for known in &mut self.known {
            *known = known.and_then(|Share { source, bytes }| {
                let bytes = bytes - cancelled;
                (bytes > 0).then_some(Share { source, bytes })
            });
        }
        let bytes = bytes - cancelled;
        if bytes > 0 {
            let free = self.known.iter_mut().find(|known| known.is_none());
            *free.expect("the least counter was cancelled") = Some(Share { source, bytes });
        }
    }

    /// `bytes` of `source` came.
    pub(super) fn came(&mut self, source: Source, bytes: usize) {
        match self.known_mut(source) {
            Some(share) => share.bytes += bytes,
            None => self.others += bytes,
        }
    }

    /// `bytes` of `source` left, which had come before.
    pub(super) fn left(&mut self, source: Source, bytes: usize) {
        if let Some(share) = self.known_mut(source) {
            debug_assert!(share.bytes >= bytes, "nothing leaves that did not come");
            share.bytes = share.bytes.saturating_sub(bytes);
        }
    }

    /// Whether `source` holds more than `bytes`; none where only a new count can tell.
    pub(super) fn exceeds(&self, source: Source, bytes: usize) -> Option<bool> {
        let known = self.known.iter().flatten().find(|share| share.source == source);
        match known {
            Some(share) => Some(share.bytes > bytes),
            None => (self.others <= bytes).then_some(false),
        }
    }

    fn known_mut(&mut self, source: Source) -> Option<&mut Share> {
        self.known.iter_mut().flatten().find(|share| share.source == source)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;
    use crate::metrics::Origin;

    fn run(source: u64, bytes: usize) -> Run {
        Run {
            source: Source::Address(source),
            origin: Origin::Relayed,
            sender: None,
            arrived: Instant::now(),
            records: 1,
            bytes,
        }
    }

    proptest! {
        #[test]
        fn count_knows_all_who_hold_much_and_bounds_the_others(
            runs in proptest::collection::vec((0u64..9, 0usize..5_000), 0..60),
        ) {
            let runs: Vec<Run> = runs.into_iter().map(|(source, bytes)| run(source, bytes)).collect();
            let mut exact = HashMap::<Source, usize>::new();
            for run in &runs {
                *exact.entry(run.source).or_default() += run.cost();
            }
            let all: usize = exact.values().sum();

            let shares = Shares::count(runs.iter());

            prop_assert!(shares.others <= all / 4);
            for (source, held) in exact {
                let known = shares.known.iter().flatten().find(|share| share.source == source);
                match known {
                    Some(share) => prop_assert_eq!(share.bytes, held),
                    None => prop_assert!(held <= shares.others),
                }
            }
        }
    }
}

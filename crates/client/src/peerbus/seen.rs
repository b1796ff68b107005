//! Which messages were handed out lately.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

/// Messages that are remembered: as many as with clients of the original.
pub(super) const REMEMBERED: usize = 4_096;

/// Which message: its sender and what that calls it, so that no sender's ids hide another's.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Origin {
    pub(super) from: String,
    pub(super) id: String,
}

/// What became of a message that was handed out.
#[derive(Debug)]
enum Mark {
    /// The application has it, as long as this is alive.
    Held(Weak<()>),
    /// The application has acknowledged it.
    Acked,
}

/// The messages that were used last: delivered, or acknowledged.
#[derive(Debug, Default)]
pub(super) struct Seen {
    marks: HashMap<Origin, (u64, Mark)>,
    /// By when they were used, the longest ago first.
    used: BTreeMap<u64, Origin>,
    clock: u64,
}

/// What to make of a delivery.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is to be handed out, with this.
    New(Arc<()>),
    /// The application has it and will acknowledge it.
    Held,
    /// The application has acknowledged it, which the broker did not hear.
    Acked,
}

impl Seen {
    /// A message was delivered.
    pub(super) fn delivered(&mut self, origin: &Origin) -> Verdict {
        match self.marks.get(origin) {
            Some((_, Mark::Acked)) => {
                self.put(origin.clone(), Mark::Acked);
                Verdict::Acked
            }
            Some((_, Mark::Held(alive))) if alive.strong_count() > 0 => {
                let alive = alive.clone();
                self.put(origin.clone(), Mark::Held(alive));
                Verdict::Held
            }
            // What the application has dropped, it shall have again.
            Some((_, Mark::Held(_))) | None => {
                let alive = Arc::new(());
                self.put(origin.clone(), Mark::Held(Arc::downgrade(&alive)));
                Verdict::New(alive)
            }
        }
    }

    /// A message was acknowledged.
    pub(super) fn acked(&mut self, origin: Origin) {
        self.put(origin, Mark::Acked);
    }

    fn put(&mut self, origin: Origin, mark: Mark) {
        self.clock += 1;
        self.used.insert(self.clock, origin.clone());
        if let Some((before, _)) = self.marks.insert(origin, (self.clock, mark)) {
            self.used.remove(&before);
        }
        if self.used.len() > REMEMBERED
            && let Some((_, oldest)) = self.used.pop_first()
        {
            self.marks.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(id: usize) -> Origin {
        Origin { from: "bob".to_owned(), id: id.to_string() }
    }

    #[test]
    fn message_is_handed_out_once_unless_it_was_dropped() {
        let mut seen = Seen::default();
        let Verdict::New(alive) = seen.delivered(&origin(1)) else { panic!() };
        assert!(matches!(seen.delivered(&origin(1)), Verdict::Held));
        drop(alive);
        let Verdict::New(alive) = seen.delivered(&origin(1)) else { panic!() };
        seen.acked(origin(1));
        drop(alive);
        assert!(matches!(seen.delivered(&origin(1)), Verdict::Acked));
        let other = Origin { from: "carol".to_owned(), id: "1".to_owned() };
        assert!(matches!(seen.delivered(&other), Verdict::New(_)));
    }

    #[test]
    fn what_was_used_longest_ago_is_forgotten() {
        let mut seen = Seen::default();
        for id in 0..REMEMBERED {
            seen.acked(origin(id));
        }
        assert!(matches!(seen.delivered(&origin(0)), Verdict::Acked));
        seen.acked(origin(REMEMBERED));
        assert!(matches!(seen.delivered(&origin(0)), Verdict::Acked));
        assert!(matches!(seen.delivered(&origin(1)), Verdict::New(_)));
        assert_eq!((seen.marks.len(), seen.used.len()), (REMEMBERED, REMEMBERED));
    }
}

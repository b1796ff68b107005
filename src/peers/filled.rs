//! The sessions whose outboxes a batch has filled.

use std::sync::Arc;

use super::Session;

/// Entries without a look for those that are there twice.
const FEW: usize = 4_096;

/// Sessions that are to be flushed, each once or a few times: a flush of an empty outbox is cheap.
///
/// Bounded by twice as many as there are sessions, whatever a batch of small messages for many
/// adds, but 4,096 at least.
#[derive(Debug, Default)]
pub struct Filled {
    sessions: Vec<Arc<Session>>,
    /// From so many entries on, those that are there twice are looked for.
    crowded: usize,
}

impl Filled {
    /// Adds a session.
    pub fn note(&mut self, session: &Arc<Session>) {
        // The usual repetition.
        if self.sessions.last().is_some_and(|last| Arc::ptr_eq(last, session)) {
            return;
        }
        if self.sessions.len() >= self.crowded {
            self.tidy();
        }
        self.sessions.push(Arc::clone(session));
    }

    /// Takes all of them.
    pub fn drain(&mut self) -> impl Iterator<Item = Arc<Session>> {
        self.crowded = FEW;
        self.sessions.drain(..)
    }

    #[cold]
    fn tidy(&mut self) {
        self.sessions.sort_unstable_by_key(Arc::as_ptr);
        self.sessions.dedup_by(|one, other| Arc::ptr_eq(one, other));
        self.crowded = FEW.max(2 * self.sessions.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::testing::{link, name, reader, session};

    #[test]
    fn many_small_messages_for_many_do_not_add_up() {
        let sessions: Vec<_> =
            (0..100).map(|number| session(name(number), 1, link(reader()))).collect();
        let mut filled = Filled::default();

        for _ in 0..1_000 {
            sessions.iter().for_each(|session| filled.note(session));
        }

        assert!(filled.sessions.len() <= FEW, "{}", filled.sessions.len());
        let mut all: Vec<_> = filled.drain().collect();
        all.sort_unstable_by_key(Arc::as_ptr);
        all.dedup_by(|one, other| Arc::ptr_eq(one, other));
        assert_eq!(all.len(), sessions.len());
        assert_eq!(filled.drain().count(), 0);
    }
}

//! Finds the sessions whose outboxes hold most.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::admin::{MOST_ROWS, SlowReader};
use crate::peers::Table;

/// How long an answer is given again: with 50,000 sessions a look at all takes a few
/// milliseconds.
const FRESH: Duration = Duration::from_secs(3);

/// The last answer, and where the next comes from.
pub(super) struct SlowReaders {
    table: Arc<Table>,
    last: Mutex<Option<(Instant, Vec<SlowReader>)>>,
}

impl SlowReaders {
    pub(super) const fn of(table: Arc<Table>) -> Self {
        Self { table, last: Mutex::new(None) }
    }

    /// The fullest outboxes, as they are or were at most [`FRESH`] ago. Who comes while they
    /// are looked for waits, and does not look again.
    pub(super) fn now(&self) -> Vec<SlowReader> {
        let mut last = self.last.lock();
        let now = Instant::now();
        if let Some((at, readers)) = &*last
            && now < *at + FRESH
        {
            return readers.clone();
        }
        let readers = find(&self.table, now);
        *last = Some((now, readers.clone()));
        readers
    }
}

fn find(table: &Table, now: Instant) -> Vec<SlowReader> {
    let mut slowest: Vec<SlowReader> = Vec::with_capacity(MOST_ROWS + 1);
    for session in table.sessions() {
        let backlog = session.backlog(now);
        let at = slowest.partition_point(|other| other.waiting_bytes >= backlog.bytes);
        if backlog.bytes == 0 || at == MOST_ROWS {
            continue;
        }
        let reader = SlowReader {
            node: session.id(),
            waiting_bytes: backlog.bytes,
            waiting_seconds: backlog.age.as_secs_f64(),
            connected_seconds: now.saturating_duration_since(session.since).as_secs(),
        };
        slowest.insert(at, reader);
        slowest.truncate(MOST_ROWS);
    }
    slowest
}

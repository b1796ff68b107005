//! Batches that a peer has published: what becomes of each record, and by which id the batch is
//! acknowledged once the last record of it is safe.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::session::CallId;

/// Where a batch came from, and its acknowledgement goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Via {
    /// A message over WebSocket.
    WebSocket,
    /// This call.
    Call(CallId),
}

/// What became of a record that has an id.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    /// It is longer than what is taken.
    TooLong,
    /// The peer may not publish it, or it has been here before.
    Dropped,
    /// The bus has it, and has not said.
    Submitted,
    /// It is stored.
    Stored,
    /// It was stored before.
    Duplicate,
}

/// A record of a batch.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) id: Arc<str>,
    pub(super) channel: Arc<str>,
    /// One that goes no further has its fate from the beginning.
    pub(super) fate: Fate,
    /// The bus has said that it is committed: itself, or that it was dropped.
    pub(super) is_settled: bool,
}

impl Record {
    /// A record whose batch was just read.
    pub(super) const fn new(id: Arc<str>, channel: Arc<str>, fate: Fate) -> Self {
        Self { id, channel, fate, is_settled: false }
    }
}

#[derive(Debug)]
struct Batch {
    via: Via,
    records: Vec<Record>,
    /// The first of them that the bus has not said anything about.
    next: usize,
}

/// The batches of a peer that are not acknowledged, in order.
#[derive(Debug, Default)]
pub(super) struct Batches(VecDeque<Batch>);

impl Batches {
    /// A batch has come, whose records are submitted behind this call.
    pub(super) fn push(&mut self, via: Via, records: Vec<Record>) {
        self.0.push_back(Batch { via, records, next: 0 });
    }

    /// The bus has said what became of the next record that was submitted; which one that was, unless
    /// its fate was known before.
    pub(super) fn settle(&mut self, id: &str, fate: Fate) -> Option<&Record> {
        let mut batches = self.0.iter_mut();
        let batch = batches.find_map(|batch| batch.skip_settled().then_some(batch))?;
        let record = batch.records.get_mut(batch.next)?;
        debug_assert_eq!(&*record.id, id, "the bus answers in the order of submissions");
        record.is_settled = true;
        let is_open = record.fate == Fate::Submitted;
        if is_open {
            record.fate = fate;
        }
        is_open.then_some(record)
    }

    /// Takes the oldest batch if all of it is settled: where its acknowledgement goes, and by which id.
    pub(super) fn pop(&mut self) -> Option<(Via, Arc<str>)> {
        if self.0.front_mut()?.skip_settled() {
            return None;
        }
        let batch = self.0.pop_front()?;
        Some((batch.via, batch.last_id().unwrap_or_default()))
    }

    /// Whether one came in this call.
    pub(super) fn has(&self, call: CallId) -> bool {
        self.0.iter().any(|batch| batch.via == Via::Call(call))
    }
}

impl Batch {
    /// Goes to the first record that is not settled; false where there is none.
    fn skip_settled(&mut self) -> bool {
        let rest = self.records.get(self.next..).unwrap_or_default();
        self.next += rest.iter().take_while(|record| record.is_settled).count();
        self.next < self.records.len()
    }

    /// The id that acknowledges it, as the original chooses it: of all that is new the last, where
    /// records that are too long come first. Over gRPC that are the records that are stored, and the
    /// others only where there is none.
    fn last_id(&self) -> Option<Arc<str>> {
        let last = |wanted: &[Fate]| {
            let mut records = self.records.iter().rev();
            let found = records.find(|record| wanted.contains(&record.fate));
            found.map(|record| Arc::clone(&record.id))
        };
        let too_long = || last(&[Fate::TooLong]);
        match self.via {
            Via::WebSocket => last(&[Fate::Stored, Fate::Dropped]).or_else(too_long),
            Via::Call(_) => {
                last(&[Fate::Stored]).or_else(|| last(&[Fate::Dropped])).or_else(too_long)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: Via = Via::Call(CallId(1));

    /// The id by which a batch of these records is acknowledged.
    fn acknowledged(via: Via, records: &[(&str, Fate)]) -> String {
        let mut batches = Batches::default();
        let record = |(id, fate): &(&str, Fate)| {
            let submitted = matches!(fate, Fate::Stored | Fate::Duplicate);
            let fate = if submitted { Fate::Submitted } else { *fate };
            Record::new((*id).into(), "orders".into(), fate)
        };
        batches.push(via, records.iter().map(record).collect());
        for (id, fate) in records {
            assert!(batches.pop().is_none(), "nothing is acknowledged before its commit");
            let is_kept = matches!(fate, Fate::Stored | Fate::Duplicate);
            let said = if is_kept { *fate } else { Fate::Stored };
            assert_eq!(batches.settle(id, said).is_some(), is_kept, "{id}");
        }
        let (answered, id) = batches.pop().unwrap();
        assert_eq!(answered, via);
        id.to_string()
    }

    #[test]
    fn batch_is_acknowledged_by_the_id_that_the_original_chooses() {
        use Fate::{Dropped, Duplicate, Stored, TooLong};
        for (records, over_websocket, over_grpc) in [
            (&[("r1", Stored), ("r2", Stored)][..], "r2", "r2"),
            (&[("r1", Duplicate)], "", ""),
            (&[("r1", Duplicate), ("r3", Stored)], "r3", "r3"),
            (&[("r4", Stored), ("r1", Duplicate)], "r4", "r4"),
            (&[], "", ""),
            (&[("o1", TooLong)], "o1", "o1"),
            (&[("o2", TooLong), ("g1", Stored)], "g1", "g1"),
            (&[("g1", Stored), ("o2", TooLong)], "g1", "g1"),
            (&[("p1", Dropped), ("p2", Stored)], "p2", "p2"),
            (&[("p2", Stored), ("p1", Dropped)], "p1", "p2"),
            (&[("p1", Dropped), ("o1", TooLong)], "p1", "p1"),
        ] {
            assert_eq!(acknowledged(Via::WebSocket, records), over_websocket, "{records:?}");
            assert_eq!(acknowledged(CALL, records), over_grpc, "{records:?}");
        }
    }

    #[test]
    fn batches_are_acknowledged_in_the_order_in_which_they_came() {
        let record = |id: &str, fate| Record::new(id.into(), "c".into(), fate);
        let mut batches = Batches::default();
        batches.push(CALL, vec![record("a", Fate::Submitted)]);
        batches.push(Via::WebSocket, vec![record("b", Fate::Dropped)]);
        assert!(batches.pop().is_none(), "the one in front waits for the bus");
        assert!(batches.has(CallId(1)) && !batches.has(CallId(2)));
        assert_eq!(&*batches.settle("a", Fate::Stored).unwrap().channel, "c");
        assert_eq!(batches.pop(), Some((CALL, "a".into())));
        assert!(batches.pop().is_none(), "that it was dropped is not committed");
        assert!(batches.settle("b", Fate::Stored).is_none(), "it stays dropped");
        assert_eq!(batches.pop(), Some((Via::WebSocket, "b".into())));
        assert!(batches.pop().is_none() && batches.settle("x", Fate::Stored).is_none());
    }
}

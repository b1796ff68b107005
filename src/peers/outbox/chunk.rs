//! Framed records one behind the other, as they go to the kernel in one write.

use std::cell::RefCell;
use std::time::Instant;

use super::{Arrival, Source};
use crate::metrics::{Origin, Whose};
use crate::wire::websocket::{Opcode, frame_header};

/// Bytes that one flush takes at most, unless a single record is longer.
pub(super) const CHUNK: usize = 65_536;

/// Bookkeeping that each record and each run costs beside its bytes; counted, so that the
/// bound of an outbox is one of memory.
pub(super) const RECORD_COST: usize = size_of::<u32>();
pub(super) const RUN_COST: usize = size_of::<Run>();

/// Chunks that a thread keeps for later: 16 of 64 KiB.
const SPARE: usize = 16;

thread_local! {
    // Boxed as in the outboxes, so that lending one moves a pointer.
    #[allow(clippy::vec_box)]
    static SPARES: RefCell<Vec<Box<Chunk>>> = const { RefCell::new(Vec::new()) };
}

/// Records of one source, sender and destination that came in one batch.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) source: Source,
    pub(super) origin: Origin,
    pub(super) whose: Whose,
    pub(super) arrived: Instant,
    pub(super) records: u32,
    pub(super) bytes: usize,
}

impl Run {
    /// A run without records yet.
    const fn of(arrival: &Arrival) -> Self {
        let Arrival { source, origin, whose, at } = *arrival;
        Self { source, origin, whose, arrived: at, records: 0, bytes: 0 }
    }

    /// Whether records that come like this go on with the run.
    fn takes(&self, arrival: &Arrival) -> bool {
        self.source == arrival.source
            && self.origin == arrival.origin
            && self.whose == arrival.whose
            && self.arrived == arrival.at
    }

    /// What the run costs in all.
    pub(super) const fn cost(&self) -> usize {
        self.bytes + self.records as usize * RECORD_COST + RUN_COST
    }
}

/// One write's worth of records. The oldest can be dropped from its front.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    bytes: Vec<u8>,
    /// Where each record ends in `bytes`; the first `dropped` of them are gone.
    ends: Vec<u32>,
    dropped: usize,
    runs: Vec<Run>,
    /// Runs of which no record is left.
    runs_gone: usize,
}

impl Chunk {
    /// An empty chunk, from those that this thread kept.
    pub(super) fn lend() -> Box<Self> {
        SPARES.with_borrow_mut(Vec::pop).unwrap_or_else(|| {
            Box::new(Self { bytes: Vec::with_capacity(CHUNK), ..Self::default() })
        })
    }

    /// Gives the buffers back.
    pub(super) fn give_back(mut self: Box<Self>) {
        SPARES.with_borrow_mut(|spares| {
            if spares.len() < SPARE && self.bytes.capacity() <= 2 * CHUNK {
                self.bytes.clear();
                self.ends.clear();
                self.runs.clear();
                (self.dropped, self.runs_gone) = (0, 0);
                spares.push(self);
            }
        });
    }

    /// Whether a record of `length` framed bytes belongs in here.
    pub(super) fn has_room(&self, length: usize) -> bool {
        self.bytes.is_empty() || self.bytes.len() + length <= CHUNK
    }

    /// Appends a control frame, which counts as no record.
    pub(super) fn push_control(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
    }

    /// Whether the next record begins a run of its own.
    pub(super) fn begins_run(&self, arrival: &Arrival) -> bool {
        !self.runs.last().is_some_and(|run| run.takes(arrival))
    }

    /// Begins a run.
    pub(super) fn push_run(&mut self, arrival: &Arrival) {
        self.runs.push(Run::of(arrival));
    }

    /// Appends a record to the last run.
    pub(super) fn push(&mut self, framing: Opcode, head: &[u8], body: &[u8]) {
        let before = self.bytes.len();
        let (header, used) = frame_header(framing, head.len() + body.len());
        self.bytes.extend_from_slice(header.get(..used).expect("a header fits its place"));
        self.bytes.extend_from_slice(head);
        self.bytes.extend_from_slice(body);
        let end = u32::try_from(self.bytes.len()).expect("a chunk is far below 4 GiB");
        self.ends.push(end);
        let run = self.runs.last_mut().expect("a record is pushed to its run");
        run.records += 1;
        run.bytes += self.bytes.len() - before;
    }

    /// The run that the oldest record belongs to.
    pub(super) fn oldest(&self) -> Option<&Run> {
        self.runs.get(self.runs_gone)
    }

    /// Drops the oldest record; returns what it cost in all.
    pub(super) fn drop_oldest(&mut self) -> Option<usize> {
        let start = self.start();
        let length = *self.ends.get(self.dropped)? as usize - start;
        let run = self.runs.get_mut(self.runs_gone)?;
        self.dropped += 1;
        run.records -= 1;
        run.bytes -= length;
        let mut cost = length + RECORD_COST;
        if run.records == 0 {
            self.runs_gone += 1;
            cost += RUN_COST;
        }
        Some(cost)
    }

    /// Moves the bytes out for a write; [`Self::put_bytes`] brings them back.
    ///
    /// What else the chunk knows stays: whose its records are, and how many.
    pub(super) fn take_bytes(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Brings back what [`Self::take_bytes`] moved out.
    pub(super) fn put_bytes(&mut self, bytes: Vec<u8>) {
        debug_assert!(self.bytes.is_empty(), "a chunk is written by one flusher at a time");
        self.bytes = bytes;
    }

    /// Where the oldest record begins in the bytes.
    pub(super) fn start(&self) -> usize {
        self.dropped
            .checked_sub(1)
            .and_then(|last| self.ends.get(last))
            .map_or(0, |end| *end as usize)
    }

    /// The bytes that are to be written.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start()..).expect("records end inside of the bytes")
    }

    /// The runs that are left.
    pub(super) fn runs(&self) -> &[Run] {
        self.runs.get(self.runs_gone..).expect("no more runs are gone than there were")
    }

    /// How many records are left.
    pub(super) fn records(&self) -> usize {
        self.ends.len() - self.dropped
    }

    /// What the chunk costs in all.
    pub(super) fn cost(&self) -> usize {
        self.bytes().len() + self.records() * RECORD_COST + self.runs().len() * RUN_COST
    }

    /// Whether no record is left.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }
}

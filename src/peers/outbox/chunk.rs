//! Framed records one behind the other, as they go to the kernel in one write.

use std::cell::RefCell;
use std::time::Instant;

use super::{Arrival, Record, Source};
use crate::metrics::Origin;
use crate::net::Records;
use crate::wire::Framing;
use crate::wire::name::Name;

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
    pub(super) sender: Option<Name>,
    pub(super) arrived: Instant,
    pub(super) records: u32,
    pub(super) bytes: usize,
}

impl Run {
    /// A run without records yet.
    const fn of(arrival: &Arrival) -> Self {
        let Arrival { source, origin, sender, at } = *arrival;
        Self { source, origin, sender, arrived: at, records: 0, bytes: 0 }
    }

    /// Whether records that come like this go on with the run.
    fn takes(&self, arrival: &Arrival) -> bool {
        self.source == arrival.source
            && self.origin == arrival.origin
            && self.sender == arrival.sender
            && self.arrived == arrival.at
    }

    /// What the run costs in all.
    pub(super) const fn cost(&self) -> usize {
        self.bytes + self.records as usize * RECORD_COST + RUN_COST
    }
}

/// Framed records one behind the other.
#[derive(Debug, Default)]
pub(super) struct Framed {
    bytes: Vec<u8>,
    /// Where each record ends in `bytes`.
    ends: Vec<u32>,
}

impl Framed {
    /// Appends a record in parts; returns its length.
    pub(super) fn push(&mut self, parts: [&[u8]; 3]) -> usize {
        let before = self.bytes.len();
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        let end = u32::try_from(self.bytes.len()).expect("a chunk is far below 4 GiB");
        self.ends.push(end);
        self.bytes.len() - before
    }

    /// Bytes in all.
    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The records from a position on.
    pub(super) fn records(&self, at: usize) -> Records<'_> {
        Records::new(&self.bytes, &self.ends, at)
    }
}

/// One write's worth of records. The oldest can be dropped from its front.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    framed: Framed,
    /// How many records are gone from the front.
    dropped: usize,
    runs: Vec<Run>,
    /// Runs of which no record is left.
    runs_gone: usize,
}

impl Chunk {
    /// An empty chunk, from those that this thread kept.
    pub(super) fn lend() -> Box<Self> {
        SPARES.with_borrow_mut(Vec::pop).unwrap_or_else(|| {
            let framed = Framed { bytes: Vec::with_capacity(CHUNK), ends: Vec::new() };
            Box::new(Self { framed, ..Self::default() })
        })
    }

    /// Gives the buffers back.
    pub(super) fn give_back(mut self: Box<Self>) {
        SPARES.with_borrow_mut(|spares| {
            if spares.len() < SPARE && self.framed.bytes.capacity() <= 2 * CHUNK {
                self.framed.bytes.clear();
                self.framed.ends.clear();
                self.runs.clear();
                (self.dropped, self.runs_gone) = (0, 0);
                spares.push(self);
            }
        });
    }

    /// Whether a record of `length` framed bytes belongs in here.
    pub(super) fn has_room(&self, length: usize) -> bool {
        self.framed.bytes.is_empty() || self.framed.len() + length <= CHUNK
    }

    /// Takes control frames into an empty chunk; they count as no records.
    pub(super) fn push_control(&mut self, frames: &Framed) {
        debug_assert!(self.framed.bytes.is_empty(), "records have chunks of their own");
        self.framed.bytes.extend_from_slice(&frames.bytes);
        self.framed.ends.extend_from_slice(&frames.ends);
    }

    /// Appends a record, to the run that it goes on with or to a new one; returns what it
    /// costs in all.
    #[inline]
    pub(super) fn push(
        &mut self,
        record: Record<'_>,
        arrival: &Arrival,
        framing: Framing,
    ) -> usize {
        let Record { head, body } = record;
        let (header, used) = framing.header(head.len() + body.len());
        let header = header.get(..used).expect("a header fits its place");
        let length = self.framed.push([header, head, body]);
        let mut cost = length + RECORD_COST;
        if !self.runs.last().is_some_and(|run| run.takes(arrival)) {
            self.runs.push(Run::of(arrival));
            cost += RUN_COST;
        }
        let run = self.runs.last_mut().expect("one was pushed if there was none");
        run.records += 1;
        run.bytes += length;
        cost
    }

    /// The run that the oldest record belongs to.
    pub(super) fn oldest(&self) -> Option<&Run> {
        self.runs.get(self.runs_gone)
    }

    /// Drops the oldest record; returns what it cost in all.
    #[inline]
    pub(super) fn drop_oldest(&mut self) -> Option<usize> {
        let start = self.start();
        let length = *self.framed.ends.get(self.dropped)? as usize - start;
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

    /// Moves the bytes out for a write; [`Self::put_framed`] brings them back.
    ///
    /// What else the chunk knows stays: whose its records are, and how many.
    pub(super) fn take_framed(&mut self) -> Framed {
        std::mem::take(&mut self.framed)
    }

    /// Brings back what [`Self::take_framed`] moved out.
    pub(super) fn put_framed(&mut self, framed: Framed) {
        debug_assert!(self.framed.bytes.is_empty(), "a chunk is written by one flusher at a time");
        self.framed = framed;
    }

    /// Where the oldest record begins in the bytes, while they are here.
    pub(super) fn start(&self) -> usize {
        self.dropped
            .checked_sub(1)
            .and_then(|last| self.framed.ends.get(last))
            .map_or(0, |end| *end as usize)
    }

    /// The runs that are left.
    pub(super) fn runs(&self) -> &[Run] {
        self.runs.get(self.runs_gone..).expect("no more runs are gone than there were")
    }

    /// The records that are left, each with the run that it is of, while the bytes are here.
    pub(super) fn each(&self) -> impl Iterator<Item = (&Run, &[u8])> {
        let runs = self.runs().iter();
        let runs = runs.flat_map(|run| std::iter::repeat_n(run, run.records as usize));
        runs.zip(self.framed.records(self.start()).iter())
    }

    /// How many records are left, control frames apart.
    pub(super) fn records(&self) -> usize {
        self.runs().iter().map(|run| run.records as usize).sum()
    }

    /// What the chunk costs in all, while its bytes are here.
    pub(super) fn cost(&self) -> usize {
        let bytes = self.framed.len() - self.start();
        let records = self.framed.ends.len() - self.dropped;
        bytes + records * RECORD_COST + self.runs().len() * RUN_COST
    }

    /// Whether no record is left.
    pub(super) fn is_empty(&self) -> bool {
        self.runs().is_empty()
    }
}

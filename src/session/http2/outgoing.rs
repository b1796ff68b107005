//! What a session's outbox is flushed into: records that each belong to a call, until the
//! connection's own task has put them into frames.
//!
//! A record has a head of five bytes: the call, and what it is for that. Records of a call keep
//! their order.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use super::super::CallId;
use crate::net::{Records, Stream};

/// Length of what stands in front of each record, in bytes.
pub(super) const HEAD: usize = 5;

/// Bytes that are taken while as many wait already, of short records and of others: an answer does
/// not wait behind records that the peer is slow to take.
const ROOM: usize = 65_536;

/// Longest record that is short, in bytes.
const SHORT: usize = 1_024;

/// What a record is for its call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// Bytes of the answer.
    Data,
    /// The end of the answer: a code, and a message.
    End,
    /// A ping, of no call.
    Ping,
}

/// The head of a record.
pub(super) const fn head(CallId(call): CallId, purpose: Purpose) -> [u8; HEAD] {
    let [a, b, c, d] = call.to_be_bytes();
    [a, b, c, d, purpose as u8]
}

/// Records between the outbox and the connection.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    queue: Mutex<Queue>,
    task: AtomicWaker,
}

#[derive(Debug, Default)]
struct Queue {
    records: VecDeque<Bytes>,
    /// Bytes of short records that wait here or for the peer, and of others.
    waiting: [usize; 2],
    is_closed: bool,
}

const fn kind(length: usize) -> usize {
    if length <= SHORT { 0 } else { 1 }
}

impl Outgoing {
    /// The next record: its call, what it is, and what is behind its head.
    pub(super) fn take(&self, cx: &Context<'_>) -> Option<(CallId, Purpose, Bytes)> {
        self.task.register(cx.waker());
        let mut record = self.queue.lock().records.pop_front()?;
        let call = CallId(record.get_u32());
        let purpose = match record.get_u8() {
            0 => Purpose::Data,
            1 => Purpose::End,
            _ => Purpose::Ping,
        };
        Some((call, purpose, record))
    }

    /// A record of so many bytes behind its head has left, or never will.
    pub(super) fn left(&self, length: usize) {
        let length = length + HEAD;
        let mut queue = self.queue.lock();
        if let Some(waiting) = queue.waiting.get_mut(kind(length)) {
            *waiting = waiting.saturating_sub(length);
        }
    }

    /// Takes nothing more.
    pub(super) fn close(&self) {
        let mut queue = self.queue.lock();
        queue.is_closed = true;
        queue.records.clear();
    }
}

/// The session's side of them.
#[derive(Debug)]
pub(super) struct Sink(pub(super) Arc<Outgoing>);

impl Sink {
    fn has_room(&self) -> bool {
        let queue = self.0.queue.lock();
        queue.waiting.iter().all(|waiting| *waiting < ROOM)
    }
}

impl Stream for Sink {
    fn try_read(&self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn try_write(&self, _: &[u8]) -> io::Result<usize> {
        debug_assert!(false, "records are written as such");
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn try_write_records(&self, records: &Records<'_>) -> io::Result<usize> {
        let mut taken = 0;
        {
            let mut queue = self.0.queue.lock();
            if queue.is_closed {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            for record in records.iter() {
                let Some(waiting) = queue.waiting.get_mut(kind(record.len())) else { break };
                if *waiting >= ROOM {
                    break;
                }
                *waiting += record.len();
                queue.records.push_back(Bytes::copy_from_slice(record));
                taken += record.len();
            }
        }
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.task.wake();
        Ok(taken)
    }

    fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's task makes room, and is the one that asks.
        self.0.task.register(cx.waker());
        if self.has_room() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn shutdown_write(&self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn offer(sink: &Sink, records: &[&[u8]]) -> io::Result<usize> {
        let bytes = records.concat();
        let mut end = 0;
        let ends: Vec<u32> = records
            .iter()
            .map(|record| {
                end += u32::try_from(record.len()).unwrap();
                end
            })
            .collect();
        sink.try_write_records(&Records::new(&bytes, &ends, 0))
    }

    #[test]
    fn records_come_out_with_their_call_and_short_ones_pass_a_full_queue_of_long_ones() {
        let outgoing = Arc::<Outgoing>::default();
        let sink = Sink(Arc::clone(&outgoing));
        let cx = Context::from_waker(Waker::noop());
        let long = [&head(CallId(3), Purpose::Data)[..], &[7; ROOM]].concat();
        let short = [&head(CallId(1), Purpose::End)[..], b"short"].concat();

        assert_eq!(offer(&sink, &[&long]).unwrap(), long.len());
        let refused = offer(&sink, &[&long]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(offer(&sink, &[&short, &long]).unwrap(), short.len());

        let (call, purpose, record) = outgoing.take(&cx).unwrap();
        assert_eq!((call, purpose, record.len()), (CallId(3), Purpose::Data, ROOM));
        assert_eq!(offer(&sink, &[&long]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        outgoing.left(record.len());
        assert_eq!(offer(&sink, &[&long]).unwrap(), long.len());
        let (call, purpose, record) = outgoing.take(&cx).unwrap();
        assert_eq!((call, purpose, &record[..]), (CallId(1), Purpose::End, &b"short"[..]));

        outgoing.close();
        assert_eq!(offer(&sink, &[&short]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}

//! The frames of peers up to v1.4.1: acknowledgements are text, batches are not.

use std::time::Instant;

use crate::peers::{Arrival, Pushed, Record};
use crate::session::Session;
use crate::wire::websocket::{Opcode, frame_header};

/// Queues a message of text, in front of batches.
pub(super) fn push_text(session: &Session, text: &[u8]) {
    session.push_notice(&[header(Opcode::Text, text.len()), text.to_vec()].concat());
}

/// Queues a batch.
pub(super) fn push_batch(session: &Session, batch: &[u8], now: Instant) -> Pushed {
    let head = header(Opcode::Binary, batch.len());
    let record = Record { head: &head, body: batch };
    session.push(std::iter::once(record), &Arrival::ours(now))
}

fn header(opcode: Opcode, length: usize) -> Vec<u8> {
    let (header, used) = frame_header(opcode, length);
    header.get(..used).expect("a header has its length").to_vec()
}

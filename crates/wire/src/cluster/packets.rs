//! Relayed payloads on their way between relays: one head for all packets of a flow.
//!
//! The body is the destination's id, the sender's id, the epoch u64 under which the receiver
//! is believed to have the destination, and for each packet its length u16 and its payload.

use super::reader::Reader;
use super::writer::{number, put, put_id, set_length};
use super::{DecodeError, Name, kind};

/// Longest payload of a packet, in bytes.
pub const MAX_PAYLOAD: usize = u16::MAX as usize;

/// What packets of one flow have in common.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Run<I> {
    /// Whom they are for.
    pub dest: I,
    /// Who sent them.
    pub sender: I,
    /// The epoch under which the receiver is believed to have the destination.
    pub epoch: u64,
}

/// Packets of one flow, checked to be whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Packets<'a, I> {
    /// What they have in common.
    pub run: Run<I>,
    payloads: &'a [u8],
    count: usize,
}

impl<'a, I: Name> Packets<'a, I> {
    pub(super) fn new(run: Run<I>, body: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut check = body.clone();
        let mut count = 0;
        while !check.is_empty() {
            let length = usize::from(check.u16()?);
            check.bytes(length)?;
            count += 1;
        }
        Ok(Self { run, payloads: body.take_rest(), count })
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Their payloads, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a, I> {
        let mut rest = self.payloads;
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first_chunk::<2>()?;
            let (payload, after) =
                after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            rest = after;
            Some(payload)
        })
    }
}

/// Begins a frame of packets at the end of a batch; returns its position, for
/// [`add_packet`].
pub fn begin_packets<I: Name>(run: &Run<I>, batch: &mut Vec<u8>) -> usize {
    let at = batch.len();
    put(kind::PACKETS, &run.dest, batch, |body| {
        put_id(&run.sender, body);
        number(run.epoch, body);
    });
    at
}

/// Appends a packet's payload, of [`MAX_PAYLOAD`] bytes at most, to the frame at `at`, which is
/// the last of the batch.
#[inline]
pub fn add_packet(at: usize, payload: &[u8], batch: &mut Vec<u8>) {
    let length = u16::try_from(payload.len()).expect("no payload is longer");
    batch.extend_from_slice(&length.to_be_bytes());
    batch.extend_from_slice(payload);
    set_length(at, batch);
}

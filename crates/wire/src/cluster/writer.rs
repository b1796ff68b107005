//! Writes the fields of a frame, one after the other.

use super::{FRAME_HEADER, Location, Name};

/// Appends a frame about an id, and fills in its length.
pub(super) fn put<I: Name>(
    kind: u8,
    id: &I,
    batch: &mut Vec<u8>,
    fields: impl FnOnce(&mut Vec<u8>),
) {
    let at = batch.len();
    batch.extend([kind, 0, 0, 0, 0]);
    put_id(id, batch);
    fields(batch);
    set_length(at, batch);
}

pub(super) fn put_id<I: Name>(id: &I, body: &mut Vec<u8>) {
    body.extend([id.realm(), 0]);
    let at = body.len();
    id.write(body);
    let length = u8::try_from(body.len() - at).expect("an id has 64 bytes at most");
    if let Some(slot) = body.get_mut(at - 1) {
        *slot = length;
    }
}

/// Fills in the length of the frame that begins at `at` and ends the batch.
#[inline]
pub(super) fn set_length(at: usize, batch: &mut [u8]) {
    let length = u32::try_from(batch.len() - at - FRAME_HEADER).expect("far below 4 GiB");
    if let Some(slot) = batch.get_mut(at + 1..at + FRAME_HEADER) {
        slot.copy_from_slice(&length.to_be_bytes());
    }
}

#[inline]
pub(super) fn number(number: u64, body: &mut Vec<u8>) {
    body.extend_from_slice(&number.to_be_bytes());
}

pub(super) fn put_location(location: &Location, body: &mut Vec<u8>) {
    body.extend_from_slice(&location.owner.0.0);
    number(location.epoch, body);
    body.push(location.ownership as u8);
}

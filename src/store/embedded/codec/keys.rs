//! The keys of all rows. They are big-endian, so that their order is that of the numbers in them.

use std::fmt::Write as _;

use super::{Fields, Malformed};
use crate::proto::bus::{Digest, MailboxId, Millis, Seq};

/// A key as an error names it.
pub(in super::super) fn shown(key: &[u8]) -> String {
    key.iter().fold(String::with_capacity(2 * key.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The key of a name.
pub(in super::super) fn name_key(realm: u8, name: &str) -> Vec<u8> {
    [&[realm], name.as_bytes()].concat()
}

/// The key of what there is once for each mailbox.
pub(in super::super) const fn mailbox_key(mailbox: MailboxId) -> [u8; 8] {
    mailbox.0.to_be_bytes()
}

/// The key of a message, and of how often it was delivered.
pub(in super::super) fn message_key(mailbox: MailboxId, seq: Seq) -> [u8; 16] {
    numbers(&[mailbox.0, seq.0])
}

/// The key of the position behind a delivery key.
///
/// These are looked up one by one, in no order. So the digest is first, which tells two keys apart
/// by their first bytes, and the mailbox takes four, up to 2^32: fjall keeps 20 bytes in place.
pub(in super::super) struct DigestKey {
    bytes: [u8; 24],
    length: usize,
}

impl DigestKey {
    pub(in super::super) fn new(mailbox: MailboxId, key: Digest) -> Self {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&key.0);
        bytes[16..].copy_from_slice(&mailbox.0.to_le_bytes());
        let length = if u32::try_from(mailbox.0).is_ok() { 20 } else { 24 };
        Self { bytes, length }
    }

    /// Whose a key is, and which.
    pub(in super::super) fn read(key: &[u8]) -> Option<(MailboxId, Digest)> {
        let (digest, rest) = key.split_first_chunk()?;
        let mut mailbox = [0; 8];
        mailbox.get_mut(..rest.len())?.copy_from_slice(rest);
        Some((MailboxId(u64::from_le_bytes(mailbox)), Digest(*digest)))
    }
}

impl AsRef<[u8]> for DigestKey {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// What the keys of channels begin with, among what there is once.
pub(in super::super) const CHANNEL: &[u8; 8] = b"channel ";

/// What the keys of cursors begin with.
pub(in super::super) const CURSOR: &[u8; 7] = b"cursor ";

/// The key of what is known of a channel.
pub(in super::super) fn channel_key(channel: MailboxId) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(CHANNEL);
    bytes[8..].copy_from_slice(&channel.0.to_be_bytes());
    bytes
}

/// The key of a cursor: those of a channel follow each other.
pub(in super::super) fn cursor_key(channel: MailboxId, peer: MailboxId) -> [u8; 23] {
    let mut bytes = [0; 23];
    bytes[..7].copy_from_slice(CURSOR);
    bytes[7..].copy_from_slice(&numbers::<16>(&[channel.0, peer.0]));
    bytes
}

/// The key of a dead letter: those of a mailbox are in the order of their burial.
pub(in super::super) fn letter_key(mailbox: MailboxId, at: Millis, seq: Seq) -> [u8; 24] {
    numbers(&[mailbox.0, at.0, seq.0])
}

/// The key of entries of a relay's chain: those of one follow each other.
pub(in super::super) fn chain_key(relay: &[u8; 32], first: u64) -> [u8; 40] {
    let mut bytes = [0; 40];
    bytes[..32].copy_from_slice(relay);
    bytes[32..].copy_from_slice(&first.to_be_bytes());
    bytes
}

/// Whose entries a key of a chain is of, and the number of the first.
pub(in super::super) fn read_chain_key(key: &[u8]) -> Result<([u8; 32], u64), Malformed> {
    let mut fields = Fields(key);
    let read = (fields.array()?, u64::from_be_bytes(fields.array()?));
    fields.end(read)
}

fn numbers<const N: usize>(of: &[u64]) -> [u8; N] {
    let mut bytes = [0; N];
    for (bytes, number) in bytes.chunks_exact_mut(8).zip(of) {
        bytes.copy_from_slice(&number.to_be_bytes());
    }
    bytes
}

/// The numbers of a key that has so many.
pub(in super::super) fn key_numbers<const N: usize>(key: &[u8]) -> Result<[u64; N], Malformed> {
    let mut fields = Fields(key);
    let mut found = [0; N];
    for number in &mut found {
        *number = u64::from_be_bytes(fields.array()?);
    }
    fields.end(found)
}

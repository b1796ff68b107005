//! What relays of a cluster tell each other: batches of frames (docs/SPEC-cluster.md).
//!
//! A frame is its kind u8, the length of its body u32, and the body; integers are
//! big-endian. An id is realm u8, length u8 and up to 64 bytes, so that ids of any door fit.
//! A kind or a realm that is not known is skipped by its length.

use std::fmt::{Debug, Display};
use std::hash::Hash;

use crate::ids::{NodeId, PublicKey, RelayId};
use crate::name::Realm;

mod packets;
mod reader;
#[cfg(test)]
mod tests;

pub use packets::{Packets, Run, add_packet, begin_packets};
use reader::Reader;

/// Version of this protocol; relays of different versions do not link.
pub const VERSION: u8 = 1;

/// Longest batch, in bytes: two of the largest packets fit with all their heads.
pub const MAX_BATCH: usize = 131_072;

/// Longest id of any realm, in bytes.
pub const MAX_ID: usize = 64;

/// Bytes in front of the body of a frame: kind u8, length u32.
pub const FRAME_HEADER: usize = 5;

mod kind {
    pub(super) const PACKETS: u8 = 0x01;
    pub(super) const NACK: u8 = 0x02;
    pub(super) const CLAIM: u8 = 0x10;
    pub(super) const GRANTED: u8 = 0x11;
    pub(super) const REFUSED: u8 = 0x12;
    pub(super) const MOVED: u8 = 0x13;
    pub(super) const LEAVE: u8 = 0x14;
    pub(super) const LEFT: u8 = 0x15;
    pub(super) const GONE: u8 = 0x16;
    pub(super) const NOTED: u8 = 0x17;
    pub(super) const FIND: u8 = 0x18;
    pub(super) const FOUND: u8 = 0x19;
    pub(super) const MISSING: u8 = 0x1a;
    // 0x1c Locate and 0x1d Watch are reserved: subscriptions to who comes and goes.
    pub(super) const ALIVE: u8 = 0x20;
    pub(super) const DRAINING: u8 = 0x21;
    pub(super) const CLOCK: u8 = 0x22;
}

/// What names a peer on the cluster's wire.
pub trait Name: Copy + Debug + Display + Eq + Hash + Ord + Send + Sync + 'static {
    /// The name space that the id belongs to.
    fn realm(&self) -> u8;

    /// Appends the id's bytes, at most [`MAX_ID`].
    fn write(&self, to: &mut Vec<u8>);

    /// Reads an id from all of its bytes; `None` where the realm, or an id of this length in
    /// it, is unknown: the frame is skipped.
    ///
    /// # Errors
    /// Bytes that are no id of a realm that is known.
    fn read(realm: u8, bytes: &[u8]) -> Result<Option<Self>, InvalidId>;
}

/// Bytes that are no id in their realm.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the bytes are no id of their realm")]
pub struct InvalidId;

impl Name for NodeId {
    #[inline]
    fn realm(&self) -> u8 {
        Realm::PILOT.0
    }

    #[inline]
    fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.number().to_be_bytes());
    }

    fn read(realm: u8, bytes: &[u8]) -> Result<Option<Self>, InvalidId> {
        if realm != Realm::PILOT.0 {
            return Ok(None);
        }
        let bytes = bytes.try_into().map_err(|_| InvalidId)?;
        Self::new(u32::from_be_bytes(bytes)).map(Some).ok_or(InvalidId)
    }
}

/// How well a relay knows that it has a node.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Standing {
    /// A beacon of the fleet serves the node, and this relay reaches that beacon.
    Gateway = 0,
    /// The node has a UDP endpoint here, which nobody proved.
    Endpoint = 1,
    /// The node has a session here, and proved its key.
    Session = 2,
}

/// What happens to the session of a peer when another of the same peer begins, at the same
/// relay or, by a claim, at another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Takeover {
    /// The last one wins.
    Always = 0,
    /// The last one wins if it has proved the same credential.
    SameCredential = 1,
    /// The first one stays.
    Refuse = 2,
}

/// A relay says that it has a node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Claim<I> {
    /// The node.
    pub id: I,
    /// The epoch that was granted before; 0 asks for one.
    pub epoch: u64,
    /// Which of this relay's connections of the node it is: later ones have higher numbers.
    pub serial: u64,
    /// What the answer repeats, so that it is not taken for one to a later claim; from 1 on.
    pub nonce: u32,
    /// How well the relay knows it.
    pub standing: Standing,
    /// What happens to an owner elsewhere.
    pub takeover: Takeover,
    /// Hash of what the node proved to have; 0 where it proved nothing.
    pub credential: u64,
    /// How long ago the node arrived, in milliseconds: a request that was lost and comes
    /// late is no newer than what came in the meantime.
    pub age_ms: u32,
}

/// One thing that a relay tells another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Frame<'a, I> {
    /// Packets of one flow, for a node that the receiver has.
    Packets(Packets<'a, I>),
    /// The receiver's packets for a node did not find it here.
    Nack {
        /// The node.
        id: I,
        /// The epoch that the packets were sent under.
        epoch: u64,
    },
    /// To a home: the sender has a node.
    Claim(Claim<I>),
    /// From a home: the claim of this serial holds, under this epoch.
    Granted {
        /// The node.
        id: I,
        /// The epoch of the ownership, which may be newer than the claim's.
        epoch: u64,
        /// The serial of the claim.
        serial: u64,
        /// The nonce of the claim.
        nonce: u32,
    },
    /// From a home: the claim gives way to an owner elsewhere.
    Refused {
        /// The node.
        id: I,
        /// The nonce of the claim.
        nonce: u32,
        /// Why, and by whom.
        refusal: Refusal,
    },
    /// From a home: the node is elsewhere, whatever was known before under older epochs.
    Moved {
        /// The node.
        id: I,
        /// Where it is.
        place: Place,
        /// The receiver's serial that this ends, repeated until the receiver answers; 0
        /// where this is only news.
        ends: u64,
    },
    /// To a home: the sender no longer has the node under this serial or any before it.
    Leave {
        /// The node.
        id: I,
        /// The last serial that is over.
        serial: u64,
    },
    /// From a home: the leave of this serial is noted.
    Left {
        /// The node.
        id: I,
        /// The serial of the leave.
        serial: u64,
    },
    /// From an owner: the end of this serial at a former home is noted.
    Noted {
        /// The node.
        id: I,
        /// The serial that [`Frame::Moved`] ended.
        serial: u64,
    },
    /// From an owner: forget that I have the node under this epoch or older.
    Gone {
        /// The node.
        id: I,
        /// The epoch that ended.
        epoch: u64,
    },
    /// To a home: who has the node?
    Find {
        /// The node.
        id: I,
    },
    /// From a home: this relay has it.
    Found {
        /// The node.
        id: I,
        /// Where it is.
        place: Place,
        /// The owner's serial, for an owner that knows better.
        serial: u64,
    },
    /// From a home: nobody has said that it has the node.
    Missing {
        /// The node.
        id: I,
    },
    /// The link lives.
    Alive,
    /// The sender takes no new nodes, and is nobody's home any more.
    Draining,
    /// What the sender's clock shows.
    Clock(Reading),
    /// A kind or a realm of a later version.
    Unknown,
}

/// What a relay's clock shows, and what it needs to take the round trip out of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reading {
    /// Milliseconds since 1970 by the sender's clock.
    pub shown_ms: u64,
    /// What the receiver's last reading showed; 0 where none has come.
    pub echo_ms: u64,
    /// How long ago that came to the sender, in milliseconds.
    pub held_ms: u32,
}

/// Who has a node, since when, and how well that is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// The relay.
    pub owner: RelayId,
    /// The epoch of its ownership.
    pub epoch: u64,
    /// How well the owner knows it.
    pub standing: Standing,
}

/// Why a claim gives way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// This relay has the node, and the claim is no reason to take it away.
    Held(Place),
    /// The node had a session elsewhere a moment ago, or moved a moment ago.
    TooSoon,
    /// The epoch is too far ahead of the home's clock: ask for another.
    EpochAhead,
    /// The home has no room for another node.
    Full,
}

/// Why bytes are not a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A frame ends before its fields do.
    #[error("a frame of kind {kind:#04x} is cut off")]
    Truncated {
        /// Its kind, 0 where not even that is there.
        kind: u8,
    },
    /// A frame has bytes behind its last field.
    #[error("a frame of kind {kind:#04x} has bytes too many")]
    TooLong {
        /// Its kind.
        kind: u8,
    },
    /// A field has a value that means nothing.
    #[error("a frame of kind {kind:#04x} has a field that means nothing")]
    BadField {
        /// Its kind.
        kind: u8,
    },
}

/// The frames of a batch, in their order; ends after the first error.
#[derive(Clone, Debug)]
pub struct Frames<'a, I> {
    rest: Reader<'a>,
    failed: bool,
    ids: std::marker::PhantomData<I>,
}

impl<'a, I: Name> Frames<'a, I> {
    /// Reads the frames of a batch.
    #[must_use]
    pub const fn new(batch: &'a [u8]) -> Self {
        Self { rest: Reader::new(0, batch), failed: false, ids: std::marker::PhantomData }
    }

    fn next_frame(&mut self) -> Result<Frame<'a, I>, DecodeError> {
        self.rest.kind = 0;
        let kind = self.rest.u8()?;
        self.rest.kind = kind;
        let length = self.rest.u32()? as usize;
        let mut body = Reader::new(kind, self.rest.bytes(length)?);
        let frame = decode(kind, &mut body)?;
        if frame != Frame::Unknown {
            body.end()?;
        }
        Ok(frame)
    }
}

impl<'a, I: Name> Iterator for Frames<'a, I> {
    type Item = Result<Frame<'a, I>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.rest.is_empty() {
            return None;
        }
        let frame = self.next_frame();
        self.failed = frame.is_err();
        Some(frame)
    }
}

fn decode<'a, I: Name>(kind: u8, body: &mut Reader<'a>) -> Result<Frame<'a, I>, DecodeError> {
    match kind {
        kind::ALIVE | kind::DRAINING => {
            // A later version may say more.
            let _ignored = body.take_rest();
            return Ok(if kind == kind::ALIVE { Frame::Alive } else { Frame::Draining });
        }
        kind::CLOCK => {
            let (shown_ms, echo_ms) = (body.u64()?, body.u64()?);
            return Ok(Frame::Clock(Reading { shown_ms, echo_ms, held_ms: body.u32()? }));
        }
        kind::PACKETS..=kind::NACK | kind::CLAIM..=kind::NOTED | kind::FIND..=kind::MISSING => {}
        _ => return Ok(Frame::Unknown),
    }
    let Some(id) = body.id()? else { return Ok(Frame::Unknown) };
    Ok(match kind {
        kind::PACKETS => {
            let Some(sender) = body.id()? else { return Ok(Frame::Unknown) };
            let epoch = body.u64()?;
            Frame::Packets(Packets::new(Run { dest: id, sender, epoch }, body)?)
        }
        kind::NACK => Frame::Nack { id, epoch: body.u64()? },
        kind::CLAIM => Frame::Claim(Claim {
            id,
            epoch: body.u64()?,
            serial: body.u64()?,
            nonce: body.u32()?,
            standing: body.standing()?,
            takeover: body.takeover()?,
            credential: body.u64()?,
            age_ms: body.u32()?,
        }),
        kind::GRANTED => {
            Frame::Granted { id, epoch: body.u64()?, serial: body.u64()?, nonce: body.u32()? }
        }
        kind::REFUSED => Frame::Refused { id, nonce: body.u32()?, refusal: refusal(body)? },
        kind::MOVED => Frame::Moved { id, place: place(body)?, ends: body.u64()? },
        kind::LEAVE => Frame::Leave { id, serial: body.u64()? },
        kind::LEFT => Frame::Left { id, serial: body.u64()? },
        kind::NOTED => Frame::Noted { id, serial: body.u64()? },
        kind::GONE => Frame::Gone { id, epoch: body.u64()? },
        kind::FIND => Frame::Find { id },
        kind::FOUND => Frame::Found { id, place: place(body)?, serial: body.u64()? },
        _ => Frame::Missing { id },
    })
}

fn place(body: &mut Reader<'_>) -> Result<Place, DecodeError> {
    let owner = RelayId(PublicKey(body.array()?));
    Ok(Place { owner, epoch: body.u64()?, standing: body.standing()? })
}

fn refusal(body: &mut Reader<'_>) -> Result<Refusal, DecodeError> {
    match body.u8()? {
        0 => Ok(Refusal::Held(place(body)?)),
        1 => Ok(Refusal::TooSoon),
        2 => Ok(Refusal::EpochAhead),
        3 => Ok(Refusal::Full),
        _ => Err(DecodeError::BadField { kind: body.kind }),
    }
}

/// Appends a frame to a batch; [`Frame::Unknown`] is nothing to send, and appends nothing.
///
/// Packets of a flow are appended one by one, with [`begin_packets`] and [`add_packet`].
pub fn encode<I: Name>(frame: &Frame<'_, I>, batch: &mut Vec<u8>) {
    match *frame {
        Frame::Packets(packets) => {
            let at = begin_packets(&packets.run, batch);
            packets.iter().for_each(|packet| add_packet(at, packet, batch));
        }
        Frame::Nack { id, epoch } => put(kind::NACK, &id, batch, |body| number(epoch, body)),
        Frame::Claim(claim) => put(kind::CLAIM, &claim.id, batch, |body| {
            number(claim.epoch, body);
            number(claim.serial, body);
            body.extend(claim.nonce.to_be_bytes());
            body.extend([claim.standing as u8, claim.takeover as u8]);
            number(claim.credential, body);
            body.extend(claim.age_ms.to_be_bytes());
        }),
        Frame::Granted { id, epoch, serial, nonce } => put(kind::GRANTED, &id, batch, |body| {
            number(epoch, body);
            number(serial, body);
            body.extend(nonce.to_be_bytes());
        }),
        Frame::Refused { id, nonce, refusal } => put(kind::REFUSED, &id, batch, |body| {
            body.extend(nonce.to_be_bytes());
            match refusal {
                Refusal::Held(place) => {
                    body.push(0);
                    put_place(&place, body);
                }
                Refusal::TooSoon => body.push(1),
                Refusal::EpochAhead => body.push(2),
                Refusal::Full => body.push(3),
            }
        }),
        Frame::Moved { id, place, ends } => put(kind::MOVED, &id, batch, |body| {
            put_place(&place, body);
            number(ends, body);
        }),
        Frame::Leave { id, serial } => put(kind::LEAVE, &id, batch, |body| number(serial, body)),
        Frame::Left { id, serial } => put(kind::LEFT, &id, batch, |body| number(serial, body)),
        Frame::Noted { id, serial } => put(kind::NOTED, &id, batch, |body| number(serial, body)),
        Frame::Gone { id, epoch } => put(kind::GONE, &id, batch, |body| number(epoch, body)),
        Frame::Find { id } => put(kind::FIND, &id, batch, |_| {}),
        Frame::Found { id, place, serial } => put(kind::FOUND, &id, batch, |body| {
            put_place(&place, body);
            number(serial, body);
        }),
        Frame::Missing { id } => put(kind::MISSING, &id, batch, |_| {}),
        Frame::Alive => batch.extend([kind::ALIVE, 0, 0, 0, 0]),
        Frame::Draining => batch.extend([kind::DRAINING, 0, 0, 0, 0]),
        Frame::Clock(Reading { shown_ms, echo_ms, held_ms }) => {
            let at = batch.len();
            batch.extend([kind::CLOCK, 0, 0, 0, 0]);
            number(shown_ms, batch);
            number(echo_ms, batch);
            batch.extend(held_ms.to_be_bytes());
            set_length(at, batch);
        }
        Frame::Unknown => {}
    }
}

/// Appends a frame about an id, and fills in its length.
fn put<I: Name>(kind: u8, id: &I, batch: &mut Vec<u8>, fields: impl FnOnce(&mut Vec<u8>)) {
    let at = batch.len();
    batch.extend([kind, 0, 0, 0, 0]);
    put_id(id, batch);
    fields(batch);
    set_length(at, batch);
}

fn put_id<I: Name>(id: &I, body: &mut Vec<u8>) {
    body.extend([id.realm(), 0]);
    let at = body.len();
    id.write(body);
    let length = u8::try_from(body.len() - at).expect("an id has 64 bytes at most");
    if let Some(place) = body.get_mut(at - 1) {
        *place = length;
    }
}

/// Fills in the length of the frame that begins at `at` and ends the batch.
#[inline]
fn set_length(at: usize, batch: &mut [u8]) {
    let length = u32::try_from(batch.len() - at - FRAME_HEADER).expect("far below 4 GiB");
    if let Some(place) = batch.get_mut(at + 1..at + FRAME_HEADER) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

#[inline]
fn number(number: u64, body: &mut Vec<u8>) {
    body.extend_from_slice(&number.to_be_bytes());
}

fn put_place(place: &Place, body: &mut Vec<u8>) {
    body.extend_from_slice(&place.owner.0.0);
    number(place.epoch, body);
    body.push(place.standing as u8);
}

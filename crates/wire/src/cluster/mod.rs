//! What relays of a cluster tell each other: batches of frames (docs/SPEC-cluster.md).
//!
//! A frame is its kind u8, the length of its body u32, and the body; integers are
//! big-endian. An id is realm u8, length u8 and up to 64 bytes, so that ids of any door fit.
//! A kind or a realm that is not known is skipped by its length.

use std::fmt::{Debug, Display};
use std::hash::Hash;

use crate::ids::RelayId;

mod channel;
mod decode;
mod encode;
mod kind;
mod packets;
mod reader;
#[cfg(test)]
mod tests;
mod whole;
mod writer;

pub use channel::{Channel, ChannelRealms, ChannelWord, MAX_PART, PART_COST};
pub use decode::Frames;
pub use encode::encode;
pub use packets::{MAX_PAYLOAD, Packets, Run, add_packet, begin_packets};
pub use whole::{FrameTooLong, whole_frames};

/// Version of this protocol; relays of different versions do not link.
pub const VERSION: u8 = 1;

/// Longest batch, in bytes: two of the largest packets fit with all their heads.
pub const MAX_BATCH: usize = 131_072;

/// Longest id of any realm, in bytes.
pub const MAX_ID: usize = 64;

/// Bytes in front of the body of a frame: kind u8, length u32.
pub const FRAME_HEADER: usize = 5;

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

/// The ownership kind: how well a relay knows that it has a peer.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Ownership {
    /// A server of a door's own network, which is no relay, serves the peer, and this relay
    /// reaches that server.
    Gateway = 0,
    /// The peer has an endpoint here, where it takes datagrams, which nobody proved.
    Endpoint = 1,
    /// The peer has a session here, and proved who it is.
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

/// A relay says that it has a peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Claim<I> {
    /// The peer.
    pub id: I,
    /// The epoch that was granted before; 0 asks for one.
    pub epoch: u64,
    /// Which of this relay's connections of the peer it is: later ones have higher numbers.
    pub serial: u64,
    /// What the answer repeats, so that it is not taken for one to a later claim; from 1 on.
    pub nonce: u32,
    /// How well the relay knows it.
    pub ownership: Ownership,
    /// What happens to an owner elsewhere.
    pub takeover: Takeover,
    /// Hash of what the peer proved to have; 0 where it proved nothing.
    pub credential: u64,
    /// How long ago the peer arrived, in milliseconds: a request that was lost and comes
    /// late is no newer than what came in the meantime.
    pub age_ms: u32,
}

/// One thing that a relay tells another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Frame<'a, I> {
    /// Packets of one flow, for a peer that the receiver has.
    Packets(Packets<'a, I>),
    /// The receiver's packets for a peer did not find it here.
    Nack {
        /// The peer.
        id: I,
        /// The epoch that the packets were sent under.
        epoch: u64,
    },
    /// To a home: the sender has a peer.
    Claim(Claim<I>),
    /// From a home: the claim of this serial holds, under this epoch.
    Granted {
        /// The peer.
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
        /// The peer.
        id: I,
        /// The nonce of the claim.
        nonce: u32,
        /// Why, and by whom.
        refusal: Refusal,
    },
    /// From a home: the peer is elsewhere, whatever was known before under older epochs.
    Moved {
        /// The peer.
        id: I,
        /// Where it is.
        location: Location,
        /// The receiver's serial that this ends, repeated until the receiver answers; 0
        /// where this is only news.
        ends: u64,
    },
    /// To a home: the sender no longer has the peer under this serial or any before it.
    Leave {
        /// The peer.
        id: I,
        /// The last serial that is over.
        serial: u64,
    },
    /// From a home: the leave of this serial is noted.
    Left {
        /// The peer.
        id: I,
        /// The serial of the leave.
        serial: u64,
    },
    /// From an owner: the end of this serial at a former home is noted.
    Noted {
        /// The peer.
        id: I,
        /// The serial that [`Frame::Moved`] ended.
        serial: u64,
    },
    /// From an owner: forget that I have the peer under this epoch or older.
    Gone {
        /// The peer.
        id: I,
        /// The epoch that ended.
        epoch: u64,
    },
    /// To a home: who has the peer?
    Find {
        /// The peer.
        id: I,
    },
    /// From a home: this relay has it.
    Found {
        /// The peer.
        id: I,
        /// Where it is.
        location: Location,
        /// The owner's serial, for an owner that knows better.
        serial: u64,
    },
    /// From a home: nobody has said that it has the peer.
    Missing {
        /// The peer.
        id: I,
    },
    /// To a home: tell who has the peer, at once and whenever that changes; or no longer.
    Watch {
        /// The peer.
        id: I,
        /// What [`Frame::Locate`] repeats; of two the later one counts.
        nonce: u32,
        /// Whether it is to be told from here on.
        is_on: bool,
    },
    /// From a home: what it knows of a peer that the receiver watches; repeated until it is heard.
    Locate {
        /// The peer.
        id: I,
        /// The nonce of the last [`Frame::Watch`].
        nonce: u32,
        /// Later statements have higher ones.
        version: u64,
        /// The owner's serial; 0 where there is none, or the owner was lost.
        serial: u64,
        /// What it knows.
        sight: Sight,
    },
    /// To a home: what it told under this version is known.
    Heard {
        /// The peer.
        id: I,
        /// The version.
        version: u64,
    },
    /// The link lives.
    Alive,
    /// The sender takes no new peers, and is nobody's home any more.
    Draining,
    /// The sender takes packets over TCP as well, at the address of its link.
    TakesTcp,
    /// What the sender's clock shows.
    Clock(Reading),
    /// What the sender can do, and tells its peers.
    About(About),
    /// Of a channel, over which doors of two relays talk.
    Channel(Channel<'a>),
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

/// Where a peer is: its owner, since when, and how well the owner knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Location {
    /// The relay.
    pub owner: RelayId,
    /// The epoch of its ownership.
    pub epoch: u64,
    /// How well the owner knows it.
    pub ownership: Ownership,
}

/// What a home knows of a peer that somebody watches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sight {
    /// Nobody has said that it has the peer.
    Unknown,
    /// A relay has it.
    At(Location),
    /// This relay had it last, and has it no more.
    Over(Location),
    /// The home has no room for another watch, and does not watch it.
    Full,
    /// The home no longer watches it for the receiver.
    Ended,
}

/// What a relay can do beyond the first version, and what all relays of a cluster should tell
/// their peers alike.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct About {
    /// Bits; unknown ones mean nothing.
    pub features: u32,
    /// Hash of what its peers are told that has to be the same at all relays; 0 for nothing.
    pub told: u64,
    /// The realms whose doors talk over [`Frame::Channel`]. A relay of a version whose only such
    /// door is one for all does not say which.
    pub channels: Option<ChannelRealms>,
}

impl About {
    /// It answers [`Frame::Watch`].
    pub const WATCHES: u32 = 1;

    /// A door of it talks over [`Frame::Channel`].
    pub const CHANNELS: u32 = 2;
}

/// Why a claim gives way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// This relay has the peer, and the claim is no reason to take it away.
    Held(Location),
    /// The peer had a session elsewhere a moment ago, or moved a moment ago.
    TooSoon,
    /// The epoch is too far ahead of the home's clock: ask for another.
    EpochAhead,
    /// The home has no room for another peer.
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

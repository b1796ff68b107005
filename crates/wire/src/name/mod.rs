//! The name of a peer of any door: what the relay's tables, its cluster and its operators
//! call it by.
//!
//! A [`Name`] is a realm and up to 38 bytes in place, so that it is `Copy` and no table needs
//! to know a door's ids. A longer name enters as its SHA-256; the door that made it keeps the
//! text.

use std::fmt::{self, Write as _};
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::cluster::{self, InvalidId};
use crate::hex::{self, Hex};
use crate::ids::{InvalidNodeId, NodeId};

mod escape;
mod realm;
pub mod testing;
#[cfg(test)]
mod tests;

use escape::{Escaped, unescape};
use realm::UNKNOWN;
pub use realm::{Realm, RegisterError, Spelling};

/// Longest name that is kept as it is, in bytes.
pub const MAX_LENGTH: usize = 38;

/// Bytes in front of the name: realm, length.
const HEAD: usize = 2;

/// Bytes in a word: names whose head and bytes fit are compared and hashed as one number.
const WORD: usize = size_of::<u64>();

/// The bit of the length that says: the name is the SHA-256 of a longer one.
const HASHED: u8 = 0x80;

/// What stands behind a hash on the cluster's wire, and in front of it in text.
///
/// 32 + 7 bytes are one more than any name has that is not hashed.
const DIGEST: &str = "sha-256";

/// What names a peer, in whichever door's name space.
///
/// Ordered by realm, then by length, then by bytes: nodes by their number.
#[derive(Clone, Copy, Eq, Ord, PartialOrd)]
pub struct Name(
    /// Realm, length with [`HASHED`], and the bytes; zeros behind them.
    [u8; HEAD + MAX_LENGTH],
);

impl Name {
    /// The name of these bytes; of their SHA-256 where they are more than [`MAX_LENGTH`].
    ///
    /// In [`Realm::PILOT`] only the four bytes of a node id mean anything: use `From<NodeId>`.
    #[must_use]
    pub fn new(realm: Realm, bytes: &[u8]) -> Self {
        if bytes.len() > MAX_LENGTH {
            Self::of_digest(realm, &Sha256::digest(bytes).into())
        } else {
            Self::filled(realm, 0, bytes)
        }
    }

    fn of_digest(realm: Realm, digest: &[u8; 32]) -> Self {
        Self::filled(realm, HASHED, digest)
    }

    fn filled(realm: Realm, flag: u8, bytes: &[u8]) -> Self {
        let length = u8::try_from(bytes.len()).expect("at most 38 bytes are put in");
        let mut name = [0; HEAD + MAX_LENGTH];
        name[0] = realm.0;
        name[1] = flag | length;
        name[HEAD..HEAD + bytes.len()].copy_from_slice(bytes);
        Self(name)
    }

    /// The name space that the name is in.
    #[inline]
    #[must_use]
    pub const fn realm(&self) -> Realm {
        Realm(self.0[0])
    }

    /// The bytes of the name, or the SHA-256 that stands for them.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.key()[HEAD..]
    }

    /// Whether [`Name::bytes`] are the SHA-256 of a longer name.
    #[inline]
    #[must_use]
    pub const fn is_hashed(&self) -> bool {
        self.0[1] & HASHED != 0
    }

    /// The node that this names; `None` for the names of other doors.
    #[inline]
    #[must_use]
    pub fn node_id(&self) -> Option<NodeId> {
        match self.0 {
            [0, 4, a, b, c, d, ..] => NodeId::new(u32::from_be_bytes([a, b, c, d])),
            _ => None,
        }
    }

    /// Realm, length and the bytes that are there: all that differs between two names.
    #[inline]
    fn key(&self) -> &[u8] {
        let length = usize::from(self.0[1] & !HASHED);
        self.0.get(..HEAD + length).expect("the length is that of bytes that were put in")
    }

    /// The words of the name, of which only the first is not 0 in a name that [`Self::is_word`].
    #[inline]
    fn words(&self) -> [u64; (HEAD + MAX_LENGTH) / WORD] {
        let (words, rest) = self.0.as_chunks();
        debug_assert!(rest.is_empty(), "a name is made of whole words");
        std::array::from_fn(|at| u64::from_le_bytes(words[at]))
    }

    /// Whether nothing stands behind the first word, as in the name of a node.
    #[inline]
    const fn is_word(&self) -> bool {
        (self.0[1] & !HASHED) as usize <= WORD - HEAD
    }

    fn read_text(text: &str) -> Option<Self> {
        let (door, rest) = text.split_once(':')?;
        let (realm, spelling) = match door.strip_prefix(UNKNOWN) {
            Some(number) => (Realm(unknown_realm(number)?), None),
            None => Realm::of_door(door).map(|(realm, spelling)| (realm, Some(spelling)))?,
        };
        let digest = rest.strip_prefix(DIGEST).and_then(|rest| rest.strip_prefix('='));
        if let Some(digest) = digest.and_then(hex::decode).and_then(|bytes| bytes.try_into().ok()) {
            return Some(Self::of_digest(realm, &digest));
        }
        let bytes = match spelling {
            Some(spelling) => (spelling.parse)(&unescape(rest)?),
            None => hex::decode(rest),
        };
        Some(Self::new(realm, &bytes?))
    }
}

/// The number of `realm-7`, in its one spelling.
fn unknown_realm(text: &str) -> Option<u8> {
    let number: u8 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

impl From<NodeId> for Name {
    #[inline]
    fn from(node: NodeId) -> Self {
        let mut name = [0; HEAD + MAX_LENGTH];
        name[1] = 4;
        name[HEAD..HEAD + 4].copy_from_slice(&node.number().to_be_bytes());
        Self(name)
    }
}

impl PartialEq for Name {
    /// By words: for 40 bytes the compiler calls `memcmp`, which takes longer than a look-up's
    /// other steps. Always in place, or whether it is a call would change with the rest of the
    /// program, and with it what each record in an outbox costs.
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let [first, rest @ ..] = self.words();
        let [other_first, other_rest @ ..] = other.words();
        first == other_first
            && (self.is_word()
                || rest.iter().zip(&other_rest).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0)
    }
}

impl Hash for Name {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Of a known length, where that is that of a node's name: a few instructions.
        match self.0.first_chunk::<WORD>().filter(|_| self.is_word()) {
            Some(word) => state.write(word),
            None => state.write(self.key()),
        }
    }
}

impl fmt::Display for Name {
    /// A node as its number, another name as `door:name`; `realm-7:00ff` where no door is
    /// registered for the realm, and `door:sha-256=…` for the hash of a longer name.
    ///
    /// It is one word of one line, whatever the peer calls itself: spaces, and what would not
    /// show, stand there as `\u{20}`, and a backslash twice.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(node) = self.node_id() {
            return node.fmt(f);
        }
        let realm = self.realm();
        let spelling = realm.spelling().filter(|_| realm != Realm::PILOT);
        match spelling {
            Some(spelling) => write!(f, "{}:", spelling.door)?,
            None => write!(f, "{UNKNOWN}{}:", realm.0)?,
        }
        match spelling {
            _ if self.is_hashed() => write!(f, "{DIGEST}={}", Hex(self.bytes())),
            Some(spelling) => write!(Escaped(f), "{}", Shown(spelling, self.bytes())),
            None => Hex(self.bytes()).fmt(f),
        }
    }
}

/// A name's bytes as its door shows them.
struct Shown<'a>(Spelling, &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0.show)(self.1, f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

/// Why a text is not a name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// The text names no door, and is no node id.
    #[error(transparent)]
    Node(#[from] InvalidNodeId),
    /// There is no such door, or it has no such names.
    #[error("`{0}` is not a name: expected a node's number, or `door:name` as that door writes it")]
    Door(String),
}

impl FromStr for Name {
    type Err = InvalidName;

    /// Reads what `Display` writes, and `pilot:7` for the node 7.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if !text.contains(':') {
            return Ok(text.parse::<NodeId>()?.into());
        }
        let name = Self::read_text(text);
        let means_something =
            |name: &Self| name.realm() != Realm::PILOT || name.node_id().is_some();
        name.filter(means_something).ok_or_else(|| InvalidName::Door(text.to_owned()))
    }
}

impl Serialize for Name {
    /// A node as its number, another name as text.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.node_id() {
            Some(node) => to.serialize_u32(node.number()),
            None => to.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Name {
    /// A number is a node; a text is what `FromStr` reads. Only for formats that say which.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(NameVisitor)
    }
}

struct NameVisitor;

impl Visitor<'_> for NameVisitor {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a node's number from 1 to 4294967295, or a text `door:name`")
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Name, E> {
        let node = u32::try_from(number).ok().and_then(NodeId::new);
        let unexpected = || E::invalid_value(serde::de::Unexpected::Unsigned(number), &self);
        node.map(Name::from).ok_or_else(unexpected)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Name, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(serde::de::Unexpected::Signed(number), &self)),
        }
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Name, E> {
        text.parse().map_err(E::custom)
    }
}

impl cluster::Name for NodeId {
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

impl cluster::Name for Name {
    #[inline]
    fn realm(&self) -> u8 {
        self.realm().0
    }

    #[inline]
    fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self.bytes());
        if self.is_hashed() {
            to.extend_from_slice(DIGEST.as_bytes());
        }
    }

    fn read(realm: u8, bytes: &[u8]) -> Result<Option<Self>, InvalidId> {
        let realm = Realm(realm);
        if realm == Realm::PILOT {
            return Ok(NodeId::read(realm.0, bytes)?.map(Self::from));
        }
        if bytes.len() <= MAX_LENGTH {
            return Ok(Some(Self::new(realm, bytes)));
        }
        let digest = bytes.strip_suffix(DIGEST.as_bytes());
        let digest = digest.and_then(|digest| digest.try_into().ok());
        Ok(digest.map(|digest| Self::of_digest(realm, digest)))
    }
}

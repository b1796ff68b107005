//! Names of things on the network: node ids, beacon ids, relay ids and public keys.
//!
//! Values only; what a key or an id is allowed to do is decided in `proto`.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::hex::{self, Hex};

/// Id of a node of the overlay; 0 is never valid (SPEC §1).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NodeId(NonZeroU32);

impl NodeId {
    /// Makes an id from its number; `None` for 0.
    #[must_use]
    #[inline]
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number that goes on the wire.
    #[must_use]
    #[inline]
    pub const fn number(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is not a node id.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not a node id: expected a whole number from 1 to 4294967295")]
pub struct InvalidNodeId(String);

impl FromStr for NodeId {
    type Err = InvalidNodeId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // `parse` alone would take "+7" and "007" as other spellings of the same node.
        let canonical = !text.starts_with(['+', '0']);
        text.parse()
            .ok()
            .filter(|_| canonical)
            .and_then(Self::new)
            .ok_or_else(|| InvalidNodeId(text.to_owned()))
    }
}

/// Id of a beacon in the registry and in gossip; 0 means standalone (SPEC §7).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BeaconId(pub u32);

impl fmt::Display for BeaconId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An Ed25519 public key as its 32 raw bytes; not checked to be a point of the curve.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// A relay of a cluster: the public half of its Ed25519 identity.
///
/// Written as 64 hex digits, which file names, log lines and NATS subjects all take.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RelayId(pub PublicKey);

impl fmt::Display for RelayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0.0).fmt(f)
    }
}

impl fmt::Debug for RelayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelayId({self})")
    }
}

impl FromStr for RelayId {
    type Err = InvalidPublicKey;

    /// Reads 64 hex digits, or the base64 that public keys are written in elsewhere.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = Some(text).filter(|text| text.len() == 64).and_then(hex::decode);
        let key = hex.and_then(|bytes| bytes.try_into().ok());
        key.map_or_else(|| text.parse().map(Self), |key| Ok(Self(PublicKey(key))))
    }
}

/// Why a text is not a public key.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPublicKey {
    /// The text is not standard base64 with padding.
    #[error("a public key is 32 bytes in standard base64, and this is not base64")]
    NotBase64,
    /// The text decodes to another number of bytes than 32.
    #[error("a public key is 32 bytes in standard base64, and this has {0}")]
    WrongLength(usize),
    /// The text is what a file of a private key holds.
    #[error("that is a private key, which is for its owner alone: give the public one")]
    Private,
}

/// What the private key of a key file is marked by, so that nobody takes it for a public one.
pub const PRIVATE_KEY_MARK: &str = "private-key:";

impl FromStr for PublicKey {
    type Err = InvalidPublicKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim_start().starts_with(PRIVATE_KEY_MARK) {
            return Err(InvalidPublicKey::Private);
        }
        // 64 bytes hold what any text up to 85 characters can decode to; longer ones are refused unread.
        let mut bytes = [0; 64];
        if text.len() > 85 {
            return Err(InvalidPublicKey::WrongLength(text.len() / 4 * 3));
        }
        let length =
            STANDARD.decode_slice(text, &mut bytes).map_err(|_| InvalidPublicKey::NotBase64)?;
        let bytes = bytes.get(..length).expect("what is decoded fits its buffer");
        bytes.try_into().map(Self).map_err(|_| InvalidPublicKey::WrongLength(bytes.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_id_has_one_spelling() {
        assert_eq!("7".parse(), Ok(NodeId::new(7).unwrap()));
        for text in ["0", "+7", "07", "-1", "4294967296", "", " 7", "seven"] {
            assert!(text.parse::<NodeId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn public_key_round_trips_through_base64() {
        let text = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";
        assert_eq!(text.parse::<PublicKey>().unwrap().to_string(), text);
    }

    #[test]
    fn relay_id_is_written_in_hex_and_read_in_either_form() {
        let key: PublicKey = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=".parse().unwrap();
        let id = RelayId(key);
        let hex = "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8";
        assert_eq!(id.to_string(), hex);
        assert_eq!((hex.parse(), key.to_string().parse()), (Ok(id), Ok(id)));
        assert!("03a1".parse::<RelayId>().is_err() && "zz".repeat(32).parse::<RelayId>().is_err());
    }

    #[test]
    fn public_key_of_another_length_is_refused() {
        assert_eq!("AAAA".parse::<PublicKey>(), Err(InvalidPublicKey::WrongLength(3)));
        assert_eq!("?".parse::<PublicKey>(), Err(InvalidPublicKey::NotBase64));
        assert!("A".repeat(1_000).parse::<PublicKey>().is_err());
        assert!("A".repeat(88).parse::<PublicKey>().is_err());
    }
}

//! The relay protocol of NetBird and openZro: what clients and their relay tell each other.
//!
//! One message is one binary WebSocket message, or one QUIC datagram: a version, a type and a
//! body without any length. Which messages a state allows, and whether a token is good, is
//! decided elsewhere.

mod client;
#[cfg(test)]
mod tests;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

pub use client::{FromRelay, MAX_PAYLOAD, auth, subscribe, unsubscribe};

/// The one version of the protocol, the first byte of each message.
pub const VERSION: u8 = 1;

/// Longest message, in bytes.
pub const MAX_MESSAGE: usize = 8_820;

/// Longest login, in bytes.
pub const MAX_AUTH: usize = 212;

/// Most ids in one message.
pub const MAX_IDS: usize = 244;

/// Most ids in one message that fits a datagram on any path.
///
/// 31 = (1_200 (least packet of QUIC) - 50 (its headers, at most) - 2 (version, type)) / 36.
pub const MAX_IDS_IN_DATAGRAM: usize = 31;

/// What is in front of the payload of a [`Message::Transport`]: version, type and id.
pub const TRANSPORT_HEADER: usize = 2 + PeerId::LENGTH;

/// What follows the type of a login.
const MAGIC: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// The one kind of token: HMAC-SHA256.
const ALGORITHM: u8 = 1;

/// Fewest digits of an expiry.
const LEAST_DIGITS: usize = 10;

const TRANSPORT: u8 = 3;
const CLOSE: u8 = 4;
const HEALTH_CHECK: u8 = 5;
const AUTH: u8 = 6;
const AUTH_RESPONSE: u8 = 7;
const SUBSCRIBE: u8 = 8;
const UNSUBSCRIBE: u8 = 9;
const PEERS_ONLINE: u8 = 10;
const PEERS_WENT_OFFLINE: u8 = 11;

/// What either side says that it is alive with.
pub const HEALTHY: [u8; 2] = [VERSION, HEALTH_CHECK];

/// What either side ends a connection with.
pub const CLOSING: [u8; 2] = [VERSION, CLOSE];

/// Who a peer is: 36 bytes, which clients make as `sha-` and the SHA-256 of their name. Nobody
/// checks that they do.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PeerId(pub [u8; Self::LENGTH]);

impl PeerId {
    /// Length in bytes.
    pub const LENGTH: usize = 36;

    /// What the ids of clients begin with.
    const PREFIX: &'static [u8] = b"sha-";

    /// The id that clients of this name have: for `WireGuard` peers the public key, in Base64.
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        let mut id = [0; Self::LENGTH];
        let (prefix, hash) = id.split_at_mut(Self::PREFIX.len());
        prefix.copy_from_slice(Self::PREFIX);
        hash.copy_from_slice(&Sha256::digest(name));
        Self(id)
    }
}

impl fmt::Display for PeerId {
    /// `sha-` and the rest in Base64, as clients show it; an id that begins otherwise wholly in
    /// Base64 behind `raw-`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.strip_prefix(Self::PREFIX) {
            Some(hash) => write!(f, "sha-{}", STANDARD.encode(hash)),
            None => write!(f, "raw-{}", STANDARD.encode(self.0)),
        }
    }
}

impl std::str::FromStr for PeerId {
    type Err = InvalidPeerId;

    /// Reads what is displayed.
    fn from_str(text: &str) -> Result<Self, InvalidPeerId> {
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| InvalidPeerId);
        let bytes = match (text.strip_prefix("sha-"), text.strip_prefix("raw-")) {
            (Some(hash), _) => [Self::PREFIX, &decode(hash)?].concat(),
            (None, Some(raw)) => {
                let raw = decode(raw)?;
                // Each id is written in one way.
                if raw.starts_with(Self::PREFIX) {
                    return Err(InvalidPeerId);
                }
                raw
            }
            (None, None) => return Err(InvalidPeerId),
        };
        bytes.try_into().map(Self).map_err(|_| InvalidPeerId)
    }
}

/// A text is no peer id.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a peer id: `sha-` and the Base64 of 32 bytes, or `raw-` and that of 36")]
pub struct InvalidPeerId;

/// What a client says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Message<'a> {
    /// A packet for another peer, behind [`TRANSPORT_HEADER`] bytes; the payload may be empty.
    Transport {
        /// Whom it is for.
        dest: PeerId,
        /// What it carries.
        payload: &'a [u8],
    },
    /// The client ends the connection.
    Close,
    /// The client is alive.
    HealthCheck,
    /// A login; only the first message may be one.
    Auth(Auth<'a>),
    /// The client wants to know who of these comes and goes.
    Subscribe(PeerIds<'a>),
    /// It does not any more.
    Unsubscribe(PeerIds<'a>),
}

/// A login.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Auth<'a> {
    /// Who the client says that it is; the token does not say so.
    pub peer: PeerId,
    /// What it proves itself with.
    pub token: Token<'a>,
}

/// A token: until when it is good, and the HMAC-SHA256 of that.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Token<'a> {
    /// The code, under the SHA-256 of the secret, of `signed`.
    pub code: &'a [u8; 32],
    /// What is signed: the expiry in digits.
    pub signed: &'a [u8],
    /// The last second, in Unix time, in which the token is good.
    pub expiry: u64,
}

/// Ids one behind the other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PeerIds<'a>(&'a [[u8; PeerId::LENGTH]]);

impl PeerIds<'_> {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = PeerId> {
        self.0.iter().copied().map(PeerId)
    }
}

/// Why a message is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It has no type.
    #[error("a message of {0} bytes, without a type")]
    NoType(usize),
    /// It is of another version.
    #[error("version {0}, not 1")]
    Version(u8),
    /// It is of a type that clients do not send.
    #[error("type {0}, which clients do not send")]
    Type(u8),
    /// It is of a type that relays do not send.
    #[error("type {0}, which relays do not send")]
    TypeOfRelay(u8),
    /// Its body is of a length that its type does not have. The connection survives it.
    #[error("a message of type {kind} and {length} bytes")]
    Length {
        /// Its type.
        kind: u8,
        /// Its length in bytes.
        length: usize,
    },
    /// A login without the magic number, with another kind of token, or one whose expiry is no
    /// number of 10 digits or more.
    #[error("a login that is malformed")]
    Login,
}

impl DecodeError {
    /// Whether a connection that has logged in goes on: the message is known, and wrong.
    #[must_use]
    pub const fn is_survived(&self) -> bool {
        matches!(self, Self::Length { .. } | Self::Login)
    }
}

impl<'a> Message<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// Why it is none.
    pub fn decode(message: &'a [u8]) -> Result<Self, DecodeError> {
        let [version, kind, body @ ..] = message else {
            return Err(DecodeError::NoType(message.len()));
        };
        if *version != VERSION {
            return Err(DecodeError::Version(*version));
        }
        let wrong = DecodeError::Length { kind: *kind, length: message.len() };
        if message.len() > MAX_MESSAGE {
            return Err(wrong);
        }
        match *kind {
            TRANSPORT => {
                let (dest, payload) = body.split_first_chunk().ok_or(wrong)?;
                Ok(Self::Transport { dest: PeerId(*dest), payload })
            }
            // What follows is of later versions, if of any.
            CLOSE => Ok(Self::Close),
            HEALTH_CHECK => Ok(Self::HealthCheck),
            AUTH => Auth::decode(body).map(Self::Auth),
            SUBSCRIBE => ids(body).map(Self::Subscribe).ok_or(wrong),
            UNSUBSCRIBE => ids(body).map(Self::Unsubscribe).ok_or(wrong),
            other => Err(DecodeError::Type(other)),
        }
    }
}

impl<'a> Auth<'a> {
    fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        if body.len() > MAX_AUTH - 2 {
            return Err(DecodeError::Login);
        }
        let read = || {
            let rest = body.strip_prefix(&MAGIC)?;
            let (peer, rest) = rest.split_first_chunk()?;
            let rest = rest.strip_prefix(&[ALGORITHM])?;
            let (code, signed) = rest.split_first_chunk()?;
            let is_expiry = signed.len() >= LEAST_DIGITS && signed.iter().all(u8::is_ascii_digit);
            let digits = str::from_utf8(signed).ok().filter(|_| is_expiry)?;
            let token = Token { code, signed, expiry: digits.parse().ok()? };
            Some(Self { peer: PeerId(*peer), token })
        };
        read().ok_or(DecodeError::Login)
    }
}

fn ids(body: &[u8]) -> Option<PeerIds<'_>> {
    let (ids, []) = body.as_chunks() else { return None };
    (ids.len() <= MAX_IDS).then_some(PeerIds(ids))
}

/// What goes in front of a payload: the packet is from `source`, or for it where a client says so.
#[must_use]
#[inline]
pub fn transport_header(source: PeerId) -> [u8; TRANSPORT_HEADER] {
    let mut header = [0; TRANSPORT_HEADER];
    let (kind, id) = header.split_first_chunk_mut().expect("it is longer than its type");
    *kind = [VERSION, TRANSPORT];
    id.copy_from_slice(&source.0);
    header
}

/// The answer to a login that is good: where the relay is, for those who are told to come.
#[must_use]
pub fn auth_response(instance: &str) -> Vec<u8> {
    [&[VERSION, AUTH_RESPONSE], instance.as_bytes()].concat()
}

/// The messages that say that peers have come, each of [`MAX_IDS`] at most.
pub fn peers_online(peers: &[PeerId]) -> impl Iterator<Item = Vec<u8>> {
    listed(PEERS_ONLINE, peers, MAX_IDS)
}

/// The same, each of [`MAX_IDS_IN_DATAGRAM`] at most.
pub fn peers_online_in_datagrams(peers: &[PeerId]) -> impl Iterator<Item = Vec<u8>> {
    listed(PEERS_ONLINE, peers, MAX_IDS_IN_DATAGRAM)
}

/// The messages that say that peers have gone, each of [`MAX_IDS`] at most.
pub fn peers_went_offline(peers: &[PeerId]) -> impl Iterator<Item = Vec<u8>> {
    listed(PEERS_WENT_OFFLINE, peers, MAX_IDS)
}

fn listed(kind: u8, peers: &[PeerId], most: usize) -> impl Iterator<Item = Vec<u8>> {
    peers.chunks(most).map(move |peers| {
        let mut message = vec![VERSION, kind];
        peers.iter().for_each(|peer| message.extend_from_slice(&peer.0));
        message
    })
}

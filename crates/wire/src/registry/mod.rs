//! Messages to and from the registry, where public keys live (SPEC §8).
//!
//! Both modes have the same requests and responses in the same order; they differ in
//! how one message looks. Only our side is here: requests out, responses in.

use std::borrow::Cow;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::ids::{BeaconId, InvalidPublicKey, NodeId, PublicKey};

#[cfg(test)]
mod tests;

/// What the client sends first for binary mode: a name and a version.
///
/// A registry without binary mode takes it for a length of more than 1 GiB.
pub const PREAMBLE: [u8; 5] = *b"PILT\x01";

/// Longest message that is taken from the registry, in bytes.
///
/// The longest useful one is a list of beacons: 1 MiB holds 10,000 at 100 bytes each. The
/// registry itself takes 64 MiB, which would let one message cost as much as all peers.
pub const MAX_MESSAGE: usize = 1 << 20;

/// Longest error text that is kept, in bytes: the registry writes it, our log shows it.
const MAX_ERROR_TEXT: usize = 200;

mod frame_type {
    pub(super) const JSON: u8 = 0x00;
    pub(super) const LOOKUP: u8 = 0x02;
    pub(super) const LOOKUP_OK: u8 = 0x82;
    pub(super) const ERROR: u8 = 0xff;
}

/// How messages look on one connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// Each message is a type byte and its payload; the connection began with [`PREAMBLE`].
    Binary,
    /// Each message is JSON.
    Json,
}

/// What is asked of the registry. No `Debug`, since a registration carries a secret.
#[derive(Clone, Copy)]
pub enum Request<'a> {
    /// The public key of a node.
    Lookup(NodeId),
    /// Says that a beacon is reachable.
    RegisterBeacon {
        /// The beacon's id; not 0.
        id: BeaconId,
        /// Its public `host:port`.
        address: &'a str,
        /// What the registry may demand of those who register.
        admin_token: Option<&'a str>,
    },
    /// All beacons that are registered.
    ListBeacons,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum RequestJson<'a> {
    Lookup {
        node_id: u32,
    },
    BeaconRegister {
        beacon_id: u32,
        addr: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        admin_token: Option<&'a str>,
    },
    BeaconList,
}

impl Request<'_> {
    /// Appends the message with its length to `out`.
    pub fn encode(self, mode: Mode, out: &mut BytesMut) {
        // The length is known last.
        let start = out.len();
        out.put_u32(0);
        match (mode, self) {
            (Mode::Binary, Self::Lookup(node)) => {
                out.put_u8(frame_type::LOOKUP);
                out.put_u32(node.number());
            }
            (Mode::Binary, Self::RegisterBeacon { .. } | Self::ListBeacons) => {
                out.put_u8(frame_type::JSON);
                self.encode_json(out);
            }
            (Mode::Json, _) => self.encode_json(out),
        }
        let length = u32::try_from(out.len() - start - 4).expect("requests are far below 4 GiB");
        if let Some(prefix) = out.get_mut(start..start + 4) {
            prefix.copy_from_slice(&length.to_be_bytes());
        }
    }

    fn encode_json(self, out: &mut BytesMut) {
        let json = match self {
            Self::Lookup(node) => RequestJson::Lookup { node_id: node.number() },
            Self::RegisterBeacon { id, address, admin_token } => {
                RequestJson::BeaconRegister { beacon_id: id.0, addr: address, admin_token }
            }
            Self::ListBeacons => RequestJson::BeaconList,
        };
        serde_json::to_writer(out.writer(), &json).expect("strings and numbers always serialize");
    }
}

/// A beacon as the registry lists it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub struct BeaconEntry {
    /// The beacon's id.
    #[serde(deserialize_with = "beacon_id")]
    pub id: BeaconId,
    /// Its public `host:port`, as it registered; not checked.
    #[serde(rename = "addr")]
    pub address: String,
}

fn beacon_id<'de, D: serde::Deserializer<'de>>(input: D) -> Result<BeaconId, D::Error> {
    u32::deserialize(input).map(BeaconId)
}

/// What the registry answers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Response {
    /// The key of a node.
    Key {
        /// The node that the answer is about, as the registry says.
        node: u32,
        /// Its key.
        key: PublicKey,
    },
    /// The registry has no such node.
    NotFound {
        /// The node that the answer is about, where the registry says.
        node: Option<u32>,
    },
    /// The request failed; the beginning of the registry's text.
    Failed(String),
    /// The beacon is registered.
    BeaconRegistered,
    /// The registered beacons.
    Beacons(Vec<BeaconEntry>),
}

#[derive(Deserialize)]
struct ResponseJson {
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    node_id: Option<u32>,
    #[serde(default)]
    public_key: Option<String>,
    #[serde(default)]
    beacons: Option<Vec<BeaconEntry>>,
}

impl Response {
    /// Reads one message as [`take_message`] gives it; fields that it does not know are ignored.
    ///
    /// # Errors
    /// A message of another form, of another type, or with a key of another length.
    pub fn decode(mode: Mode, message: &[u8]) -> Result<Self, DecodeError> {
        match mode {
            Mode::Json => Self::decode_json(message),
            Mode::Binary => {
                let (&kind, payload) = message.split_first().ok_or(DecodeError::Truncated)?;
                match kind {
                    frame_type::LOOKUP_OK => Self::decode_key(payload),
                    frame_type::ERROR => Ok(Self::from_error(&error_text(payload))),
                    frame_type::JSON => Self::decode_json(payload),
                    _ => Err(DecodeError::UnknownType(kind)),
                }
            }
        }
    }

    fn decode_key(mut payload: &[u8]) -> Result<Self, DecodeError> {
        let truncated = |_| DecodeError::Truncated;
        let node = payload.try_get_u32().map_err(truncated)?;
        let _flags = payload.try_get_u8().map_err(truncated)?;
        let _reserved = payload.try_get_u32().map_err(truncated)?;
        let listed = usize::from(payload.try_get_u16().map_err(truncated)?);
        payload = payload.get(listed * 2..).ok_or(DecodeError::Truncated)?;
        let length = usize::from(payload.try_get_u8().map_err(truncated)?);
        let key = payload.get(..length).ok_or(DecodeError::Truncated)?;
        let key = key.try_into().map_err(|_| InvalidPublicKey::WrongLength(length))?;
        Ok(Self::Key { node, key: PublicKey(key) })
    }

    fn decode_json(text: &[u8]) -> Result<Self, DecodeError> {
        let message: ResponseJson = serde_json::from_slice(text)?;
        if let Some(error) = message.error.filter(|error| !error.is_empty()) {
            return Ok(Self::from_error(&error));
        }
        match message.r#type.as_str() {
            "lookup_ok" => Ok(Self::Key {
                node: message.node_id.ok_or(DecodeError::Missing("node_id"))?,
                key: message.public_key.ok_or(DecodeError::Missing("public_key"))?.parse()?,
            }),
            "beacon_register_ok" => Ok(Self::BeaconRegistered),
            // A registry without beacons may leave the list out.
            "beacon_list_ok" => Ok(Self::Beacons(message.beacons.unwrap_or_default())),
            _ => Err(DecodeError::UnknownMessage),
        }
    }

    fn from_error(text: &str) -> Self {
        Self::not_found(text).unwrap_or_else(|| {
            let kept = text.get(..text.floor_char_boundary(MAX_ERROR_TEXT)).unwrap_or(text);
            Self::Failed(kept.to_owned())
        })
    }

    /// Reads the texts that say that there is no such node, and no others: what a registry in
    /// trouble says may contain `not found` as well.
    fn not_found(text: &str) -> Option<Self> {
        if text == "node not found" {
            return Some(Self::NotFound { node: None });
        }
        let (node, what) = text.strip_prefix("node ")?.split_once(": ")?;
        if !matches!(what, "not found" | "node not found") {
            return None;
        }
        let node: NodeId = node.parse().ok()?;
        Some(Self::NotFound { node: Some(node.number()) })
    }
}

/// The text of an error: after its length, as registries send it, or the whole payload.
fn error_text(payload: &[u8]) -> Cow<'_, str> {
    let text = match payload.split_first_chunk() {
        Some((length, text)) if usize::from(u16::from_be_bytes(*length)) == text.len() => text,
        _ => payload,
    };
    String::from_utf8_lossy(text)
}

/// Takes the first whole message, without its length, from what has arrived.
///
/// # Errors
/// [`DecodeError::TooLong`] as soon as the length is there: nothing of it is awaited.
pub fn take_message(received: &mut BytesMut) -> Result<Option<Bytes>, DecodeError> {
    let Some(prefix) = received.first_chunk::<4>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
    if length > MAX_MESSAGE {
        return Err(DecodeError::TooLong(length));
    }
    if received.len() < 4 + length {
        return Ok(None);
    }
    received.advance(4);
    Ok(Some(received.split_to(length).freeze()))
}

/// Why bytes are not a response of the registry.
///
/// Exhaustive: the relay counts each of them under a reason, and shall not build without one.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The message is longer than [`MAX_MESSAGE`].
    #[error("a message of {0} bytes; at most {MAX_MESSAGE} are taken")]
    TooLong(usize),
    /// A binary message ends before its last field does.
    #[error("a binary message that ends too early")]
    Truncated,
    /// The type byte of a binary message is not one of a response.
    #[error("a binary message of the unknown type {0:#04x}")]
    UnknownType(u8),
    /// The `type` of a JSON message is not one of a response.
    #[error("a message of an unknown type")]
    UnknownMessage,
    /// A field that the type of message needs is not there.
    #[error("a message without `{0}`")]
    Missing(&'static str),
    /// Not JSON, or JSON of another form.
    #[error("not a registry message: {0}")]
    Json(#[from] serde_json::Error),
    /// The public key is not a key.
    #[error(transparent)]
    PublicKey(#[from] InvalidPublicKey),
}

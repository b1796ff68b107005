//! The login over WebSocket (SPEC §4): challenge, reply, acceptance, and the signed texts.
//!
//! Text frames of JSON. Which text a reply has to sign, and whether its key counts, is
//! decided in `proto::login`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::hex::Hex;
use crate::ids::{NodeId, PublicKey};

/// Longest reply that is read before authentication, in bytes (SPEC §4.2).
///
/// A reply of the third generation with the longest id takes about 220 bytes.
pub const MAX_REPLY: usize = 1_024;

/// The largest WebSocket message that a daemon takes, in bytes (SPEC §4.2).
///
/// Nothing signs it: whoever carries the connection can change it, and could as well cut it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct MaxMessage(u32);

impl MaxMessage {
    /// What every daemon takes: the read limit of the deployed ones.
    pub const LEAST: Self = Self(32_768);

    /// The largest message there is (SPEC §3.6).
    pub const MOST: Self = Self(65_536);

    /// The limit in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.0 as usize
    }

    fn is_least(&self) -> bool {
        *self == Self::LEAST
    }
}

impl Default for MaxMessage {
    fn default() -> Self {
        Self::LEAST
    }
}

impl From<MaxMessage> for u32 {
    fn from(max: MaxMessage) -> Self {
        max.0
    }
}

impl TryFrom<u32> for MaxMessage {
    type Error = InvalidMaxMessage;

    fn try_from(bytes: u32) -> Result<Self, InvalidMaxMessage> {
        if (Self::LEAST.0..=Self::MOST.0).contains(&bytes) {
            Ok(Self(bytes))
        } else {
            Err(InvalidMaxMessage(bytes))
        }
    }
}

/// A `max_message` that no daemon may say.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("max_message is {0}, and not 32768 to 65536")]
pub struct InvalidMaxMessage(u32);

/// The acceptance, from the relay (SPEC §4.4).
pub const AUTH_OK: &str = r#"{"type":"auth_ok"}"#;

/// The daemon's graceful end (SPEC §4.5).
pub const BYE: &str = r#"{"type":"bye"}"#;

/// 32 random bytes that one login signs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Nonce(pub [u8; 32]);

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

/// What the relay asks of a daemon.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Challenge {
    /// The nonce as it goes over the wire: 64 hex digits from us.
    pub nonce: String,
    /// The relay's clock, in Unix seconds.
    pub ts: u64,
    /// The relay's public name, where it has one: the offer of the third generation.
    pub relay: Option<String>,
}

#[derive(Serialize)]
struct ChallengeOut<'a> {
    r#type: &'static str,
    nonce: &'a str,
    ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    relay: Option<&'a str>,
}

#[derive(Deserialize)]
struct ChallengeIn {
    r#type: String,
    nonce: String,
    #[serde(default)]
    ts: u64,
    relay: Option<String>,
}

impl Challenge {
    /// The text frame.
    #[must_use]
    pub fn encode(&self) -> String {
        let out = ChallengeOut {
            r#type: "auth_challenge",
            nonce: &self.nonce,
            ts: self.ts,
            relay: self.relay.as_deref(),
        };
        serde_json::to_string(&out).expect("strings and numbers always serialize")
    }

    /// Reads the text frame.
    ///
    /// # Errors
    /// Text that is not JSON of this form, or another type of message.
    pub fn decode(text: &str) -> Result<Self, DecodeError> {
        let challenge: ChallengeIn = serde_json::from_str(text)?;
        if challenge.r#type != "auth_challenge" {
            return Err(DecodeError::Type(challenge.r#type));
        }
        Ok(Self { nonce: challenge.nonce, ts: challenge.ts, relay: challenge.relay })
    }

    /// The text that a daemon of `generation` signs for `node`.
    ///
    /// The third generation without a relay name signs an empty name, which no relay accepts.
    #[must_use]
    pub fn signed_text(&self, node: NodeId, generation: Generation) -> String {
        let Self { nonce, ts, relay } = self;
        match generation {
            Generation::First => format!("compat_auth:{node}:{nonce}"),
            Generation::Second => format!("compat_auth:{node}:{ts}:{nonce}"),
            Generation::Third => {
                format!("compat_auth:{node}:{ts}:{}:{nonce}", relay.as_deref().unwrap_or_default())
            }
        }
    }
}

/// Which text a daemon signs (SPEC §4.3).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Generation {
    /// The node and the nonce.
    First = 1,
    /// The node, the relay's time and the nonce.
    Second = 2,
    /// The node, the relay's time, the relay's name and the nonce.
    Third = 3,
}

impl Generation {
    /// The number that replies and settings name it by.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// A daemon's answer to the challenge, not verified yet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reply {
    /// Who the daemon says it is.
    pub node: NodeId,
    /// The key that the daemon says it has.
    pub public_key: PublicKey,
    /// The signature over one of the texts of [`Challenge::signed_text`].
    pub signature: [u8; 64],
    /// The generation that the reply names; deployed daemons name none.
    pub generation: Option<u64>,
    /// The largest message that the daemon takes; deployed daemons do not say.
    pub max_message: MaxMessage,
}

#[derive(Deserialize, Serialize)]
struct ReplyJson {
    r#type: String,
    node_id: u32,
    public_key: String,
    sig: String,
    #[serde(default, rename = "gen", skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    #[serde(default, skip_serializing_if = "MaxMessage::is_least")]
    max_message: MaxMessage,
}

impl Reply {
    /// The text frame.
    #[must_use]
    pub fn encode(&self) -> String {
        let out = ReplyJson {
            r#type: "auth_reply".to_owned(),
            node_id: self.node.number(),
            public_key: self.public_key.to_string(),
            sig: STANDARD.encode(self.signature),
            generation: self.generation,
            max_message: self.max_message,
        };
        serde_json::to_string(&out).expect("strings and numbers always serialize")
    }

    /// Reads the text frame; fields that it does not know are ignored.
    ///
    /// # Errors
    /// Text that is not JSON of this form, another type of message, node id 0, a key or a
    /// signature that is not base64 of its length, a message size out of range.
    pub fn decode(text: &[u8]) -> Result<Self, DecodeError> {
        let reply: ReplyJson = serde_json::from_slice(text)?;
        if reply.r#type != "auth_reply" {
            return Err(DecodeError::Type(reply.r#type));
        }
        let mut signature = [0; 66];
        let length = STANDARD
            .decode_slice(&reply.sig, &mut signature)
            .map_err(|_| DecodeError::Signature)?;
        let signature = signature.get(..length).and_then(|bytes| bytes.try_into().ok());
        Ok(Self {
            node: NodeId::new(reply.node_id).ok_or(DecodeError::ZeroId)?,
            public_key: reply.public_key.parse()?,
            signature: signature.ok_or(DecodeError::Signature)?,
            generation: reply.generation,
            max_message: reply.max_message,
        })
    }
}

/// What a text frame after the login says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Control {
    /// The daemon ends the session gracefully.
    Bye,
    /// Something that this version does not know: ignored (SPEC §4.5).
    Unknown,
}

impl Control {
    /// Reads a text frame; what is not JSON is [`Control::Unknown`].
    #[must_use]
    pub fn decode(text: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Message<'a> {
            #[serde(borrow)]
            r#type: std::borrow::Cow<'a, str>,
        }
        match serde_json::from_slice::<Message<'_>>(text) {
            Ok(message) if message.r#type == "bye" => Self::Bye,
            _ => Self::Unknown,
        }
    }
}

/// Why a text frame is not the message that was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not JSON, or JSON of another form.
    #[error("not a login message: {0}")]
    Json(#[from] serde_json::Error),
    /// Another type of message.
    #[error("a message of type `{0}`")]
    Type(String),
    /// Node id 0.
    #[error("node id 0 is never valid")]
    ZeroId,
    /// The public key is not a key.
    #[error(transparent)]
    PublicKey(#[from] crate::ids::InvalidPublicKey),
    /// The signature is not 64 bytes in base64.
    #[error("a signature is 64 bytes in standard base64")]
    Signature,
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};
    use proptest::prelude::*;

    use super::*;

    const NONCE: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn key() -> SigningKey {
        SigningKey::from_bytes(&std::array::from_fn(|i| u8::try_from(i).unwrap()))
    }

    fn challenge() -> Challenge {
        Challenge {
            nonce: NONCE.to_owned(),
            ts: 1_767_225_600,
            relay: Some("relay.example.net".to_owned()),
        }
    }

    #[test]
    fn spec_4_6_signatures_match_the_published_vectors() {
        let vectors = [
            (
                Generation::First,
                "OjPKFOTxoI+dYULF9nkRqxxo4IlY+vqPKPc1A73ZkMvYnoYN7ctwH+hx5qbjuP9xzwODcPyJRi2bOt/EbE72BA==",
            ),
            (
                Generation::Second,
                "qbBOeyyjprV2RtaKwyhpaTFucKz1nL/dm61kFPaC2tTmHtI6KfysHi0dzI29TKyRLQN+L3leZPJDfMiAYFSuCQ==",
            ),
            (
                Generation::Third,
                "lZ1vy4j1ehkvP8o7AH+Xh1u7GWfRdKO05e6/S+epTXuwib3c6D+sTEkrOzgxLFKOIIQVgtJcC6CvluyLsg+FCw==",
            ),
        ];
        let node = NodeId::new(4242).unwrap();
        for (generation, expected) in vectors {
            let text = challenge().signed_text(node, generation);
            let signature = key().sign(text.as_bytes());
            assert_eq!(STANDARD.encode(signature.to_bytes()), expected, "{text}");
        }
        assert_eq!(
            PublicKey(key().verifying_key().to_bytes()).to_string(),
            "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
        );
    }

    #[test]
    fn spec_2_4_punch_grant_matches_the_published_vector() {
        let (requester, target) = (NodeId::new(9201).unwrap(), NodeId::new(9202).unwrap());
        let text = crate::beacon::Grant::signed_text(requester, target, 1_767_225_660);
        assert_eq!(
            STANDARD.encode(key().sign(text.as_bytes()).to_bytes()),
            "6qMCV/tYDbxHTUOqH5GEjwF8STsPRff8fE9mvTUJSjBdYhC3tLM0ELh80JzOth3zCnFDr5+AC/ESnse4COtuCQ=="
        );
    }

    #[test]
    fn spec_4_1_challenge_has_the_published_form() {
        let mut challenge = challenge();
        assert_eq!(
            challenge.encode(),
            format!(
                r#"{{"type":"auth_challenge","nonce":"{NONCE}","ts":1767225600,"relay":"relay.example.net"}}"#
            )
        );
        assert_eq!(Challenge::decode(&challenge.encode()).unwrap(), challenge);
        challenge.relay = None;
        assert!(challenge.encode().ends_with(r#""ts":1767225600}"#));
    }

    #[test]
    fn nonce_is_64_hex_digits() {
        assert_eq!(Nonce([0xa5; 32]).to_string(), "a5".repeat(32));
    }

    #[test]
    fn spec_4_2_reply_round_trips_and_ignores_unknown_fields() {
        let reply = Reply {
            node: NodeId::new(u32::MAX).unwrap(),
            public_key: PublicKey(key().verifying_key().to_bytes()),
            signature: [9; 64],
            generation: Some(3),
            max_message: MaxMessage::MOST,
        };
        let text = reply.encode();
        assert!(text.len() < 280, "{} bytes", text.len());
        assert_eq!(Reply::decode(text.as_bytes()).unwrap(), reply);
        let text = text.replace("\"gen\":3", "\"gen\":3,\"later\":[1]");
        assert_eq!(Reply::decode(text.as_bytes()).unwrap(), reply);
    }

    #[test]
    fn spec_4_2_broken_replies_are_refused() {
        let whole = Reply {
            node: NodeId::new(7).unwrap(),
            public_key: PublicKey([1; 32]),
            signature: [9; 64],
            generation: None,
            max_message: MaxMessage::LEAST,
        }
        .encode();
        for (from, to) in [
            ("\"node_id\":7", "\"node_id\":0"),
            ("\"node_id\":7", "\"node_id\":-7"),
            ("\"node_id\":7", "\"node_id\":4294967296"),
            ("\"node_id\":7", "\"node_id\":\"7\""),
            ("auth_reply", "auth_ok"),
            ("AQEB", "AQ=="),
            ("CQkJ", "!!!!"),
            ("CQkJ", "CQkJCQkJ"),
            ("}", ""),
        ] {
            let broken = whole.replacen(from, to, 1);
            assert_ne!(broken, whole);
            assert!(Reply::decode(broken.as_bytes()).is_err(), "{broken}");
        }
    }

    #[test]
    fn spec_4_2_message_size_is_what_every_daemon_takes_unless_the_reply_says_more() {
        let reply = |max_message| Reply {
            node: NodeId::new(7).unwrap(),
            public_key: PublicKey([1; 32]),
            signature: [9; 64],
            generation: None,
            max_message,
        };
        let silent = reply(MaxMessage::LEAST).encode();
        assert!(!silent.contains("max_message"), "{silent}");
        let with = |value: &str| {
            let text = silent.replacen('}', &format!(",\"max_message\":{value}}}"), 1);
            Reply::decode(text.as_bytes()).map(|reply| reply.max_message.bytes())
        };
        assert_eq!(Reply::decode(silent.as_bytes()).unwrap(), reply(MaxMessage::LEAST));
        for bytes in [32_768, 40_000, 65_536] {
            assert_eq!(with(&bytes.to_string()).unwrap(), bytes);
        }
        for broken in
            ["32767", "65537", "0", "-1", "4294967296", "40000.0", "\"40000\"", "null", "[]"]
        {
            assert!(with(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn spec_4_5_only_bye_is_known() {
        assert_eq!(Control::decode(BYE.as_bytes()), Control::Bye);
        assert_eq!(Control::decode(br#"{"type":"later"}"#), Control::Unknown);
        assert_eq!(Control::decode(b"bye"), Control::Unknown);
    }

    proptest! {
        #[test]
        fn decoders_never_panic(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Reply::decode(&text);
            let _ = Control::decode(&text);
            let _ = Challenge::decode(&String::from_utf8_lossy(&text));
        }

        #[test]
        fn reply_decoder_never_panics_on_flipped_bits(flip in 0usize..2_000, cut in 0usize..280) {
            let reply = Reply {
                node: NodeId::new(7).unwrap(),
                public_key: PublicKey([1; 32]),
                signature: [9; 64],
                generation: Some(3),
                max_message: MaxMessage::MOST,
            };
            let mut text = reply.encode().into_bytes();
            if let Some(byte) = text.get_mut(flip / 8) {
                *byte ^= 1 << (flip % 8);
            }
            text.truncate(cut);
            let _ = Reply::decode(&text);
        }
    }
}

//! What the relay signs of the audit log: that an entry has a hash.
//!
//! Signed are five lines of text, each with its line end: `beacon-relay audit checkpoint` (or
//! `… head`), the number of the entry, its hash in hexadecimal digits, the time in milliseconds
//! since 1970, and the relay's id. The signature is an Ed25519 of the relay's key, the same that
//! its id in a cluster is made of.

use std::fmt;

use blake3::Hash;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::hex;
use crate::ids::{PublicKey, RelayId};
use crate::proto::bus::Millis;

/// What a seal is for. One cannot be used as the other.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// At this time the log had this entry.
    Checkpoint,
    /// This entry was the last of those that retention removed.
    Head,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Checkpoint => "checkpoint",
            Self::Head => "head of what was removed",
        })
    }
}

/// A signed statement on an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Seal {
    /// What it is for.
    pub kind: Kind,
    /// The number of the entry.
    pub seq: u64,
    /// The hash of the entry.
    pub hash: [u8; 32],
    /// When it was signed.
    pub at: Millis,
    /// Who signed it.
    pub relay: RelayId,
    signature: [u8; 64],
}

/// Why a seal is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadSeal {
    /// Not the JSON of one.
    #[error("it is no {expected}: {reason}")]
    Malformed {
        /// What it should be.
        expected: Kind,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody else signed it, or it was changed.
    #[error("the signature is not that of relay {0}")]
    Signature(RelayId),
}

/// A seal as JSON.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Json {
    kind: Kind,
    seq: u64,
    hash: String,
    time_ms: u64,
    relay: String,
    signature: String,
}

impl Seal {
    /// Signs that an entry has a hash.
    #[must_use]
    pub fn sign(kind: Kind, seq: u64, hash: [u8; 32], at: Millis, key: &SigningKey) -> Self {
        let relay = RelayId(PublicKey(key.verifying_key().to_bytes()));
        let unsigned = Self { kind, seq, hash, at, relay, signature: [0; 64] };
        let signature = key.sign(unsigned.text().as_bytes()).to_bytes();
        Self { signature, ..unsigned }
    }

    fn text(&self) -> String {
        let kind = match self.kind {
            Kind::Checkpoint => "checkpoint",
            Kind::Head => "head",
        };
        let Self { seq, at, relay, .. } = self;
        let hash = hex(&self.hash);
        format!("beacon-relay audit {kind}\n{seq}\n{hash}\n{}\n{relay}\n", at.0)
    }

    /// The signature in hexadecimal digits.
    #[must_use]
    pub fn signature(&self) -> String {
        self.signature.as_chunks().0.iter().map(hex).collect()
    }

    /// One line of JSON, without a line end.
    #[must_use]
    pub fn to_json(&self) -> String {
        let json = Json {
            kind: self.kind,
            seq: self.seq,
            hash: hex(&self.hash),
            time_ms: self.at.0,
            relay: self.relay.to_string(),
            signature: self.signature(),
        };
        serde_json::to_string(&json).expect("its members are numbers and texts")
    }

    /// Reads one, and checks its signature.
    ///
    /// # Errors
    /// It is something else, or its signature is wrong.
    pub fn from_json(expected: Kind, json: &[u8]) -> Result<Self, BadSeal> {
        let malformed = |reason: String| BadSeal::Malformed { expected, reason };
        let json: Json =
            serde_json::from_slice(json).map_err(|error| malformed(error.to_string()))?;
        if json.kind != expected {
            return Err(malformed(format!("it is a {}", json.kind)));
        }
        let hash = |text: &str| {
            Hash::from_hex(text).map(<[u8; 32]>::from).map_err(|error| malformed(error.to_string()))
        };
        let (first, second) = json
            .signature
            .split_at_checked(64)
            .ok_or_else(|| malformed("a signature is 128 hexadecimal digits".to_owned()))?;
        let signature = [hash(first)?, hash(second)?].concat();
        let seal = Self {
            kind: json.kind,
            seq: json.seq,
            hash: hash(&json.hash)?,
            at: Millis(json.time_ms),
            relay: json.relay.parse().map_err(|_| malformed("no id of a relay".to_owned()))?,
            signature: signature.try_into().expect("two hashes are 64 bytes"),
        };
        if seal.is_signed() { Ok(seal) } else { Err(BadSeal::Signature(seal.relay)) }
    }

    fn is_signed(&self) -> bool {
        let signature = Signature::from_bytes(&self.signature);
        VerifyingKey::from_bytes(&self.relay.0.0)
            .is_ok_and(|key| key.verify_strict(self.text().as_bytes(), &signature).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::key;
    use super::*;

    fn seal(kind: Kind) -> Seal {
        Seal::sign(kind, 7, [0xab; 32], Millis(1_234), &key())
    }

    #[test]
    fn seal_is_read_as_it_was_signed() {
        for kind in [Kind::Checkpoint, Kind::Head] {
            let seal = seal(kind);
            assert_eq!(Seal::from_json(kind, seal.to_json().as_bytes()).unwrap(), seal);
        }
        let json = seal(Kind::Checkpoint).to_json();
        assert!(json.starts_with(r#"{"kind":"checkpoint","seq":7,"hash":"abab"#), "{json}");
    }

    #[test]
    fn what_is_signed_is_the_text_of_the_document() {
        let relay = RelayId(PublicKey(key().verifying_key().to_bytes()));
        let hash = "ab".repeat(32);
        let text = format!("beacon-relay audit checkpoint\n7\n{hash}\n1234\n{relay}\n");
        assert_eq!(seal(Kind::Checkpoint).text(), text);
    }

    #[test]
    fn changed_seal_is_no_seal() {
        let json = seal(Kind::Checkpoint).to_json();
        let other = SigningKey::from_bytes(&[6; 32]);
        let other = Seal::sign(Kind::Checkpoint, 7, [0xab; 32], Millis(1_234), &other);
        for (was, is) in [
            ("\"seq\":7", "\"seq\":8".to_owned()),
            ("1234", "1235".to_owned()),
            ("abab", "abac".to_owned()),
            (&json[json.len() - 130..], format!("{}\"}}", other.signature())),
        ] {
            let changed = json.replacen(was, &is, 1);
            assert_ne!(changed, json);
            let error = Seal::from_json(Kind::Checkpoint, changed.as_bytes()).unwrap_err();
            assert!(matches!(error, BadSeal::Signature(_)), "{changed}: {error}");
        }
    }

    #[test]
    fn checkpoint_is_no_head() {
        let json = seal(Kind::Checkpoint).to_json();
        let error = Seal::from_json(Kind::Head, json.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "it is no head of what was removed: it is a checkpoint");
        let relabelled = json.replace("checkpoint", "head");
        let error = Seal::from_json(Kind::Head, relabelled.as_bytes()).unwrap_err();
        assert!(matches!(error, BadSeal::Signature(_)), "{error}");
    }

    #[test]
    fn anything_else_is_no_seal() {
        let json = seal(Kind::Head).to_json();
        let short = json.replace("abab", "ab");
        let signature = seal(Kind::Head).signature();
        let cut = json.replace(&signature, &signature[..100]);
        for text in ["", "{}", "[]", &json[..40], &short, &cut] {
            let error = Seal::from_json(Kind::Head, text.as_bytes()).unwrap_err();
            assert!(matches!(error, BadSeal::Malformed { .. }), "{text}: {error}");
        }
    }
}

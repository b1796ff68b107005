//! What a broker says, and what it writes down.

use crate::json::{push_text, text_length};

const PEERS: &[u8] = b"{\"protocol_version\":\"v1\",\"type\":\"peers\",\"names\":[";

const DELIVER: &[u8] = b"{\"protocol_version\":\"v1\",\"type\":\"deliver\",\"delivery_key\":";
const ENVELOPE: &[u8] = b",\"envelope\":";

/// What a delivery takes beyond its envelope and its key, in bytes.
///
/// 72 = 57 (`{"protocol_version":"v1","type":"deliver","delivery_key":`) + 2 (quotes of the key)
/// + 12 (`,"envelope":`) + 1 (`}`).
pub const DELIVER_OVERHEAD: usize = DELIVER.len() + 2 + ENVELOPE.len() + 1;

/// Who is connected, and the answer to a registration: names in the order of their bytes.
#[must_use]
pub fn peers<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let mut json = PEERS.to_vec();
    for (number, name) in names.into_iter().enumerate() {
        if number > 0 {
            json.push(b',');
        }
        push_text(&mut json, name);
    }
    json.extend_from_slice(b"]}");
    json
}

/// A message for its recipient: `envelope` as [`Envelope::encode`](super::Envelope::encode) wrote
/// it.
#[must_use]
pub fn deliver(key: &str, envelope: &[u8]) -> Vec<u8> {
    let mut json = Vec::with_capacity(DELIVER_OVERHEAD + key.len() + envelope.len());
    json.extend_from_slice(DELIVER);
    push_text(&mut json, key);
    json.extend_from_slice(ENVELOPE);
    json.extend_from_slice(envelope);
    json.push(b'}');
    json
}

/// The length of [`deliver`] for an envelope of so many bytes.
#[must_use]
pub fn deliver_length(key: &str, envelope: usize) -> usize {
    DELIVER_OVERHEAD - 2 + text_length(key) + envelope
}

/// What became of an envelope.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ReceiptResult {
    /// It is as safe as the broker keeps messages.
    Stored,
    /// Its sender had sent it before.
    Duplicate,
    /// Nobody will get it.
    Refused,
}

impl ReceiptResult {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Stored, Self::Duplicate, Self::Refused];

    /// The word on the wire.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Duplicate => "duplicate",
            Self::Refused => "refused",
        }
    }
}

/// What became of an envelope; `reason` is empty where it was not refused.
#[must_use]
pub fn receipt(id: &str, result: ReceiptResult, reason: &str) -> Vec<u8> {
    let mut json = Vec::with_capacity(64 + id.len() + reason.len());
    json.extend_from_slice(b"{\"type\":\"receipt\",\"id\":");
    push_text(&mut json, id);
    json.extend_from_slice(b",\"result\":");
    push_text(&mut json, result.word());
    json.extend_from_slice(b",\"reason\":");
    push_text(&mut json, reason);
    json.push(b'}');
    json
}

/// Appends an entry of the audit log, as it is hashed.
pub fn audit_event(json: &mut Vec<u8>, event: &str, id: &str, from: &str, to: &str) {
    let members: [(&[u8], &str); 4] =
        [(b"{\"event\":", event), (b",\"id\":", id), (b",\"from\":", from), (b",\"to\":", to)];
    for (name, text) in members {
        json.extend_from_slice(name);
        push_text(json, text);
    }
    json.push(b'}');
}

//! The client's side of the protocol: what it writes, and what it reads.

use std::borrow::Cow;

use super::members::Members;
use super::{Envelope, ReceiptResult};
use crate::json::{Malformed, Reader, push_text};

/// What a broker says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FromBroker<'a> {
    /// Who is connected; the first frame of each session.
    Peers(Vec<Cow<'a, str>>),
    /// A message.
    Deliver {
        /// What it is acknowledged by.
        key: Cow<'a, str>,
        /// The message.
        envelope: Envelope<'a>,
    },
    /// What became of an envelope.
    Receipt {
        /// Its id.
        id: Cow<'a, str>,
        /// What became of it.
        result: ReceiptResult,
        /// Why it was refused.
        reason: Cow<'a, str>,
    },
    /// Something that a later version may say.
    Other,
}

impl<'a> FromBroker<'a> {
    /// Reads a message of text.
    ///
    /// # Errors
    /// It is not JSON, or has members of another type.
    pub fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        let members = Members::read(message)?;
        match &*members.kind_of_frame.text()? {
            "peers" => members.names.map_or_else(|| Ok(Vec::new()), names).map(Self::Peers),
            "deliver" => Ok(Self::Deliver {
                key: members.delivery_key.text()?,
                envelope: Envelope::parse(members.envelope.unwrap_or(b"null"))?,
            }),
            "receipt" => {
                let word = members.result.text()?;
                let result = ReceiptResult::ALL.into_iter().find(|result| result.word() == word);
                Ok(match result {
                    Some(result) => {
                        let reason = members.reason.text()?;
                        Self::Receipt { id: members.id.text()?, result, reason }
                    }
                    None => Self::Other,
                })
            }
            _ => Ok(Self::Other),
        }
    }
}

fn names(json: &[u8]) -> Result<Vec<Cow<'_, str>>, Malformed> {
    let mut names = Vec::new();
    let mut reader = Reader::new(json);
    if !reader.take(b'[') {
        return if json == b"null" { Ok(names) } else { Err(Malformed) };
    }
    if reader.take(b']') {
        return Ok(names);
    }
    loop {
        names.push(reader.string()?.text());
        if !reader.take(b',') {
            reader.expect(b']')?;
            return Ok(names);
        }
    }
}

/// The first frame. With `receipts`, a broker that knows them says of each envelope what became of
/// it; others pass over it.
#[must_use]
pub fn register(token: &str, name: &str, receipts: bool) -> Vec<u8> {
    let mut json = b"{\"protocol_version\":\"v1\",\"type\":\"register\",\"token\":".to_vec();
    push_text(&mut json, token);
    json.extend_from_slice(b",\"name\":");
    push_text(&mut json, name);
    if receipts {
        json.extend_from_slice(b",\"receipts\":true");
    }
    json.push(b'}');
    json
}

/// Asks who is connected.
#[must_use]
pub const fn peers_request() -> &'static str {
    r#"{"protocol_version":"v1","type":"peers","names":null}"#
}

/// Says that a message has arrived.
#[must_use]
pub fn ack(key: &str) -> Vec<u8> {
    let mut json = b"{\"protocol_version\":\"v1\",\"type\":\"ack\",\"id\":".to_vec();
    push_text(&mut json, key);
    json.push(b'}');
    json
}

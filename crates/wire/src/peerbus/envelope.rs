//! Envelopes: messages as their senders sign them.

use std::borrow::Cow;

use super::members::Members;
use crate::json::{Body, Malformed, push_text};

/// A message. All is the sender's word: nobody has checked any of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Envelope<'a> {
    /// The version of the protocol; any.
    pub protocol_version: Cow<'a, str>,
    /// What the sender calls the message.
    pub id: Cow<'a, str>,
    /// Who the sender says that it is.
    pub from: Cow<'a, str>,
    /// Whom it is for.
    pub to: Cow<'a, str>,
    /// When it was sent.
    pub ts: Cow<'a, str>,
    /// What kind of program sent it.
    pub source: Cow<'a, str>,
    /// Whether it is for one or for all.
    pub kind: Cow<'a, str>,
    /// What it says.
    pub body: Body<'a>,
    /// The HMAC-SHA256 of [`Self::canonical`], in lower-case hexadecimal.
    pub hmac: Cow<'a, str>,
}

/// What an envelope takes beyond its members' values, in bytes, where none needs an escape.
const FRAME: usize = br#"{"protocol_version":"","id":"","from":"","to":"","ts":"","source":"","kind":"","body":,"hmac":""}"#
    .len();

impl<'a> Envelope<'a> {
    /// Reads an envelope, with whatever else the object has.
    ///
    /// # Errors
    /// The text is no JSON, or has members of another type.
    pub fn parse(json: &'a [u8]) -> Result<Self, Malformed> {
        Self::of(Members::read(json)?)
    }

    pub(super) fn of(members: Members<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            protocol_version: members.protocol_version.text()?,
            id: members.id.text()?,
            from: members.from.text()?,
            to: members.to.text()?,
            ts: members.ts.text()?,
            source: members.source.text()?,
            kind: members.kind.text()?,
            body: members.body.unwrap_or(Body::NULL),
            hmac: members.hmac.text()?,
        })
    }

    /// The nine members, as every broker and client writes them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut json = self.signed();
        json.extend_from_slice(b",\"hmac\":");
        push_text(&mut json, &self.hmac);
        json.push(b'}');
        json
    }

    /// The eight members that are signed.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        let mut json = self.signed();
        json.push(b'}');
        json
    }

    /// The eight members, without the brace that ends them.
    fn signed(&self) -> Vec<u8> {
        let texts: [(&[u8], &str); 7] = [
            (b"{\"protocol_version\":", &self.protocol_version),
            (b",\"id\":", &self.id),
            (b",\"from\":", &self.from),
            (b",\"to\":", &self.to),
            (b",\"ts\":", &self.ts),
            (b",\"source\":", &self.source),
            (b",\"kind\":", &self.kind),
        ];
        let values: usize = texts.iter().map(|(_, text)| text.len()).sum();
        let body = self.body.as_bytes();
        let mut json = Vec::with_capacity(FRAME + values + body.len() + self.hmac.len());
        for (name, text) in texts {
            json.extend_from_slice(name);
            push_text(&mut json, text);
        }
        json.extend_from_slice(b",\"body\":");
        json.extend_from_slice(body);
        json
    }
}

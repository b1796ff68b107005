//! What peers say.

use std::borrow::Cow;
use std::fmt;

use super::members::Members;
use super::{BROADCAST, EVERYBODY, Envelope, MAX_NAME, Refusal, VERSION};
use crate::json::Malformed;

/// The first frame of a peer.
#[derive(Clone, Eq, PartialEq)]
pub struct Register<'a> {
    /// What it proves itself with; not looked at.
    pub token: Cow<'a, str>,
    /// The name that it wants.
    pub name: Cow<'a, str>,
    /// Whether it wants to hear of each envelope what became of it; no peer of the original does.
    pub receipts: bool,
}

impl fmt::Debug for Register<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token: _, name, receipts } = self;
        f.debug_struct("Register")
            .field("token", &"***")
            .field("name", name)
            .field("receipts", receipts)
            .finish()
    }
}

impl<'a> Register<'a> {
    /// Reads the first message, which was one of text.
    ///
    /// # Errors
    /// The first refusal that holds, of those that the message alone shows.
    pub fn parse(message: &'a [u8]) -> Result<Self, Refusal> {
        let malformed = |_: Malformed| Refusal::Malformed;
        let members = Members::read(message).map_err(malformed)?;
        let version = members.protocol_version.text().map_err(malformed)?;
        let kind = members.kind_of_frame.text().map_err(malformed)?;
        let token = members.token.text().map_err(malformed)?;
        let name = members.name.text().map_err(malformed)?;
        if kind != "register" {
            return Err(Refusal::NotRegister);
        }
        if version != VERSION {
            return Err(Refusal::Version);
        }
        if name.is_empty() {
            return Err(Refusal::NoName);
        }
        if name.len() > MAX_NAME {
            return Err(Refusal::LongName);
        }
        Ok(Self { token, name, receipts: members.receipts })
    }
}

/// What a peer says that has registered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Received<'a> {
    /// It wants to know who is connected.
    Peers,
    /// It has got a message.
    Ack {
        /// The delivery key; not empty.
        key: Cow<'a, str>,
    },
    /// A message: it has an id and a recipient, and is for everybody where it says so twice.
    Envelope(Envelope<'a>),
    /// A frame that is known, and means nothing here: `register` again, `deliver`, or an
    /// acknowledgement of nothing.
    Ignored,
}

impl<'a> Received<'a> {
    /// Reads a message of text.
    ///
    /// # Errors
    /// Why it is dropped; the connection goes on.
    pub fn parse(message: &'a [u8]) -> Result<Self, Dropped<'a>> {
        let members = Members::read(message)?;
        // A type that is no string is none.
        let kind = members.kind_of_frame.text().unwrap_or_default();
        match &*kind {
            "ack" => {
                members.protocol_version.text()?;
                let key = members.id.text()?;
                Ok(if key.is_empty() { Self::Ignored } else { Self::Ack { key } })
            }
            "peers" => Ok(Self::Peers),
            "register" | "deliver" => Ok(Self::Ignored),
            _ => Self::envelope(Envelope::of(members)?),
        }
    }

    fn envelope(envelope: Envelope<'a>) -> Result<Self, Dropped<'a>> {
        let is_for_everybody = envelope.to == EVERYBODY;
        let reason = if envelope.id.is_empty() {
            DropReason::NoId
        } else if envelope.to.is_empty() {
            DropReason::NoRecipient
        } else if is_for_everybody != (envelope.kind == BROADCAST) {
            DropReason::Contradiction
        } else if str::from_utf8(envelope.body.as_bytes()).is_err() {
            DropReason::NotUtf8
        } else {
            return Ok(Self::Envelope(envelope));
        };
        Err(Dropped { reason, id: envelope.id })
    }
}

/// A message that is dropped.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dropped<'a> {
    /// Why.
    pub reason: DropReason,
    /// What its sender calls it, empty where nobody knows.
    pub id: Cow<'a, str>,
}

impl From<Malformed> for Dropped<'_> {
    fn from(_: Malformed) -> Self {
        Self { reason: DropReason::Malformed, id: Cow::Borrowed("") }
    }
}

/// Why a message is dropped that the relay has read.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum DropReason {
    /// It is not JSON, or has members of another type.
    Malformed,
    /// It has no id.
    NoId,
    /// It is for nobody.
    NoRecipient,
    /// It is a broadcast to one, or a message to one for everybody.
    Contradiction,
    /// Its body is not UTF-8. The original passes it on; a client that keeps to RFC 6455 ends the
    /// connection at it, each time that it is delivered again.
    NotUtf8,
}

impl DropReason {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Malformed, Self::NoId, Self::NoRecipient, Self::Contradiction, Self::NotUtf8];

    /// The word for a metric, and for a receipt.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NoId => "no_id",
            Self::NoRecipient => "no_recipient",
            Self::Contradiction => "contradiction",
            Self::NotUtf8 => "not_utf8",
        }
    }
}

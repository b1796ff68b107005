//! Envelopes: records as they are published, kept and delivered.

use std::borrow::Cow;

use crate::json::{Body, Malformed, push_text};

use super::Texts;
use super::members::{List, Members, Payload};
use super::time::is_timestamp;

/// A record, borrowed from its bytes.
#[derive(Clone, Debug)]
pub struct Envelope<'a> {
    /// What names the record, whatever way it takes; not empty.
    pub id: Cow<'a, str>,
    /// When it was made, as RFC 3339 writes it; empty where the record does not say.
    pub ts: Cow<'a, str>,
    /// The channel; any text.
    pub channel: Cow<'a, str>,
    /// Who published it first, as the record says.
    pub origin: Cow<'a, str>,
    /// What reads the payload.
    pub payload_type: Cow<'a, str>,
    /// What it belongs to; mostly empty.
    pub correlation_id: Cow<'a, str>,
    /// The service that published it; mostly empty.
    pub service_name: Cow<'a, str>,
    /// The hubs that it passed, the publisher first.
    pub route: Texts<'a>,
    /// What it carries, as it was written.
    payload: &'a [u8],
    record: &'a [u8],
    place: Place,
}

/// Where a name is added to the route of a record.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// The route has names, and its bracket is here.
    Behind(usize),
    /// The route is empty or `null`, from here to there.
    Instead(usize, usize),
    /// There is no route: it belongs in front of the payload, which begins here.
    InFront(usize),
    /// There is neither: it goes in front of the last brace, which is here.
    End(usize),
}

/// Why bytes are no record. The original passes over it, and acknowledges nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidEnvelope {
    /// It is no JSON, or has members of another type.
    #[error("a record that is not JSON, or has members of another type")]
    Malformed,
    /// It is of another version than 1.
    #[error("a record of another version than 1")]
    Version,
    /// Its time is none.
    #[error("a record whose `ts` is not of RFC 3339")]
    Time,
    /// It has no id, so that nobody could tell it from another, nor acknowledge it.
    #[error("a record without an id")]
    NoId,
}

impl InvalidEnvelope {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Malformed, Self::Version, Self::Time, Self::NoId];

    /// The word for a metric.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::Time => "time",
            Self::NoId => "no_id",
        }
    }
}

impl From<Malformed> for InvalidEnvelope {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl<'a> Envelope<'a> {
    /// Reads a record, with whatever else the object has.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(record: &'a [u8]) -> Result<Self, InvalidEnvelope> {
        let members = Members::read(record)?;
        let envelope = Self {
            id: members.id.text()?,
            ts: members.ts.text()?,
            channel: members.channel.text()?,
            origin: members.origin.text()?,
            payload_type: members.payload_type.text()?,
            correlation_id: members.correlation_id.text()?,
            service_name: members.service_name.text()?,
            route: members.route.texts()?,
            payload: members.payload.map_or(b"null", |payload| payload.json),
            record,
            place: Place::of(&members),
        };
        if members.v != Some(b"1") {
            return Err(InvalidEnvelope::Version);
        }
        if !envelope.ts.is_empty() && !is_timestamp(&envelope.ts) {
            return Err(InvalidEnvelope::Time);
        }
        if envelope.id.is_empty() {
            return Err(InvalidEnvelope::NoId);
        }
        Ok(envelope)
    }

    /// What it carries, in compact form.
    #[must_use]
    pub fn payload(&self) -> Body<'a> {
        Payload { json: self.payload, at: 0 }.body()
    }

    /// The record with this hub at the end of its route; all other bytes are those that they were.
    #[must_use]
    pub fn forwarded_by(&self, hub: &str) -> Vec<u8> {
        let (before, between, after) = match self.place {
            Place::Behind(at) => (at, [",", ""], at),
            Place::Instead(from, to) => (from, ["[", "]"], to),
            Place::InFront(at) => (at, ["\"route\":[", "],"], at),
            Place::End(at) => (at, [",\"route\":[", "]"], at),
        };
        let [open, close] = between;
        // 16: more than the name of the member and the quotes.
        let mut record = Vec::with_capacity(self.record.len() + hub.len() + 16);
        record.extend_from_slice(self.record.get(..before).unwrap_or_default());
        record.extend_from_slice(open.as_bytes());
        push_text(&mut record, hub);
        record.extend_from_slice(close.as_bytes());
        record.extend_from_slice(self.record.get(after..).unwrap_or_default());
        record
    }
}

impl Place {
    const fn of(members: &Members<'_>) -> Self {
        match (members.route, members.payload) {
            (List::Strings { texts, to, .. }, _) if !texts.is_empty() => Self::Behind(to - 1),
            (List::Strings { from, to, .. }, _) => Self::Instead(from, to),
            (List::Absent | List::Wrong, Some(payload)) => Self::InFront(payload.at),
            (List::Absent | List::Wrong, None) => Self::End(members.end),
        }
    }
}

//! What peers up to v1.4.1 say over WebSocket.
//!
//! The first message of each side is a [`Hello`] in a text message. Then each binary message is a
//! batch of [`Records`], which the other side answers by the id of the last in a text message.

use std::borrow::Cow;

use crate::json::{Malformed, push_text};

use super::members::Members;
use super::{Texts, VERSION};

/// The first message of a client. A hub believes none of it but what it subscribes to: who the client
/// is, its certificate says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Hello<'a> {
    /// What it calls itself.
    pub instance_name: Cow<'a, str>,
    /// `client`.
    pub role: Cow<'a, str>,
    /// The version of the protocol.
    pub version: Cow<'a, str>,
    /// The channels that it wants records of.
    pub subscribe: Texts<'a>,
    /// Whether nothing is kept for it while it is away.
    pub is_ephemeral: bool,
}

impl<'a> Hello<'a> {
    /// Reads a text message.
    ///
    /// # Errors
    /// It is no object, or has members of another type. The original closes the connection without a
    /// close frame.
    pub fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        let members = Members::read(message)?;
        Ok(Self {
            instance_name: members.instance_name.text()?,
            role: members.role.text()?,
            version: members.version.text()?,
            subscribe: members.subscribe.texts()?,
            is_ephemeral: members.ephemeral.is_set()?,
        })
    }
}

/// The first message of a client.
#[must_use]
pub fn client_hello(name: &str, subscribe: &[&str], is_ephemeral: bool) -> Vec<u8> {
    let mut json = hello(name, "client");
    if let Some((first, rest)) = subscribe.split_first() {
        json.extend_from_slice(b",\"subscribe\":[");
        push_text(&mut json, first);
        for channel in rest {
            json.push(b',');
            push_text(&mut json, channel);
        }
        json.push(b']');
    }
    if is_ephemeral {
        json.extend_from_slice(b",\"ephemeral\":true");
    }
    json.push(b'}');
    json
}

/// The first message of a hub.
#[must_use]
pub fn hub_hello(name: &str) -> Vec<u8> {
    let mut json = hello(name, "hub");
    json.push(b'}');
    json
}

fn hello(name: &str, role: &str) -> Vec<u8> {
    let mut json = b"{\"instance_name\":".to_vec();
    push_text(&mut json, name);
    json.extend_from_slice(b",\"role\":");
    push_text(&mut json, role);
    json.extend_from_slice(b",\"version\":");
    push_text(&mut json, VERSION);
    json
}

/// What answers a batch, a text message: the id of its last record that is new, empty where none is.
#[must_use]
pub fn ack(last_id: &str) -> Vec<u8> {
    let mut json = b"{\"last_id\":".to_vec();
    push_text(&mut json, last_id);
    json.push(b'}');
    json
}

/// Reads the answer to a batch.
///
/// # Errors
/// The text is no object, or its `last_id` is no string. The original ignores the first.
pub fn read_ack(message: &[u8]) -> Result<Cow<'_, str>, Malformed> {
    Members::read(message)?.last_id.text()
}

/// A batch of records in a binary message: each behind its length, 4 bytes in big endian.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Records<'a>(&'a [u8]);

/// A length or a record is not there to its end. The original goes deaf; a hub closes the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a batch that ends within a record")]
pub struct Truncated;

impl<'a> Records<'a> {
    /// Checks that all records are there; what they contain is not looked at.
    ///
    /// # Errors
    /// The message ends too early.
    pub fn parse(message: &'a [u8]) -> Result<Self, Truncated> {
        let mut rest = message;
        while !rest.is_empty() {
            (_, rest) = split(rest).ok_or(Truncated)?;
        }
        Ok(Self(message))
    }

    /// The records, in order; any of them may be empty.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let record;
            (record, rest) = split(rest)?;
            Some(record)
        })
    }
}

fn split(batch: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = batch.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

/// What a record takes in a batch beyond its own bytes.
pub const RECORD_OVERHEAD: usize = 4;

/// Appends a record to a batch.
///
/// # Panics
/// At a record of 4 GiB.
pub fn push_record(batch: &mut Vec<u8>, record: &[u8]) {
    let length = u32::try_from(record.len()).expect("records are below 4 GiB");
    batch.extend_from_slice(&length.to_be_bytes());
    batch.extend_from_slice(record);
}

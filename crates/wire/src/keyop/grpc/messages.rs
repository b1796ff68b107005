//! The messages of the service.
//!
//! What is written here is written with its prefix, as it goes into a stream; what is read has none.

use super::PREFIX;
use super::fields::{
    InvalidMessage, Value, bytes_length, push_bytes, push_head, push_varint, take, varint_length,
};

/// Walks over the fields of a message.
fn each_field<'a>(
    message: &'a [u8],
    mut field: impl FnMut(u32, Value<'a>) -> Result<(), InvalidMessage>,
) -> Result<(), InvalidMessage> {
    let mut rest = message;
    while !rest.is_empty() {
        let (number, value, after) = take(rest)?;
        field(number, value)?;
        rest = after;
    }
    Ok(())
}

fn text(bytes: &[u8]) -> Result<&str, InvalidMessage> {
    str::from_utf8(bytes).map_err(|_| InvalidMessage)
}

/// Those fields of a checked message that have this number and are bytes, in order.
fn all(message: &[u8], wanted: u32) -> impl Iterator<Item = &[u8]> + Clone {
    let mut rest = message;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (number, value, after) = take(rest).expect("the message was checked");
            rest = after;
            if let Value::Bytes(bytes) = value
                && number == wanted
            {
                return Some(bytes);
            }
        }
        None
    })
}

/// The records of a batch.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Records<'a>(&'a [u8]);

impl<'a> Records<'a> {
    /// The records, in order; any of them may be empty.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        all(self.0, 1)
    }
}

/// Reads what a client publishes. What the records contain is not looked at.
///
/// # Errors
/// The bytes are no message.
pub fn read_publish_batch(message: &[u8]) -> Result<Records<'_>, InvalidMessage> {
    each_field(message, |_, _| Ok(())).map(|()| Records(message))
}

/// What a client publishes.
pub fn publish_batch<'a>(records: impl Iterator<Item = &'a [u8]> + Clone) -> Vec<u8> {
    let length = records_length(records.clone());
    let mut message = begin(length);
    records.for_each(|record| push_bytes(&mut message, 1, record));
    message
}

/// The answer of a hub to a batch: the id of its last record that is dealt with, empty where all were
/// known before.
#[must_use]
pub fn publish_ack(last_id: &str) -> Vec<u8> {
    let mut message = begin(text_length(last_id));
    push_text(&mut message, last_id);
    message
}

/// Reads the answer of a hub to a batch.
///
/// # Errors
/// The bytes are no message.
pub fn read_publish_ack(message: &[u8]) -> Result<&str, InvalidMessage> {
    read_id(message)
}

/// `last_id`, the first field of both acknowledgements.
fn read_id(message: &[u8]) -> Result<&str, InvalidMessage> {
    let mut last_id = "";
    each_field(message, |number, value| {
        if let (1, Value::Bytes(bytes)) = (number, value) {
            last_id = text(bytes)?;
        }
        Ok(())
    })?;
    Ok(last_id)
}

/// What a client says to Subscribe.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SubscribeFrame<'a> {
    /// Nothing that is known.
    Empty,
    /// The first frame: what it wants.
    Request(SubscribeRequest<'a>),
    /// It has dealt with a batch, up to the record of this id.
    Ack(&'a str),
}

/// What a client wants.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SubscribeRequest<'a> {
    /// The version of the protocol; nobody checks it.
    pub version: &'a str,
    /// The channels that it wants records of.
    pub channels: Subscriptions<'a>,
    /// Whether nothing is kept for it while it is away.
    pub is_ephemeral: bool,
}

/// The channels that a client wants records of, in its order.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Subscriptions<'a>(&'a [u8]);

impl<'a> Subscriptions<'a> {
    /// Their names; any text.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        all(self.0, 2).map(|bytes| text(bytes).expect("the message was checked"))
    }
}

impl<'a> SubscribeFrame<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// The bytes are no message.
    pub fn parse(message: &'a [u8]) -> Result<Self, InvalidMessage> {
        let mut frame = Self::Empty;
        each_field(message, |number, value| {
            match (number, value) {
                (1, Value::Bytes(bytes)) => frame = Self::Request(SubscribeRequest::parse(bytes)?),
                (2, Value::Bytes(bytes)) => frame = Self::Ack(read_id(bytes)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(frame)
    }
}

impl<'a> SubscribeRequest<'a> {
    fn parse(message: &'a [u8]) -> Result<Self, InvalidMessage> {
        let mut request = Self { channels: Subscriptions(message), ..Self::default() };
        each_field(message, |number, value| {
            match (number, value) {
                (1, Value::Bytes(bytes)) => request.version = text(bytes)?,
                (2, Value::Bytes(bytes)) => drop(text(bytes)?),
                (3, Value::Varint(value)) => request.is_ephemeral = value != 0,
                _ => {}
            }
            Ok(())
        })?;
        Ok(request)
    }
}

/// The first frame of a client.
#[must_use]
pub fn subscribe_request(version: &str, channels: &[&str], is_ephemeral: bool) -> Vec<u8> {
    let names: usize = channels.iter().map(|channel| bytes_length(channel.len())).sum();
    let length = text_length(version) + names + if is_ephemeral { 2 } else { 0 };
    let mut message = begin(bytes_length(length));
    push_head(&mut message, 1, length);
    push_text(&mut message, version);
    for channel in channels {
        push_bytes(&mut message, 2, channel.as_bytes());
    }
    if is_ephemeral {
        message.extend_from_slice(&[3 << 3, 1]);
    }
    message
}

/// What a client says when it has dealt with a batch.
#[must_use]
pub fn subscribe_ack(last_id: &str) -> Vec<u8> {
    let length = text_length(last_id);
    let mut message = begin(bytes_length(length));
    push_head(&mut message, 2, length);
    push_text(&mut message, last_id);
    message
}

/// What a hub says to Subscribe.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FromHub<'a> {
    /// Nothing that is known.
    Empty,
    /// Records, of any of the channels.
    Batch(Records<'a>),
    /// The hub will close the stream.
    Close {
        /// Why, as a number.
        code: u32,
        /// Why, as a text.
        text: &'a str,
    },
}

impl<'a> FromHub<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// The bytes are no message.
    pub fn parse(message: &'a [u8]) -> Result<Self, InvalidMessage> {
        let mut frame = Self::Empty;
        each_field(message, |number, value| {
            match (number, value) {
                (1, Value::Bytes(bytes)) => frame = Self::Batch(read_publish_batch(bytes)?),
                (2, Value::Bytes(bytes)) => frame = Self::read_close(bytes)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(frame)
    }

    fn read_close(message: &'a [u8]) -> Result<Self, InvalidMessage> {
        let mut code = 0;
        let mut reason = "";
        each_field(message, |number, value| {
            match (number, value) {
                // Of a longer number the low half counts, as with Go.
                (1, Value::Varint(value)) => {
                    let [low @ .., _, _, _, _] = value.to_le_bytes();
                    code = u32::from_le_bytes(low);
                }
                (2, Value::Bytes(bytes)) => reason = text(bytes)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(Self::Close { code, text: reason })
    }
}

/// Records for a subscriber.
pub fn hub_batch<'a>(records: impl Iterator<Item = &'a [u8]> + Clone) -> Vec<u8> {
    let length = records_length(records.clone());
    let mut message = begin(bytes_length(length));
    push_head(&mut message, 1, length);
    records.for_each(|record| push_bytes(&mut message, 1, record));
    message
}

/// What a hub says before it closes the stream.
#[must_use]
pub fn close_notice(code: u32, text: &str) -> Vec<u8> {
    let code_length = if code == 0 { 0 } else { 1 + varint_length(code.into()) };
    let length = code_length + text_length(text);
    let mut message = begin(bytes_length(length));
    push_head(&mut message, 2, length);
    if code != 0 {
        message.push(1 << 3);
        push_varint(&mut message, code.into());
    }
    if !text.is_empty() {
        push_bytes(&mut message, 2, text.as_bytes());
    }
    message
}

fn records_length<'a>(records: impl Iterator<Item = &'a [u8]>) -> usize {
    records.map(|record| bytes_length(record.len())).sum()
}

/// Appends a text as field 1; an empty one is left out.
fn push_text(message: &mut Vec<u8>, text: &str) {
    if !text.is_empty() {
        push_bytes(message, 1, text.as_bytes());
    }
}

const fn text_length(text: &str) -> usize {
    if text.is_empty() { 0 } else { bytes_length(text.len()) }
}

/// The prefix of a message of so many bytes.
fn begin(length: usize) -> Vec<u8> {
    let mut message = Vec::with_capacity(PREFIX + length);
    message.push(0);
    let length = u32::try_from(length).expect("messages are far below 4 GiB");
    message.extend_from_slice(&length.to_be_bytes());
    message
}

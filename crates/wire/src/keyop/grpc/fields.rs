//! Fields of `proto3` messages.

/// Bytes are no message: what the original says of it is
/// [`Refusal::Malformed`](super::Refusal::Malformed).
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a message in the wire format of protocol buffers")]
pub struct InvalidMessage;

/// Deepest nesting of groups that is passed over; nothing of the protocol has any.
const MAX_GROUPS: usize = 100;

/// The value of a field.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Of another type; no message of the protocol has such fields.
    Other,
}

/// The next field, its number and value, and what follows it.
pub(super) fn take(message: &[u8]) -> Result<(u32, Value<'_>, &[u8]), InvalidMessage> {
    let (tag, rest) = varint(message)?;
    let (number, wire_type) = split_tag(tag)?;
    let (value, rest) = match wire_type {
        0 => {
            let (value, rest) = varint(rest)?;
            (Value::Varint(value), rest)
        }
        1 => (Value::Other, skip(rest, 8)?),
        2 => {
            let (bytes, rest) = bytes(rest)?;
            (Value::Bytes(bytes), rest)
        }
        3 => (Value::Other, group(number, rest)?),
        5 => (Value::Other, skip(rest, 4)?),
        _ => return Err(InvalidMessage),
    };
    Ok((number, value, rest))
}

/// What follows a group that began with `number`.
fn group(number: u32, message: &[u8]) -> Result<&[u8], InvalidMessage> {
    let mut open = vec![number];
    let mut rest = message;
    while let Some(innermost) = open.last().copied() {
        let tag;
        (tag, rest) = varint(rest)?;
        let (number, wire_type) = split_tag(tag)?;
        match wire_type {
            0 => (_, rest) = varint(rest)?,
            1 => rest = skip(rest, 8)?,
            2 => (_, rest) = bytes(rest)?,
            3 if open.len() < MAX_GROUPS => open.push(number),
            4 if number == innermost => drop(open.pop()),
            5 => rest = skip(rest, 4)?,
            _ => return Err(InvalidMessage),
        }
    }
    Ok(rest)
}

fn split_tag(tag: u64) -> Result<(u32, u64), InvalidMessage> {
    const MAX_NUMBER: u32 = (1 << 29) - 1;
    let number = u32::try_from(tag >> 3).map_err(|_| InvalidMessage)?;
    if number == 0 || number > MAX_NUMBER {
        return Err(InvalidMessage);
    }
    Ok((number, tag & 7))
}

fn varint(message: &[u8]) -> Result<(u64, &[u8]), InvalidMessage> {
    let mut value = 0;
    for (place, byte) in message.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7f);
        // Ten times seven are six more than there are: of the last byte one bit counts.
        if place == 9 && *byte > 1 {
            return Err(InvalidMessage);
        }
        value |= bits << (7 * place);
        if byte & 0x80 == 0 {
            return Ok((value, message.get(place + 1..).unwrap_or_default()));
        }
    }
    Err(InvalidMessage)
}

fn bytes(message: &[u8]) -> Result<(&[u8], &[u8]), InvalidMessage> {
    let (length, rest) = varint(message)?;
    let length = usize::try_from(length).map_err(|_| InvalidMessage)?;
    rest.split_at_checked(length).ok_or(InvalidMessage)
}

fn skip(message: &[u8], length: usize) -> Result<&[u8], InvalidMessage> {
    message.get(length..).ok_or(InvalidMessage)
}

/// Appends a varint.
pub(super) fn push_varint(message: &mut Vec<u8>, mut value: u64) {
    loop {
        let [bits, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            message.push(bits & 0x7f);
            return;
        }
        message.push(bits | 0x80);
    }
}

/// How many bytes a varint takes.
pub(super) const fn varint_length(value: u64) -> usize {
    // One for each seven bits, and one for zero.
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Appends a field of bytes; its number is below 16.
pub(super) fn push_bytes(message: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    push_head(message, number, bytes.len());
    message.extend_from_slice(bytes);
}

/// Appends the tag and the length of a field of so many bytes.
pub(super) fn push_head(message: &mut Vec<u8>, number: u8, length: usize) {
    message.push(number << 3 | 2);
    push_varint(message, length as u64);
}

/// How many bytes a field takes that contains so many.
pub(super) const fn bytes_length(length: usize) -> usize {
    1 + varint_length(length as u64) + length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_as_many_bytes_as_are_said() {
        for bits in 0..64 {
            for value in [1_u64 << bits, (1 << bits) - 1, u64::MAX >> bits] {
                let mut message = Vec::new();
                push_varint(&mut message, value);
                assert_eq!(message.len(), varint_length(value), "{value}");
                assert_eq!(varint(&message), Ok((value, &[][..])));
            }
        }
    }

    #[test]
    fn numbers_that_are_too_large_or_cut_off_are_none() {
        let largest = [&[0xff; 9][..], &[1]].concat();
        assert_eq!(varint(&largest), Ok((u64::MAX, &[][..])));
        assert_eq!(varint(&[&[0xff; 9][..], &[2]].concat()), Err(InvalidMessage));
        assert_eq!(varint(&[0x80; 11]), Err(InvalidMessage));
        assert_eq!(varint(&[0x80]), Err(InvalidMessage));
        assert_eq!(varint(&[]), Err(InvalidMessage));
    }

    #[test]
    fn fields_of_other_types_are_passed_over() {
        let rest = b"rest";
        for (field, number) in [
            (&b"\x08\x96\x01"[..], 1),
            (b"\x11abcdefgh", 2),
            (b"\x1a\x02ab", 3),
            (b"\x25abcd", 4),
            // A group with one of each, and a group within.
            (b"\x2b\x08\x01\x11abcdefgh\x1a\x01x\x25abcd\x0b\x0c\x2c", 5),
        ] {
            let message = [field, rest].concat();
            let (found, value, after) = take(&message).unwrap();
            assert_eq!((found, after), (number, &rest[..]));
            match number {
                1 => assert_eq!(value, Value::Varint(150)),
                3 => assert_eq!(value, Value::Bytes(b"ab")),
                _ => assert_eq!(value, Value::Other),
            }
            for cut in 0..field.len() {
                assert_eq!(take(&field[..cut]), Err(InvalidMessage), "{field:x?} to {cut}");
            }
        }
    }

    #[test]
    fn fields_that_nobody_may_write_are_refused() {
        // Number 0; an end without a beginning; a group that ends as another; types 6 and 7.
        for message in [&b"\x00\x01"[..], b"\x0c", b"\x0b\x14", b"\x0e", b"\x0f"] {
            assert_eq!(take(message), Err(InvalidMessage), "{message:x?}");
        }
        let mut deep = vec![0x0b; MAX_GROUPS];
        deep.extend([0x0c; MAX_GROUPS]);
        assert_eq!(take(&deep), Ok((1, Value::Other, &[][..])));
        deep.insert(0, 0x0b);
        deep.push(0x0c);
        assert_eq!(take(&deep), Err(InvalidMessage));
    }
}

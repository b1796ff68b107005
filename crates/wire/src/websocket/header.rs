//! Frame headers (RFC 6455 §5.2).

use super::{MAX_CONTROL, Opcode, Violation};

/// A decoded frame header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// Whether the frame ends its message.
    pub fin: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// The key that the payload is masked with.
    pub mask: Option<[u8; 4]>,
    /// Length of the payload that follows, in bytes.
    pub length: u64,
    /// Length of the header itself, in bytes.
    pub size: usize,
}

impl Header {
    /// Reads a header from the front of `bytes`; `None` while it is not whole.
    ///
    /// # Errors
    /// Reserved bits, an unknown opcode, a control frame that is fragmented or too long, a
    /// length beyond 63 bits or in more bytes than it needs.
    #[inline]
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, Violation> {
        let Some((&[first, second], rest)) = bytes.split_first_chunk() else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Violation::ReservedBits);
        }
        let opcode = Opcode::from_bits(first & 0x0f).ok_or(Violation::Opcode(first & 0x0f))?;
        let fin = first & 0x80 != 0;
        let short = second & 0x7f;
        if opcode.is_control() && (!fin || usize::from(short) > MAX_CONTROL) {
            return Err(Violation::ControlFrame);
        }
        let (length, rest) = match short {
            126 => {
                let Some((length, rest)) = rest.split_first_chunk() else { return Ok(None) };
                (u64::from(u16::from_be_bytes(*length)), rest)
            }
            127 => {
                let Some((length, rest)) = rest.split_first_chunk() else { return Ok(None) };
                (u64::from_be_bytes(*length), rest)
            }
            short => (u64::from(short), rest),
        };
        if length > i64::MAX.unsigned_abs() {
            return Err(Violation::Length);
        }
        let least = match short {
            126 => 126,
            127 => 65_536,
            _ => 0,
        };
        if length < least {
            return Err(Violation::LengthForm);
        }
        let (mask, rest) = if second & 0x80 == 0 {
            (None, rest)
        } else {
            let Some((mask, rest)) = rest.split_first_chunk() else { return Ok(None) };
            (Some(*mask), rest)
        };
        Ok(Some(Self { fin, opcode, mask, length, size: bytes.len() - rest.len() }))
    }
}

/// The header of a whole unmasked message of `length` bytes: the bytes, and how many count.
#[must_use]
#[inline]
pub fn frame_header(opcode: Opcode, length: usize) -> ([u8; 10], usize) {
    let mut header = [0; 10];
    header[0] = 0x80 | opcode as u8;
    if let Ok(short @ 0..=125) = u8::try_from(length) {
        header[1] = short;
        (header, 2)
    } else if let Ok(medium) = u16::try_from(length) {
        header[1] = 126;
        header[2..4].copy_from_slice(&medium.to_be_bytes());
        (header, 4)
    } else {
        header[1] = 127;
        header[2..10].copy_from_slice(&(length as u64).to_be_bytes());
        (header, 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trips_at_each_length_form() {
        for (length, size) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let (bytes, used) = frame_header(Opcode::Binary, length);
            assert_eq!(used, size);
            let header = Header::decode(&bytes[..used]).unwrap().unwrap();
            assert_eq!((header.length, header.size), (length as u64, size));
            assert_eq!((header.fin, header.opcode, header.mask), (true, Opcode::Binary, None));
            for cut in 0..used {
                assert_eq!(Header::decode(&bytes[..cut]), Ok(None));
            }
        }
    }

    #[test]
    fn broken_headers_are_named() {
        assert_eq!(Header::decode(&[0xc2, 0x00]), Err(Violation::ReservedBits));
        assert_eq!(Header::decode(&[0x83, 0x00]), Err(Violation::Opcode(3)));
        assert_eq!(Header::decode(&[0x09, 0x00]), Err(Violation::ControlFrame));
        assert_eq!(Header::decode(&[0x89, 0x7e, 0, 126]), Err(Violation::ControlFrame));
        assert_eq!(
            Header::decode(&[0x82, 0x7f, 0x80, 0, 0, 0, 0, 0, 0, 0]),
            Err(Violation::Length)
        );
    }

    #[test]
    fn length_in_more_bytes_than_it_needs_is_refused() {
        let medium = |length: u16| [&[0x82, 126][..], &length.to_be_bytes()].concat();
        let long = |length: u64| [&[0x82, 127][..], &length.to_be_bytes()].concat();
        for bytes in [medium(0), medium(125), long(0), long(125), long(65_535)] {
            assert_eq!(Header::decode(&bytes), Err(Violation::LengthForm), "{bytes:?}");
        }
        for bytes in [medium(126), medium(65_535), long(65_536)] {
            assert!(matches!(Header::decode(&bytes), Ok(Some(_))), "{bytes:?}");
        }
    }
}

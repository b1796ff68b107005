//! How the records of a session are laid out on what carries them.

use crate::websocket::{Opcode, frame_header};

/// What a record becomes on the wire.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    /// A WebSocket message of bytes.
    Binary,
    /// A WebSocket message of text: the records are UTF-8.
    Text,
    /// A datagram, with nothing in front of the record; it has at least one byte.
    Datagram,
    /// A whole frame of WebSocket that the door has made: its messages are of both kinds.
    Framed,
}

impl Framing {
    /// What goes in front of a record of `length` bytes: the bytes, and how many count.
    #[must_use]
    #[inline]
    pub fn header(self, length: usize) -> ([u8; 10], usize) {
        match self {
            Self::Binary => frame_header(Opcode::Binary, length),
            Self::Text => frame_header(Opcode::Text, length),
            Self::Datagram | Self::Framed => ([0; 10], 0),
        }
    }

    /// What goes in front of a control frame, or of a datagram that stands for one.
    #[must_use]
    #[inline]
    pub fn control_header(self, opcode: Opcode, length: usize) -> ([u8; 10], usize) {
        match self {
            Self::Binary | Self::Text | Self::Framed => frame_header(opcode, length),
            Self::Datagram => ([0; 10], 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_has_the_header_of_its_kind_and_a_datagram_has_none() {
        let header = |framing: Framing, length| {
            let (header, used) = framing.header(length);
            header[..used].to_vec()
        };
        assert_eq!(header(Framing::Binary, 300), [0x82, 126, 1, 44]);
        assert_eq!(header(Framing::Text, 5), [0x81, 5]);
        assert!(header(Framing::Datagram, 300).is_empty());
        assert_eq!(Framing::Text.control_header(Opcode::Ping, 0).0[..2], [0x89, 0]);
        assert_eq!(Framing::Datagram.control_header(Opcode::Ping, 0).1, 0);
        assert!(header(Framing::Framed, 300).is_empty());
        assert_eq!(Framing::Framed.control_header(Opcode::Ping, 0).0[..2], [0x89, 0]);
    }
}

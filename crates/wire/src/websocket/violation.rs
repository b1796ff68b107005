//! What a peer may break of the framing.

use super::{CloseCode, Opcode};

/// How a peer broke the framing rules.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A reserved bit is set, and no extension was negotiated.
    #[error("reserved bits are set")]
    ReservedBits,
    /// An opcode that RFC 6455 does not define.
    #[error("unknown opcode {0:#x}")]
    Opcode(u8),
    /// A control frame that is fragmented or longer than 125 bytes.
    #[error("a control frame is fragmented or too long")]
    ControlFrame,
    /// A length whose highest bit is set.
    #[error("a length beyond 63 bits")]
    Length,
    /// A length in more bytes than it needs (RFC 6455 §5.2).
    #[error("a length in more bytes than it needs")]
    LengthForm,
    /// A client's frame without a mask, or a server's with one.
    #[error("wrong masking of a {0:?} frame")]
    Masking(Opcode),
    /// A continuation without a beginning, or a new message within another.
    #[error("fragments out of order")]
    Fragments,
    /// A message longer than the limit.
    #[error("a message over the limit")]
    TooLarge,
    /// A text message that is not UTF-8.
    #[error("a text message is not UTF-8")]
    InvalidText,
    /// A Close frame with a payload of one byte, a code out of range, or a broken reason.
    #[error("a broken close frame")]
    CloseFrame,
}

impl Violation {
    /// The code that the connection is closed with (SPEC §3.8).
    #[must_use]
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::TooLarge => CloseCode::TooLarge,
            Self::InvalidText => CloseCode::InvalidText,
            Self::ReservedBits
            | Self::Opcode(_)
            | Self::ControlFrame
            | Self::Length
            | Self::LengthForm
            | Self::Masking(_)
            | Self::Fragments
            | Self::CloseFrame => CloseCode::Protocol,
        }
    }
}

//! WebSocket framing of RFC 6455, both directions, without IO (SPEC §3.5 to §3.8).
//!
//! [`Decoder`] finds the frames in a buffer that the caller filled and unmasks them in
//! place, so a message that came in one frame is never copied. [`frame_header`] makes what
//! goes in front of a message. The upgrade that comes before is not here.

mod decoder;
mod header;
mod mask;
mod opcode;
mod violation;

pub use decoder::{Decoder, LONGEST_IN_PLACE, Message, close_code};
pub use header::{Header, frame_header};
pub use mask::apply_mask;
pub use opcode::Opcode;
pub use violation::Violation;

/// Longest header of a frame, in bytes: 2 + 8 (64-bit length) + 4 (mask).
pub const MAX_HEADER: usize = 14;

/// Longest payload of a control frame, in bytes (RFC 6455 §5.5).
pub const MAX_CONTROL: usize = 125;

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Takes masked frames and sends unmasked ones.
    Server,
    /// Takes unmasked frames and sends masked ones.
    Client,
}

/// Status codes of a Close frame that this protocol uses (SPEC §3.8).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u16)]
pub enum CloseCode {
    /// The end was asked for, or a newer session replaced this one.
    Normal = 1000,
    /// The relay is shutting down.
    GoingAway = 1001,
    /// The peer broke the framing rules.
    Protocol = 1002,
    /// A message is not of the kind that is taken.
    Unsupported = 1003,
    /// A text message is not UTF-8, or not what it should be.
    InvalidText = 1007,
    /// The login failed or took too long, or the node's key was withdrawn.
    Policy = 1008,
    /// A message is longer than what is taken.
    TooLarge = 1009,
    /// The relay failed.
    Internal = 1011,
    /// The relay is full.
    TryAgain = 1013,
    /// The peer is not on the allow list of the keyop door.
    NotAllowed = 4403,
}

/// The payload of a Close frame: the code and a reason of at most 123 bytes.
#[must_use]
pub fn close_payload(code: CloseCode, reason: &str) -> Vec<u8> {
    let mut payload = (code as u16).to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    payload.truncate(MAX_CONTROL);
    payload
}

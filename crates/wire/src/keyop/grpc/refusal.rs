//! How calls end: status codes and messages, as `grpc-go` and the original have them.

use std::borrow::Cow;

use crate::keyop::NOT_ALLOWED;

/// A status code. Those that neither side of this protocol gives are [`Self::Other`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Code {
    /// All is well.
    Ok,
    /// The caller ended it.
    Cancelled,
    /// Something that the protocol does not say.
    Unknown,
    /// The call makes no sense.
    InvalidArgument,
    /// It took too long.
    DeadlineExceeded,
    /// The caller may not.
    PermissionDenied,
    /// Something is full, or too large.
    ResourceExhausted,
    /// There is no such method.
    Unimplemented,
    /// One of both sides does not keep to the protocol.
    Internal,
    /// The other side cannot be reached.
    Unavailable,
    /// Nobody knows the caller.
    Unauthenticated,
    /// Another one.
    Other(u32),
}

impl Code {
    /// The code of this number.
    #[must_use]
    pub const fn of(number: u32) -> Self {
        match number {
            0 => Self::Ok,
            1 => Self::Cancelled,
            2 => Self::Unknown,
            3 => Self::InvalidArgument,
            4 => Self::DeadlineExceeded,
            7 => Self::PermissionDenied,
            8 => Self::ResourceExhausted,
            12 => Self::Unimplemented,
            13 => Self::Internal,
            14 => Self::Unavailable,
            16 => Self::Unauthenticated,
            other => Self::Other(other),
        }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Ok => 0,
            Self::Cancelled => 1,
            Self::Unknown => 2,
            Self::InvalidArgument => 3,
            Self::DeadlineExceeded => 4,
            Self::PermissionDenied => 7,
            Self::ResourceExhausted => 8,
            Self::Unimplemented => 12,
            Self::Internal => 13,
            Self::Unavailable => 14,
            Self::Unauthenticated => 16,
            Self::Other(number) => number,
        }
    }

    /// Whether the same caller will be refused again, so that it shall not try: the two codes that
    /// end an ephemeral client of the original.
    #[must_use]
    pub const fn is_permanent(self) -> bool {
        matches!(self, Self::PermissionDenied | Self::Unauthenticated)
    }
}

/// Why a hub ends a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Refusal<'a> {
    /// The caller is not on the allow list.
    NotAllowed,
    /// The first frame of a subscriber is none that subscribes.
    FirstFrame,
    /// A message is too long.
    TooLong {
        /// Its length.
        bytes: usize,
        /// The longest that is taken.
        longest: usize,
    },
    /// A message is none.
    Malformed,
    /// A message is compressed.
    Compressed,
    /// The first byte of a message is neither 0 nor 1.
    Format(u8),
    /// The service has no such method.
    UnknownMethod(&'a str),
    /// There is no such service.
    UnknownService(&'a str),
    /// The path does not name a method of a service.
    BadPath(&'a str),
    /// The hub cannot take records now.
    Unavailable,
    /// The hub stops.
    Stopping,
    /// Another session of the same peer took over.
    TakenOver,
}

impl Refusal<'_> {
    /// Its status code.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::NotAllowed => Code::PermissionDenied,
            Self::FirstFrame => Code::InvalidArgument,
            Self::TooLong { .. } => Code::ResourceExhausted,
            Self::Malformed | Self::Compressed | Self::Format(_) => Code::Internal,
            Self::UnknownMethod(_) | Self::UnknownService(_) | Self::BadPath(_) => {
                Code::Unimplemented
            }
            Self::Unavailable | Self::Stopping => Code::Unavailable,
            Self::TakenOver => Code::Cancelled,
        }
    }

    /// Its message, not encoded.
    #[must_use]
    pub fn message(&self) -> Cow<'static, str> {
        let text = match self {
            Self::NotAllowed => NOT_ALLOWED,
            Self::FirstFrame => "first frame must be SubscribeRequest",
            Self::TooLong { bytes, longest } => {
                let compared = format!("({bytes} vs. {longest})");
                return format!("grpc: received message larger than max {compared}").into();
            }
            Self::Malformed => {
                "grpc: failed to unmarshal the received message: proto: cannot parse invalid \
                 wire-format data"
            }
            Self::Compressed => "grpc: compressed flag set with identity or empty encoding",
            Self::Format(format) => {
                return format!("grpc: received unexpected payload format {format}").into();
            }
            Self::UnknownMethod(method) => {
                return format!("unknown method {method} for service {}", super::SERVICE).into();
            }
            Self::UnknownService(service) => return format!("unknown service {service}").into(),
            Self::BadPath(path) => return format!("malformed method name: {path:?}").into(),
            Self::Unavailable => "the hub cannot store records",
            Self::Stopping => "the hub stops",
            Self::TakenOver => "another connection of the same peer took over",
        };
        Cow::Borrowed(text)
    }
}

/// A message as the value of `grpc-message`: what is not printable ASCII is percent-encoded, and `%`
/// itself.
#[must_use]
pub fn encode_message(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'%';
    if text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        if is_plain(byte) {
            encoded.push(char::from(byte));
            continue;
        }
        encoded.push('%');
        for digit in [byte >> 4, byte & 0x0f] {
            let digit = char::from_digit(digit.into(), 16).expect("half a byte");
            encoded.push(digit.to_ascii_uppercase());
        }
    }
    Cow::Owned(encoded)
}

/// The message that a value of `grpc-message` stands for; one that is not well encoded for itself.
#[must_use]
pub fn decode_message(encoded: &str) -> Cow<'_, str> {
    if !encoded.contains('%') {
        return Cow::Borrowed(encoded);
    }
    crate::percent::percent_decoded(encoded).map_or(Cow::Borrowed(encoded), Cow::Owned)
}

//! Why a peer is not let in, and what it is told.

/// The code of a close (RFC 6455, section 7.4.1).
pub type CloseCode = u16;

/// Why there is no session, in the order in which it is looked at.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Refusal {
    /// The first message is longer than [`MAX_MESSAGE`](super::MAX_MESSAGE).
    TooLarge,
    /// The first message is one of bytes.
    NotText,
    /// It is not JSON, or has members of another type.
    Malformed,
    /// It is another frame.
    NotRegister,
    /// It is of another version.
    Version,
    /// It names nobody.
    NoName,
    /// The name is longer than [`MAX_NAME`](super::MAX_NAME).
    LongName,
    /// Its token lets nobody in.
    Token,
    /// There are as many sessions of its credential as there may be.
    TooMany,
    /// The name could not be made durable.
    NotStored,
    /// The name is another credential's. Clients of the original know this text, and give up.
    Claimed,
    /// There is no place for the session.
    NotBound,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::TooLarge,
        Self::NotText,
        Self::Malformed,
        Self::NotRegister,
        Self::Version,
        Self::NoName,
        Self::LongName,
        Self::Token,
        Self::TooMany,
        Self::NotStored,
        Self::Claimed,
        Self::NotBound,
    ];

    /// What the peer is told, and the word for it in a metric.
    const fn told(self) -> (CloseCode, &'static str, &'static str) {
        match self {
            Self::TooLarge => (1009, "read limited at 1048577 bytes", "too_large"),
            Self::NotText => (1003, "handshake must be text", "not_text"),
            Self::Malformed => (1007, "malformed handshake", "malformed"),
            Self::NotRegister => (1008, "first frame must be register", "not_register"),
            Self::Version => (1008, "unsupported protocol version", "version"),
            Self::NoName => (1008, "empty peer name", "no_name"),
            Self::LongName => (1008, "peer name too long", "long_name"),
            Self::Token => (1008, "invalid bearer token", "token"),
            Self::TooMany => (1013, "too many sessions of this token", "too_many"),
            Self::NotStored => (1011, "peer persistence failed", "not_stored"),
            Self::Claimed => (1008, "name claimed under a different token", "claimed"),
            Self::NotBound => (1011, "registry bind failed", "not_bound"),
        }
    }

    /// The code of the close.
    #[must_use]
    pub const fn code(self) -> CloseCode {
        self.told().0
    }

    /// The text of the close.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        self.told().1
    }

    /// The word for a metric.
    #[must_use]
    pub const fn word(self) -> &'static str {
        self.told().2
    }

    /// What a close says, as far as it is one of these.
    #[must_use]
    pub fn of_close(code: CloseCode, reason: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.code() == code && refusal.reason() == reason)
    }
}

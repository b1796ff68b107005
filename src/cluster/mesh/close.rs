//! How links end: the codes that go over the wire, and what is said and counted about it.

use quinn::{ConnectionError, VarInt};

use super::hello::HelloError;
use crate::cluster::{Boot, Reject};
use crate::metrics::Word as _;
use crate::words;

words! {
    /// Why a side closes a link; the application error code is the position here.
    pub(super) enum Close {
        /// What QUIC says when a connection is dropped without a word.
        Dropped => "dropped",
        /// The relay stops.
        Stopping => "stopping",
        /// Another link between the same two relays is up.
        Duplicate => "duplicate",
        /// A newer link has taken this one's place.
        Replaced => "replaced",
        /// Nothing was heard for too long.
        Silent => "silent",
        /// The hello was refused.
        Refused => "refused",
        /// What came is no batch.
        BadBatch => "bad_batch",
        /// The link failed at our side.
        Failed => "failed",
        /// The two sides are different relays with one key.
        Clone => "clone",
    }
}

impl Close {
    /// The code on the wire.
    pub(super) fn code(self) -> VarInt {
        VarInt::from_u32(u32::try_from(self.index()).unwrap_or(u32::MAX))
    }

    fn of(code: VarInt) -> Option<Self> {
        Self::ALL.get(usize::try_from(code.into_inner()).ok()?).copied()
    }
}

/// The word for how a connection ended.
pub(super) fn reason(error: &ConnectionError) -> &'static str {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            Close::of(close.error_code).map_or("unknown_code", Close::word)
        }
        ConnectionError::TimedOut => "timed_out",
        ConnectionError::Reset => "reset",
        ConnectionError::LocallyClosed => Close::Stopping.word(),
        ConnectionError::TransportError(_)
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::VersionMismatch
        | ConnectionError::CidsExhausted => "transport_error",
    }
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum Failure {
    /// The address cannot be dialled at all.
    #[error(transparent)]
    Dial(#[from] quinn::ConnectError),
    /// The connection failed, or the other side closed it.
    #[error("{word}: {0}", word = reason(.0))]
    Lost(#[from] ConnectionError),
    /// Nothing answers.
    #[error("no answer")]
    NoAnswer,
    /// The other side has shown no key that we know, or a signature that does not hold.
    #[error("its key is not trusted: {0}")]
    Stranger(quinn::TransportErrorCode),
    /// The other side is this relay.
    #[error("it is this relay itself")]
    Itself,
    /// The other side is another relay with this one's key.
    #[error("another relay has this relay's key")]
    Clone,
    /// The other side has not said hello in time.
    #[error("no hello")]
    Timeout,
    /// What it said is no hello for us.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// The hello's stream broke.
    #[error("the hello broke off")]
    Broken,
    /// Another link with the same run of the same relay is up.
    #[error("another link is up")]
    Duplicate,
}

impl Failure {
    /// A handshake that did not come to its end.
    pub(super) fn of_handshake(error: ConnectionError) -> Self {
        // Only our own TLS makes transport errors in the range of TLS alerts.
        if let ConnectionError::TransportError(error) = &error
            && is_crypto(error.code)
        {
            return Self::Stranger(error.code);
        }
        Self::Lost(error)
    }

    /// What a connection to a relay of our own key came to.
    pub(super) fn with_own_key(said: Result<Boot, Self>, ours: Boot) -> Self {
        let closed_with = |error: &ConnectionError| {
            let ConnectionError::ApplicationClosed(close) = error else { return None };
            Close::of(close.error_code)
        };
        match said {
            Ok(boot) if boot == ours => Self::Itself,
            Ok(_) => Self::Clone,
            // The other side had the hello first, and its close overtook its own.
            Err(Self::Lost(error)) if closed_with(&error) == Some(Close::Clone) => Self::Clone,
            Err(Self::Lost(error)) if closed_with(&error) == Some(Close::Refused) => Self::Itself,
            Err(failure) => failure,
        }
    }

    /// As what it counts; `None` where the other side is not to blame.
    pub(super) fn reject(&self) -> Option<Reject> {
        match self {
            Self::Stranger(_) => Some(Reject::Stranger),
            Self::Itself => Some(Reject::Itself),
            Self::Clone => Some(Reject::Clone),
            Self::Timeout => Some(Reject::Timeout),
            Self::Hello(error) => Some((*error).into()),
            Self::Broken => Some(Reject::BadHello),
            Self::Dial(_) | Self::Lost(_) | Self::NoAnswer | Self::Duplicate => None,
        }
    }

    /// What the other side is told.
    pub(super) fn close(&self) -> Close {
        match self {
            Self::Duplicate => Close::Duplicate,
            Self::Clone => Close::Clone,
            Self::Dial(_)
            | Self::Lost(_)
            | Self::NoAnswer
            | Self::Stranger(_)
            | Self::Itself
            | Self::Timeout
            | Self::Hello(_)
            | Self::Broken => Close::Refused,
        }
    }
}

/// Whether a code is a TLS alert (RFC 9001 §4.8).
fn is_crypto(code: quinn::TransportErrorCode) -> bool {
    (0x100..0x200).contains(&u64::from(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_that_other_versions_know() {
        let codes = [
            (Close::Stopping, 1_u32),
            (Close::Duplicate, 2),
            (Close::Replaced, 3),
            (Close::Silent, 4),
            (Close::Refused, 5),
            (Close::BadBatch, 6),
            (Close::Failed, 7),
            (Close::Clone, 8),
        ];
        for (close, code) in codes {
            assert_eq!((close.code(), Close::of(code.into())), (code.into(), Some(close)));
        }
        assert_eq!(Close::of(VarInt::MAX), None);
    }
}

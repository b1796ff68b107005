//! Why this door drops messages, and what becomes of the records in those that it takes.

use super::REALM;
use crate::config::KEYOP;
use crate::metrics::Owner;
use crate::reasons;
use crate::wire::keyop::InvalidEnvelope;
use crate::words;

/// Why messages of peers are not looked into, beside what every door's are dropped for.
#[derive(Debug)]
pub struct KeyopDrop;

reasons! {
    impl KeyopDrop of Owner::Door(REALM, KEYOP.name);

    TRUNCATED = "truncated",
        "it is a batch that ends within a record; the session ends",
        "the client's software";
    TOO_MANY = "too_many",
        "it is a batch of more than 65,536 records; the session ends, or the call",
        "smaller batches";
    MALFORMED = "malformed",
        "it is no message of the service; the call ends",
        "the client's software";
}

words! {
    /// What became of a record that a peer has published.
    pub(super) enum Taken {
        /// It is stored, or its channel has nobody to keep it for.
        Stored => "stored",
        /// It was here before.
        Duplicate => "duplicate",
        /// The peer may not publish to its channel.
        NotAllowed => "not_allowed",
        /// Its channel has a name that no channel may have.
        BadChannel => "bad_channel",
        /// Its channel is one of dead letters.
        DeadLetter => "dead_letter",
        /// It has been here before, its route says.
        Loop => "loop",
        /// It is longer than what is taken.
        TooLong => "too_long",
        /// It is no JSON, or has members of another type.
        Malformed => "malformed",
        /// It is of another version than 1.
        Version => "version",
        /// Its time is none.
        Time => "time",
        /// It has no id, or one of more than 256 bytes.
        NoId => "no_id",
        /// The bus could not keep it; its sender has to send it again.
        NotStored => "not_stored",
    }
}

impl From<InvalidEnvelope> for Taken {
    fn from(invalid: InvalidEnvelope) -> Self {
        match invalid {
            InvalidEnvelope::Version => Self::Version,
            InvalidEnvelope::Time => Self::Time,
            InvalidEnvelope::NoId => Self::NoId,
            InvalidEnvelope::Malformed | _ => Self::Malformed,
        }
    }
}

//! Outcomes as relays tell them each other.

use crate::bus::Outcome;
use crate::proto::bus::Refused;
use crate::wire::front::{self as wire, Refusal};

impl From<wire::Outcome> for Outcome {
    fn from(outcome: wire::Outcome) -> Self {
        match outcome {
            wire::Outcome::Stored => Self::Stored,
            wire::Outcome::Partly { stored, of } => {
                Self::Partly { stored: stored as usize, of: of as usize }
            }
            wire::Outcome::Duplicate => Self::Duplicate,
            wire::Outcome::Refused(refusal) => Self::Refused(match refusal {
                Refusal::UnknownRecipient => Refused::UnknownRecipient,
                Refusal::Quota => Refused::Quota,
                Refusal::StoreFull => Refused::StoreFull,
                Refusal::NoRecipients => Refused::NoRecipients,
                Refusal::RecipientsFull => Refused::RecipientsFull,
                Refusal::TooManyCopies => Refused::TooManyCopies,
                Refusal::KeyTaken => Refused::KeyTaken,
            }),
        }
    }
}

impl From<Outcome> for wire::Outcome {
    fn from(outcome: Outcome) -> Self {
        let count = |count| u32::try_from(count).unwrap_or(u32::MAX);
        match outcome {
            Outcome::Stored => Self::Stored,
            Outcome::Partly { stored, of } => Self::Partly { stored: count(stored), of: count(of) },
            Outcome::Duplicate => Self::Duplicate,
            Outcome::Refused(refused) => Self::Refused(match refused {
                Refused::UnknownRecipient => Refusal::UnknownRecipient,
                Refused::Quota => Refusal::Quota,
                Refused::StoreFull => Refusal::StoreFull,
                Refused::NoRecipients => Refusal::NoRecipients,
                Refused::RecipientsFull => Refusal::RecipientsFull,
                Refused::TooManyCopies => Refusal::TooManyCopies,
                Refused::KeyTaken => Refusal::KeyTaken,
            }),
        }
    }
}

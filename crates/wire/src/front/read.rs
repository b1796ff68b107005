//! Reads messages.

use super::rest::Rest;
use super::{
    CHANNEL, ClaimOutcome, Claimant, DROPPED, EVERYBODY, Letters, Message, NAME, Outcomes,
    Recipient, Texts, kind,
};

/// A whole message; `None` where the bytes are none.
pub(super) fn message(bytes: &[u8]) -> Option<Message<'_>> {
    let mut rest = Rest(bytes);
    let kind = rest.u8()?;
    let message = match kind {
        kind::LEADS => Message::Leads { epoch: rest.u64()? },
        kind::ATTACH => Message::Attach { epoch: rest.u64()? },
        kind::CLAIM => Message::Claim { request: rest.u64()?, claimant: claimant(&mut rest)? },
        kind::CLAIMED => {
            let (request, number) = (rest.u64()?, rest.u8()?);
            let mut outcomes = ClaimOutcome::ALL.into_iter();
            let outcome = outcomes.find(|outcome| *outcome as u8 == number)?;
            Message::Claimed { request, outcome }
        }
        kind::OPEN => Message::Open {
            session: rest.u64()?,
            age_ms: rest.u32()?,
            is_listening: rest.flag()?,
            claimant: claimant(&mut rest)?,
        },
        kind::OPENED => Message::Opened { session: rest.u64()? },
        kind::CLOSE => Message::Close { session: rest.u64()? },
        kind::SUBMIT => {
            let (session, wants_receipt) = (rest.u64()?, rest.flag()?);
            let to = recipient(&mut rest)?;
            Message::Submit { session, to, id: rest.text()?, wants_receipt, body: rest.all() }
        }
        kind::ACKNOWLEDGE => Message::Acknowledge { session: rest.u64()?, key: rest.last_text()? },
        kind::SUBSCRIBE => Message::Subscribe {
            session: rest.u64()?,
            is_ephemeral: rest.flag()?,
            channels: Texts::of(rest.all())?,
        },
        kind::ACKNOWLEDGE_RECORDS => {
            Message::AcknowledgeRecords { session: rest.u64()?, batch: rest.u64()? }
        }
        kind::RECORDS => Message::Records {
            session: rest.u64()?,
            batch: rest.u64()?,
            is_last: rest.flag()?,
            records: Letters::of(rest.all())?,
        },
        kind::DELIVER => {
            Message::Deliver { session: rest.u64()?, letters: Letters::of(rest.all())? }
        }
        kind::ANSWERED => {
            Message::Answered { session: rest.u64()?, outcomes: Outcomes::of(rest.all())? }
        }
        kind::HOLD => Message::Hold { session: rest.u64()?, is_held: rest.flag()? },
        kind::WITHDRAW => Message::Withdraw { session: rest.u64()? },
        kind::REPLACE => Message::Replace { session: rest.u64()? },
        kind::REOPEN => Message::Reopen { session: rest.u64()? },
        kind::NAME => {
            let (is_here, realm) = (rest.flag()?, rest.u8()?);
            Message::Name { is_here, realm, name: rest.last_text()? }
        }
        kind::TOOK => Message::Took { by_leader: rest.flag()?, bytes: rest.u32()? },
        kind::ASK => Message::Ask { request: rest.u64()?, question: rest.all() },
        kind::ANSWER => Message::Answer { request: rest.u64()?, answer: rest.all() },
        _ => return None,
    };
    rest.0.is_empty().then_some(message)
}

fn recipient<'a>(rest: &mut Rest<'a>) -> Option<Recipient<'a>> {
    Some(match rest.u8()? {
        EVERYBODY => Recipient::Everybody,
        NAME => Recipient::Name(rest.text()?),
        CHANNEL => Recipient::Channel(rest.text()?),
        DROPPED => Recipient::Dropped { is_loop: rest.flag()?, channel: rest.text()? },
        _ => return None,
    })
}

fn claimant<'a>(rest: &mut Rest<'a>) -> Option<Claimant<'a>> {
    Some(Claimant { realm: rest.u8()?, owner: rest.array()?, name: rest.last_text()? })
}

//! What the relays of one message bus tell each other: *fronts*, whose sessions send and receive
//! messages, and the *leader*, which decides and stores.
//!
//! A message is a kind and its fields, numbers in network order; the last field goes to its end.
//! Each message has one form. Who carries it keeps the order of one relay's messages, and their
//! bounds.

mod lists;
mod read;
mod rest;
#[cfg(test)]
mod tests;

pub use lists::{Letters, LettersIter, Outcomes, OutcomesIter, Texts, TextsIter};

/// Longest name, id and key, in bytes: the doors' own bounds are lower.
pub const MAX_TEXT: usize = 8_192;

mod kind {
    pub(super) const LEADS: u8 = 1;
    pub(super) const ATTACH: u8 = 2;
    pub(super) const CLAIM: u8 = 3;
    pub(super) const CLAIMED: u8 = 4;
    pub(super) const OPEN: u8 = 5;
    pub(super) const OPENED: u8 = 6;
    pub(super) const CLOSE: u8 = 7;
    pub(super) const SUBMIT: u8 = 8;
    pub(super) const ACKNOWLEDGE: u8 = 9;
    pub(super) const DELIVER: u8 = 10;
    pub(super) const ANSWERED: u8 = 11;
    pub(super) const HOLD: u8 = 12;
    pub(super) const WITHDRAW: u8 = 13;
    pub(super) const REPLACE: u8 = 14;
    pub(super) const REOPEN: u8 = 15;
    pub(super) const NAME: u8 = 16;
    pub(super) const TOOK: u8 = 17;
    pub(super) const ASK: u8 = 18;
    pub(super) const ANSWER: u8 = 19;
    pub(super) const SUBSCRIBE: u8 = 20;
    pub(super) const RECORDS: u8 = 21;
    pub(super) const ACKNOWLEDGE_RECORDS: u8 = 22;
}

/// A message of a relay to another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Message<'a> {
    /// From any relay: it leads in this epoch, or with 0 does not.
    Leads {
        /// The epoch.
        epoch: u64,
    },
    /// To the leader of this epoch: what follows is for it. Whatever was attached before is not.
    Attach {
        /// The epoch.
        epoch: u64,
    },
    /// To the leader: a credential claims a name.
    Claim {
        /// What the answer repeats.
        request: u64,
        /// Who claims it.
        claimant: Claimant<'a>,
    },
    /// From the leader.
    Claimed {
        /// That of the claim.
        request: u64,
        /// What became of it.
        outcome: ClaimOutcome,
    },
    /// To the leader: a session of a name can be reached, or only has something left to say.
    Open {
        /// What the sender calls it; it never says that of another.
        session: u64,
        /// How long ago it began, in milliseconds: of two sessions of a name the younger stays.
        age_ms: u32,
        /// Whether messages are delivered to it.
        is_listening: bool,
        /// Whose it is.
        claimant: Claimant<'a>,
    },
    /// From the leader: what the session says is taken from here on.
    Opened {
        /// The session.
        session: u64,
    },
    /// To the leader: the session is over.
    Close {
        /// The session.
        session: u64,
    },
    /// To the leader: a message of a session.
    Submit {
        /// The session.
        session: u64,
        /// To whom it goes.
        to: Recipient<'a>,
        /// Its id.
        id: &'a str,
        /// Whether its sender is told what becomes of it.
        wants_receipt: bool,
        /// What recipients get.
        body: &'a [u8],
    },
    /// To the leader: a session has a message.
    Acknowledge {
        /// The session.
        session: u64,
        /// The key of the message.
        key: &'a str,
    },
    /// To the leader: a session is subscribed to these channels, and to no others.
    Subscribe {
        /// The session.
        session: u64,
        /// Whether it begins at the end of each, and leaves no cursor behind.
        is_ephemeral: bool,
        /// The names of the channels.
        channels: Texts<'a>,
    },
    /// To the leader: a session has the records of a batch.
    AcknowledgeRecords {
        /// The session.
        session: u64,
        /// The batch.
        batch: u64,
    },
    /// From the leader: records of channels for a session; those of one batch follow each other.
    Records {
        /// The session.
        session: u64,
        /// The batch; the same where it comes again.
        batch: u64,
        /// Whether the batch ends with it.
        is_last: bool,
        /// The records, each with its id.
        records: Letters<'a>,
    },
    /// From the leader: messages for a session.
    Deliver {
        /// The session.
        session: u64,
        /// The messages.
        letters: Letters<'a>,
    },
    /// From the leader: what became of the session's oldest submissions without an answer.
    Answered {
        /// The session.
        session: u64,
        /// Of each, in their order.
        outcomes: Outcomes<'a>,
    },
    /// From the leader: the session is to be read no more, or again.
    Hold {
        /// The session.
        session: u64,
        /// Whether it is held.
        is_held: bool,
    },
    /// From the leader: the session's name belongs to another credential.
    Withdraw {
        /// The session.
        session: u64,
    },
    /// From the leader: a younger session has the name.
    Replace {
        /// The session.
        session: u64,
    },
    /// From the leader: messages for the session were dropped; it is to be opened again.
    Reopen {
        /// The session.
        session: u64,
    },
    /// From the leader: a name has a session at some relay, or no more.
    Name {
        /// Whether it has one.
        is_here: bool,
        /// The name space.
        realm: u8,
        /// The name.
        name: &'a str,
    },
    /// So many bytes of the receiver's messages were taken in since this was said last.
    Took {
        /// Whether the leader took them, or a front.
        by_leader: bool,
        /// Bytes.
        bytes: u32,
    },
    /// To the leader: an operator's question.
    Ask {
        /// What the answer repeats.
        request: u64,
        /// The question.
        question: &'a [u8],
    },
    /// From the leader.
    Answer {
        /// That of the question.
        request: u64,
        /// The answer.
        answer: &'a [u8],
    },
}

/// To whom a message goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Recipient<'a> {
    /// All who are connected.
    Everybody,
    /// The mailbox of this name.
    Name(&'a str),
    /// The channel of this name.
    Channel(&'a str),
    /// Nobody: it was published to this channel, and is only noted in the audit log.
    Dropped {
        /// The channel.
        channel: &'a str,
        /// It has been here before; else its sender may not publish it.
        is_loop: bool,
    },
}

/// Who claims a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Claimant<'a> {
    /// The name space.
    pub realm: u8,
    /// The credential.
    pub owner: [u8; 32],
    /// The name.
    pub name: &'a str,
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum ClaimOutcome {
    /// The name is the claimant's.
    Claimed = 0,
    /// It is another's.
    Taken = 1,
    /// There are too many names.
    Full = 2,
}

/// What became of a submission.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It waits for its recipients.
    Stored,
    /// A broadcast of which some recipients get no copy.
    Partly {
        /// Copies that wait.
        stored: u32,
        /// Recipients.
        of: u32,
    },
    /// It was stored before.
    Duplicate,
    /// Nothing of it waits.
    Refused(Refusal),
}

/// Why a submission was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Refusal {
    /// Nobody has the recipient's name.
    UnknownRecipient = 0,
    /// The recipient's mailbox is full.
    Quota = 1,
    /// The store is full.
    StoreFull = 2,
    /// A broadcast, and nobody else is connected.
    NoRecipients = 3,
    /// A broadcast, and the mailbox of each recipient is full.
    RecipientsFull = 4,
    /// The copies of a broadcast are too much at a time.
    TooManyCopies = 5,
    /// Other messages have all keys that it could have.
    KeyTaken = 6,
}

/// Bytes are no message of a relay.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a message of a relay")]
pub struct Invalid;

impl ClaimOutcome {
    const ALL: [Self; 3] = [Self::Claimed, Self::Taken, Self::Full];
}

impl Refusal {
    const ALL: [Self; 7] = [
        Self::UnknownRecipient,
        Self::Quota,
        Self::StoreFull,
        Self::NoRecipients,
        Self::RecipientsFull,
        Self::TooManyCopies,
        Self::KeyTaken,
    ];
}

impl<'a> Message<'a> {
    /// Appends the message.
    ///
    /// # Panics
    /// A recipient or an id is longer than [`MAX_TEXT`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Leads { epoch } => begin(out, kind::LEADS, epoch),
            Self::Attach { epoch } => begin(out, kind::ATTACH, epoch),
            Self::Claim { request, claimant } => {
                begin(out, kind::CLAIM, request);
                claimant.encode(out);
            }
            Self::Claimed { request, outcome } => {
                begin(out, kind::CLAIMED, request);
                out.push(outcome as u8);
            }
            Self::Open { session, age_ms, is_listening, claimant } => {
                begin(out, kind::OPEN, session);
                out.extend_from_slice(&age_ms.to_be_bytes());
                out.push(u8::from(is_listening));
                claimant.encode(out);
            }
            Self::Opened { session } => begin(out, kind::OPENED, session),
            Self::Close { session } => begin(out, kind::CLOSE, session),
            Self::Submit { session, to, id, wants_receipt, body } => {
                begin(out, kind::SUBMIT, session);
                out.push(u8::from(wants_receipt));
                to.encode(out);
                put_text(out, id);
                out.extend_from_slice(body);
            }
            Self::Acknowledge { session, key } => {
                begin(out, kind::ACKNOWLEDGE, session);
                out.extend_from_slice(key.as_bytes());
            }
            Self::Subscribe { session, is_ephemeral, channels } => {
                begin(out, kind::SUBSCRIBE, session);
                out.push(u8::from(is_ephemeral));
                out.extend_from_slice(channels.bytes());
            }
            Self::AcknowledgeRecords { session, batch } => {
                begin(out, kind::ACKNOWLEDGE_RECORDS, session);
                out.extend_from_slice(&batch.to_be_bytes());
            }
            Self::Records { session, batch, is_last, records } => {
                Self::begin_records(out, session, batch, is_last);
                out.extend_from_slice(records.bytes());
            }
            Self::Deliver { session, letters } => {
                Self::begin_deliver(out, session);
                out.extend_from_slice(letters.bytes());
            }
            Self::Answered { session, outcomes } => {
                Self::begin_answered(out, session);
                out.extend_from_slice(outcomes.bytes());
            }
            Self::Hold { session, is_held } => {
                begin(out, kind::HOLD, session);
                out.push(u8::from(is_held));
            }
            Self::Withdraw { session } => begin(out, kind::WITHDRAW, session),
            Self::Replace { session } => begin(out, kind::REPLACE, session),
            Self::Reopen { session } => begin(out, kind::REOPEN, session),
            Self::Name { is_here, realm, name } => {
                out.extend_from_slice(&[kind::NAME, u8::from(is_here), realm]);
                out.extend_from_slice(name.as_bytes());
            }
            Self::Took { by_leader, bytes } => {
                out.extend_from_slice(&[kind::TOOK, u8::from(by_leader)]);
                out.extend_from_slice(&bytes.to_be_bytes());
            }
            Self::Ask { request, question } => {
                begin(out, kind::ASK, request);
                out.extend_from_slice(question);
            }
            Self::Answer { request, answer } => {
                begin(out, kind::ANSWER, request);
                out.extend_from_slice(answer);
            }
        }
    }

    /// Whether it is for the leader: what a front says.
    #[must_use]
    pub const fn is_for_leader(&self) -> bool {
        matches!(
            self,
            Self::Attach { .. }
                | Self::Claim { .. }
                | Self::Open { .. }
                | Self::Close { .. }
                | Self::Submit { .. }
                | Self::Acknowledge { .. }
                | Self::Subscribe { .. }
                | Self::AcknowledgeRecords { .. }
                | Self::Took { by_leader: false, .. }
                | Self::Ask { .. }
        )
    }

    /// Begins a [`Self::Deliver`]: its messages are to be appended ([`Letters::push`]).
    pub fn begin_deliver(out: &mut Vec<u8>, session: u64) {
        begin(out, kind::DELIVER, session);
    }

    /// Begins a [`Self::Records`]: its records are to be appended ([`Letters::push`]).
    pub fn begin_records(out: &mut Vec<u8>, session: u64, batch: u64, is_last: bool) {
        begin(out, kind::RECORDS, session);
        out.extend_from_slice(&batch.to_be_bytes());
        out.push(u8::from(is_last));
    }

    /// Begins a [`Self::Subscribe`]: its channels are to be appended ([`Texts::push`]).
    pub fn begin_subscribe(out: &mut Vec<u8>, session: u64, is_ephemeral: bool) {
        begin(out, kind::SUBSCRIBE, session);
        out.push(u8::from(is_ephemeral));
    }

    /// Begins a [`Self::Answered`]: its outcomes are to be appended ([`Outcome::encode`]).
    pub fn begin_answered(out: &mut Vec<u8>, session: u64) {
        begin(out, kind::ANSWERED, session);
    }

    /// Reads a message.
    ///
    /// # Errors
    /// The bytes are none.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Invalid> {
        read::message(bytes).ok_or(Invalid)
    }
}

const EVERYBODY: u8 = 0;
const NAME: u8 = 1;
const CHANNEL: u8 = 2;
const DROPPED: u8 = 3;

impl Recipient<'_> {
    fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::Everybody => out.push(EVERYBODY),
            Self::Name(name) => {
                out.push(NAME);
                put_text(out, name);
            }
            Self::Channel(name) => {
                out.push(CHANNEL);
                put_text(out, name);
            }
            Self::Dropped { channel, is_loop } => {
                out.extend_from_slice(&[DROPPED, u8::from(is_loop)]);
                put_text(out, channel);
            }
        }
    }
}

impl Claimant<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.realm);
        out.extend_from_slice(&self.owner);
        out.extend_from_slice(self.name.as_bytes());
    }
}

fn begin(out: &mut Vec<u8>, kind: u8, number: u64) {
    out.push(kind);
    out.extend_from_slice(&number.to_be_bytes());
}

/// Appends a text behind its length.
fn put_text(out: &mut Vec<u8>, text: &str) {
    assert!(text.len() <= MAX_TEXT, "names, ids and keys are bounded");
    let length = u16::try_from(text.len()).expect("MAX_TEXT is below");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

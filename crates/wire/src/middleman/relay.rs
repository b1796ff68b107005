//! What relays of a cluster tell each other about services and clients.
//!
//! A message is a kind and its fields, numbers in network order; the last field goes to its end.
//! Who carries it keeps the order of one relay's messages, and their bounds.

use super::Guid;

const BEGIN: u8 = 1;
const TOPIC: u8 = 2;
const PUBLICATION: u8 = 3;
const USER: u8 = 4;
const REQUEST: u8 = 5;
const ANSWER: u8 = 6;
const FAILED: u8 = 7;
const CANCEL: u8 = 8;
const RETURNED: u8 = 9;

/// A message of a relay to another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RelayMessage<'a> {
    /// The first one: what the relay has follows.
    Begin {
        /// Who makes the GUIDs of its connections.
        maker: [u8; 5],
    },
    /// What its connections have of a topic, which takes the place of what was said before.
    Topic {
        /// What they have.
        share: TopicShare,
        /// The topic.
        topic: &'a str,
    },
    /// A publication for its receiver's connections.
    Publication {
        /// The text frame that subscribers get.
        frame: &'a [u8],
    },
    /// Sets the user id of a connection of the receiver's.
    User {
        /// The connection.
        guid: Guid,
        /// The user id.
        uid: &'a str,
    },
    /// A request for a responder of the receiver's.
    Request {
        /// What the sender calls it; it never says that of another.
        id: u64,
        /// How long the sender waits for the answer, in milliseconds.
        timeout_ms: u32,
        /// Whether the requester gave it a `ReqID`, so that no other is wanted back.
        has_request_id: bool,
        /// The topic.
        topic: &'a str,
        /// The message behind its first line, without a `Rid`.
        tail: &'a [u8],
    },
    /// The answer to a request of the receiver's.
    Answer {
        /// What the receiver calls it.
        id: u64,
        /// How many requests of the topic the sender's responders have not answered.
        outstanding: u32,
        /// The message behind its first line, without the ids of the requester.
        tail: &'a [u8],
    },
    /// A request of the receiver's has failed.
    Failed {
        /// What the receiver calls it.
        id: u64,
        /// Why.
        failure: Failure,
    },
    /// A request of the receiver's that nobody was asked: the topic has no responder at the sender
    /// any more. Another relay may have one.
    Returned {
        /// What the receiver calls it.
        id: u64,
        /// The message behind its first line, as it came.
        tail: &'a [u8],
    },
    /// Nobody waits for the answer of this request of the sender's any more.
    Cancel {
        /// What the sender calls it.
        id: u64,
    },
}

/// What the connections of a relay have of a topic.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TopicShare {
    /// Whether any of them subscribes.
    pub subscribes: bool,
    /// Whether any of them lets clients publish.
    pub grants_publications: bool,
    /// Whether any of them lets clients subscribe.
    pub grants_subscriptions: bool,
    /// How many workers respond.
    pub workers: u32,
    /// How many requests those have not answered, about.
    pub outstanding: u32,
}

/// Why a relay has no answer to a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// The topic has no responder there any more.
    NoResponder = 1,
    /// The responder disconnected.
    ResponderGone = 2,
    /// The responder has too much queued.
    ResponderBusy = 3,
    /// The responder did not answer in time.
    TimedOut = 4,
    /// The relay has too many requests.
    TooManyRequests = 5,
    /// The request is longer than what the relay delivers.
    MessageTooLong = 6,
}

/// Bytes are no message of a relay.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a message of a relay")]
pub struct InvalidRelayMessage;

impl TopicShare {
    const SUBSCRIBES: u8 = 1;
    const GRANTS_PUBLICATIONS: u8 = 2;
    const GRANTS_SUBSCRIPTIONS: u8 = 4;

    const fn flags(&self) -> u8 {
        let mut flags = 0;
        if self.subscribes {
            flags |= Self::SUBSCRIBES;
        }
        if self.grants_publications {
            flags |= Self::GRANTS_PUBLICATIONS;
        }
        if self.grants_subscriptions {
            flags |= Self::GRANTS_SUBSCRIPTIONS;
        }
        flags
    }
}

impl Failure {
    const ALL: [Self; 6] = [
        Self::NoResponder,
        Self::ResponderGone,
        Self::ResponderBusy,
        Self::TimedOut,
        Self::TooManyRequests,
        Self::MessageTooLong,
    ];
}

impl<'a> RelayMessage<'a> {
    /// Begins a [`Self::Publication`]: its frame is to be appended.
    pub fn begin_publication(out: &mut Vec<u8>) {
        out.push(PUBLICATION);
    }

    /// Begins a [`Self::Request`]: its tail is to be appended.
    ///
    /// # Panics
    /// The topic is longer than 65,535 bytes.
    pub fn begin_request(
        out: &mut Vec<u8>,
        id: u64,
        timeout_ms: u32,
        has_request_id: bool,
        topic: &str,
    ) {
        out.push(REQUEST);
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&timeout_ms.to_be_bytes());
        out.push(u8::from(has_request_id));
        let length = u16::try_from(topic.len()).expect("topics are bounded");
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(topic.as_bytes());
    }

    /// Begins a [`Self::Answer`]: its tail is to be appended.
    pub fn begin_answer(out: &mut Vec<u8>, id: u64, outstanding: u32) {
        out.push(ANSWER);
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&outstanding.to_be_bytes());
    }

    /// Appends the message.
    ///
    /// # Panics
    /// The topic of a request is longer than 65,535 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Begin { maker } => {
                out.push(BEGIN);
                out.extend_from_slice(&maker);
            }
            Self::Topic { share, topic } => {
                out.push(TOPIC);
                out.push(share.flags());
                out.extend_from_slice(&share.workers.to_be_bytes());
                out.extend_from_slice(&share.outstanding.to_be_bytes());
                out.extend_from_slice(topic.as_bytes());
            }
            Self::Publication { frame } => {
                Self::begin_publication(out);
                out.extend_from_slice(frame);
            }
            Self::User { guid, uid } => {
                out.push(USER);
                out.extend_from_slice(&guid.0);
                out.extend_from_slice(uid.as_bytes());
            }
            Self::Request { id, timeout_ms, has_request_id, topic, tail } => {
                Self::begin_request(out, id, timeout_ms, has_request_id, topic);
                out.extend_from_slice(tail);
            }
            Self::Answer { id, outstanding, tail } => {
                Self::begin_answer(out, id, outstanding);
                out.extend_from_slice(tail);
            }
            Self::Failed { id, failure } => {
                out.push(FAILED);
                out.extend_from_slice(&id.to_be_bytes());
                out.push(failure as u8);
            }
            Self::Returned { id, tail } => {
                out.push(RETURNED);
                out.extend_from_slice(&id.to_be_bytes());
                out.extend_from_slice(tail);
            }
            Self::Cancel { id } => {
                out.push(CANCEL);
                out.extend_from_slice(&id.to_be_bytes());
            }
        }
    }

    /// Reads a message. Whether frames and tails are messages of services and clients is not
    /// looked at.
    ///
    /// # Errors
    /// The bytes are no message of a relay.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, InvalidRelayMessage> {
        Self::read(bytes).ok_or(InvalidRelayMessage)
    }

    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (kind, mut rest) = bytes.split_first()?;
        let message = match *kind {
            BEGIN => Self::Begin { maker: array(&mut rest)? },
            TOPIC => {
                let [flags] = array(&mut rest)?;
                let share = TopicShare {
                    subscribes: flags & TopicShare::SUBSCRIBES != 0,
                    grants_publications: flags & TopicShare::GRANTS_PUBLICATIONS != 0,
                    grants_subscriptions: flags & TopicShare::GRANTS_SUBSCRIPTIONS != 0,
                    workers: u32::from_be_bytes(array(&mut rest)?),
                    outstanding: u32::from_be_bytes(array(&mut rest)?),
                };
                if share.flags() != flags {
                    return None;
                }
                Self::Topic { share, topic: str::from_utf8(end(&mut rest)).ok()? }
            }
            PUBLICATION => Self::Publication { frame: end(&mut rest) },
            USER => {
                let guid = Guid(array(&mut rest)?);
                Self::User { guid, uid: str::from_utf8(end(&mut rest)).ok()? }
            }
            REQUEST => {
                let id = u64::from_be_bytes(array(&mut rest)?);
                let timeout_ms = u32::from_be_bytes(array(&mut rest)?);
                let has_request_id = match array(&mut rest)? {
                    [0] => false,
                    [1] => true,
                    _ => return None,
                };
                let length = u16::from_be_bytes(array(&mut rest)?);
                let (topic, tail) = rest.split_at_checked(length.into())?;
                rest = &[];
                let topic = str::from_utf8(topic).ok()?;
                Self::Request { id, timeout_ms, has_request_id, topic, tail }
            }
            ANSWER => Self::Answer {
                id: u64::from_be_bytes(array(&mut rest)?),
                outstanding: u32::from_be_bytes(array(&mut rest)?),
                tail: end(&mut rest),
            },
            FAILED => {
                let id = u64::from_be_bytes(array(&mut rest)?);
                let [number] = array(&mut rest)?;
                let mut failures = Failure::ALL.into_iter();
                let failure = failures.find(|failure| *failure as u8 == number)?;
                Self::Failed { id, failure }
            }
            RETURNED => {
                Self::Returned { id: u64::from_be_bytes(array(&mut rest)?), tail: end(&mut rest) }
            }
            CANCEL => Self::Cancel { id: u64::from_be_bytes(array(&mut rest)?) },
            _ => return None,
        };
        rest.is_empty().then_some(message)
    }
}

/// The next bytes.
fn array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (array, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*array)
}

/// All bytes that are left.
const fn end<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let bytes = *rest;
    *rest = &[];
    bytes
}

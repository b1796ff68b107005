//! Requests that wait for their answers.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use beacon_wire::middleman::{Body, Command, Encoder, Header, Headers, Message};
use hashbrown::HashMap;

use super::topics::Chosen;
use super::types::{LinkId, Slot, TopicKey};
use super::{Ended, Refusal};

/// The header by which a broker and a responder call a request.
pub(super) const RID: &str = "Rid";
/// The header by which some requesters do.
pub(super) const REQUEST_ID: &str = "ReqID";
/// The header that tells a requester why its request has failed.
const ERROR: &str = "Error";

/// The ids that a requester gave its request, in its own spelling. They come back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ids<'a> {
    rid: Option<Header<'a>>,
    request_id: Option<Header<'a>>,
}

impl<'a> Ids<'a> {
    pub(super) fn of(headers: &Headers<'a>) -> Self {
        let mut ids = Self::default();
        for header in headers.iter() {
            if header.is(RID) {
                ids.rid.get_or_insert(header);
            } else if header.is(REQUEST_ID) {
                ids.request_id.get_or_insert(header);
            }
        }
        ids
    }

    fn iter(&self) -> impl Iterator<Item = Header<'a>> + use<'a> {
        [self.rid, self.request_id].into_iter().flatten()
    }

    pub(super) const fn has_request_id(&self) -> bool {
        self.request_id.is_some()
    }

    pub(super) fn are_longer_than(&self, most: usize) -> bool {
        self.iter().any(|header| header.value.len() > most)
    }

    /// Appends the answer that tells of a failure, unless nobody would know what it answers.
    pub(super) fn encode_failure(&self, out: &mut Vec<u8>, target: &str, refusal: Refusal) -> bool {
        if self.iter().next().is_none() {
            return false;
        }
        self.encode_head(out, target);
        encode_failure(out, refusal);
        true
    }

    fn encode_head(&self, out: &mut Vec<u8>, target: &str) {
        let mut encoder = Encoder::begin(out, Command::Res, target);
        self.iter().for_each(|header| encoder.header(header.name, header.value));
    }
}

fn encode_failure(out: &mut Vec<u8>, refusal: Refusal) {
    let mut encoder = Encoder::resume(out);
    encoder.header(ERROR, refusal.reason());
    encoder.finish(Body::default());
}

/// The beginning of the answer to a request: its first line, and the ids of the requester.
#[derive(Debug)]
pub(super) struct Head {
    text: Box<[u8]>,
    /// Where the topic is in it.
    topic: std::ops::Range<usize>,
    has_ids: bool,
    has_request_id: bool,
}

impl Head {
    pub(super) fn new(target: &str, ids: &Ids<'_>) -> Self {
        let mut text = Vec::with_capacity(128);
        ids.encode_head(&mut text, target);
        let begin = "RES ".len();
        Self {
            text: text.into(),
            topic: begin..begin + target.len(),
            has_ids: ids.iter().next().is_some(),
            has_request_id: ids.has_request_id(),
        }
    }

    pub(super) const fn has_request_id(&self) -> bool {
        self.has_request_id
    }

    pub(super) fn topic(&self) -> &str {
        str::from_utf8(&self.text[self.topic.clone()]).expect("it was a text")
    }

    /// Begins the answer of a responder.
    pub(super) fn begin_answer(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.text);
    }

    /// Appends the answer that tells of a failure, unless nobody would know what it answers.
    pub(super) fn encode_failure(&self, out: &mut Vec<u8>, refusal: Refusal) -> bool {
        if self.has_ids {
            out.extend_from_slice(&self.text);
            encode_failure(out, refusal);
        }
        self.has_ids
    }
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) requester: Requester,
    pub(super) responder: Chosen,
    /// The responder, or its relay, has a share of it.
    pub(super) topic: TopicKey,
    began: Instant,
    pub(super) deadline: Instant,
}

/// Who asks.
#[derive(Debug)]
pub(super) enum Requester {
    Connection { slot: Slot, head: Head },
    Relay { link: LinkId, id: u64, has_request_id: bool },
}

impl Requester {
    /// The headers of the answer that the requester is not to get.
    pub(super) const fn unwanted(&self) -> &'static [&'static str] {
        let has_request_id = match self {
            Self::Connection { head, .. } => head.has_request_id,
            Self::Relay { has_request_id, .. } => *has_request_id,
        };
        // The requester's own ids take their place.
        if has_request_id { &[RID, REQUEST_ID] } else { &[RID] }
    }
}

impl Pending {
    pub(super) fn new(
        requester: Requester,
        responder: Chosen,
        topic: TopicKey,
        began: Instant,
        timeout: Duration,
    ) -> Self {
        Self { requester, responder, topic, began, deadline: began + timeout }
    }

    pub(super) fn answered(&self, now: Instant) -> Ended {
        Ended::Answered { waited: now.saturating_duration_since(self.began) }
    }
}

/// All requests that wait, by the number that their responder answers to.
#[derive(Debug, Default)]
pub(super) struct Requests {
    by_rid: HashMap<u64, Pending, foldhash::fast::RandomState>,
    deadlines: BTreeSet<(Instant, u64)>,
    newest: u64,
}

impl Requests {
    /// The number of the next request. Numbers begin with 1, and none comes twice.
    pub(super) const fn next_rid(&self) -> u64 {
        self.newest + 1
    }

    pub(super) fn add(&mut self, pending: Pending) -> u64 {
        self.newest = self.next_rid();
        self.deadlines.insert((pending.deadline, self.newest));
        self.by_rid.insert(self.newest, pending);
        self.newest
    }

    pub(super) fn get(&self, rid: u64) -> Option<&Pending> {
        self.by_rid.get(&rid)
    }

    pub(super) fn get_mut(&mut self, rid: u64) -> Option<&mut Pending> {
        self.by_rid.get_mut(&rid)
    }

    pub(super) fn remove(&mut self, rid: u64) -> Option<Pending> {
        let pending = self.by_rid.remove(&rid)?;
        self.deadlines.remove(&(pending.deadline, rid));
        Some(pending)
    }

    pub(super) fn len(&self) -> usize {
        self.by_rid.len()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The request whose deadline is the first, if it is over.
    pub(super) fn expired(&self, now: Instant) -> Option<u64> {
        let (deadline, rid) = self.deadlines.first()?;
        (*deadline <= now).then_some(*rid)
    }
}

/// The number in the `rid` of an answer, as brokers write them.
pub(super) fn rid_of(message: &Message<'_>) -> Option<u64> {
    let value = message.headers.find(RID)?.value;
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|_| is_number)
}

//! A front, as the leader sees it: its sessions, and what waits for it.

use std::collections::{BTreeMap, VecDeque};

use super::LinkId;
use super::credit::Credit;
use beacon_wire::front::Message;

/// Bytes that wait for a front: from there on its sessions are closed, and begin again from what is
/// stored.
const MOST_QUEUED: usize = 64 << 20;

/// What is said over links, in this order.
pub(super) type Says = Vec<(LinkId, Vec<u8>)>;

/// A link to a front.
#[derive(Debug)]
pub(super) struct Link {
    id: LinkId,
    /// It takes this relay for the leader.
    pub(super) is_attached: bool,
    window: usize,
    credit: Credit,
    queue: VecDeque<Vec<u8>>,
    queued: usize,
    /// Its sessions, by its numbers, each with the generation of its seat.
    pub(super) sessions: BTreeMap<u64, u64>,
}

impl Link {
    pub(super) const fn new(id: LinkId, window: usize) -> Self {
        Self {
            id,
            is_attached: false,
            window,
            credit: Credit::new(window),
            queue: VecDeque::new(),
            queued: 0,
            sessions: BTreeMap::new(),
        }
    }

    /// The front attaches: nothing is on its way.
    pub(super) fn attach(&mut self) {
        self.is_attached = true;
        self.credit = Credit::new(self.window);
        self.queue.clear();
        self.queued = 0;
    }

    /// Whether it has no room for messages that can be delivered again.
    pub(super) const fn is_behind(&self) -> bool {
        self.queued > MOST_QUEUED
    }

    /// Says something, behind all that waits.
    pub(super) fn say(&mut self, message: &Message<'_>, says: &mut Says) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.say_bytes(bytes, says);
    }

    /// The same of what is written down.
    pub(super) fn say_bytes(&mut self, bytes: Vec<u8>, says: &mut Says) {
        if !self.is_attached {
            return;
        }
        self.queued += bytes.len();
        self.queue.push_back(bytes);
        self.pump(says);
    }

    /// The front has taken in so many bytes.
    pub(super) fn returned(&mut self, bytes: u32, says: &mut Says) {
        self.credit.returned(bytes);
        self.pump(says);
    }

    /// So many bytes came from it.
    pub(super) fn took(&mut self, bytes: usize, says: &mut Says) {
        if let Some(bytes) = self.credit.took(bytes) {
            // It counts for nothing, and waits for nothing.
            let mut message = Vec::new();
            Message::Took { by_leader: true, bytes }.encode(&mut message);
            says.push((self.id, message));
        }
    }

    /// What waits for room.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.queue.iter()
    }

    fn pump(&mut self, says: &mut Says) {
        while self.credit.has_room() {
            let Some(bytes) = self.queue.pop_front() else { break };
            self.queued -= bytes.len();
            self.credit.sent(bytes.len());
            says.push((self.id, bytes));
        }
    }
}

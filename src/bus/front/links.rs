//! The links of a relay: channels to others, and queues to itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::cluster::Channel;
use crate::proto::front::LinkId;

/// The link of a relay to itself. Numbers of channels are drawn by chance from 64 bits.
pub(super) const LOOP: LinkId = LinkId(0);

/// Most messages to itself that whoever says one carries: the rest is for a task, so that no thread
/// carries those of all others.
const CARRIED: usize = 64;

/// Who hears what is said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ear {
    Leader,
    Front,
}

/// The links. What is on its way over each is bounded by credit, which counts for the queues too.
#[derive(Debug, Default)]
pub(super) struct Links {
    channels: RwLock<BTreeMap<LinkId, Arc<Channel>>>,
    to_leader: Mutex<Queue>,
    to_front: Mutex<Queue>,
    came: Notify,
}

/// What this relay says to itself in one direction, in order.
#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Vec<u8>>,
    /// Somebody carries them, and nobody else does.
    is_carried: bool,
}

/// Who carries the messages of a queue, until this is dropped: also where hearing one panics.
struct Carrier<'a>(&'a Mutex<Queue>);

impl Drop for Carrier<'_> {
    fn drop(&mut self) {
        self.0.lock().is_carried = false;
    }
}

impl Links {
    pub(super) fn add(&self, link: LinkId, channel: Arc<Channel>) {
        self.channels.write().insert(link, channel);
    }

    pub(super) fn remove(&self, link: LinkId) {
        self.channels.write().remove(&link);
    }

    /// All that stand.
    pub(super) fn ids(&self) -> Vec<LinkId> {
        let channels = self.channels.read();
        std::iter::once(LOOP).chain(channels.keys().copied()).collect()
    }

    /// Says something over a link, which may be gone. One that has no room breaks. What this relay
    /// says to itself is to be carried: [`Self::carry`], or [`Self::leave`].
    pub(super) fn say(&self, link: LinkId, ear: Ear, message: &[u8], now: Instant) {
        if link == LOOP {
            self.queue(ear).lock().messages.push_back(message.to_vec());
        } else if let Some(channel) = self.channels.read().get(&link) {
            channel.say(message, false, now);
        }
    }

    /// Has what this relay says to itself be heard, in order, by whoever comes first; with nothing
    /// locked that hearing it needs.
    pub(super) fn carry(&self, ear: Ear, mut hear: impl FnMut(&[u8])) {
        let queue = self.queue(ear);
        let mut heard = 0;
        loop {
            let mut state = queue.lock();
            if state.is_carried || state.messages.is_empty() {
                return;
            }
            if heard >= CARRIED {
                drop(state);
                self.leave();
                return;
            }
            state.is_carried = true;
            drop(state);
            let _carrier = Carrier(queue);
            while heard < CARRIED {
                let Some(message) = queue.lock().messages.pop_front() else { break };
                heard += 1;
                hear(&message);
            }
        }
    }

    /// Leaves what this relay says to itself to the task that carries what nobody else does.
    pub(super) fn leave(&self) {
        self.came.notify_one();
    }

    /// Waits until something was left, or nearly so.
    pub(super) async fn left(&self) {
        self.came.notified().await;
    }

    const fn queue(&self, ear: Ear) -> &Mutex<Queue> {
        match ear {
            Ear::Leader => &self.to_leader,
            Ear::Front => &self.to_front,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(links: &Links, number: u8) {
        links.say(LOOP, Ear::Front, &[number], Instant::now());
    }

    #[test]
    fn what_is_said_while_something_is_carried_is_heard_behind_it_by_the_same() {
        let links = Links::default();
        say(&links, 1);
        let mut heard = Vec::new();
        links.carry(Ear::Front, |message| {
            if message == [1] {
                say(&links, 2);
                links.carry(Ear::Front, |_| panic!("it is carried already"));
            }
            heard.push(message[0]);
        });
        assert_eq!(heard, [1, 2]);
    }

    #[test]
    fn who_has_carried_many_leaves_the_rest_and_one_that_panics_blocks_nobody() {
        let links = Links::default();
        (0..100).for_each(|number| say(&links, number));
        let mut heard = 0;
        links.carry(Ear::Front, |_| heard += 1);
        assert_eq!(heard, CARRIED);

        let panics = std::panic::AssertUnwindSafe(|| {
            links.carry(Ear::Front, |_| panic!("a test panics"));
        });
        std::panic::catch_unwind(panics).unwrap_err();
        let mut next = None;
        links.carry(Ear::Front, |message| next = next.or(Some(message[0])));
        assert_eq!(next, Some(65), "behind the one that panicked");
    }
}

//! The links of a relay: channels to others, and a queue to itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::cluster::Channel;
use crate::proto::front::LinkId;

/// The link of a relay to itself. Numbers of channels are drawn by chance from 64 bits.
pub(super) const LOOP: LinkId = LinkId(0);

/// The links. What is on its way over each is bounded by credit, which counts for the queue too.
#[derive(Debug, Default)]
pub(super) struct Links {
    channels: RwLock<BTreeMap<LinkId, Arc<Channel>>>,
    queue: Mutex<VecDeque<Vec<u8>>>,
    came: Notify,
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

    /// Says something over a link, which may be gone. One that has no room breaks.
    pub(super) fn say(&self, link: LinkId, message: &[u8], now: Instant) {
        if link == LOOP {
            self.queue.lock().push_back(message.to_vec());
            self.came.notify_one();
        } else if let Some(channel) = self.channels.read().get(&link) {
            channel.say(message, false, now);
        }
    }

    /// Waits until something waits in the queue to itself.
    pub(super) async fn came(&self) {
        self.came.notified().await;
    }

    /// Takes that.
    pub(super) fn pop(&self) -> Option<Vec<u8>> {
        self.queue.lock().pop_front()
    }
}

//! Doors that want to know which of their peers come to other relays, and go there.
//!
//! A door says whom it watches without waiting for whoever holds presence; what it is to learn
//! waits in [`News`], of each peer the newest, until the door takes it.

use std::mem::take;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::Cluster;
use crate::proto::presence::{Now, Presence};
use crate::wire::name::{Name, Realm};

/// What doors have asked for, and where they learn of it.
#[derive(Debug, Default)]
pub(super) struct Watching {
    /// What presence has not heard yet: the number of a watch, or `None` for its end. Only the
    /// last wish about a peer counts.
    wishes: Mutex<HashMap<Name, Option<u64>, RandomState>>,
    numbers: AtomicU64,
    doors: RwLock<Vec<(Realm, Arc<News>)>>,
}

/// What a door has yet to learn.
#[derive(Debug, Default)]
struct News {
    pending: Mutex<Pending>,
    waiting: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    /// In the order in which each became news.
    peers: Vec<Name>,
    told: HashMap<Name, (u64, bool), RandomState>,
}

/// A peer that a door watches has come to another relay, or is at none any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Change {
    /// The peer.
    pub peer: Name,
    /// The number of the watch.
    pub number: u64,
    /// Whether another relay has it.
    pub is_elsewhere: bool,
}

/// A door's watch over its peers at other relays.
#[derive(Debug)]
pub struct Watch {
    cluster: Arc<Cluster>,
    news: Arc<News>,
}

impl Watch {
    /// Watches a peer from here on. It counts as being at no other relay until a change of the
    /// number that is returned says so.
    pub fn begin(&self, peer: Name) -> u64 {
        let number = self.cluster.watching.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        self.wish(peer, Some(number));
        number
    }

    /// Watches a peer no longer.
    pub fn end(&self, peer: Name) {
        self.wish(peer, None);
    }

    fn wish(&self, peer: Name, wish: Option<u64>) {
        self.cluster.watching.wishes.lock().insert(peer, wish);
        self.cluster.asking.notify_one();
    }

    /// What has changed since it was asked last: each peer once, as it is now.
    #[must_use]
    pub fn take(&self) -> Vec<Change> {
        let mut pending = self.news.pending.lock();
        if pending.peers.is_empty() {
            return Vec::new();
        }
        let Pending { peers, told } = take(&mut *pending);
        drop(pending);
        let change = |peer| {
            let (number, is_elsewhere) = *told.get(&peer)?;
            Some(Change { peer, number, is_elsewhere })
        };
        peers.into_iter().filter_map(change).collect()
    }

    /// Waits until something may have changed. Cancel-safe.
    pub async fn changed(&self) {
        self.news.waiting.notified().await;
    }
}

impl Watching {
    /// Has presence hear what doors have asked for.
    pub(super) fn hear(&self, presence: &mut Presence<Name>, now: Now) {
        let wishes = take(&mut *self.wishes.lock());
        if wishes.is_empty() {
            return;
        }
        for (peer, wish) in wishes {
            match wish {
                // Where there is no room it is counted, and the peer seems to be nowhere else.
                Some(number) => _ = presence.watch(peer, number, now),
                None => presence.unwatch(peer, now),
            }
        }
        presence.timeout(now);
    }

    /// Has the door of a peer learn of it.
    pub(super) fn tell(&self, change: Change) {
        let Change { peer, number, is_elsewhere } = change;
        let doors = self.doors.read();
        let Some((_, news)) = doors.iter().find(|(realm, _)| *realm == peer.realm()) else {
            return;
        };
        let mut pending = news.pending.lock();
        if pending.told.insert(peer, (number, is_elsewhere)).is_none() {
            pending.peers.push(peer);
        }
        drop(pending);
        news.waiting.notify_one();
    }
}

impl Cluster {
    /// The watch of the door of a realm; a later one takes its place.
    #[must_use]
    pub fn watch(self: &Arc<Self>, realm: Realm) -> Watch {
        let news = Arc::<News>::default();
        let mut doors = self.watching.doors.write();
        doors.retain(|(known, _)| *known != realm);
        doors.push((realm, Arc::clone(&news)));
        drop(doors);
        Watch { cluster: Arc::clone(self), news }
    }
}

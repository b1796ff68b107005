//! Doors that want to know which of their peers come to other relays, and go there.
//!
//! A door says whom it watches without waiting for the lock of presence; what it is to learn
//! waits in [`News`], of each peer the newest, until the door takes it.

use std::collections::VecDeque;
use std::mem::take;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::Cluster;
use crate::proto::presence::{MAX_WATCHED, Now, Presence};
use crate::wire::name::{Name, Realm};

/// How long a watch goes on after its end. A peer that has lost another one subscribes anew at
/// once, and its homes may not all know by then that the other has left: what was known goes on.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// Watches that go on after their end at most, and as many may be watched at all for that.
const MAX_LINGERING: usize = MAX_WATCHED / 2;

/// What doors have asked for, and where they learn of it.
#[derive(Debug, Default)]
pub(super) struct Watching {
    /// What presence has not heard yet. Only the last wish about a peer counts.
    wishes: Mutex<HashMap<Name, Wish, RandomState>>,
    numbers: AtomicU64,
    /// Watches that have ended, and when that is followed; in order.
    lingering: Mutex<VecDeque<(Instant, Name, u64)>>,
    doors: RwLock<Vec<(Realm, Arc<News>)>>,
}

/// What a door wants of a peer, by the number of a watch.
#[derive(Clone, Copy, Debug)]
enum Wish {
    Begin(u64),
    End(u64),
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
        self.wish(peer, Wish::Begin(number));
        number
    }

    /// Ends the watch of this number.
    pub fn end(&self, peer: Name, number: u64) {
        self.wish(peer, Wish::End(number));
    }

    fn wish(&self, peer: Name, wish: Wish) {
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
                Wish::Begin(number) => _ = presence.watch(peer, number, now),
                Wish::End(number) => {
                    let mut lingering = self.lingering.lock();
                    if lingering.len().max(presence.watched_count()) < MAX_LINGERING {
                        lingering.push_back((now.at + LINGER, peer, number));
                    } else {
                        presence.unwatch(peer, number, now);
                    }
                }
            }
        }
        presence.timeout(now);
    }

    /// Ends the watches that ended long ago; presence's timeout is due after that.
    pub(super) fn expire(&self, presence: &mut Presence<Name>, now: Now) {
        let mut lingering = self.lingering.lock();
        while let Some((_, peer, number)) = lingering.pop_front_if(|(at, ..)| *at <= now.at) {
            presence.unwatch(peer, number, now);
        }
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

//! Who came and who went, for somebody who tells other relays: a set of ids, never a queue
//! of events, so that it is bounded by the ids and only the newest state counts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use foldhash::fast::RandomState;
use hashbrown::HashSet;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{End, Entry, Session, Table};
use crate::peers::{Credential, Takeover};
use crate::proto::endpoint::Hold;
use crate::wire::name::Name;

/// Ids whose way here has changed since somebody asked.
#[derive(Debug)]
pub(super) struct Changes {
    ids: Mutex<HashSet<Name, RandomState>>,
    waiting: Notify,
}

/// How an id is reached here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Here {
    /// Number of the change that made it so; later ones are higher.
    pub serial: u64,
    /// The way.
    pub kind: Kind,
    /// When the connection of a session was accepted.
    pub accepted: Option<Instant>,
}

/// The ways to an id, the best first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Over a session.
    Session {
        /// What its peer proved to have.
        credential: Credential,
        /// What happens to an older session of the same peer.
        takeover: Takeover,
    },
    /// Over a UDP endpoint, which nobody proved.
    Endpoint,
    /// Over the foreign server that serves it.
    Foreign,
}

impl Table {
    /// Notes changes from here on, for [`Self::next_changes`]. Without it nothing is noted.
    pub fn watch(&self) {
        let ids = Mutex::default();
        self.changes.get_or_init(|| Changes { ids, waiting: Notify::new() });
    }

    /// Waits until ids have changed; returns each once, however often it changed. Cancel-safe.
    pub async fn next_changes(&self) -> Vec<Name> {
        let Some(changes) = self.changes.get() else { return std::future::pending().await };
        loop {
            let ids = std::mem::take(&mut *changes.ids.lock());
            if !ids.is_empty() {
                return ids.into_iter().collect();
            }
            changes.waiting.notified().await;
        }
    }

    /// Notes that the best way to an id has changed.
    pub(super) fn note(&self, id: Name, entry: &mut Entry) {
        entry.serial = self.generation();
        if let Some(changes) = self.changes.get()
            && changes.ids.lock().insert(id)
        {
            changes.waiting.notify_one();
        }
    }

    /// How an id is reached here.
    #[must_use]
    pub fn here(&self, id: Name) -> Option<Here> {
        let shard = self.shard(id).read();
        let entry = shard.get(&id)?;
        let kind = match (&entry.session, &entry.endpoint, &entry.foreign) {
            (Some(session), ..) => Kind::Session {
                credential: session.principal.credential,
                takeover: session.takeover,
            },
            (None, Some(_), _) => Kind::Endpoint,
            (None, None, Some(_)) => Kind::Foreign,
            (None, None, None) => return None,
        };
        let accepted = entry.session.as_ref().map(|session| session.accepted);
        Some(Here { serial: entry.serial, kind, accepted })
    }

    /// Whether an id, which is not here any more, has ended its last session here itself.
    #[must_use]
    pub fn has_left(&self, id: Name) -> bool {
        let shard = self.shard(id).read();
        let last = shard.get(&id).and_then(Entry::last_session);
        last.is_some_and(|last| last.hold == Hold::First)
    }

    /// Gives up an id's session and endpoint, since a newer one is elsewhere; what came after
    /// `serial` stays. Returns the session that ends. It counts as taken over only if the cluster
    /// had granted it: or who proves another credential would make a peer's own logins wait.
    pub fn supersede(
        &self,
        id: Name,
        serial: u64,
        was_granted: bool,
        now: Instant,
    ) -> Option<Arc<Session>> {
        let mut shard = self.shard(id).write();
        let entry = shard.get_mut(&id).filter(|entry| entry.serial <= serial)?;
        let session = self.end_session(id, entry, now);
        // No session was lost: while the newer one lives, the cluster holds claims here, and when
        // its peer ends it, a hold of ours would only keep the peer from coming back.
        if let Some((last, _)) = entry.past.as_mut().and_then(|past| past.session.as_mut()) {
            last.hold = Hold::Over;
        }
        if let Some(session) = &session {
            if was_granted && session.is_open() {
                self.delays.lock().note(id, now);
            }
            session.end(End::Replaced);
        }
        let endpoint = entry.endpoint.take();
        if endpoint.is_some() {
            self.endpoints.fetch_sub(1, Ordering::Relaxed);
            entry.past.get_or_insert_default().left = Some(now);
            self.note(id, entry);
        }
        if entry.is_empty() {
            shard.remove(&id);
        }
        drop(shard);
        self.withdraw(endpoint.and_then(|endpoint| endpoint.newcomer));
        session
    }
}

//! Who of the door's peers is online, and who is told of whom.
//!
//! All changes are under one lock, and what is told of them is queued under it: each watcher
//! learns of a peer in the order in which it came and went.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};

use super::watchers::Watchers;
use super::{name, peer_of};
use crate::peers::Table;
use crate::session::Session;
use crate::wire::netbird::{PeerIds, peers_online, peers_went_offline};

/// The presence of the door's peers.
pub(super) struct Presence {
    table: Arc<Table>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    watchers: Watchers<u64>,
    /// By the numbers of their sessions.
    sessions: HashMap<u64, Arc<Session>>,
}

impl Presence {
    /// Nobody is there yet.
    pub(super) fn new(table: Arc<Table>) -> Self {
        Self { table, state: Mutex::default() }
    }

    /// How many subscriptions there are.
    pub(super) fn subscriptions(&self) -> usize {
        self.state.lock().watchers.len()
    }

    /// A session can be found: its watchers are told.
    pub(super) fn opened(&self, session: &Arc<Session>) {
        let peer = peer_of(session.id());
        let mut state = self.state.lock();
        state.sessions.insert(session.generation(), Arc::clone(session));
        let watchers = state.watchers.online(peer);
        tell(state, &watchers, peers_online(&[peer]).next());
    }

    /// A session cannot be found any more; its own subscriptions end with it.
    pub(super) fn closed(&self, session: &Arc<Session>) {
        let peer = peer_of(session.id());
        let mut state = self.state.lock();
        state.sessions.remove(&session.generation());
        state.watchers.gone(session.generation());
        // Another session of the peer has taken its place: it has not gone.
        if self.table.has_session(session.id()) {
            return;
        }
        let watchers = state.watchers.offline(peer);
        tell(state, &watchers, peers_went_offline(&[peer]).next());
    }

    /// Subscribes to peers, and queues who of them is online; false where some are too many.
    pub(super) fn subscribe(&self, session: &Arc<Session>, peers: PeerIds<'_>) -> bool {
        let mut state = self.state.lock();
        let watcher = session.generation();
        // One that was replaced meanwhile would leave what nobody takes away.
        if !state.sessions.contains_key(&watcher) {
            return true;
        }
        let mut online = Vec::new();
        let mut is_room = true;
        for peer in peers.iter() {
            let is_online = self.table.has_session(name(peer));
            let has_room = state.watchers.subscribe(watcher, peer, is_online);
            is_room &= has_room;
            if is_online && has_room {
                online.push(peer);
            }
        }
        peers_online(&online).for_each(|message| session.push_notice(&message));
        is_room
    }

    /// Ends subscriptions.
    pub(super) fn unsubscribe(&self, session: &Arc<Session>, peers: PeerIds<'_>) {
        let mut state = self.state.lock();
        let watcher = session.generation();
        peers.iter().for_each(|peer| state.watchers.unsubscribe(watcher, peer));
    }
}

/// Queues what watchers are told, in the order in which it happened, and sends it once nobody
/// waits for that any more.
fn tell(state: MutexGuard<'_, State>, watchers: &[u64], message: Option<Vec<u8>>) {
    let sessions = watchers.iter().filter_map(|watcher| state.sessions.get(watcher));
    let sessions: Vec<_> = sessions.cloned().collect();
    let message = message.unwrap_or_default();
    sessions.iter().for_each(|session| session.push_notice(&message));
    drop(state);
    let now = Instant::now();
    sessions.iter().for_each(|session| session.flush(now));
}

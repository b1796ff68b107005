//! Who of the door's peers is online, here or at another relay, and who is told of whom.
//!
//! All changes are under one lock, and what is told of them is queued under it: each watcher
//! learns of a peer in the order in which it came and went. What the cluster has told is taken
//! in first, so that a session that ends because its peer has moved to another relay ends with
//! that known.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};

use super::watchers::Watchers;
use super::{name, peer_id, peer_of};
use crate::cluster::{Change, Watch};
use crate::metrics::Transport;
use crate::peers::Table;
use crate::session::Session;
use crate::wire::netbird::{
    PeerId, PeerIds, peers_online, peers_online_in_datagrams, peers_went_offline,
};

/// The presence of the door's peers.
pub(super) struct Presence {
    table: Arc<Table>,
    /// What tells of other relays, where there are some.
    watch: Option<Watch>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    watchers: Watchers<u64>,
    /// By the numbers of their sessions.
    sessions: HashMap<u64, Arc<Session>>,
    /// The newest session of each peer that is here, by its number.
    here: HashMap<PeerId, u64>,
    /// In a cluster, each peer that somebody has subscribed to.
    elsewhere: HashMap<PeerId, Elsewhere>,
}

/// Whether another relay has a peer.
struct Elsewhere {
    /// That of the watch.
    number: u64,
    is_there: bool,
}

impl Presence {
    /// Nobody is there yet.
    pub(super) fn new(table: Arc<Table>, watch: Option<Watch>) -> Self {
        Self { table, watch, state: Mutex::default() }
    }

    /// How many subscriptions there are.
    pub(super) fn subscriptions(&self) -> usize {
        self.state.lock().watchers.len()
    }

    /// Tells what happens at other relays, for ever.
    pub(super) async fn follow_others(&self) {
        let Some(watch) = &self.watch else { return std::future::pending().await };
        loop {
            watch.changed().await;
            self.turn().finish();
        }
    }

    /// A session can be found: its watchers are told.
    pub(super) fn opened(&self, session: &Arc<Session>) {
        let peer = peer_of(session.id());
        let mut turn = self.turn();
        turn.state.sessions.insert(session.generation(), Arc::clone(session));
        let newest = turn.state.here.entry(peer).or_default();
        *newest = session.generation().max(*newest);
        turn.online(peer);
        turn.finish();
    }

    /// A session cannot be found any more; its own subscriptions end with it.
    pub(super) fn closed(&self, session: &Arc<Session>) {
        let peer = peer_of(session.id());
        let mut turn = self.turn();
        turn.state.sessions.remove(&session.generation());
        let watched = turn.state.watchers.gone(session.generation());
        watched.into_iter().for_each(|peer| self.forget(&mut turn.state, peer));
        // Another session of the peer may have taken its place, and may be about to open: then
        // the peer has not gone.
        let is_newest = turn.state.here.get(&peer) == Some(&session.generation());
        if is_newest && !self.table.has_session(session.id()) {
            turn.state.here.remove(&peer);
            if !turn.state.is_online(peer) {
                turn.offline(peer);
            }
        }
        turn.finish();
    }

    /// Subscribes to peers, and queues who of them is online; false where some are too many.
    pub(super) fn subscribe(&self, session: &Arc<Session>, peers: PeerIds<'_>) -> bool {
        let mut turn = self.turn();
        let watcher = session.generation();
        let mut online = Vec::new();
        let mut is_room = true;
        // One that was replaced meanwhile would leave what nobody takes away.
        let is_open = turn.state.sessions.contains_key(&watcher);
        for peer in peers.iter().filter(|_| is_open) {
            let is_online = turn.state.is_online(peer);
            let has_room = turn.state.watchers.subscribe(watcher, peer, is_online);
            is_room &= has_room;
            if !has_room {
                continue;
            }
            if is_online {
                online.push(peer);
            }
            // Those that are here as well: they may move.
            if let Some(watch) = &self.watch {
                let elsewhere = turn.state.elsewhere.entry(peer);
                let begin = || Elsewhere { number: watch.begin(name(peer)), is_there: false };
                elsewhere.or_insert_with(begin);
            }
        }
        if session.transport() == Transport::Quic {
            let messages = peers_online_in_datagrams(&online);
            messages.for_each(|message| session.push_notice(&message));
        } else {
            peers_online(&online).for_each(|message| session.push_notice(&message));
        }
        turn.finish();
        is_room
    }

    /// Ends subscriptions.
    pub(super) fn unsubscribe(&self, session: &Arc<Session>, peers: PeerIds<'_>) {
        let mut turn = self.turn();
        for peer in peers.iter() {
            turn.state.watchers.unsubscribe(session.generation(), peer);
            self.forget(&mut turn.state, peer);
        }
        turn.finish();
    }

    /// Watches a peer at other relays no longer, if nobody has subscribed to it.
    fn forget(&self, state: &mut State, peer: PeerId) {
        if let Some(watch) = &self.watch
            && !state.watchers.is_watched(peer)
            && let Some(elsewhere) = state.elsewhere.remove(&peer)
        {
            watch.end(name(peer), elsewhere.number);
        }
    }

    /// Takes the lock, and in what other relays have told.
    fn turn(&self) -> Turn<'_> {
        let mut turn = Turn { state: self.state.lock(), told: HashMap::new() };
        let changes = self.watch.as_ref().map(Watch::take).unwrap_or_default();
        changes.into_iter().for_each(|change| turn.follow(change));
        turn
    }
}

impl State {
    fn is_online(&self, peer: PeerId) -> bool {
        let is_elsewhere = self.elsewhere.get(&peer).is_some_and(|elsewhere| elsewhere.is_there);
        is_elsewhere || self.here.contains_key(&peer)
    }
}

/// A change of presence, with those that have been told of it.
struct Turn<'a> {
    state: MutexGuard<'a, State>,
    told: HashMap<u64, Arc<Session>>,
}

impl Turn<'_> {
    /// A peer has come to another relay, or gone there.
    fn follow(&mut self, change: Change) {
        let Some(peer) = peer_id(change.peer.bytes()) else { return };
        // News of a watch that has ended says nothing about the next.
        let elsewhere = self.state.elsewhere.get_mut(&peer);
        let Some(elsewhere) = elsewhere.filter(|elsewhere| elsewhere.number == change.number)
        else {
            return;
        };
        let before = std::mem::replace(&mut elsewhere.is_there, change.is_elsewhere);
        if change.is_elsewhere {
            self.online(peer);
        } else if before && !self.state.is_online(peer) {
            self.offline(peer);
        }
    }

    fn online(&mut self, peer: PeerId) {
        let watchers = self.state.watchers.online(peer);
        self.tell(&watchers, peers_online(&[peer]).next());
    }

    fn offline(&mut self, peer: PeerId) {
        let watchers = self.state.watchers.offline(peer);
        self.tell(&watchers, peers_went_offline(&[peer]).next());
    }

    /// Queues what watchers are told, in the order in which it happened.
    fn tell(&mut self, watchers: &[u64], message: Option<Vec<u8>>) {
        let message = message.unwrap_or_default();
        for watcher in watchers {
            if let Some(session) = self.state.sessions.get(watcher) {
                session.push_notice(&message);
                self.told.entry(*watcher).or_insert_with(|| Arc::clone(session));
            }
        }
    }

    /// Sends it, once nobody waits for the lock any more.
    fn finish(self) {
        let Self { state, told } = self;
        drop(state);
        let now = Instant::now();
        told.values().for_each(|session| session.flush(now));
    }
}

//! Claims of UDP endpoints: judged, followed, and which endpoint is evicted for them.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Entry, SHARDS, Table};
use crate::peers::endpoints::Endpoint;
use crate::peers::{Capabilities, Credential};
use crate::proto::crowd::Ticket;
use crate::proto::endpoint::{self, Claim, Hold, MOVE_INTERVAL};
use crate::proto::network::Network;
use crate::wire::name::Name;

/// What became of a claim of an endpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Claimed {
    /// The judgement; `None` where the table is full.
    pub claim: Option<Claim>,
    /// Another endpoint gave way.
    pub evicted: bool,
    /// The credential that the peer showed first.
    pub credential: Option<Credential>,
}

impl Table {
    /// Judges a peer's claim of an endpoint, and follows it where it holds: the endpoint gains
    /// these capabilities.
    ///
    /// `is_known` says that the directory knows the id: such a peer is admitted even where
    /// the table is full, and is no newcomer. It is asked where an endpoint is made or moves
    /// only. A heartbeat from the known endpoint takes a read lock only.
    pub fn claim(
        &self,
        id: Name,
        from: SocketAddr,
        local: Option<IpAddr>,
        gained: Capabilities,
        is_known: impl FnOnce() -> bool,
        now: Instant,
    ) -> Claimed {
        let uptime = self.uptime(now);
        let shard = self.shard(id).read();
        let known = shard.get(&id).map(Entry::known).unwrap_or_default();
        let claim = endpoint::judge(&known, from, now);
        let endpoint = shard.get(&id).and_then(|entry| entry.endpoint.as_ref());
        let credential = endpoint.and_then(|endpoint| endpoint.credential);
        match claim {
            Claim::Refresh => {
                let first = endpoint.is_some_and(|endpoint| {
                    endpoint.heard(uptime);
                    endpoint.gain(gained);
                    // Who claims twice at once is no regular.
                    now >= endpoint.moved + MOVE_INTERVAL && endpoint.repeat()
                });
                let other_local = endpoint.is_some_and(|endpoint| endpoint.local != local);
                let ticket = endpoint.and_then(|endpoint| endpoint.newcomer);
                drop(shard);
                if other_local {
                    self.talks_to(id, local);
                }
                if first {
                    self.withdraw(ticket);
                }
                return Claimed { claim: Some(claim), evicted: false, credential };
            }
            Claim::Keep | Claim::HeldBySession => {
                return Claimed { claim: Some(claim), evicted: false, credential };
            }
            Claim::Register | Claim::Move => drop(shard),
        }
        let is_known = is_known();
        let evicted = claim == Claim::Register
            && self.endpoint_count() >= self.max_endpoints.load(Ordering::Relaxed);
        if evicted && !self.make_room(is_known, uptime) {
            return Claimed { claim: None, evicted: false, credential: None };
        }
        let claimed = self.settle(id, from, local, gained, is_known, now);
        Claimed { evicted, ..claimed }
    }

    /// Notes that a peer talks to another address of ours than before.
    fn talks_to(&self, id: Name, local: Option<IpAddr>) {
        if let Some(entry) = self.shard(id).write().get_mut(&id)
            && let Some(endpoint) = &mut entry.endpoint
        {
            endpoint.local = local;
        }
    }

    /// Registers or moves an endpoint, judged again under the lock.
    fn settle(
        &self,
        id: Name,
        from: SocketAddr,
        local: Option<IpAddr>,
        gained: Capabilities,
        is_known: bool,
        now: Instant,
    ) -> Claimed {
        let mut shard = self.shard(id).write();
        let known = shard.get(&id).map(Entry::known).unwrap_or_default();
        let claim = endpoint::judge(&known, from, now);
        let mut credential = None;
        if matches!(claim, Claim::Register | Claim::Move) {
            let entry = shard.entry(id).or_default();
            let past = entry.past.as_mut().and_then(|past| past.session.as_mut());
            if let Some((last, _)) = past.filter(|(last, _)| last.hold == Hold::First) {
                last.hold = Hold::Over;
            }
            let mut endpoint = Endpoint::new(from, local, now);
            endpoint.heard(self.uptime(now));
            endpoint.gain(gained);
            match &entry.endpoint {
                Some(before) => {
                    // The credential stays while the peer is known, wherever it moves.
                    endpoint.credential = before.credential;
                    credential = before.credential;
                    endpoint.gain(before.capabilities());
                    if before.is_repeated() {
                        endpoint.repeat();
                    }
                }
                None => {
                    self.endpoints.fetch_add(1, Ordering::Relaxed);
                }
            }
            // The directory has only so many names, and a flood of strangers must push none
            // of them out.
            if !endpoint.is_repeated() && !is_known {
                let network = Network::of(from.ip(), &self.translators);
                endpoint.newcomer = Some(self.newcomers.lock().add(id, network));
            }
            let before = entry.endpoint.replace(Box::new(endpoint));
            // A move is no news for others: the peer is still reached through here.
            if before.is_none() {
                self.note(id, entry);
            }
            drop(shard);
            self.withdraw(before.and_then(|before| before.newcomer));
        }
        Claimed { claim: Some(claim), evicted: false, credential }
    }

    /// Evicts one endpoint; false where nobody gives way.
    fn make_room(&self, is_known: bool, uptime: Duration) -> bool {
        // One that was forgotten in this very moment makes no room: the next one goes.
        while let Some((newcomer, ticket)) = self.next_newcomer() {
            if self.forget_endpoint(newcomer, |endpoint| endpoint.newcomer == Some(ticket)) {
                return true;
            }
        }
        if !is_known {
            return false;
        }
        // All have come back at least once: the longest silent of one shard goes.
        let turn = self.evictions.fetch_add(1, Ordering::Relaxed);
        let shards = self.shards.iter().cycle().skip(turn % SHARDS).take(SHARDS);
        let mut longest_silent = shards.filter_map(|shard| {
            let shard = shard.read();
            let endpoints =
                shard.iter().filter_map(|(id, entry)| Some((*id, entry.endpoint.as_ref()?)));
            let oldest = endpoints.max_by_key(|(_, endpoint)| endpoint.silence(uptime));
            oldest.map(|(id, _)| id)
        });
        longest_silent.next().is_some_and(|oldest| self.forget_endpoint(oldest, |_| true))
    }

    fn next_newcomer(&self) -> Option<(Name, Ticket)> {
        self.newcomers.lock().pop()
    }

    /// Forgets the endpoint of an id, if it is the one that is meant.
    pub(super) fn forget_endpoint(&self, id: Name, is_it: impl FnOnce(&Endpoint) -> bool) -> bool {
        let mut shard = self.shard(id).write();
        let Some(entry) = shard.get_mut(&id) else { return false };
        let Some(endpoint) = entry.endpoint.take_if(|endpoint| is_it(endpoint)) else {
            return false;
        };
        self.endpoints.fetch_sub(1, Ordering::Relaxed);
        if entry.session.is_none() {
            self.note(id, entry);
        }
        if entry.is_empty() {
            shard.remove(&id);
        }
        drop(shard);
        self.withdraw(endpoint.newcomer);
        true
    }

    /// Keeps the first credential that a peer showed itself.
    pub fn keep_credential(&self, id: Name, credential: Credential) {
        if let Some(entry) = self.shard(id).write().get_mut(&id)
            && let Some(endpoint) = &mut entry.endpoint
        {
            endpoint.credential.get_or_insert(credential);
        }
    }
}

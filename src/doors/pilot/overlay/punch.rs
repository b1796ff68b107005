//! Punches: two nodes are told each other's address (SPEC §2.3, §2.4, §6.6).
//!
//! Rates and expiry are judged first; signatures are verified by a task of their own, never
//! on a receiving thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::super::PilotDrop;
use super::buckets::Buckets;
use super::datagrams::Batch;
use super::{Handled, Overlay, Rules, shown_key};
use crate::config::PunchAllow;
use crate::doors::pilot::directory::Lookup;
use crate::ids::NodeId;
use crate::metrics::{Drop, Shard, Whose};
use crate::net::udp::Datagram;
use crate::peers::EndpointView;
use crate::proto::limit::{Bucket, Places, Rate};
use crate::proto::login::grant_holds;
use crate::proto::network::Client;
use crate::relay::{Departures, Target};
use crate::wire::beacon::{Grant, PunchRequest, encode_punch_command};

/// Punches a second of one client address (SPEC §6.6).
const SOURCE_RATE: Rate = Rate::per_second(1);

/// Client addresses that have a bucket at a time.
const SOURCES: usize = 16_384;

/// Grants that wait for their verification: 8 ms of work at 32 µs each.
const QUEUE: usize = 256;

/// Grants whose target's key is being looked up at a time.
const LOOKUPS: usize = 64;

/// Who may ask for a punch.
#[derive(Debug)]
pub struct PunchRules {
    /// Punches in all, grants apart.
    pub rate: Rate,
    /// Addresses that pass both limits.
    pub allow: PunchAllow,
    /// Whether a punch needs its target's grant.
    pub require_grant: bool,
}

#[derive(Debug)]
pub(super) struct Punches {
    all: Mutex<Bucket>,
    sources: Mutex<Places<Bucket>>,
    grants: mpsc::Sender<Pending>,
}

/// A punch whose grant is to be verified.
#[derive(Debug)]
struct Pending {
    request: PunchRequest,
    grant: Grant,
    allowed: bool,
}

/// The grants that wait for verification; run by [`Overlay::verify_grants`].
#[derive(Debug)]
pub struct GrantQueue(mpsc::Receiver<Pending>);

impl Punches {
    pub(super) fn new() -> (Self, GrantQueue) {
        let (grants, queue) = mpsc::channel(QUEUE);
        let all = Mutex::default();
        (Self { all, sources: Mutex::new(Places::new(SOURCES)), grants }, GrantQueue(queue))
    }
}

/// The two sides of a punch.
struct Sides {
    requester: EndpointView,
    target: EndpointView,
}

impl Overlay {
    pub(super) fn punch(
        &self,
        buckets: &mut Buckets,
        request: &PunchRequest,
        datagram: &Datagram,
        batch: &Batch<'_>,
        out: &mut Departures,
    ) {
        let &Batch { now, shard, .. } = batch;
        match self.judge_punch(buckets, request, datagram, batch) {
            Ok(Some(sides)) => self.arrange(&sides, out, now, shard),
            Ok(None) => {}
            Err(reason) => {
                let whose = Whose::packet(request.requester, request.target);
                shard.dropped_of(whose, reason, 1, now);
            }
        }
    }

    /// Both sides, where the punch may take place now; `None` where that takes a signature.
    fn judge_punch(
        &self,
        buckets: &mut Buckets,
        request: &PunchRequest,
        datagram: &Datagram,
        batch: &Batch<'_>,
    ) -> Result<Option<Sides>, Drop> {
        let &Batch { rules, now, shard, .. } = batch;
        if !self.punching.is_on() {
            return Err(PilotDrop::PUNCH_OFF);
        }
        let source = datagram.from.ip();
        let allowed = rules.punch.allow.contains(source);
        // The thread's own bucket first: a flood must not make the threads wait for a lock.
        if !allowed && !buckets.admits_question(source, rules, now) {
            return Err(PilotDrop::DISCOVER_LIMITED);
        }
        if !allowed && !self.take_from_source(Client::of(source, &rules.translators), now) {
            return Err(PilotDrop::PUNCH_SOURCE_LIMITED);
        }
        if self.discovering.is_on() {
            self.claim(request.requester, datagram, false, batch)?;
        } else if !self.table.sender(request.requester.into(), datagram.from, now).is_endpoint {
            // A punch would make or move the endpoint, as a Discover does.
            return Err(PilotDrop::DISCOVER_OFF);
        }
        let sides = self.sides(request.requester, request.target, now)?;
        match request.grant {
            Some(grant) if grant.expiry <= unix_seconds() => Err(PilotDrop::GRANT_EXPIRED),
            Some(grant) => {
                let pending = Pending { request: *request, grant, allowed };
                self.punches.grants.try_send(pending).map_err(|_| PilotDrop::GRANT_QUEUE_FULL)?;
                shard.handed_on(1);
                Ok(None)
            }
            None if rules.punch.require_grant => Err(PilotDrop::PUNCH_WITHOUT_GRANT),
            None => self.take_from_all(allowed, rules, now).map(|()| Some(sides)),
        }
    }

    fn take_from_source(&self, source: Client, now: Instant) -> bool {
        self.punches.sources.lock().of(&source, now).take(SOURCE_RATE, 1, now)
    }

    fn take_from_all(&self, allowed: bool, rules: &Rules, now: Instant) -> Result<(), Drop> {
        if allowed || self.punches.all.lock().take(rules.punch.rate, 1, now) {
            Ok(())
        } else {
            Err(PilotDrop::PUNCH_RATE_LIMITED)
        }
    }

    fn sides(&self, requester: NodeId, target: NodeId, now: Instant) -> Result<Sides, Drop> {
        let find = |node: NodeId| {
            self.table.endpoint(node.into(), now).ok_or(PilotDrop::PUNCH_UNKNOWN_TARGET)
        };
        Ok(Sides { requester: find(requester)?, target: find(target)? })
    }

    /// Sends each side the other's address.
    fn arrange(&self, sides: &Sides, out: &mut Departures, now: Instant, shard: &Shard) {
        let Sides { requester, target } = sides;
        if target.quiet && !self.may_disturb(target.address, now) {
            return shard.dropped(PilotDrop::QUIET_ENDPOINT, 1);
        }
        for (side, towards) in [(requester, target.address), (target, requester.address)] {
            out.send(Target::of(side), &command(towards));
        }
        self.count_handled(Handled::Punch, shard);
    }

    /// Verifies the grants of punches, and arranges those that hold, until the relay goes.
    pub async fn verify_grants(self: Arc<Self>, mut queue: GrantQueue) {
        let mut lookups = JoinSet::new();
        while let Some(pending) = queue.0.recv().await {
            while lookups.try_join_next().is_some() {}
            if lookups.len() >= LOOKUPS {
                lookups.join_next().await;
            }
            let relay = Arc::clone(&self);
            lookups.spawn(async move { relay.verify(pending).await });
        }
    }

    async fn verify(&self, pending: Pending) {
        let Pending { request: PunchRequest { requester, target, .. }, grant, allowed } = pending;
        let known = self.directory.lookup(target).await;
        let rules = self.rules.load();
        let now = Instant::now();
        let shard = self.traffic.shard();
        let whose = Whose::packet(requester, target);
        if !self.punching.is_on() {
            return shard.dropped_of(whose, PilotDrop::PUNCH_OFF, 1, now);
        }
        let sides = match self.sides(requester, target, now) {
            Ok(sides) => sides,
            Err(reason) => return shard.dropped_of(whose, reason, 1, now),
        };
        let key = match known {
            Lookup::Key(key) => Some(key),
            Lookup::Unknown | Lookup::Unavailable => sides.target.credential.map(shown_key),
        };
        let verdict = match key {
            Some(key) if grant_holds(requester, target, &grant, &key) => Ok(()),
            // Without a key nobody can tell: the grant counts for nothing, for or against.
            None if !rules.punch.require_grant => self.take_from_all(allowed, &rules, now),
            Some(_) | None => Err(PilotDrop::GRANT_INVALID),
        };
        match verdict {
            Ok(()) => Departures::of_batch(
                Some(self.socket_of(0)),
                |_| &[],
                now,
                shard,
                1,
                |out| {
                    self.arrange(&sides, out, now, shard);
                },
            ),
            Err(reason) => shard.dropped_of(whose, reason, 1, now),
        }
    }
}

fn command(towards: SocketAddr) -> Vec<u8> {
    let mut packet = Vec::with_capacity(20);
    encode_punch_command(towards, &mut packet);
    packet
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

//! What a fabric tells the cluster: who has a link to us, and what came over it.

use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Instant;

use parking_lot::MutexGuard;

use super::Forward;
use super::{Cluster, MAX_REPAIRS, Member, Outbox};
use crate::ids::RelayId;
use crate::metrics::{Drop, Event as Noted, Transport, What, Whose};
use crate::proto::presence::{Now, Presence};
use crate::wire::cluster::{About, DecodeError, Frame, Frames, Packets};
use crate::wire::name::Name;

/// What a fabric tells the cluster.
impl Cluster {
    /// A link to a relay is up, and the relay is who it says: it is a member from here on.
    /// One that was a member before has to have left.
    pub fn joined(&self, relay: RelayId, address: String) -> Arc<Member> {
        let now = self.now();
        let outbox = Outbox::new(Arc::clone(&self.traffic), Arc::clone(&self.counters));
        let member = Arc::new(Member::new(relay, address, outbox));
        let mut presence = self.presence.lock();
        self.members.lock().insert(relay, Arc::clone(&member));
        member.outbox.say(&Frame::About(self.about()), now.at);
        if self.draining.load(Ordering::Relaxed) {
            member.outbox.say(&Frame::Draining, now.at);
        }
        presence.joined(relay, now);
        self.settle(presence, now);
        self.lost.joined(relay);
        self.counters.joined.increment();
        self.note(What::Joined, relay, "");
        tracing::info!(%relay, remote_addr = %member.address, "a relay has joined the cluster");
        member
    }

    fn note(&self, what: What, relay: RelayId, reason: &'static str) {
        self.traffic.events.note(Noted { relay: Some(relay), reason, ..Noted::new(what) });
    }

    /// The link of a member has ended, for this reason.
    pub fn left(&self, member: &Arc<Member>, reason: &'static str) {
        let now = self.now();
        {
            let mut presence = self.presence.lock();
            let mut members = self.members.lock();
            if members.get(&member.relay).is_some_and(|known| Arc::ptr_eq(known, member)) {
                members.remove(&member.relay);
                drop(members);
                presence.left(member.relay, now);
                self.settle(presence, now);
                self.lost.left(member, now.at);
                self.counters.lost.increment();
                self.note(What::Left, member.relay, reason);
                tracing::info!(relay = %member.relay, reason, "a relay has left the cluster");
            }
        }
        member.ending.cancel();
        member.outbox.close();
        self.end_channels(member);
    }

    /// Takes in a batch of a member.
    ///
    /// # Errors
    /// Why it is none; the frames before the mistake count.
    pub fn receive(
        &self,
        member: &Arc<Member>,
        batch: &[u8],
        now: Instant,
    ) -> Result<(), DecodeError> {
        member.heard(now);
        let mut packets = Vec::new();
        let mut talk = None;
        let mut has_channels = false;
        let mut result = Ok(());
        for frame in Frames::<Name>::new(batch) {
            match frame {
                Ok(Frame::Packets(run)) => packets.push(run),
                Ok(Frame::Nack { id, epoch }) => {
                    self.counters.forwards.of(Forward::Nack).increment();
                    self.locations.gone(id, member.relay, epoch);
                }
                Ok(Frame::Alive | Frame::Unknown) => {}
                Ok(Frame::Clock(reading)) => {
                    let Now { at, unix_ms } = self.now();
                    member.hear_clock(reading, unix_ms, at);
                }
                Ok(Frame::TakesTcp) => member.offers_tcp(),
                Ok(Frame::About(about)) => {
                    member.tells(about.told);
                    if about.features & About::CHANNELS != 0 {
                        member.lines.offer(about.channels);
                    }
                    if about.features & About::WATCHES != 0 {
                        let (presence, now) = talk.get_or_insert_with(|| self.talk());
                        presence.answers_watches(member.relay, *now);
                    }
                }
                Ok(Frame::Channel(said)) => {
                    // The door may do what takes these locks.
                    if let Some((presence, now)) = talk.take() {
                        self.settle(presence, now);
                    }
                    self.receive_channel(member, said, now);
                    has_channels = true;
                }
                Ok(Frame::Draining) => {
                    if member.drains() {
                        tracing::info!(relay = %member.relay, "a relay of the cluster is draining");
                    }
                    let (presence, now) = talk.get_or_insert_with(|| self.talk());
                    presence.draining(member.relay, *now);
                }
                Ok(word) => {
                    let (presence, now) = talk.get_or_insert_with(|| self.talk());
                    presence.receive(member.relay, &word, *now);
                }
                Err(error) => result = Err(error),
            }
        }
        if let Some((presence, now)) = talk {
            self.settle(presence, now);
        }
        if has_channels {
            self.settle_channels(now);
        }
        self.deliver(member, &packets, now);
        result
    }

    /// Accounts for a batch of packets that came, and that there was no room to take in.
    pub fn give_up(&self, batch: &[u8]) {
        let (shard, now) = (self.traffic.shard(), Instant::now());
        for frame in Frames::<Name>::new(batch) {
            if let Ok(Frame::Packets(run)) = frame {
                let packets = run.count() as u64;
                let bytes = run.iter().map(|payload| payload.len() as u64).sum::<u64>();
                shard.came_in(Transport::Cluster, packets, bytes);
                let whose = Whose::packet(run.run.sender, run.run.dest);
                shard.dropped_of(whose, Drop::CLUSTER_FULL, packets, now);
            }
        }
    }

    fn talk(&self) -> (MutexGuard<'_, Presence<Name>>, Now) {
        let now = self.now();
        (self.presence.lock(), now)
    }

    fn deliver(&self, member: &Member, packets: &[Packets<'_, Name>], now: Instant) {
        if packets.is_empty() {
            return;
        }
        let shard = self.traffic.shard();
        let count = packets.iter().map(|run| run.count() as u64).sum();
        let bytes = packets.iter().flat_map(Packets::iter).map(|p| p.len() as u64).sum();
        shard.came_in(Transport::Cluster, count, bytes);
        let Some(local) = self.local.get().and_then(Weak::upgrade) else {
            return shard.dropped(Drop::NOT_HERE, count);
        };
        local.deliver(member.relay, packets, now, &mut |run, serial| {
            // Told first, or the sender would go on; the homes by and by.
            self.counters.nacks_sent.increment();
            member.outbox.say(&Frame::Nack { id: run.dest, epoch: run.epoch }, now);
            let mut repairs = self.repairs.lock();
            if repairs.len() < MAX_REPAIRS {
                repairs.push((run.dest, serial));
            }
        });
    }
}

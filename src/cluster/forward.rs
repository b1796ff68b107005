//! The way of packets to peers at other relays.

use std::sync::Arc;
use std::time::Instant;

use super::locations::Way;
use super::{Cluster, Forward, Member, Reject};
use crate::metrics::{Drop, Transport, Whose};
use crate::wire::cluster::{Ownership, Run};
use crate::wire::name::Name;

/// Questions that wait for their turn; those of packets that wait are asked first come.
pub(super) const MAX_ASKS: usize = 65_536;

/// Packets of one flow for a peer that is not here.
#[derive(Clone, Copy, Debug)]
pub struct Outward {
    /// Who sent them.
    pub sender: Name,
    /// Whom they are for.
    pub dest: Name,
    /// Over what they came.
    pub transport: Transport,
    /// How many they are.
    pub count: u64,
    /// Whether a foreign server sent them: a server of a door's own network, which is no relay
    /// of this cluster.
    pub from_foreign: bool,
}

/// Why packets are not forwarded: they came from a foreign server, and the relay that has their
/// destination reaches it by one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the packets might go in circles between foreign servers")]
pub struct Circular;

impl Cluster {
    /// Sends packets of one flow to the relay that has their destination, or has them wait
    /// until it is found, or drops them; each is accounted for. Returns whose outbox was
    /// filled: the caller wakes it at the end of its batch.
    ///
    /// # Errors
    /// They might go in circles. They are the caller's to drop.
    pub fn forward<'a>(
        &self,
        outward: &Outward,
        payloads: impl Iterator<Item = &'a [u8]> + Clone,
        now: Instant,
    ) -> Result<Option<Arc<Member>>, Circular> {
        let Outward { sender, dest, transport, count, from_foreign } = *outward;
        let (shard, whose) = (self.traffic.shard(), Whose::packet(sender, dest));
        let result = |result, packets| self.counters.forwards.of(result).add(packets);
        match self.locations.find_or_park(dest, sender, payloads.clone(), now) {
            Way::To { remote, asks } => {
                if asks {
                    self.ask_for(dest, now);
                }
                if from_foreign && remote.ownership == Ownership::Gateway {
                    result(Forward::Loop, count);
                    return Err(Circular);
                }
                let run = Run { dest, sender, epoch: remote.epoch };
                let bytes = payloads.clone().map(|payload| payload.len() as u64).sum();
                remote.member.outbox.push(&run, payloads, now);
                shard.bridged(transport, Transport::Cluster, count, bytes);
                result(Forward::Sent, count);
                Ok(Some(remote.member))
            }
            Way::Nowhere => {
                shard.dropped_of(whose, Drop::UNKNOWN_DESTINATION, count, now);
                result(Forward::Unknown, count);
                Ok(None)
            }
            Way::Parked { packets, bytes, refused, asks } => {
                shard.dropped_of(whose, Drop::LOOKUP_FULL, refused, now);
                shard.bridged(transport, Transport::Cluster, packets, bytes);
                result(Forward::Parked, packets);
                result(Forward::LookupFull, refused);
                if asks {
                    self.ask_for(dest, now);
                }
                Ok(None)
            }
        }
    }

    /// Has a peer looked up, without waiting for whoever holds presence.
    pub(super) fn ask_for(&self, peer: Name, now: Instant) {
        let mut asks = self.asks.lock();
        if asks.len() < MAX_ASKS {
            asks.push(peer);
            drop(asks);
            self.asking.notify_one();
        } else {
            drop(asks);
            self.locations.not_asked(peer, now);
            self.counters.rejects.of(Reject::NoRoom).increment();
        }
    }
}

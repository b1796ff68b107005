//! Takes the messages that one read of a session brought, and carries the packets among them.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::departures::Departures;
use super::routing::Flow;
use super::{Delivery, Router, limit_reason};
use crate::metrics::{Drop, Shard, Whose};
use crate::peers::{Session, Source};
use crate::proto::limit::{self, Rate, SourceRates};
use crate::wire::Frames;
use crate::wire::name::Name;

/// What a message turned out to be.
#[derive(Clone, Copy, Debug)]
pub enum Message {
    /// A packet for somebody.
    Packet {
        /// For whom.
        dest: Name,
        /// Bytes in front of its payload.
        header: usize,
    },
    /// The door has answered it.
    Handled,
    /// It goes no further.
    Dropped {
        /// Why.
        reason: Drop,
        /// For whom it was, where that could be read.
        dest: Option<Name>,
    },
}

/// What a door has at hand while it reads the messages of a batch.
#[derive(Debug)]
pub struct Turn<'a> {
    /// What leaves at the end of the batch.
    pub out: &'a mut Departures,
    /// The time of the batch.
    pub now: Instant,
    /// The counters of this thread.
    pub shard: &'a Shard,
    rates: &'a SourceRates,
    inbound: limit::Source,
    requests: &'a Mutex<limit::Bucket>,
}

impl Turn<'_> {
    /// Takes a message of this length from what the peer may send.
    ///
    /// # Errors
    /// It is more than that: why the message is to be dropped.
    #[inline]
    pub fn admit(&mut self, bytes: usize) -> Result<(), Drop> {
        self.inbound.take(self.rates, bytes, self.now).map_err(limit_reason)
    }

    /// Takes what a message asks of the relay itself from what the peer may ask.
    ///
    /// # Errors
    /// It is more than that: why the message is to be dropped.
    pub fn admit_request(&self, rate: Rate, amount: usize) -> Result<(), Drop> {
        let may = self.requests.lock().take(rate, amount as u64, self.now);
        if may { Ok(()) } else { Err(Drop::RATE_LIMITED) }
    }
}

impl Router {
    /// Carries what one read of a session brought; `read` says what each message is. Waits for
    /// nobody. Each message is counted in, and once more by what it was: a door counts none.
    ///
    /// A peer is who it proved to be: `read` drops what names another sender. What a session
    /// sends after it was replaced is not relayed. What `read` owns, such as a lock, is dropped
    /// before anything is written to a socket.
    pub fn take<'a, D: Delivery + ?Sized>(
        &self,
        door: &D,
        session: &Arc<Session>,
        frames: Frames<'a>,
        now: Instant,
        read: impl FnMut(&mut Turn<'_>, &'a [u8]) -> Message,
    ) {
        let shard = session.traffic().shard();
        let came = frames.len() as u64;
        shard.came_in(session.transport(), came, frames.bytes() as u64);
        if !session.is_open() {
            let whose = Whose::sender(session.id());
            return shard.dropped_of(whose, Drop::SESSION_ENDED, came, now);
        }
        let of_door = door.rates();
        let of_relay = self.rates.load();
        let rates = of_door.as_ref().unwrap_or(&of_relay);
        let socket = door.socket(session.generation());
        let packet = |index| frames.packet(index);
        Departures::of_batch(socket, packet, now, shard, came, |out| {
            // Owned by this closure, whose end is before the departures.
            let mut read = read;
            // A copy: whoever replaces this session reads it under the table's lock.
            let inbound = *session.inbound.lock();
            let mut turn = Turn { out, now, shard, rates, inbound, requests: &session.requests };
            let carry = |flow: &Flow, out: &mut Departures| {
                self.carry(door, flow, packet, out, now, shard);
            };
            let mut flow: Option<Flow> = None;
            for (index, message) in frames.iter().enumerate() {
                let (dest, header) = match read(&mut turn, message) {
                    Message::Packet { dest, header } => (dest, header),
                    Message::Handled => {
                        shard.handled(1);
                        continue;
                    }
                    // Nobody asks what became of these, and there are many.
                    Message::Dropped { reason, .. } if reason.is_expected => {
                        shard.dropped(reason, 1);
                        continue;
                    }
                    Message::Dropped { reason, dest } => {
                        // In the name of who it proved to be, whatever the message says.
                        let whose = Whose { sender: Some(session.id()), dest };
                        shard.dropped_of(whose, reason, 1, now);
                        continue;
                    }
                };
                match &mut flow {
                    Some(flow) if flow.continues(dest, header, index) => flow.packets.end += 1,
                    _ => {
                        let next = Flow {
                            transport: session.transport(),
                            source: Source::Session(session.generation()),
                            sender: session.id(),
                            dest,
                            packets: index..index + 1,
                            header,
                            is_hidden: session.is_hidden,
                        };
                        if let Some(flow) = flow.replace(next) {
                            carry(&flow, turn.out);
                        }
                    }
                }
            }
            *session.inbound.lock() = turn.inbound;
            if let Some(flow) = flow {
                carry(&flow, turn.out);
            }
        });
    }
}

//! Packets that an authenticated peer sent over its WebSocket session.

use std::sync::Arc;
use std::time::Instant;

use super::departures::Departures;
use super::routing::Flow;
use super::{NAMES_DESTINATION, Relay, Session, Switch, decode_reason, limit_reason};
use crate::ids::NodeId;
use crate::metrics::{Drop, Handled, Shard, Whose};
use crate::peers::{self, Arrival, Record};
use crate::proto::limit::{Source, SourceRates};
use crate::wire::Frames;
use crate::wire::beacon::{self, Discover, Packet, RELAY_HEADER};
use crate::wire::name::Name;

impl Relay {
    /// Routes the packets that one read brought. Waits for nobody.
    ///
    /// A peer is who it proved to be: packets with another sender are dropped. What a
    /// session sends after it was replaced is not relayed.
    pub fn route_frames(&self, session: &Arc<Session>, frames: Frames<'_>, now: Instant) {
        let shard = session.traffic().shard();
        if !session.is_open() {
            let whose = Whose::sender(session.id());
            return shard.dropped_of(whose, Drop::SessionEnded, frames.len() as u64, now);
        }
        let rules = self.rules.load();
        let rates = &rules.source;
        let node = node_of(session);
        let socket = self.socket_of(session.generation());
        Departures::of_batch(
            socket,
            |i| frames.packet(i),
            now,
            shard,
            frames.len() as u64,
            |out| {
                // A copy: whoever replaces this session reads it under the table's lock.
                let mut inbound = *session.inbound.lock();
                let mut flow: Option<Flow> = None;
                for (index, packet) in frames.iter().enumerate() {
                    let dest = match beacon::decode(packet) {
                        Ok(Packet::Relay(relay)) => {
                            admit(rates, node, &relay, packet.len(), &mut inbound, now)
                                .map_err(|reason| (reason, Some(relay.dest)))
                        }
                        Ok(Packet::Discover(discover)) => {
                            match inbound.take(rates, packet.len(), now) {
                                Ok(()) => {
                                    self.discover_over_session(session, &discover, out, now, shard);
                                    continue;
                                }
                                Err(exceeded) => Err((limit_reason(exceeded), None)),
                            }
                        }
                        Ok(other) => Err((reason_over_session(&other), None)),
                        Err(_) if beacon::is_direct_probe(packet) => Err((Drop::DirectProbe, None)),
                        Err(error) => Err((decode_reason(error), None)),
                    };
                    let dest = match dest {
                        Ok(dest) => dest,
                        // Nobody asks what became of these, and there are many.
                        Err((reason, _)) if reason.is_expected() => {
                            shard.dropped(reason, 1);
                            continue;
                        }
                        Err((reason, dest)) => {
                            // In the name of who it proved to be, whatever the packet says.
                            let dest = dest.map(Name::from);
                            let whose = Whose { sender: Some(session.id()), dest };
                            shard.dropped_of(whose, reason, 1, now);
                            continue;
                        }
                    };
                    match &mut flow {
                        Some(flow) if flow.dest == dest && flow.packets.end == index => {
                            flow.packets.end = index + 1;
                        }
                        _ => {
                            let next = Flow {
                                transport: session.transport(),
                                source: peers::Source::Session(session.generation()),
                                sender: node,
                                dest,
                                packets: index..index + 1,
                                header: RELAY_HEADER,
                                is_hidden: session.is_hidden,
                            };
                            if let Some(flow) = flow.replace(next) {
                                self.carry(&flow, |i| frames.packet(i), out, now, shard);
                            }
                        }
                    }
                }
                *session.inbound.lock() = inbound;
                if let Some(flow) = flow {
                    self.carry(&flow, |i| frames.packet(i), out, now, shard);
                }
            },
        );
    }

    /// Answers a Discover on the connection that it came over; the node stays a WSS node.
    fn discover_over_session(
        &self,
        session: &Arc<Session>,
        discover: &Discover<'_>,
        out: &mut Departures,
        now: Instant,
        shard: &Shard,
    ) {
        if discover.node.is_some_and(|node| node != node_of(session)) {
            let whose = Whose::sender(session.id());
            return shard.dropped_of(whose, Drop::DiscoverForOther, 1, now);
        }
        if !self.switches.is_on(Switch::Discover) {
            let whose = Whose::sender(session.id());
            return shard.dropped_of(whose, Drop::DiscoverOff, 1, now);
        }
        // An address question is nobody's, and changes nothing for this node either.
        if discover.extended && discover.node.is_some() {
            session.gain(NAMES_DESTINATION);
        }
        let mut reply = Vec::with_capacity(20);
        beacon::encode_discover_reply(session.observed, &mut reply);
        let record = Record { head: &reply, body: &[] };
        let source = peers::Source::Session(session.generation());
        out.flush_later(session);
        session.push(std::iter::once(record), &Arrival { source, ..Arrival::ours(now) });
        shard.handled(Handled::Discover, 1);
    }
}

/// The node that a session is.
fn node_of(session: &Session) -> NodeId {
    session.id().node_id().expect("whose packets these are is a node")
}

fn admit(
    rates: &SourceRates,
    node: NodeId,
    relay: &beacon::Relay<'_>,
    bytes: usize,
    inbound: &mut Source,
    now: Instant,
) -> Result<NodeId, Drop> {
    if relay.sender != node {
        return Err(Drop::SenderMismatch);
    }
    inbound.take(rates, bytes, now).map_err(limit_reason)?;
    Ok(relay.dest)
}

const fn reason_over_session(packet: &Packet<'_>) -> Drop {
    match packet {
        // Needs a UDP endpoint, which a WSS node has not.
        Packet::PunchRequest(_) => Drop::PunchOverWss,
        // The word of a beacon, which speaks UDP.
        Packet::Sync(_) => Drop::NotOverWss,
        Packet::DiscoverReply(_)
        | Packet::PunchCommand(_)
        | Packet::Deliver(_)
        | Packet::Notify(_)
        | Packet::Discover(_)
        | Packet::Relay(_) => Drop::NotForRelay,
    }
}

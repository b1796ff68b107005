//! Packets that an authenticated node sent over its WebSocket session.

use std::sync::Arc;
use std::time::Instant;

use super::super::{PilotDrop, node_of};
use super::{Handled, NAMES_DESTINATION, Overlay, decode_reason};
use crate::metrics::Drop;
use crate::peers::{self, Arrival, Record, Session};
use crate::relay::{Message, Turn};
use crate::wire::Frames;
use crate::wire::beacon::{self, Discover, Packet, RELAY_HEADER};

impl Overlay {
    /// Carries the packets that one read brought. Waits for nobody.
    ///
    /// A node is who it proved to be: packets with another sender are dropped.
    pub fn route_frames(&self, session: &Arc<Session>, frames: Frames<'_>, now: Instant) {
        let node = node_of(session);
        let read = |turn: &mut Turn<'_>, packet| {
            let dropped = |reason| Message::Dropped { reason, dest: None };
            match beacon::decode(packet) {
                Ok(Packet::Relay(relay)) => {
                    let dest = relay.dest.into();
                    if relay.sender != node {
                        return Message::Dropped {
                            reason: Drop::SENDER_MISMATCH,
                            dest: Some(dest),
                        };
                    }
                    match turn.admit(packet.len()) {
                        Ok(()) => Message::Packet { dest, header: RELAY_HEADER },
                        Err(reason) => Message::Dropped { reason, dest: Some(dest) },
                    }
                }
                Ok(Packet::Discover(discover)) => {
                    let answered = turn
                        .admit(packet.len())
                        .and_then(|()| self.discover_over_session(session, &discover, turn));
                    answered.map_or_else(dropped, |()| Message::Handled)
                }
                Ok(other) => dropped(reason_over_session(&other)),
                Err(_) if beacon::is_direct_probe(packet) => dropped(PilotDrop::DIRECT_PROBE),
                Err(error) => dropped(decode_reason(error)),
            }
        };
        self.router.take(self, session, frames, now, read);
    }

    /// Answers a Discover on the connection that it came over, or says why not; the node stays a
    /// WSS node.
    fn discover_over_session(
        &self,
        session: &Arc<Session>,
        discover: &Discover<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Drop> {
        let now = turn.now;
        if discover.node.is_some_and(|node| node != node_of(session)) {
            return Err(PilotDrop::DISCOVER_FOR_OTHER);
        }
        if !self.discovering.is_on() {
            return Err(PilotDrop::DISCOVER_OFF);
        }
        // An address question is nobody's, and changes nothing for this node either.
        if discover.extended && discover.node.is_some() {
            session.gain(NAMES_DESTINATION);
        }
        let mut reply = Vec::with_capacity(20);
        beacon::encode_discover_reply(session.observed, &mut reply);
        let record = Record { head: &reply, body: &[] };
        let source = peers::Source::Session(session.generation());
        turn.out.flush_later(session);
        session.push(std::iter::once(record), &Arrival { source, ..Arrival::ours(now) });
        self.handled.add(Handled::Discover, 1);
        Ok(())
    }
}

const fn reason_over_session(packet: &Packet<'_>) -> Drop {
    match packet {
        // Needs a UDP endpoint, which a WSS node has not.
        Packet::PunchRequest(_) => PilotDrop::PUNCH_OVER_WSS,
        // The word of a beacon, which speaks UDP.
        Packet::Sync(_) => PilotDrop::NOT_OVER_WSS,
        Packet::DiscoverReply(_)
        | Packet::PunchCommand(_)
        | Packet::Deliver(_)
        | Packet::Notify(_)
        | Packet::Discover(_)
        | Packet::Relay(_) => PilotDrop::NOT_FOR_RELAY,
    }
}

//! What comes from the floor's peers on streams.

use std::io::{ErrorKind, Read as _};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use beacon_relay::net::udp::{Datagrams, MAX_RUN, MAX_RUN_PACKETS, MAX_SEGMENT};
use beacon_wire::beacon::{self, Packet, deliver_header};
use beacon_wire::websocket::{Decoder, MAX_HEADER, Message, Opcode, Role, frame_header};

use super::lanes::push_head;
use super::{Peer, Place, Places, send_run};
use crate::readiness::Readiness;

/// Bytes of one read.
const READ: usize = 65_536;

/// How long a thread waits before it may see new connections.
const WAIT: Duration = Duration::from_millis(10);

/// One connection and the piece of a frame that it waits for.
struct Connection {
    peer: Arc<Peer>,
    decoder: Decoder,
    carry: Vec<u8>,
    /// The piece of a record that it waits for.
    sealed: Vec<u8>,
    /// Where its packets go: the load has one destination for each sender.
    place: Option<(u32, Place)>,
}

/// The buffers of a thread.
#[derive(Default)]
struct Buffers {
    /// Ciphertext that comes.
    sealed: Vec<u8>,
    /// Plaintext that comes, behind what was carried.
    filled: Vec<u8>,
    /// What goes out.
    out: Vec<u8>,
}

pub(super) fn serve(new: &Receiver<(Arc<Peer>, u32)>, places: &Places, socket: &dyn Datagrams) {
    let mut readiness = Readiness::new().expect("the floor may poll");
    let mut connections: Vec<Connection> = Vec::new();
    let mut buffers = Buffers::default();
    loop {
        while let Ok((peer, _)) = new.try_recv() {
            readiness.add(&peer.stream, connections.len()).expect("the floor may poll its streams");
            let decoder = Decoder::new(Role::Server, beacon::MAX_WSS_PACKET);
            let (carry, sealed) = (Vec::new(), Vec::new());
            connections.push(Connection { peer, decoder, carry, sealed, place: None });
        }
        for number in readiness.wait(WAIT) {
            let Some(connection) = connections.get_mut(number) else { continue };
            if !connection.read(&mut buffers, places, socket) {
                // Its place stays, so that the numbers of the others do not change.
                readiness.remove(&connection.peer.stream);
            }
        }
    }
}

impl Connection {
    /// Reads once and passes on what came; false at the end of the stream.
    fn read(&mut self, buffers: &mut Buffers, places: &Places, socket: &dyn Datagrams) -> bool {
        let Buffers { sealed, filled, out } = buffers;
        let Some(length) = self.fill(sealed, filled) else { return false };
        self.carry.clear();
        let Some(filled) = filled.get_mut(..length) else { return false };
        out.clear();
        let mut at = 0;
        let mut segment = 0;
        while let Ok(Some(message)) = self.decoder.next(filled, &mut at) {
            let Message::Binary(range) = message else { continue };
            let packet = filled.get(range).unwrap_or_default();
            let Ok(Packet::Relay(relay)) = beacon::decode(packet) else { continue };
            let dest = relay.dest.number();
            if self.place.as_ref().is_none_or(|(known, _)| *known != dest) {
                self.place = places.find(dest).map(|place| (dest, place));
            }
            let head = deliver_header(relay.sender);
            let length = head.len() + relay.payload.len();
            match &self.place {
                Some((_, Place::Wss(_))) => {
                    let (header, used) = frame_header(Opcode::Binary, length);
                    out.extend_from_slice(header.get(..used).unwrap_or_default());
                }
                Some((_, Place::Link(_))) => push_head(dest, length, out),
                Some((_, Place::Udp(to))) => {
                    let full = out.len() + length > MAX_RUN
                        || out.len() >= segment * MAX_RUN_PACKETS
                        || length != segment
                        || segment > MAX_SEGMENT;
                    if full && !out.is_empty() {
                        send_run(socket, *to, out, segment);
                        out.clear();
                    }
                    segment = length;
                }
                None => continue,
            }
            out.extend_from_slice(&head);
            out.extend_from_slice(relay.payload);
        }
        self.carry.extend_from_slice(filled.get(at..).unwrap_or_default());
        match &self.place {
            Some((_, Place::Wss(peer))) if !out.is_empty() => peer.write(out).is_ok(),
            Some((_, Place::Link(link))) if !out.is_empty() => link.send(out).is_ok(),
            Some((_, Place::Udp(to))) if !out.is_empty() => {
                send_run(socket, *to, out, segment);
                true
            }
            _ => true,
        }
    }

    /// Reads plaintext behind what was carried; how much there is then, `None` at the end.
    fn fill(&mut self, incoming: &mut Vec<u8>, filled: &mut Vec<u8>) -> Option<usize> {
        let carried = self.carry.len();
        let Some(tls) = &self.peer.tls else {
            filled.resize(READ + beacon::MAX_WSS_PACKET + MAX_HEADER, 0);
            filled.get_mut(..carried)?.copy_from_slice(&self.carry);
            let read = (&self.peer.stream).read(filled.get_mut(carried..carried + READ)?);
            return match read {
                Ok(0) => None,
                Ok(read) => Some(carried + read),
                Err(error) => (error.kind() == ErrorKind::WouldBlock).then_some(carried),
            };
        };
        filled.clear();
        filled.extend_from_slice(&self.carry);
        let begun = self.sealed.len();
        if incoming.len() < begun + READ {
            incoming.resize(begun + READ, 0);
        }
        incoming.get_mut(..begun)?.copy_from_slice(&self.sealed);
        let read = match (&self.peer.stream).read(incoming.get_mut(begun..begun + READ)?) {
            Ok(0) => return None,
            Ok(read) => read,
            Err(error) => return (error.kind() == ErrorKind::WouldBlock).then_some(carried),
        };
        let came = incoming.get_mut(..begun + read)?;
        let mut answer = Vec::new();
        let opened = tls.lock().open(came, filled, &mut answer).ok()?;
        self.sealed.clear();
        self.sealed.extend_from_slice(came.get(opened.used..)?);
        // The load asks for nothing that would be answered.
        (!opened.is_over && answer.is_empty()).then_some(filled.len())
    }
}

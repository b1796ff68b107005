//! What a batch has for each destination.

use std::net::SocketAddr;

use beacon_relay::net::udp::{BATCH, Datagrams, MAX_RUN, MAX_RUN_PACKETS, MAX_SEGMENT, Run};
use beacon_wire::websocket::{Opcode, frame_header};

use super::{Place, Places};

/// The destinations of a thread.
#[derive(Default)]
pub(super) struct Lanes(Vec<Lane>);

impl Lanes {
    /// Adds a packet; one for nobody is dropped.
    pub(super) fn push(&mut self, places: &Places, dest: u32, head: &[u8], payload: &[u8]) {
        let known = self.0.iter().position(|lane| lane.dest == dest);
        let index = known.or_else(|| {
            self.0.push(Lane::new(dest, places.find(dest)?));
            Some(self.0.len() - 1)
        });
        if let Some(lane) = index.and_then(|index| self.0.get_mut(index)) {
            lane.push(head, payload);
        }
    }

    /// Forgets where nodes are.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// Sends everything.
    pub(super) fn flush(&mut self, socket: &dyn Datagrams) {
        let mut runs: Vec<Run<'_>> = Vec::with_capacity(BATCH);
        for lane in &mut self.0 {
            match &lane.place {
                // A peer of the load that is gone ends the run soon.
                Place::Wss(peer) if !lane.bytes.is_empty() => {
                    let _gone = peer.write(&lane.bytes);
                }
                Place::Link(link) if !lane.bytes.is_empty() => {
                    let _gone = link.send(&mut lane.bytes);
                }
                Place::Wss(_) | Place::Link(_) | Place::Udp(_) => {}
            }
        }
        for lane in &self.0 {
            if let Place::Udp(to) = lane.place {
                lane.runs_to(to, &mut runs);
            }
        }
        if !runs.is_empty() {
            socket.send(&runs, &mut |_, _, _| {});
        }
        for lane in &mut self.0 {
            lane.bytes.clear();
            lane.runs.clear();
        }
    }
}

/// What a batch has for one destination.
struct Lane {
    dest: u32,
    place: Place,
    bytes: Vec<u8>,
    /// Where each run ends, and the size of its packets.
    runs: Vec<(usize, usize)>,
}

impl Lane {
    const fn new(dest: u32, place: Place) -> Self {
        Self { dest, place, bytes: Vec::new(), runs: Vec::new() }
    }

    fn push(&mut self, head: &[u8], payload: &[u8]) {
        let length = head.len() + payload.len();
        match &self.place {
            Place::Wss(_) => {
                let (header, used) = frame_header(Opcode::Binary, length);
                self.bytes.extend_from_slice(header.get(..used).unwrap_or_default());
            }
            Place::Link(_) => push_head(self.dest, length, &mut self.bytes),
            Place::Udp(_) => {
                let start = self.bytes.len();
                let before = self.runs.len().checked_sub(2).and_then(|i| self.runs.get(i));
                let begin = before.map_or(0, |(end, _)| *end);
                match self.runs.last_mut() {
                    Some((end, segment))
                        if *segment == length
                            && length <= MAX_SEGMENT
                            && start + length - begin <= MAX_RUN
                            && start - begin < length * MAX_RUN_PACKETS =>
                    {
                        *end = start + length;
                    }
                    _ => self.runs.push((start + length, length)),
                }
            }
        }
        self.bytes.extend_from_slice(head);
        self.bytes.extend_from_slice(payload);
    }

    fn runs_to<'a>(&'a self, to: SocketAddr, runs: &mut Vec<Run<'a>>) {
        let mut begin = 0;
        for (end, segment) in &self.runs {
            let bytes = self.bytes.get(begin..*end).unwrap_or_default();
            runs.push(Run { to, from: None, bytes, segment: *segment });
            begin = *end;
        }
    }
}

/// Appends what stands before a packet of `length` bytes on the way to another floor.
pub(super) fn push_head(dest: u32, length: usize, out: &mut Vec<u8>) {
    let length = u32::try_from(length).expect("a packet is shorter than 4 GiB");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&dest.to_be_bytes());
}

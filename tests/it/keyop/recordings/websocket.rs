//! Recordings over WebSocket, of peers up to v1.4.1.

use std::collections::{HashMap, HashSet, VecDeque};

use serde_json::Value;

use super::super::ids;
use super::super::websocket::Ws;
use super::{Better, Event, LONG, Stage, assert_same, events, is_id_of};
use crate::peer::{Frame, frame};

/// A replay over WebSocket.
struct OverWebSocket {
    stage: Stage,
    peers: HashMap<u64, Recorded>,
}

struct Recorded {
    ws: Ws,
    has_greeted: bool,
    is_subscribed: bool,
    /// What came before what was waited for.
    waiting: VecDeque<Frame>,
    /// What it was delivered and has not acknowledged.
    in_flight: Option<Vec<String>>,
    /// Records that came with others, and that the recording has later.
    ahead: VecDeque<Vec<u8>>,
    /// Records that were published before it came, of an ephemeral peer.
    missed: HashSet<String>,
}

impl Recorded {
    /// The next frame of this kind; others are kept.
    fn read(&mut self, opcode: u8) -> Option<Frame> {
        if let Some(at) = self.waiting.iter().position(|(kind, _)| *kind == opcode) {
            return self.waiting.remove(at);
        }
        loop {
            let frame = self.ws.read()?;
            if frame.0 == opcode || frame.0 == 8 {
                return Some(frame);
            }
            self.waiting.push_back(frame);
        }
    }
}

impl OverWebSocket {
    /// Replays the cases before one that begins so.
    fn run(&mut self, file: &str, end: &str) {
        let mut events = events(file);
        if let Some(at) = events.iter().position(|event| event.case.starts_with(end)) {
            events.truncate(at);
        }
        for (at, event) in events.iter().enumerate() {
            // Times of the recording, and clients of it that do not come back.
            let is_skipped = event.case == "slow header" || event.case.starts_with("REAL");
            if is_skipped || LONG.iter().any(|case| event.case.starts_with(case)) {
                continue;
            }
            match (&*event.op, event.is_ours) {
                ("http", true) => self.ask(event),
                ("http" | "tcp-error" | "dial-failed", _) => {}
                (_, true) => self.say(event, events.get(at + 1..).unwrap_or_default()),
                (_, false) => self.hear(event),
            }
        }
    }

    fn ask(&mut self, event: &Event) {
        let identity = &self.stage.identities[&event.who];
        let site = &self.stage.site;
        let mut ws = Ws::connect(site.address, &site.authority, identity).unwrap();
        let request = event.value["text"].as_str().unwrap();
        assert_eq!(ws.ask(&format!("{request}\r\n\r\n")), 101);
        let peer = Recorded {
            ws,
            has_greeted: false,
            is_subscribed: false,
            waiting: VecDeque::new(),
            in_flight: None,
            ahead: VecDeque::new(),
            missed: HashSet::new(),
        };
        self.peers.insert(event.conn, peer);
    }

    fn subscribers(&self) -> usize {
        self.peers.values().filter(|peer| peer.is_subscribed).count()
    }

    fn say(&mut self, event: &Event, later: &[Event]) {
        let Some(peer) = self.peers.get_mut(&event.conn) else { return };
        let payload = event.payload();
        let opcode = match &*event.op {
            "cont" => 0,
            "text" => 1,
            "binary" => 2,
            "close" => 8,
            "ping" => 9,
            "tcp-fin" => {
                self.peers.remove(&event.conn);
                return;
            }
            other => panic!("{}: {other}", event.case),
        };
        let is_ack = opcode == 1 && peer.has_greeted;
        if is_ack {
            let ack: Value = serde_json::from_slice(&payload).unwrap_or_default();
            let id = ack["last_id"].as_str().unwrap_or_default().to_owned();
            if let Some(in_flight) = peer.in_flight.take_if(|in_flight| !in_flight.contains(&id)) {
                // The original takes it for that of the batch: the relay waits for a real one.
                peer.ws.say(1, &payload);
                self.stage.better.insert(Better::IgnoresStrayAcks);
                // What the recording delivers next was published by then.
                let next = later.iter().take_while(|event| event.case == later[0].case);
                let next = next.filter(|event| !event.is_ours && event.op == "binary");
                for event in next {
                    self.stage.publish_missing(&records_of(&event.payload()));
                }
                let peer = self.peers.get_mut(&event.conn).unwrap();
                assert!(peer.waiting.is_empty() && peer.ws.is_silent(), "{}", event.case);
                peer.ws.acknowledge(in_flight.last().unwrap());
                return;
            }
            peer.in_flight = None;
        }
        if opcode == 2 {
            self.stage.published.extend(records_of(&payload).iter().filter_map(|r| is_id_of(r)));
        }
        let peer = self.peers.get_mut(&event.conn).unwrap();
        let first = if event.value["fin"] == false { opcode } else { 0x80 | opcode };
        let bytes = frame(first, &payload);
        // The relay may have closed before.
        let _gone = std::io::Write::write_all(&mut peer.ws.stream, &bytes);
        if event.case.starts_with("truncated") && opcode == 2 {
            assert_eq!(peer.read(8).map(|(kind, _)| kind), Some(8), "{}", event.case);
            self.stage.better.insert(Better::ClosesTruncated);
            self.peers.remove(&event.conn);
        } else if opcode == 1 && !peer.has_greeted {
            let hello: Value = serde_json::from_slice(&payload).unwrap_or_default();
            if hello["ephemeral"] == true {
                peer.missed.clone_from(&self.stage.published);
            }
            let channels = hello["subscribe"].as_array().into_iter().flatten();
            peer.is_subscribed = channels
                .filter(|channel| **channel != "a/b")
                .any(|channel| event.who != "beta" || *channel == "orders");
        }
    }

    fn hear(&mut self, event: &Event) {
        let payload = event.payload();
        if event.op == "tcp-fin" && event.case.starts_with("hub Close") {
            return self.stop(event);
        }
        if event.op == "binary" {
            self.stage.publish_missing(&records_of(&payload));
        }
        let Some(peer) = self.peers.get_mut(&event.conn) else { return };
        self.stage.checked += 1;
        match &*event.op {
            "text" => {
                let heard =
                    peer.read(1).map(|(kind, text)| (kind, String::from_utf8(text).unwrap()));
                let expected = String::from_utf8(payload).unwrap();
                assert_eq!(heard, Some((1, expected)), "{}", event.case);
                if !std::mem::replace(&mut peer.has_greeted, true) {
                    self.stage.wait_for_subscribers(self.subscribers());
                }
            }
            "binary" => {
                for expected in records_of(&payload) {
                    if is_id_of(&expected).is_some_and(|id| peer.missed.contains(&id)) {
                        self.stage.better.insert(Better::ReplaysNothingToEphemeralPeers);
                        continue;
                    }
                    if peer.ahead.is_empty() {
                        if let Some(in_flight) = peer.in_flight.take() {
                            // Other batches than in the recording, or an acknowledgement of nothing
                            // freed it there.
                            peer.ws.acknowledge(in_flight.last().unwrap());
                        }
                        let frame = peer.read(2).unwrap_or_else(|| panic!("{}", event.case));
                        assert_eq!(frame.0, 2, "{}", event.case);
                        let records = records_of(&frame.1);
                        peer.in_flight = Some(ids(&records));
                        peer.ahead.extend(records);
                    }
                    assert_same(&peer.ahead.pop_front().unwrap(), &expected, event);
                }
            }
            "pong" => assert_eq!(peer.read(10), Some((10, payload)), "{}", event.case),
            "close" => assert_eq!(peer.read(8), Some((8, payload)), "{}", event.case),
            "tcp-fin" => {
                assert!(peer.ws.read().is_none(), "{}", event.case);
                self.peers.remove(&event.conn);
            }
            other => panic!("{}: {other}", event.case),
        }
    }

    fn stop(&mut self, event: &Event) {
        let Some(peer) = self.peers.get_mut(&event.conn) else { return };
        self.stage.site.relay.signal("TERM");
        // A backlog comes at once, and not with the next record.
        let close = peer.read(8).map(|(_, payload)| payload);
        assert!(close.is_some_and(|payload| payload.starts_with(&[3, 233])), "{}", event.case);
        self.stage.better.insert(Better::SaysThatItStops);
        self.peers.clear();
    }
}

/// The records of a message over WebSocket.
fn records_of(message: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = message;
    let mut records = Vec::new();
    while let Some((length, more)) = rest.split_first_chunk::<4>() {
        let Some((record, more)) = more.split_at_checked(u32::from_be_bytes(*length) as usize)
        else {
            break;
        };
        records.push(record.to_vec());
        rest = more;
    }
    records
}

#[test]
fn what_the_original_answered_raw_clients_over_websocket_is_answered() {
    let mut replay = OverWebSocket { stage: Stage::start(), peers: HashMap::new() };
    replay.run("ws/raw.jsonl", "(all)");
    assert!(replay.stage.checked > 50, "{}", replay.stage.checked);
    let better =
        [Better::IgnoresStrayAcks, Better::ClosesTruncated, Better::SaysThatItStops].into();
    assert_eq!(replay.stage.better, better);
}

#[test]
fn what_the_originals_clients_said_over_websocket_is_said() {
    let mut replay = OverWebSocket { stage: Stage::start(), peers: HashMap::new() };
    replay.run("ws/real-clients.jsonl", "hub stops");
    assert!(replay.stage.checked > 20, "{}", replay.stage.checked);
    assert_eq!(replay.stage.better, [Better::ReplaysNothingToEphemeralPeers].into());
}

//! What raw clients, and the original's own clients, said to the original hub is said again to the
//! relay, on both transports, which answers the same byte for byte, but for the defects that are
//! listed, and for the hub's name in the route of each record.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::fs;
use std::time::Duration;

use serde_json::Value;

use super::grpc::{Call, Rpc, fields};
use super::pki::Identity;
use super::websocket::Ws;
use super::{Site, ids};
use crate::deploy::root;
use crate::peer::{Frame, frame};

/// The peers of the recordings, and what they may do.
const PEERS: &str = r#"
[keyop]
max_record = 65536

[[keyop.peer]]
name = "alpha"

[[keyop.peer]]
name = "beta"
subscribe = ["orders"]
publish = ["alerts"]

[[keyop.peer]]
name = "gamma"

[[keyop.peer]]
name = "hub"
"#;

/// What the relay does better than the original (section 4 of the description of the protocol).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum Better {
    /// An acknowledgement of nothing that was delivered frees no batch (7).
    IgnoresStrayAcks,
    /// A connection that ends within a record is closed, and not left dead (4).
    ClosesTruncated,
    /// A stop is said in a close frame, or in the end of each call (12).
    SaysThatItStops,
    /// Of two subscriptions of a peer the newer one gets the records, once (6).
    DeliversOnce,
    /// Ephemeral peers get nothing of what they missed (8).
    ReplaysNothingToEphemeralPeers,
}

struct Event {
    case: String,
    conn: u64,
    who: String,
    is_ours: bool,
    op: String,
    value: Value,
}

fn events(file: &str) -> Vec<Event> {
    let text = fs::read_to_string(root("tests/vectors/keyop").join(file)).unwrap();
    text.lines().map(|line| event(serde_json::from_str(line).unwrap())).collect()
}

fn event(value: Value) -> Event {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    Event {
        case: text("case"),
        conn: value["conn"].as_u64().unwrap_or_default(),
        who: text("who"),
        is_ours: value["dir"] == "C->S",
        op: text("op"),
        value,
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

impl Event {
    fn payload(&self) -> Vec<u8> {
        match (self.value["code"].as_u64(), self.value["hex"].as_str()) {
            (Some(code), _) => {
                let reason = self.value["reason"].as_str().unwrap_or_default();
                let code = u16::try_from(code).unwrap().to_be_bytes();
                [&code[..], reason.as_bytes()].concat()
            }
            (None, Some(hex)) => unhex(hex),
            (None, None) => self.value["text"].as_str().unwrap_or_default().as_bytes().to_vec(),
        }
    }

    /// Whether only the beginning of it was recorded.
    fn is_cut(&self) -> bool {
        let mut messages = self.value["grpc"].as_array().into_iter().flatten();
        self.value["truncated"] == true
            || self.value["partial"] == true
            || messages.any(|message| message["truncated"] == true)
    }

    /// The messages of gRPC in it.
    fn messages(&self) -> Vec<Vec<u8>> {
        let messages = self.value["grpc"].as_array().into_iter().flatten();
        messages.map(|message| unhex(message["hex"].as_str().unwrap())).collect()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let headers = self.value["headers"].as_array()?;
        let found = headers.iter().find(|header| header[0] == name)?;
        found[1].as_str()
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

/// The records of a batch over gRPC.
fn records_in(message: &[u8]) -> Vec<Vec<u8>> {
    let batch = fields(message);
    let batch = batch.first().map(|(_, batch)| fields(batch)).unwrap_or_default();
    batch.into_iter().map(|(_, record)| record).collect()
}

/// What was heard is the record of the recording, apart from the name of the hub in its route.
fn assert_same(heard: &[u8], expected: &[u8], event: &Event) {
    assert!(String::from_utf8_lossy(heard).contains("\"localhost\"]"), "{}", event.case);
    let shown = |record| String::from_utf8(without_hub(record)).unwrap();
    assert_eq!(shown(heard), shown(expected), "{}", event.case);
}

fn is_id_of(record: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(record).ok()?;
    value["id"].as_str().map(str::to_owned)
}

/// What both transports have in common.
struct Stage {
    site: Site,
    identities: HashMap<String, Identity>,
    /// Ids of records that were published.
    published: HashSet<String>,
    /// The program around the original hub published records as well: this peer does.
    program: Option<Ws>,
    better: BTreeSet<Better>,
    checked: usize,
}

impl Stage {
    fn start() -> Self {
        let site = Site::with_config(PEERS, &[]);
        let names = ["alpha", "beta", "gamma", "nobody", "hub"];
        let issue = |name: &str| (name.to_owned(), site.authority.issue(name));
        Self {
            identities: names.map(issue).into(),
            site,
            published: HashSet::new(),
            program: None,
            better: BTreeSet::new(),
            checked: 0,
        }
    }

    /// Publishes records that are delivered in the recording, and that no client has published there.
    fn publish_missing(&mut self, records: &[Vec<u8>]) {
        let missing: Vec<_> = records
            .iter()
            .filter(|record| is_id_of(record).is_some_and(|id| !self.published.contains(&id)))
            .map(|record| without_hub(record))
            .collect();
        if missing.is_empty() {
            return;
        }
        self.published.extend(ids(&missing));
        let program = self.program.get_or_insert_with(|| {
            let mut program = self.site.ws_of(&self.identities["hub"]);
            program.hello("hub", &[], false);
            program
        });
        let last = ids(&missing).pop().unwrap();
        assert_eq!(program.publish(&missing), last);
    }

    fn wait_for_subscribers(&self, count: usize) {
        self.site.wait_until_subscribed(count);
    }
}

/// A record before the hub has added its name.
fn without_hub(record: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(record.to_vec()).unwrap();
    text.replace("\"route\":[\"localhost\"],", "").replace(",\"localhost\"]", "]").into_bytes()
}

/// Cases that were recorded in part; `defects` and `sessions` have them.
const LONG: [&str; 6] = [
    "oversized 70 kB",
    "batch of 3 MB",
    "message over 11 MiB",
    "data: oversized",
    "data: frame of 3 MB",
    "ephemeral oversized",
];

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

#[test]
fn what_the_original_answered_raw_clients_over_websocket_is_answered() {
    let mut replay = OverWebSocket { stage: Stage::start(), peers: HashMap::new() };
    replay.run("ws/raw.jsonl", "(all)");
    assert!(replay.stage.checked > 50, "{}", replay.stage.checked);
    let better =
        [Better::IgnoresStrayAcks, Better::ClosesTruncated, Better::SaysThatItStops].into();
    assert_eq!(replay.stage.better, better);
}

/// A replay over gRPC.
struct OverGrpc {
    stage: Stage,
    connections: HashMap<u64, Rpc>,
    calls: HashMap<(u64, u64), Recall>,
    /// Who has acknowledged which record: it does not come again.
    acknowledged: HashSet<(String, String)>,
}

struct Recall {
    call: Call,
    who: String,
    is_subscribe: bool,
    has_subscribed: bool,
    /// It has asked for something that it may have.
    is_subscribed: bool,
    in_flight: Option<Vec<String>>,
    /// Records that came with others, and that the recording has later.
    ahead: VecDeque<Vec<u8>>,
    /// Records that were published before it came, of an ephemeral peer.
    missed: HashSet<String>,
    /// A batch of it was recorded in part.
    has_unknown: bool,
}

impl Recall {
    /// The next record; what was delivered before it is acknowledged where it has to be.
    async fn next(&mut self, acknowledged: &mut HashSet<(String, String)>) -> Vec<u8> {
        if self.ahead.is_empty() {
            if let Some(in_flight) = self.in_flight.take() {
                // Other batches than in the recording.
                let last = in_flight.last().unwrap().clone();
                acknowledged.extend(in_flight.into_iter().map(|id| (self.who.clone(), id)));
                self.call.acknowledge(&last).await;
            }
            let records = self.call.records().await;
            self.in_flight = Some(ids(&records));
            self.ahead.extend(records);
        }
        self.ahead.pop_front().expect("a batch has a record")
    }
}

impl OverGrpc {
    /// Replays the cases before one that begins so.
    async fn run(&mut self, file: &str, end: &str) {
        let mut events = events(file);
        if let Some(at) = events.iter().position(|event| event.case.starts_with(end)) {
            events.truncate(at);
        }
        let mut case = "";
        for (at, event) in events.iter().enumerate() {
            if event.case != case {
                case = &event.case;
                eprintln!("{case}");
            }
            if LONG.iter().any(|case| event.case.starts_with(case)) {
                continue;
            }
            if event.is_cut() {
                // What it had comes, and is not known.
                if let Some(recall) = self.calls.get_mut(&self.key(event)) {
                    recall.has_unknown |= !event.is_ours;
                }
                continue;
            }
            let later = events.get(at + 1..).unwrap_or_default();
            match (&*event.op, event.is_ours) {
                ("h2-preface", true) => self.connect(event).await,
                ("h2-HEADERS", true) => self.call(event).await,
                ("h2-DATA", true) => self.say(event, later).await,
                ("h2-RST_STREAM", true) => {
                    if let Some(mut recall) = self.calls.remove(&self.key(event)) {
                        // What was said last leaves before the call ends.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        recall.call.cancel();
                    }
                }
                ("h2-HEADERS", false) => self.hear_end(event).await,
                ("h2-DATA", false) => self.hear(event).await,
                ("tcp-fin", false) if event.case == "hub Close" => self.stop().await,
                ("tcp-fin", true) => {
                    self.connections.remove(&event.conn);
                    self.calls.retain(|(conn, _), _| *conn != event.conn);
                }
                _ => {}
            }
        }
    }

    fn key(&self, event: &Event) -> (u64, u64) {
        (event.conn, event.value["stream"].as_u64().unwrap())
    }

    async fn connect(&mut self, event: &Event) {
        let site = &self.stage.site;
        let identity = &self.stage.identities[&event.who];
        let rpc = Rpc::connect(site.address, &site.authority, identity).await.unwrap();
        self.connections.insert(event.conn, rpc);
    }

    async fn call(&mut self, event: &Event) {
        let path = event.header(":path").unwrap();
        let Some(rpc) = self.connections.get_mut(&event.conn) else { return };
        // The relay has one session of a peer: one that was taken over is called by its successor.
        let Some(call) = rpc.try_call(path).await else { return };
        let is_subscribe = path.ends_with("/Subscribe");
        let recall = Recall {
            call,
            who: event.who.clone(),
            is_subscribe,
            has_subscribed: false,
            is_subscribed: false,
            in_flight: None,
            ahead: VecDeque::new(),
            missed: HashSet::new(),
            has_unknown: false,
        };
        self.calls.insert(self.key(event), recall);
    }

    async fn say(&mut self, event: &Event, later: &[Event]) {
        let key = self.key(event);
        for message in event.messages() {
            let Some(recall) = self.calls.get_mut(&key) else { return };
            if recall.is_subscribe && recall.has_subscribed {
                self.acknowledge(key, &message, event, later).await;
                continue;
            }
            if recall.is_subscribe {
                recall.has_subscribed = true;
                // The field of ephemeral peers.
                if message.ends_with(&[0x18, 1]) {
                    recall.missed.clone_from(&self.stage.published);
                }
                recall.call.say(&message).await;
                // The newer of two takes over.
                let older = self.calls.iter().filter(|(other, recall)| {
                    **other != key
                        && other.0 == key.0
                        && recall.is_subscribe
                        && recall.in_flight.is_none()
                });
                let older: Vec<_> = older.map(|(key, _)| *key).collect();
                if event.case.starts_with("two Subscribe") {
                    for older in older {
                        let mut recall = self.calls.remove(&older).unwrap();
                        assert_eq!(recall.call.status().await.0, 1, "{}", event.case);
                        self.stage.better.insert(Better::DeliversOnce);
                    }
                }
                let names = |channel: &[u8]| message.windows(6).any(|bytes| bytes == channel);
                let may = match &*self.calls[&key].who {
                    "nobody" => false,
                    "beta" => names(b"orders"),
                    _ => names(b"orders") || names(b"alerts"),
                };
                self.calls.get_mut(&key).unwrap().is_subscribed = may;
                if may {
                    self.stage.site.wait_until_subscribed(self.subscribers());
                }
            } else {
                self.stage.published.extend(published(&message));
                recall.call.say(&message).await;
            }
        }
        if event.value["end_stream"] == true
            && let Some(recall) = self.calls.get_mut(&key)
        {
            recall.call.finish();
        }
    }

    /// What the recording has is one of something that was not delivered: the relay waits for that
    /// of the batch.
    async fn acknowledge(
        &mut self,
        key: (u64, u64),
        message: &[u8],
        event: &Event,
        later: &[Event],
    ) {
        let recall = self.calls.get_mut(&key).unwrap();
        let said = fields(message).pop().map(|(_, ack)| super::grpc::last_id(&ack));
        let has_come = |recall: &Recall| {
            let mut come = recall.in_flight.iter().flatten();
            come.any(|id| Some(id) == said.as_ref())
        };
        while recall.has_unknown && !has_come(recall) {
            // It is of a batch that was recorded in part.
            recall.ahead.clear();
            recall.next(&mut self.acknowledged).await;
        }
        recall.call.say(message).await;
        let Some(in_flight) = recall.in_flight.take() else { return };
        let who = recall.who.clone();
        self.acknowledged.extend(in_flight.iter().map(|id| (who.clone(), id.clone())));
        if said.is_some_and(|said| in_flight.contains(&said)) {
            return;
        }
        self.stage.better.insert(Better::IgnoresStrayAcks);
        let next = later.iter().take_while(|later| later.case == event.case);
        let records: Vec<_> = next
            .filter(|later| !later.is_ours && later.op == "h2-DATA" && self.is_subscribe(later))
            .flat_map(|later| later.messages())
            .flat_map(|message| records_in(&message))
            .collect();
        self.stage.publish_missing(&records);
        let recall = self.calls.get_mut(&key).unwrap();
        assert!(recall.call.is_silent().await, "{}", event.case);
        recall.call.acknowledge(in_flight.last().unwrap()).await;
    }

    /// Peers that are subscribed to something.
    fn subscribers(&self) -> usize {
        let calls = self.calls.values().filter(|recall| recall.is_subscribed);
        calls.map(|recall| &*recall.who).collect::<HashSet<_>>().len()
    }

    fn is_subscribe(&self, event: &Event) -> bool {
        let stream = event.value["stream"].as_u64().unwrap();
        self.calls.get(&(event.conn, stream)).is_some_and(|recall| recall.is_subscribe)
    }

    async fn hear(&mut self, event: &Event) {
        let key = self.key(event);
        for message in event.messages() {
            let is_subscribe = self.is_subscribe(event);
            if is_subscribe {
                self.stage.publish_missing(&records_in(&message));
            }
            let Some(recall) = self.calls.get_mut(&key) else { return };
            self.stage.checked += 1;
            if !is_subscribe {
                let heard = recall.call.next().await;
                assert_eq!(heard.as_deref(), Some(&*message), "{}", event.case);
                continue;
            }
            for expected in records_in(&message) {
                let id = is_id_of(&expected).unwrap();
                if self.acknowledged.contains(&(recall.who.clone(), id.clone())) {
                    // The original delivers it in both of two calls.
                    self.stage.better.insert(Better::DeliversOnce);
                } else if recall.missed.contains(&id) {
                    self.stage.better.insert(Better::ReplaysNothingToEphemeralPeers);
                } else {
                    let mut heard = recall.next(&mut self.acknowledged).await;
                    while recall.has_unknown && is_id_of(&heard).as_ref() != Some(&id) {
                        heard = recall.next(&mut self.acknowledged).await;
                    }
                    assert_same(&heard, &expected, event);
                }
            }
        }
    }

    async fn hear_end(&mut self, event: &Event) {
        let Some(code) = event.header("grpc-status") else { return };
        let key = self.key(event);
        let Some(mut recall) = self.calls.remove(&key) else { return };
        let expected = (code.parse().unwrap(), event.header("grpc-message").unwrap().to_owned());
        assert_eq!(recall.call.status().await, expected, "{}", event.case);
        self.stage.checked += 1;
    }

    async fn stop(&mut self) {
        if !self.stage.better.insert(Better::SaysThatItStops) {
            return;
        }
        self.stage.site.relay.signal("TERM");
        let mut codes = BTreeSet::new();
        for (_, mut recall) in self.calls.drain().filter(|(_, recall)| recall.who == "gamma") {
            codes.insert(recall.call.status().await.0);
        }
        // Some had ended before: by themselves, or since a newer connection took over.
        assert!(codes.contains(&14) && codes.is_subset(&[0, 1, 14].into()), "{codes:?}");
    }
}

/// The ids in what a client published, as far as it is a batch.
fn published(message: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(message);
    let ids = text.split("\"id\":\"").skip(1);
    ids.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_original_answered_raw_clients_over_grpc_is_answered() {
    let (connections, calls) = (HashMap::new(), HashMap::new());
    let acknowledged = HashSet::new();
    let mut replay = OverGrpc { stage: Stage::start(), connections, calls, acknowledged };
    replay.run("grpc/raw.jsonl", "(all)").await;
    assert!(replay.stage.checked > 25, "{}", replay.stage.checked);
    let better = [Better::IgnoresStrayAcks, Better::SaysThatItStops, Better::DeliversOnce].into();
    assert_eq!(replay.stage.better, better);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_originals_clients_said_over_grpc_is_said() {
    let (connections, calls) = (HashMap::new(), HashMap::new());
    let acknowledged = HashSet::new();
    let mut replay = OverGrpc { stage: Stage::start(), connections, calls, acknowledged };
    replay.run("grpc/real-clients.jsonl", "hub stops").await;
    assert!(replay.stage.checked > 35, "{}", replay.stage.checked);
    assert_eq!(replay.stage.better, [Better::ReplaysNothingToEphemeralPeers].into());
}

#[test]
fn what_the_originals_clients_said_over_websocket_is_said() {
    let mut replay = OverWebSocket { stage: Stage::start(), peers: HashMap::new() };
    replay.run("ws/real-clients.jsonl", "hub stops");
    assert!(replay.stage.checked > 20, "{}", replay.stage.checked);
    assert_eq!(replay.stage.better, [Better::ReplaysNothingToEphemeralPeers].into());
}

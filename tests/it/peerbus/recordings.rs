//! What raw clients, and the original's adapters, said to the original broker is said again to the
//! relay, which answers the same byte for byte, but for the defects that are listed.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::net::Shutdown;

use serde_json::Value;

use super::{Adapter, Site, register};
use crate::deploy::root;
use crate::peer::{Frame, Peer, frame};

/// Where the relay does better than the original: the case, of which frame of it (its id, key or
/// type), and what it does instead.
const BETTER: [(&str, &str, Better); 7] = [
    ("lone surrogate + invalid utf8 escape in body", "c3", Better::DeliversNothing),
    (
        "version of envelope not checked, from not checked, unknown field dropped",
        "c4",
        Better::DeliversNothing,
    ),
    (
        "foreign ack clears another peer message [defect]",
        "peers",
        Better::KeepsWhatAnotherAcknowledged,
    ),
    (
        "other token after owner left: accepted and drains its queue [defect]",
        "register",
        Better::KeepsTheName,
    ),
    (
        "exactly 1 MiB envelope passes; broker->client deliver may exceed 1 MiB",
        "big1",
        Better::DeliversNothing,
    ),
    ("escape growth: 400 kB of < becomes 2.4 MB deliver", "big2", Better::DeliversNothing),
    ("unmasked frame", "close", Better::SaysWhatWasBroken),
];

/// Storms of the original, of which the beginnings were recorded: `defects` shows that there are
/// none.
const STORMS: [&str; 2] = ["takeover: second adapter", "poison: 1,048,570-byte envelope"];

/// What the relay does instead.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Better {
    /// A message in another's name (c3, c4) is dropped: by the original, any peer can be any other
    /// (sections 3 and 10). So is one whose delivery no client takes (section 9, 5).
    DeliversNothing,
    /// What another than its recipient acknowledged comes again (section 9, 7).
    KeepsWhatAnotherAcknowledged,
    /// A name stays its owner's while that is away (section 9, 8).
    KeepsTheName,
    /// A client that breaks the framing rules is closed with 1002 (section 1).
    SaysWhatWasBroken,
}

struct Event {
    case: String,
    conn: u64,
    is_ours: bool,
    op: String,
    is_whole: bool,
    payload: Vec<u8>,
    text: String,
}

fn events(file: &str) -> Vec<Event> {
    let text = fs::read_to_string(root("tests/vectors/peerbus").join(file)).unwrap();
    text.lines().map(|line| event(&serde_json::from_str(line).unwrap())).collect()
}

fn event(value: &Value) -> Event {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let op = text("op");
    let payload = match (value["code"].as_u64(), value["hex"].as_str()) {
        (Some(code), _) => {
            let code = u16::try_from(code).unwrap().to_be_bytes();
            [&code[..], text("reason").as_bytes()].concat()
        }
        (None, Some(hex)) => unhex(hex),
        (None, None) => text("text").into_bytes(),
    };
    let length = value["len"].as_u64().map(|length| usize::try_from(length).unwrap());
    Event {
        case: text("case"),
        conn: value["conn"].as_u64().unwrap(),
        is_ours: value["dir"] == "C->S",
        is_whole: value["fin"] != false,
        payload: completed(payload, length),
        text: text("text"),
        op,
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// The message of a recorded length: of long ones only the beginning was recorded, and bytes that
/// are no text as U+FFFD.
fn completed(recorded: Vec<u8>, length: Option<usize>) -> Vec<u8> {
    let Some(length) = length else { return recorded };
    if recorded.len() > length {
        let text = String::from_utf8(recorded).unwrap();
        let parts: Vec<_> = text.split('\u{fffd}').map(str::as_bytes).collect();
        let bytes = parts.join(&0xff);
        assert_eq!(bytes.len(), length, "{text}");
        return bytes;
    }
    if recorded.len() == length {
        return recorded;
    }
    let is_envelope = recorded.starts_with(br#"{"protocol_version":"v1","id""#);
    let end: &[u8] = if is_envelope { br#"","hmac":"00"}"# } else { b"" };
    let mut bytes = recorded;
    let Some(filler) = bytes.pop() else { return bytes };
    bytes.resize(length - end.len(), filler);
    bytes.extend_from_slice(end);
    bytes
}

/// The value of a string member in a recorded text.
fn member(text: &[u8], name: &str) -> String {
    let value: Value = serde_json::from_slice(text).unwrap_or_default();
    value[name].as_str().unwrap_or_default().to_owned()
}

impl Event {
    /// Whether it is the frame that a row of the table is about.
    fn is(&self, of: &str) -> bool {
        let says = |name: &str| member(&self.payload, name) == of;
        // Long ones were recorded in part.
        let begins = |name: &str| self.text.contains(&format!("\"{name}\":\"{of}\""));
        self.op == of || says("type") || begins("delivery_key")
    }
}

struct Replay {
    site: Site,
    adapters: HashMap<u64, Adapter>,
    answers: HashMap<u64, (u16, String)>,
    /// Those that have said something since the bus was known to have all of it.
    unsettled: Vec<u64>,
    /// The broker was stopped in this case.
    is_stopping: bool,
    is_stopped: bool,
    better: usize,
}

impl Replay {
    fn start() -> Self {
        Self {
            site: Site::start(&[]),
            adapters: HashMap::new(),
            answers: HashMap::new(),
            unsettled: Vec::new(),
            is_stopping: false,
            is_stopped: false,
            better: 0,
        }
    }

    /// Has the bus take what was said: whoever comes next finds it.
    fn settle(&mut self) {
        for conn in std::mem::take(&mut self.unsettled) {
            if let Some(adapter) = self.adapters.get_mut(&conn) {
                adapter.settle();
            }
        }
    }

    fn ask(&mut self, event: &Event) {
        self.settle();
        if std::mem::take(&mut self.is_stopped) {
            self.site.start_again(&[]);
        }
        let mut peer = Peer::connect(self.site.address);
        let here = self.site.address.to_string();
        let request = ["127.0.0.1:47902", "127.0.0.1:47912"]
            .iter()
            .fold(event.text.clone(), |text, recorded| text.replace(recorded, &here));
        let answer = peer.ask(&format!("{request}\r\n\r\n"));
        self.answers.insert(event.conn, answer);
        self.adapters.insert(event.conn, Adapter::of(peer));
    }

    /// The answer to a request has the status of the recording, and agrees to nothing.
    fn check_answer(&mut self, event: &Event) {
        let (status, head) = &self.answers[&event.conn];
        let recorded: u16 = event.text.split(' ').nth(1).unwrap().parse().unwrap();
        assert_eq!(*status, recorded, "{}: {head}", event.case);
        for absent in ["sec-websocket-protocol", "sec-websocket-extensions"] {
            assert!(!head.contains(absent), "{}: {head}", event.case);
        }
        if *status == 426 {
            assert!(head.contains("connection: upgrade"), "{head}");
            assert!(head.contains("upgrade: websocket"), "{head}");
        }
        if *status != 101 {
            // Its text is the relay's own.
            self.adapters.remove(&event.conn);
        }
    }

    fn say(&mut self, event: &Event) {
        let Event { case, conn, op, payload, is_whole, .. } = event;
        let Some(adapter) = self.adapters.get_mut(conn) else { return };
        let opcode = match &**op {
            "cont" => 0,
            "text" => 1,
            "binary" => 2,
            "close" => 8,
            "ping" => 9,
            "tcp-fin" => {
                // It may have ended before.
                let _ended = adapter.peer.stream.shutdown(Shutdown::Write);
                return;
            }
            other => panic!("{case}: {other}"),
        };
        let first = if *is_whole { 0x80 | opcode } else { opcode };
        let bytes = if case == "unmasked frame" && payload == b"{}" {
            [&[first, 2][..], payload].concat()
        } else {
            frame(first, payload)
        };
        // The relay may have closed before.
        let _gone = (&adapter.peer.stream).write_all(&bytes);
        let is_for_bus = payload.starts_with(b"{") && member(payload, "type") != "register";
        if opcode == 1 && *is_whole && is_for_bus && !self.unsettled.contains(conn) {
            self.unsettled.push(*conn);
        }
    }

    fn hear(&mut self, event: &Event) {
        let Event { case, conn, op, payload, .. } = event;
        if op == "tcp-fin" && std::mem::take(&mut self.is_stopping) {
            self.settle();
            self.site.relay.signal("TERM");
            self.is_stopped = true;
        }
        let Some(adapter) = self.adapters.get_mut(conn) else { return };
        let expected: Option<Frame> = match &**op {
            "text" => Some((1, payload.clone())),
            "pong" => Some((10, payload.clone())),
            "close" => Some((8, payload.clone())),
            "tcp-fin" => None,
            other => panic!("{case}: {other}"),
        };
        let heard = adapter.read();
        let shown = |frame: &Option<Frame>| {
            frame.as_ref().map(|(op, text)| (*op, String::from_utf8_lossy(text).into_owned()))
        };
        assert!(heard == expected, "{case}: {:?} instead of {:?}", shown(&heard), shown(&expected));
        if heard.is_none() {
            self.adapters.remove(conn);
        }
    }

    /// Sees what the relay does better in an event, which is done with that.
    fn see(&mut self, better: Better, event: &Event) {
        match better {
            // The next thing that comes is what comes next in the recording.
            Better::DeliversNothing => {}
            Better::KeepsWhatAnotherAcknowledged => {
                self.hear(event);
                let adapter = self.adapters.get_mut(&event.conn).unwrap();
                for key in ["q-a0", "q-b1", "q-b2", "q-b3"] {
                    assert_eq!(adapter.delivery().0, key, "{}", event.case);
                    adapter.acknowledge(key);
                }
                self.unsettled.push(event.conn);
            }
            Better::KeepsTheName => {
                self.say(event);
                let adapter = self.adapters.get_mut(&event.conn).unwrap();
                let (code, reason) = adapter.peer.read_close();
                assert_eq!((code, &*reason), (1008, "name claimed under a different token"));
                // Its owner comes back in the other's place, for what follows.
                let mut owner = Adapter::connect(self.site.address);
                owner.say(&register("tok", &member(&event.payload, "name")));
                self.adapters.insert(event.conn, owner);
            }
            Better::SaysWhatWasBroken => {
                let adapter = self.adapters.get_mut(&event.conn).unwrap();
                assert_eq!(adapter.peer.read_close().0, 1002, "{}", event.case);
            }
        }
        self.better += 1;
    }

    fn run(&mut self, file: &str) -> usize {
        let mut replayed = 0;
        let mut last = String::new();
        for event in &events(file) {
            if STORMS.iter().any(|storm| event.case.starts_with(storm)) {
                continue;
            }
            if event.case != last {
                last.clone_from(&event.case);
                self.is_stopping = last.starts_with("broker ") || last.contains("server SIGTERM");
            }
            replayed += 1;
            let better = BETTER.iter().find(|(case, of, better)| {
                *case == event.case
                    && event.is(of)
                    && event.is_ours == (*better == Better::KeepsTheName)
            });
            match (better, &*event.op, event.is_ours) {
                (Some((.., better)), ..) => self.see(*better, event),
                (None, "dial-failed" | "http-body", _) => {}
                (None, "http", true) => self.ask(event),
                (None, "http", false) => self.check_answer(event),
                (None, _, true) => self.say(event),
                (None, _, false) => self.hear(event),
            }
        }
        replayed
    }
}

#[test]
fn what_the_original_answered_raw_clients_is_answered() {
    let mut replay = Replay::start();
    assert!(replay.run("raw.jsonl") > 300);
    assert_eq!(replay.better, BETTER.len(), "a defect was not met");
}

#[test]
fn what_the_original_and_its_adapters_said_is_said() {
    let mut replay = Replay::start();
    assert!(replay.run("adapters.jsonl") > 120);
}

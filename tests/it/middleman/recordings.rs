//! What raw clients, and the original's clients and services, said to the original broker is said
//! again to the relay, which answers the same, but for the defects that are listed.
//!
//! Messages are compared whole but for the order of their headers, which is random with the
//! original. Names of connections and numbers of requests are the relay's own. A body ends where
//! its sender has ended it: the original adds a line with each hop.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::net::Shutdown;

use serde_json::Value;

use super::{CLIENT, Heard, SERVICE, Site, Speaker};
use crate::deploy::root;
use crate::peer::Peer;

/// Where the relay does better than the original: the case, what the text of the frame contains
/// that it is about, and what it does instead.
const BETTER: [(&str, &str, Better); 12] = [
    ("denied: PUB (still executed [defect])", "leak", Better::SaysNothing),
    ("denied: REQ (no responder), RES", "Not trusted REQ X", Better::AnswersADenial),
    ("denied: REQ (no responder), RES", "No responder for REQ X", Better::SaysNothing),
    ("denied: REQ (no responder), RES", "No client for request ID", Better::SaysNothing),
    ("client may not PUB to MSG: (denied but delivered [defect])", "spoof", Better::SaysNothing),
    (
        "RES by another connection is accepted (no owner check) [defect]",
        "stolen",
        Better::TakesTheAnswerOfTheAskedAlone,
    ),
    ("two responders: balanced, one may take several", "n7", Better::AsksInOrder),
    ("EREQ makes PUB legal for clients", "ok", Better::SaysNothing),
    ("dead responders: REQ hangs for ever", "lost?", Better::FailsAtOnce),
    ("new responder gets the waiting request", "lost?", Better::SaysNothing),
    ("grants survive the service", "still", Better::EndsGrants),
    ("JS client against the server as it is", "hello from js", Better::DeliversToItself),
];

/// Connections whose name a proxy kept from them, and what the original called them.
const NAMELESS: [(u64, &str); 2] = [(7, "dc5g1vhksdubdvjlldl0"), (9, "nobody heard it")];

/// What the relay does instead.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Better {
    /// A denial stops the action (6.1), and a request that has failed is no later responder's (6.5).
    SaysNothing,
    /// Who asks what it may not has an answer as well, by which its client ends the request.
    AnswersADenial,
    /// Nobody but the responder that was asked answers (6.4).
    TakesTheAnswerOfTheAskedAlone,
    /// Requests of one sender are asked in their order, and shared alike.
    AsksInOrder,
    /// A request fails with its responder, and at once where there is none (6.5).
    FailsAtOnce,
    /// Grants end with who gave them (6.8).
    EndsGrants,
    /// Who subscribes and then publishes gets its own message (section 4, order).
    DeliversToItself,
}

struct Event {
    case: String,
    conn: u64,
    is_ours: bool,
    op: String,
    text: String,
    code: Option<u16>,
    length: usize,
}

fn events(file: &str) -> VecDeque<Event> {
    let text = fs::read_to_string(root("tests/vectors/middleman").join(file)).unwrap();
    text.lines().map(|line| event(&serde_json::from_str(line).unwrap())).collect()
}

fn event(value: &Value) -> Event {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let number = |key: &str| value[key].as_u64();
    Event {
        case: text("case"),
        conn: number("conn").unwrap(),
        is_ours: value["dir"] == "C->S",
        op: text("op"),
        text: value["text"].as_str().map_or_else(|| text("hex"), str::to_owned),
        code: number("code").map(|code| code.try_into().unwrap()),
        length: usize::try_from(number("len").unwrap_or_default()).unwrap(),
    }
}

impl Event {
    /// The text of its recorded length: of a long one only the beginning was recorded.
    fn whole(&self) -> String {
        let (text, end) = (&self.text, "\r\n.\r\n");
        if !text.ends_with('z') {
            return text.clone();
        }
        // What the original added at the end was not recorded either.
        let end = if self.is_ours { end.to_owned() } else { format!("\n{end}") };
        let fill = self.length - text.len() - end.len();
        [text, &*"z".repeat(fill), &*end].concat()
    }
}

/// What a requester has written above a request.
#[derive(Clone, Default)]
struct Asked {
    rid: Option<(String, String)>,
    req_id: Option<String>,
}

struct Replay {
    site: Site,
    speakers: HashMap<u64, Speaker>,
    /// Recorded names, and those of the relay.
    names: Vec<(String, String)>,
    /// Recorded numbers of requests, and those of the relay.
    numbers: HashMap<String, String>,
    /// The last request of each connection.
    asked: HashMap<u64, Asked>,
    /// The recording is that of the original's own clients.
    is_of_clients: bool,
    better: usize,
}

impl Replay {
    fn start() -> Self {
        Self {
            site: Site::start(&[]),
            speakers: HashMap::new(),
            names: Vec::new(),
            numbers: HashMap::new(),
            asked: HashMap::new(),
            is_of_clients: false,
            better: 0,
        }
    }

    fn speaker(&mut self, conn: u64) -> &mut Speaker {
        self.speakers.get_mut(&conn).unwrap()
    }

    /// A recorded text with the relay's names.
    fn translated(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours))
    }

    /// An answer with the number that the relay gave to the request.
    fn numbered(&self, text: &str) -> String {
        let Some((_, theirs)) = asked(text).rid else { return text.to_owned() };
        let Some(ours) = self.numbers.get(&theirs) else { return text.to_owned() };
        let spellings = ["rid:", "rid: "].map(|name| format!("{name}{theirs}"));
        let [close, apart] = spellings.map(|line| (format!("\n{line}\r"), format!("\n{line}\n")));
        [close.0, close.1, apart.0, apart.1]
            .iter()
            .fold(text.to_owned(), |text, line| text.replace(line, &line.replace(&theirs, ours)))
    }

    fn ask(&mut self, event: &Event) {
        let mut peer = Peer::connect(self.site.address);
        let (status, head) = peer.ask(&format!("{}\r\n\r\n", event.text));
        assert_eq!(status, 101, "{head}");
        for absent in ["sec-websocket-protocol", "sec-websocket-extensions"] {
            assert!(!head.contains(absent), "{}: {head}", event.case);
        }
        self.speakers.insert(event.conn, Speaker::of(peer));
    }

    fn say(&mut self, event: &Event) {
        let mut text = self.translated(&event.whole());
        if text.starts_with("RES ") {
            text = self.numbered(&text);
        }
        if text.starts_with("REQ ") {
            self.asked.insert(event.conn, asked(&text));
        }
        let Some(speaker) = self.speakers.get_mut(&event.conn) else { return };
        match &*event.op {
            "text" => speaker.say(&text),
            "binary" => speaker.peer.send(2, &unhex(&event.text)),
            "ping" => speaker.peer.send(9, &unhex(&event.text)),
            "close" => {
                let code = event.code.map(u16::to_be_bytes);
                speaker.peer.send(8, code.as_ref().map_or(&[], |code| code));
            }
            "tcp-fin" => {
                // It may have ended before.
                let _ended = speaker.peer.stream.shutdown(Shutdown::Write);
                return;
            }
            other => panic!("{}: {other}", event.case),
        }
        // Nobody else may be before it: the original's clients waited.
        let says_no_more = event.op == "close" || event.case.starts_with("malformed");
        let is_login = [SERVICE, CLIENT].contains(&&*text);
        if event.op == "text" && !is_login && !says_no_more && !speaker.guid.is_empty() {
            speaker.settle();
        }
    }

    fn hear(&mut self, event: &Event) {
        let Event { case, conn, op, .. } = event;
        let Some(mut speaker) = self.speakers.remove(conn) else { return };
        let is_over = match &**op {
            "text" => {
                self.hear_text(&mut speaker, event);
                false
            }
            "pong" => {
                assert_eq!(speaker.read(), Some((10, unhex(&event.text))), "{case}");
                false
            }
            "close" => {
                let code = event.code.map(u16::to_be_bytes);
                let code = code.as_ref().map_or(&[][..], |code| code);
                assert_eq!(speaker.read(), Some((8, code.to_vec())), "{case}");
                false
            }
            "tcp-fin" => {
                // The original tells nobody why.
                let expected = [1_001, 1_002, 1_003, 1_008];
                if let Some((opcode, payload)) = speaker.read() {
                    let code = u16::from_be_bytes(payload[..2].try_into().unwrap());
                    assert!(opcode == 8 && expected.contains(&code), "{case}: {opcode} {code}");
                    speaker.peer.send(8, &payload[..2]);
                    assert_eq!(speaker.read(), None, "{case}");
                }
                true
            }
            other => panic!("{case}: {other}"),
        };
        if !is_over {
            self.speakers.insert(*conn, speaker);
        }
    }

    fn hear_text(&mut self, speaker: &mut Speaker, event: &Event) {
        let (case, conn, recorded) = (&event.case, event.conn, event.whole());
        let heard = speaker.text();
        if recorded.len() == 20 {
            assert_eq!(heard.len(), 20, "{case}: {heard}");
            speaker.guid.clone_from(&heard);
            self.names.push((recorded, heard));
            return;
        }
        if !recorded.contains("\r\n") {
            assert_eq!(heard, recorded, "{case}");
            let nameless = NAMELESS.iter().find(|(of, _)| *of == conn && self.is_of_clients);
            if let Some((_, name)) = nameless {
                speaker.guid = speaker.text();
                self.names.push(((*name).to_owned(), speaker.guid.clone()));
            }
            return;
        }
        let mut heard = Heard::parse(&heard);
        let mut expected = Heard::parse(&self.translated(&recorded));
        if recorded.starts_with("RES ") {
            self.repair(conn, &mut expected);
        }
        if recorded.starts_with("REQ ") {
            // The number is the relay's own.
            let rid = |heard: &mut Heard| {
                let at = heard.headers.iter().position(|(name, _)| name == "Rid").unwrap();
                heard.headers.remove(at).1
            };
            let (theirs, ours) = (rid(&mut expected), rid(&mut heard));
            self.numbers.insert(theirs, ours);
        }
        if expected.top != "PUB ERROR" {
            // The line that the original adds.
            expected.body = expected.body.strip_suffix('\n').unwrap_or(&expected.body).to_owned();
        }
        assert_eq!(heard, expected, "{case}");
    }

    /// What a requester has written above its request comes back as it was written.
    fn repair(&self, conn: u64, answer: &mut Heard) {
        let Some(Asked { rid, req_id }) = self.asked.get(&conn) else { return };
        if let Some(req_id) = req_id {
            for (name, _) in &mut answer.headers {
                if name == "Reqid" {
                    name.clone_from(req_id);
                }
            }
        }
        answer.headers.extend(rid.clone());
        answer.headers.sort();
    }

    /// Sees what the relay does better in an event, which is done with that.
    fn see(&mut self, better: Better, event: &Event, rest: &mut VecDeque<Event>) {
        let case = &event.case;
        match better {
            // The next thing that comes is what comes next in the recording.
            Better::SaysNothing => {}
            Better::AnswersADenial => {
                self.hear(event);
                let answer = self.speaker(8).message();
                assert_eq!((&*answer.top, answer.header("rid")), ("RES X", Some("mine")), "{case}");
                assert_eq!(answer.header("Error"), Some("Not trusted"), "{case}");
            }
            Better::TakesTheAnswerOfTheAskedAlone => {
                let error = self.speaker(9).error();
                assert_eq!(error, "No client for request ID  RES Svc", "{case}");
            }
            Better::AsksInOrder => {
                while rest.front().is_some_and(|next| next.case == *case) {
                    rest.pop_front();
                }
                let mut all = Vec::new();
                for conn in [7, 20] {
                    let heard = self.speaker(conn).settled().into_iter();
                    let heard: Vec<_> = heard.map(|heard| (heard.top, heard.body)).collect();
                    assert!(heard.is_sorted(), "{case}: {heard:?}");
                    // One of them has the request of before as well.
                    assert!((3..=5).contains(&heard.len()), "{case}: {heard:?}");
                    all.extend(heard);
                }
                all.sort();
                let expected = (0..8).map(|number| ("REQ Svc".to_owned(), format!("n{number}")));
                assert_eq!(all, expected.collect::<Vec<_>>());
            }
            Better::FailsAtOnce => {
                // Those that nobody has answered: one of before, and eight.
                for _ in 0..9 {
                    assert_eq!(self.speaker(8).error(), "No responder for REQ Svc", "{case}");
                }
                // Nobody is there any more who lets clients ask.
                self.say(event);
                assert_eq!(self.speaker(8).error(), "Not trusted REQ Svc", "{case}");
            }
            Better::EndsGrants => {
                assert_eq!(self.speaker(9).error(), "Not trusted PUB Chat", "{case}");
                // For what follows.
                self.speaker(21).tell(&["EPUB Chat", "ESUB Chat"]);
                self.speaker(8).tell(&["SUB Chat"]);
            }
            Better::DeliversToItself => {
                self.say(event);
                let heard = self.speaker(event.conn).message();
                assert_eq!((&*heard.top, &*heard.body), ("PUB Room", "hello from js"), "{case}");
            }
        }
        self.better += 1;
    }

    /// 200 publications of one sender come in their order; the original's did not.
    fn hear_in_order(&mut self, event: Event, rest: &mut VecDeque<Event>) {
        let case = event.case.clone();
        let mut sent = Vec::new();
        let mut next = Some(event);
        while let Some(event) = next {
            if event.is_ours {
                sent.push(event.text.clone());
                self.speaker(event.conn).say(&event.text);
            }
            next = rest.pop_front_if(|next| next.case == case);
        }
        assert_eq!(sent.len(), 200);
        for number in 0..200 {
            assert_eq!(self.speaker(8).message().body, number.to_string());
        }
    }

    fn run(&mut self, file: &str) -> usize {
        let mut rest = events(file);
        self.is_of_clients = file == "clients.jsonl";
        let mut replayed = 0;
        while let Some(event) = rest.pop_front() {
            replayed += 1;
            if event.case == "order of 200 PUBs of one sender" {
                self.hear_in_order(event, &mut rest);
                continue;
            }
            if event.case.starts_with("INT with unknown forcid") && !event.is_ours {
                // The original is dead from here on.
                if self.speakers.contains_key(&21) {
                    self.survives();
                }
                continue;
            }
            let stops = ["server SIGTERM", "server stop"].contains(&&*event.case);
            if stops && event.op == "tcp-fin" && !self.speakers.is_empty() {
                self.stops(&event.case);
                continue;
            }
            let better = BETTER.iter().find(|(case, of, better)| {
                let is_of_ours = matches!(better, Better::FailsAtOnce | Better::DeliversToItself);
                *case == event.case && event.text.contains(of) && event.is_ours == is_of_ours
            });
            match (better, &*event.op, event.is_ours) {
                (Some((.., better)), ..) => self.see(*better, &event, &mut rest),
                (None, "http", true) => self.ask(&event),
                (None, "http", false) => {}
                (None, _, true) => self.say(&event),
                (None, _, false) => self.hear(&event),
            }
        }
        replayed
    }

    /// A service that names a connection that is not there is told so, and nobody else hears of it.
    fn survives(&mut self) {
        for conn in [8, 21] {
            let mut speaker = self.speakers.remove(&conn).unwrap();
            let of = speaker.settled();
            assert!(of.iter().all(|heard| conn == 21 && heard.top == "PUB ERROR"), "{of:?}");
        }
        self.better += 1;
    }

    /// The relay ends: who is there is told so.
    fn stops(&mut self, case: &str) {
        self.site.relay.signal("TERM");
        for (_, mut speaker) in self.speakers.drain() {
            let (code, _) = speaker.peer.read_close();
            assert_eq!(code, 1_001, "{case}");
        }
        self.site.start_again();
    }
}

fn asked(text: &str) -> Asked {
    let mut asked = Asked::default();
    for line in text.lines().skip(1).take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').unwrap();
        match &*name.to_ascii_lowercase() {
            "rid" => asked.rid = Some((name.to_owned(), value.trim().to_owned())),
            "reqid" => asked.req_id = Some(name.to_owned()),
            _ => {}
        }
    }
    asked
}

fn unhex(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

#[test]
fn what_the_original_answered_raw_clients_is_answered() {
    let mut replay = Replay::start();
    assert!(replay.run("raw.jsonl") > 180);
    assert_eq!(replay.better, 12, "a defect was not met");
}

#[test]
fn what_the_original_its_services_and_its_clients_said_is_said() {
    let mut replay = Replay::start();
    assert!(replay.run("clients.jsonl") > 120);
    assert_eq!(replay.better, 1, "a defect was not met");
}

//! What bare clients and real servers said to each other is said again to the relay, which
//! answers the same, but for the defects that are listed.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use serde_json::Value;
use socket2::Socket;

use super::{SECRET, Site, token, unix_now};
use crate::deploy::root;
use crate::peer::Peer;

/// Cases that take the original's time: [`super::sessions`] has them.
const TIMED: [&str; 3] = ["no auth at all", "no health answers", "answers health"];

/// Where the relay does otherwise, and what: the rest of the case is not replayed.
const BETTER: [(&str, &str, Better); 5] = [
    ("after auth: fragmented", "cont", Better::Delivers),
    ("after auth: 8821 bytes", "binary", Better::TooLarge),
    ("after auth: 32768 bytes", "binary", Better::TooLarge),
    ("after auth: 32769 bytes", "binary", Better::TooLarge),
    ("subscribe 244", "binary", Better::TooLarge),
];

/// What the relay does instead.
#[derive(Clone, Copy)]
enum Better {
    /// A message in fragments is one.
    Delivers,
    /// A message that is too long is delivered to nobody, and its sender told so.
    TooLarge,
}

struct Event {
    case: String,
    is_ours: bool,
    op: String,
    is_whole: bool,
    bytes: Vec<u8>,
    text: String,
    note: String,
}

fn events(file: &str) -> Vec<Event> {
    let text = fs::read_to_string(root("tests/vectors/netbird").join(file)).unwrap();
    let read = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let hex = text("hex");
        let pairs = hex.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap());
        let bytes = pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap());
        let mut bytes: Vec<_> = bytes.collect();
        // Of long messages the beginning was recorded, and how long they are.
        let length = value["len"].as_u64().map_or(bytes.len(), |length| length.try_into().unwrap());
        let last = bytes.last().copied().unwrap_or_default();
        bytes.resize(length, last);
        Event {
            case: text("case"),
            is_ours: text("dir") == "C->S",
            op: text("op"),
            is_whole: value["fin"] != false,
            bytes,
            text: text("text"),
            note: text("note"),
        }
    };
    text.lines().map(read).collect()
}

/// A login as it would be said now: with a token of the same secret, where it was good.
fn renewed(case: &str, message: &[u8]) -> Vec<u8> {
    let is_login = message.starts_with(b"\x01\x06\x21\x12\xa4\x42") && message.len() == 85;
    let Some((rest, old)) = message.split_at_checked(42).filter(|_| is_login) else {
        return message.to_vec();
    };
    let expiry: u64 = str::from_utf8(&old[33..]).unwrap_or_default().parse().unwrap_or_default();
    let is_good = old == token(SECRET, expiry);
    match case {
        "auth expired" => message.to_vec(),
        "auth expires this second" => [rest, &token(SECRET, unix_now() + 1)].concat(),
        _ if is_good => [rest, &token(SECRET, unix_now() + 3_600)].concat(),
        _ => message.to_vec(),
    }
}

fn replay(file: &str) {
    let site = Site::start(&["--upgrade-rate", "0"]);
    let mut peers: HashMap<String, Peer> = HashMap::new();
    let mut ended: Vec<String> = Vec::new();
    let mut statuses: HashMap<String, u16> = HashMap::new();
    let mut replayed = 0;
    for Event { case, is_ours, op, is_whole, bytes, text, note } in events(file) {
        if TIMED.contains(&&*case) || ended.contains(&case) || case == "summary" {
            continue;
        }
        replayed += 1;
        if op == "http" && is_ours {
            let mut peer = Peer::connect(site.address);
            let (status, head) = peer.ask(&format!("{text}\r\n\r\n"));
            assert!(!head.contains("sec-websocket-protocol"), "{case}: {head}");
            assert!(!head.contains("sec-websocket-extensions"), "{case}: {head}");
            statuses.insert(case.clone(), status);
            peers.insert(case, peer);
            continue;
        }
        if op == "http" {
            let status: u16 = text.split(' ').nth(1).unwrap().parse().unwrap();
            assert_eq!(statuses[&case], status, "{case}");
            continue;
        }
        if note.contains("after RST") {
            let dropped = peers.remove("bob tcp drop").unwrap();
            let socket: &Socket = &dropped.stream;
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
        if note.contains("SIGTERM") {
            site.relay.signal("TERM");
        }
        let peer = peers.get_mut(&case).unwrap_or_else(|| panic!("{case}: {note}"));
        if is_ours {
            let bytes = renewed(&case, &bytes);
            let opcode = match &*op {
                "cont" => 0,
                "text" => 1,
                "binary" => 2,
                "close" => 8,
                "ping" => 9,
                other => panic!("{other}"),
            };
            let first = if is_whole { 0x80 | opcode } else { opcode };
            let is_masked = !case.ends_with("unmasked") || bytes.len() != 2;
            if is_masked {
                peer.write(&crate::peer::frame(first, &bytes));
            } else {
                peer.write(&[&[first, 2][..], &bytes].concat());
            }
            let better = BETTER.iter().find(|(of, after, better)| {
                let is_long = !matches!(better, Better::TooLarge) || bytes.len() > 8_820;
                *of == case && *after == op && is_long
            });
            if let Some((_, _, better)) = better {
                match better {
                    Better::Delivers => assert_eq!(peer.read().unwrap().1[..2], [1, 3], "{case}"),
                    Better::TooLarge => assert_eq!(peer.read_close().0, 1009, "{case}"),
                }
                ended.push(case);
            }
            continue;
        }
        let what = format!("{case}: {note}");
        match &*op {
            "nothing" => assert!(peer.is_silent(Duration::from_millis(30)), "{what}"),
            "binary" => assert_eq!(peer.read(), Some((2, bytes)), "{what}"),
            "pong" => assert_eq!(peer.read(), Some((10, bytes)), "{what}"),
            "close" => assert_eq!(peer.read(), Some((8, bytes)), "{what}"),
            "tcp-fin" | "tcp-reset" => assert_eq!(peer.read(), None, "{what}"),
            other => panic!("{other}"),
        }
    }
    assert!(replayed > 200, "{replayed}");
}

#[test]
fn what_netbird_s_server_answered_is_answered() {
    replay("raw-netbird-0.77.1.jsonl");
}

//! What bare clients and real servers said to each other is said again to the relay, which
//! answers the same, but for the defects that are listed. So is what real clients and real servers
//! said, faster than they did.

use std::collections::HashMap;
use std::fs;
use std::net::Shutdown;
use std::time::Duration;

use serde_json::Value;
use socket2::Socket;

use super::{EXPOSED, SECRET, Site, token, unix_now};
use crate::deploy::root;
use crate::peer::Peer;

/// Cases that take the original's time: [`super::sessions`] has them.
const TIMED: [&str; 3] = ["no auth at all", "no health answers", "answers health"];

/// Where the relay does otherwise than both originals, and what: the rest of the case is not
/// replayed.
const BETTER: [(&str, &str, Better); 5] = [
    ("after auth: fragmented", "cont", Better::Delivers),
    ("after auth: 8821 bytes", "binary", Better::TooLarge),
    ("after auth: 32768 bytes", "binary", Better::TooLarge),
    ("after auth: 32769 bytes", "binary", Better::TooLarge),
    ("subscribe 244", "binary", Better::TooLarge),
];

/// Where it does otherwise than openZro's server, and as NetBird's.
const AS_NETBIRD: [(&str, &str, Better); 4] = [
    ("http browser Origin", "http", Better::Admits),
    ("http X-Real-Ip garbage", "http", Better::Admits),
    ("after auth: type 1", "binary", Better::Ends),
    ("server stop", "nothing", Better::SaysThatItCloses),
];

/// What the relay does instead.
#[derive(Clone, Copy)]
enum Better {
    /// A message in fragments is one.
    Delivers,
    /// A message that is too long is delivered to nobody, and its sender told so.
    TooLarge,
    /// A client may be a web page, and say of itself what it likes.
    Admits,
    /// A message of a type that no client has ends the connection.
    Ends,
    /// A client hears that the relay stops, also while another has not logged in.
    SaysThatItCloses,
}

impl Better {
    fn assert(self, case: &str, peer: &mut Peer) {
        match self {
            Self::Delivers => assert_eq!(peer.read().unwrap().1[..2], [1, 3], "{case}"),
            Self::TooLarge => assert_eq!(peer.read_close().0, 1009, "{case}"),
            Self::Admits => assert!(peer.is_silent(Duration::from_millis(30)), "{case}"),
            Self::Ends => assert_eq!(peer.read(), None, "{case}"),
            Self::SaysThatItCloses => {
                assert_eq!(peer.read(), Some((2, vec![1, 4])), "{case}");
                assert_eq!(peer.read(), None, "{case}");
            }
        }
    }
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
            case: value["conn"].as_u64().map_or_else(|| text("case"), |conn| conn.to_string()),
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

/// Whether a message is a login with a token of a usual length.
fn is_login(message: &[u8]) -> bool {
    message.starts_with(b"\x01\x06\x21\x12\xa4\x42") && message.len() == 85
}

/// A login as it would be said now: with a token of the same secret, where it was good.
pub(super) fn renewed(case: &str, message: &[u8]) -> Vec<u8> {
    let Some((rest, old)) = message.split_at_checked(42).filter(|_| is_login(message)) else {
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

fn replay(file: &str, exposed: &str, better: &[(&str, &str, Better)], least: usize) {
    let site = Site::exposed_as(exposed, &["--upgrade-rate", "0"]);
    let mut peers: HashMap<String, Peer> = HashMap::new();
    let mut ended: Vec<String> = Vec::new();
    let mut statuses: HashMap<String, u16> = HashMap::new();
    let is_real = file.starts_with("real");
    let mut replayed = 0;
    for Event { case, is_ours, op, is_whole, bytes, text, note } in events(file) {
        if TIMED.contains(&&*case) || ended.contains(&case) || case == "summary" {
            continue;
        }
        let better = better.iter().find(|(of, after, better)| {
            let is_it = match better {
                Better::TooLarge => is_ours && bytes.len() > 8_820,
                Better::Delivers | Better::Admits | Better::Ends => is_ours && !is_login(&bytes),
                Better::SaysThatItCloses => !is_ours,
            };
            *of == case && *after == op && is_it
        });
        replayed += 1;
        if op == "http" && is_ours {
            let mut peer = Peer::connect(site.address);
            let (status, head) = peer.ask(&format!("{text}\r\n\r\n"));
            assert!(!head.contains("sec-websocket-protocol"), "{case}: {head}");
            assert!(!head.contains("sec-websocket-extensions"), "{case}: {head}");
            if let Some((_, _, better)) = better {
                assert_eq!(status, 101, "{case}");
                better.assert(&case, &mut peer);
                ended.push(case);
                continue;
            }
            statuses.insert(case.clone(), status);
            peers.insert(case, peer);
            continue;
        }
        // What was asked before this answer was not recorded.
        if op == "http" && !statuses.contains_key(&case) {
            ended.push(case);
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
            if op == "tcp-fin" {
                // It may have ended before.
                let _ended = peer.stream.shutdown(Shutdown::Write);
                continue;
            }
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
            if let Some((_, _, better)) = better {
                better.assert(&case, peer);
                ended.push(case);
            }
            continue;
        }
        if let Some((_, _, better)) = better {
            better.assert(&case, peer);
            ended.push(case);
            continue;
        }
        // They come each 25 s.
        if is_real && bytes == [1, 5] {
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
    assert!(replayed > least, "{replayed}");
}

#[test]
fn what_netbird_s_server_answered_is_answered() {
    replay("raw-netbird-0.77.1.jsonl", EXPOSED, &BETTER, 200);
}

#[test]
fn what_openzro_s_server_answered_is_answered_or_what_netbird_s_did() {
    replay("raw-openzro.jsonl", EXPOSED, &[&BETTER[..], &AS_NETBIRD].concat(), 200);
}

#[test]
fn what_real_clients_and_netbird_s_server_said_is_said() {
    replay("real-netbird-0.77.1.jsonl", "rel://127.0.0.1:33079", &[], 30);
}

#[test]
fn what_real_clients_and_openzro_s_server_said_is_said() {
    replay("real-openzro.jsonl", "rel://127.0.0.1:33079", &[], 30);
}

//! What raw clients, and the original's own clients, said to the original hub is said again to the
//! relay, on both transports, which answers the same byte for byte, but for the defects that are
//! listed, and for the hub's name in the route of each record.

mod grpc;
mod websocket;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;

use serde_json::Value;

use super::pki::Identity;
use super::websocket::Ws;
use super::{Site, ids};
use crate::deploy::root;

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

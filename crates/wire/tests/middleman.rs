//! The grammar of middleman against what the original and its clients said to each other.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use beacon_wire::middleman::{Command, Guid, Malformed, Message};
use serde_json::Value;

/// A text message of the recordings.
struct Recorded {
    case: String,
    conn: u64,
    is_of_client: bool,
    text: String,
}

/// All that were kept whole.
fn recorded(file: &str) -> Vec<Recorded> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/middleman");
    let recording = fs::read_to_string(folder.join(file)).unwrap();
    let lines = recording.lines().map(|line| serde_json::from_str(line).unwrap());
    let whole = lines.filter(|line: &Value| line["op"] == "text" && line["truncated"] != true);
    let messages = whole.map(|line| Recorded {
        case: line["case"].as_str().unwrap().to_owned(),
        conn: line["conn"].as_u64().unwrap(),
        is_of_client: line["dir"] == "C->S",
        text: line["text"].as_str().unwrap().to_owned(),
    });
    messages.collect()
}

/// The GUID of each connection, and what came after the logins.
fn conversation(file: &str) -> (BTreeMap<u64, Guid>, Vec<Recorded>) {
    let mut guids = BTreeMap::new();
    let mut rest = Vec::new();
    let mut keys = Vec::new();
    for message in recorded(file) {
        if message.is_of_client && !keys.contains(&message.conn) {
            keys.push(message.conn);
        } else if let Ok(guid) = message.text.parse() {
            assert_eq!(guids.insert(message.conn, guid), None);
        } else if message.text != "MM OK" {
            rest.push(message);
        }
    }
    (guids, rest)
}

/// Whether `delivered` is what the original makes of `sent`: the same headers but for those that it
/// sets, and a body with one line end more.
fn is_delivery(delivered: &Message<'_>, sent: &Message<'_>) -> bool {
    let headers = |message: &Message<'_>| {
        let mut headers = Vec::new();
        for header in message.headers.iter() {
            if !["Cid", "Uid", "Rid"].iter().any(|name| header.is(name)) {
                let mut line = Vec::new();
                header.push_name(&mut line);
                line.extend_from_slice(header.value.as_bytes());
                headers.push(line);
            }
        }
        headers.sort();
        headers
    };
    // A body without lines does not grow.
    let grown = format!("{}\n", sent.body.text());
    let text = delivered.body.text();
    delivered.command == sent.command
        && delivered.target == sent.target
        && headers(delivered) == headers(sent)
        && (text == grown || text.is_empty() && sent.body.is_empty())
}

fn check_deliveries(file: &str, least: usize) {
    let (guids, messages) = conversation(file);
    let mut count = 0;
    for delivered in messages.iter().filter(|message| !message.is_of_client) {
        let read = Message::parse(delivered.text.as_bytes()).unwrap();
        let Some(cid) = read.headers.find("Cid") else {
            assert_eq!(read.command, Command::Pub);
            assert_eq!(read.target, "ERROR", "{}", delivered.text);
            continue;
        };
        // The GUID of some connections was kept from them.
        let is_sender = |conn| guids.get(conn).is_none_or(|guid| guid.to_string() == cid.value);
        let of_sender =
            messages.iter().filter(|message| message.is_of_client && is_sender(&message.conn));
        let mut sent = of_sender.filter_map(|sent| Message::parse(sent.text.as_bytes()).ok());
        assert!(sent.any(|sent| is_delivery(&read, &sent)), "{}: {read:?}", delivered.case);
        count += 1;
    }
    assert!(count >= least, "{count}");
}

#[test]
fn what_was_delivered_is_what_was_sent() {
    check_deliveries("raw.jsonl", 200);
    check_deliveries("clients.jsonl", 23);
}

#[test]
fn what_the_original_refused_is_refused() {
    let (_, messages) = conversation("raw.jsonl");
    let mut refused = BTreeMap::new();
    for message in messages.iter().filter(|message| message.is_of_client) {
        let read = Message::parse(message.text.as_bytes());
        if let Err(why) = read {
            refused.insert(message.case.as_str(), why);
        }
    }

    let expected = [
        ("malformed: empty", Malformed::NoTopLine),
        ("malformed: empty header key", Malformed::HeaderName),
        ("malformed: header leading space", Malformed::LeadingSpace),
        ("malformed: header without colon", Malformed::NoColon),
        ("malformed: no blank line", Malformed::NoColon),
        ("malformed: no dot end", Malformed::NoDot),
        ("malformed: no space in top line", Malformed::NoTarget),
        ("malformed: only top line", Malformed::NoBlankLine),
    ];
    assert_eq!(refused, BTreeMap::from(expected));
}

#[test]
fn every_message_of_real_clients_is_read_and_comes_back() {
    let (_, messages) = conversation("clients.jsonl");
    for message in &messages {
        let read = Message::parse(message.text.as_bytes()).unwrap();
        let mut again = Vec::new();
        read.encode(&mut again);
        assert_eq!(Message::parse(&again), Ok(read), "{}", message.case);
    }
    assert!(messages.len() >= 60, "{}", messages.len());
}

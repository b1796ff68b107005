//! The protocol of peerbus against what the original reads, writes, signs and hashes.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use beacon_wire::peerbus::{
    self, DropReason, Dropped, Envelope, FromBroker, Received, Refusal, Register,
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;

fn recorded(file: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/peerbus");
    fs::read_to_string(folder.join(file)).unwrap()
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap()
}

fn bytes(value: &Value, member: &str) -> Vec<u8> {
    let digits = text(value, member).as_bytes().chunks(2);
    let digits = digits.map(|pair| str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

#[test]
fn envelopes_are_written_and_signed_as_with_go() {
    let file: Value = serde_json::from_str(&recorded("canonical.json")).unwrap();
    let secret = text(&file, "secret_ascii");
    let vectors = file["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 9);
    for vector in vectors {
        let input = bytes(vector, "input_hex");
        let mut envelope = Envelope::parse(&input).unwrap();
        let canonical = envelope.canonical();
        let name = String::from_utf8_lossy(&input);
        assert_eq!(canonical, bytes(vector, "canonical_hex"), "{name}");
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(&canonical);
        let code = mac.finalize().into_bytes();
        let hex: String = code.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        assert_eq!(hex, text(vector, "hmac"), "{name}");
        envelope.hmac = hex.into();
        assert_eq!(envelope.encode(), bytes(vector, "full_hex"), "{name}");
    }
}

#[test]
fn audit_events_are_written_as_with_go() {
    let entries: Value = serde_json::from_str(&recorded("audit.json")).unwrap();
    let entries = entries.as_array().unwrap();
    assert_eq!(entries.len(), 14);
    for entry in entries {
        let event = text(entry, "event");
        let read: Value = serde_json::from_str(event).unwrap();
        let [kind, id, from, to] = ["event", "id", "from", "to"].map(|member| text(&read, member));
        let mut written = Vec::new();
        peerbus::audit_event(&mut written, kind, id, from, to);
        assert_eq!(written, event.as_bytes());
    }
}

/// A message of text of the recordings, as far as it was kept whole.
struct Message {
    case: String,
    conn: u64,
    is_of_client: bool,
    text: String,
}

fn messages() -> Vec<Message> {
    let recording = recorded("raw.jsonl");
    let lines = recording.lines().map(|line| serde_json::from_str(line).unwrap());
    let whole = lines.filter(|line: &Value| {
        line["op"] == "text" && line["truncated"] != true && line["fin"] != false
    });
    whole
        .map(|line| Message {
            case: text(&line, "case").to_owned(),
            conn: line["conn"].as_u64().unwrap(),
            is_of_client: line["dir"] == "C->S",
            text: text(&line, "text").to_owned(),
        })
        .collect()
}

#[test]
fn recorded_frames_of_the_broker_come_back() {
    let mut count = 0;
    for message in messages().iter().filter(|message| !message.is_of_client) {
        let again = match FromBroker::parse(message.text.as_bytes()).unwrap() {
            FromBroker::Peers(names) => peerbus::peers(names.iter().map(AsRef::as_ref)),
            FromBroker::Deliver { key, envelope } => {
                let envelope = envelope.encode();
                let again = peerbus::deliver(&key, &envelope);
                assert_eq!(peerbus::deliver_length(&key, envelope.len()), again.len());
                again
            }
            FromBroker::Receipt { .. } | FromBroker::Other => panic!("{}", message.text),
        };
        assert_eq!(String::from_utf8(again).unwrap(), message.text, "{}", message.case);
        count += 1;
    }
    assert_eq!(count, 46);
}

#[test]
fn recorded_envelopes_are_written_as_the_broker_wrote_them() {
    let messages = messages();
    let mut delivered = BTreeMap::new();
    for message in messages.iter().filter(|message| !message.is_of_client) {
        if let Ok(FromBroker::Deliver { key, envelope }) =
            FromBroker::parse(message.text.as_bytes())
        {
            let broadcast = format!("{}|", envelope.id);
            assert!(key == envelope.id || key.starts_with(&broadcast), "{key}");
            let (_, encoded) = message.text.split_once(",\"envelope\":").unwrap();
            let encoded = encoded.strip_suffix('}').unwrap().to_owned();
            delivered.insert(envelope.id.into_owned(), encoded);
        }
    }
    let mut count = 0;
    for message in messages.iter().filter(|message| message.is_of_client) {
        let Ok(Received::Envelope(envelope)) = Received::parse(message.text.as_bytes()) else {
            continue;
        };
        // Those that were never delivered are the duplicate and what is for nobody.
        if let Some(expected) = delivered.get(&*envelope.id) {
            assert_eq!(str::from_utf8(&envelope.encode()).unwrap(), expected, "{}", message.case);
            count += 1;
        }
    }
    assert_eq!(count, 17);
}

#[test]
fn recorded_first_messages_are_refused_as_recorded() {
    let recording = recorded("raw.jsonl");
    let mut refused = BTreeMap::new();
    for line in recording.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if line["op"] == "close" && line["dir"] == "S->C" {
            let code = u16::try_from(line["code"].as_u64().unwrap()).unwrap();
            let refusal = Refusal::of_close(code, text(&line, "reason"));
            refused.insert(line["conn"].as_u64().unwrap(), refusal);
        }
    }
    let mut seen = Vec::new();
    let mut count = 0;
    for message in messages().into_iter().filter(|message| message.is_of_client) {
        if seen.contains(&message.conn) {
            continue;
        }
        seen.push(message.conn);
        let expected = refused.get(&message.conn).copied().flatten();
        match Register::parse(message.text.as_bytes()) {
            // Which tokens are good is not for the message to say, nor what is too large later.
            Ok(_) => assert!(
                matches!(
                    expected,
                    None | Some(Refusal::Token | Refusal::Claimed | Refusal::TooLarge)
                ),
                "{}",
                message.case
            ),
            Err(refusal) => {
                assert_eq!(Some(refusal), expected, "{}", message.case);
                count += 1;
            }
        }
    }
    assert_eq!(count, 12);
}

#[test]
fn recorded_frames_that_the_broker_drops_are_dropped() {
    let mut reasons = Vec::new();
    for message in messages() {
        if message.case != "dropped frames (no answer)" || !message.is_of_client {
            continue;
        }
        match Received::parse(message.text.as_bytes()) {
            Ok(Received::Ignored) => reasons.push("ignored"),
            Ok(_) => {}
            Err(Dropped { reason, .. }) => reasons.push(reason.word()),
        }
    }
    let expected = [
        DropReason::Malformed.word(),
        DropReason::Malformed.word(),
        DropReason::NoId.word(),
        DropReason::NoId.word(),
        DropReason::NoId.word(),
        DropReason::NoRecipient.word(),
        DropReason::Contradiction.word(),
        DropReason::Contradiction.word(),
        // `register` again, `deliver`, and an acknowledgement of nothing.
        "ignored",
        "ignored",
        "ignored",
    ];
    assert_eq!(reasons, expected);
}

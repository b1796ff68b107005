//! The protocol of keyop-messenger against what the original says over WebSocket and gRPC.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use beacon_wire::keyop::grpc::{self, FromHub, Method, PREFIX, Refusal, SubscribeFrame};
use beacon_wire::keyop::websocket::{self, Hello, Records};
use beacon_wire::keyop::{Draft, Envelope, Malformed};
use serde_json::Value;

fn recorded(file: &str) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/keyop");
    let recording = fs::read_to_string(folder.join(file)).unwrap();
    recording.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn bytes(hex: &Value) -> Vec<u8> {
    let digits = hex.as_str().unwrap().as_bytes().chunks(2);
    let digits = digits.map(|pair| str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn is_of_client(line: &Value) -> bool {
    line["dir"] == "C->S"
}

/// Messages of one connection over WebSocket that were kept whole.
fn whole<'a>(lines: &'a [Value], op: &'a str) -> impl Iterator<Item = &'a Value> {
    lines
        .iter()
        .filter(move |line| line["op"] == op && line["truncated"] != true && line["fin"] != false)
}

/// Whether a record is one that the original wrote: it comes back to the byte.
fn comes_back(record: &[u8]) -> bool {
    let envelope = Envelope::parse(record).unwrap();
    let route: Vec<_> = envelope.route.iter().collect();
    let route: Vec<_> = route.iter().map(AsRef::as_ref).collect();
    let draft = Draft {
        id: &envelope.id,
        ts: &envelope.ts,
        channel: &envelope.channel,
        origin: &envelope.origin,
        payload_type: &envelope.payload_type,
        correlation_id: &envelope.correlation_id,
        service_name: &envelope.service_name,
        route: &route,
        payload: envelope.payload(),
    };
    draft.encode() == record
}

#[test]
fn recorded_first_messages_come_back() {
    let mut count = 0;
    for file in ["ws/raw.jsonl", "ws/real-clients.jsonl"] {
        let lines = recorded(file);
        let mut seen = Vec::new();
        for line in whole(&lines, "text") {
            let first = (line["conn"].as_u64(), is_of_client(line));
            if seen.contains(&first) {
                continue;
            }
            seen.push(first);
            let text = line["text"].as_str().unwrap();
            let case = line["case"].as_str().unwrap();
            if matches!(case, "handshake: not JSON" | "handshake: array") {
                assert_eq!(Hello::parse(text.as_bytes()), Err(Malformed), "{case}");
                continue;
            }
            let hello = Hello::parse(text.as_bytes()).unwrap();
            if !is_of_client(line) {
                assert_eq!(websocket::hub_hello(&hello.instance_name), text.as_bytes());
                count += 1;
                continue;
            }
            // Those that the test of the recorder made up are not the original's.
            if hello.role != "client" || hello.version != "1" {
                continue;
            }
            let subscribe: Vec<_> = hello.subscribe.iter().collect();
            let subscribe: Vec<_> = subscribe.iter().map(AsRef::as_ref).collect();
            let name = &hello.instance_name;
            let again = websocket::client_hello(name, &subscribe, hello.is_ephemeral);
            assert_eq!(String::from_utf8(again).unwrap(), text, "{case}");
            count += 1;
        }
    }
    assert_eq!(count, 57);
}

#[test]
fn recorded_acknowledgements_over_websocket_come_back() {
    let mut count = 0;
    for file in ["ws/raw.jsonl", "ws/real-clients.jsonl"] {
        for line in whole(&recorded(file), "text") {
            let text = line["text"].as_str().unwrap();
            if text.starts_with("{\"last_id\"") {
                let last_id = websocket::read_ack(text.as_bytes()).unwrap();
                assert_eq!(websocket::ack(&last_id), text.as_bytes());
                count += 1;
            }
        }
    }
    assert_eq!(count, 74);
}

#[test]
fn recorded_batches_over_websocket_come_back() {
    let mut count = 0;
    for file in ["ws/raw.jsonl", "ws/real-clients.jsonl"] {
        for line in whole(&recorded(file), "binary") {
            let case = line["case"].as_str().unwrap();
            // The recorder leaves out the bytes of an empty message.
            let message = line.get("hex").map(bytes).unwrap_or_default();
            if line["len"].as_u64() != Some(message.len() as u64) {
                continue;
            }
            let Ok(records) = Records::parse(&message) else {
                assert!(case.starts_with("truncated") || case.starts_with("handshake"), "{case}");
                continue;
            };
            let mut again = Vec::new();
            for record in records.iter() {
                websocket::push_record(&mut again, record);
                if file != "ws/raw.jsonl" || !is_of_client(line) {
                    assert!(comes_back(record), "{case}: {}", String::from_utf8_lossy(record));
                    count += 1;
                }
            }
            assert_eq!(again, message, "{case}");
        }
    }
    assert_eq!(count, 96);
}

/// The messages of a recording over gRPC that were kept whole, with who said it and the method.
fn messages(file: &str) -> Vec<(String, bool, Method, Vec<u8>)> {
    let mut methods = BTreeMap::new();
    let mut messages = Vec::new();
    for line in recorded(file) {
        let call = (line["conn"].as_u64(), line["stream"].as_u64());
        for header in line["headers"].as_array().into_iter().flatten() {
            if header[0] == ":path" {
                methods.insert(call, Method::of(header[1].as_str().unwrap()).ok());
            }
        }
        for message in line["grpc"].as_array().into_iter().flatten() {
            let Some(Some(method)) = methods.get(&call) else { continue };
            if message["truncated"] == false {
                let case = line["case"].as_str().unwrap().to_owned();
                messages.push((case, is_of_client(&line), *method, bytes(&message["hex"])));
            }
        }
    }
    messages
}

/// What was read, as it is written, without the prefix.
fn again(is_of_client: bool, method: Method, message: &[u8]) -> Option<Vec<u8>> {
    let written = match (is_of_client, method) {
        (true, Method::Publish) => {
            grpc::publish_batch(grpc::read_publish_batch(message).ok()?.iter())
        }
        (false, Method::Publish) => grpc::publish_ack(grpc::read_publish_ack(message).ok()?),
        (true, Method::Subscribe) => match SubscribeFrame::parse(message).ok()? {
            SubscribeFrame::Empty => vec![0; PREFIX],
            SubscribeFrame::Request(request) => {
                let channels: Vec<_> = request.channels.iter().collect();
                grpc::subscribe_request(request.version, &channels, request.is_ephemeral)
            }
            SubscribeFrame::Ack(last_id) => grpc::subscribe_ack(last_id),
        },
        (false, Method::Subscribe) => match FromHub::parse(message).ok()? {
            FromHub::Empty => vec![0; PREFIX],
            FromHub::Batch(records) => grpc::hub_batch(records.iter()),
            FromHub::Close { code, text } => grpc::close_notice(code, text),
        },
    };
    let (prefix, body) = written.split_at(PREFIX);
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    assert_eq!(prefix, [&[0], &length[..]].concat());
    Some(body.to_vec())
}

#[test]
fn recorded_messages_over_grpc_come_back() {
    let mut count = 0;
    for file in ["grpc/raw.jsonl", "grpc/real-clients.jsonl", "grpc/close-and-idle.jsonl"] {
        for (case, is_of_client, method, message) in messages(file) {
            let again = again(is_of_client, method, &message);
            match case.as_str() {
                "malformed protobuf" => assert_eq!(again, None),
                // It is not passed on.
                "unknown protobuf field" if is_of_client => {
                    assert!(message.starts_with(&again.unwrap()));
                }
                _ => assert_eq!(again, Some(message), "{case}"),
            }
            count += 1;
        }
    }
    assert_eq!(count, 208);
}

#[test]
fn recorded_hub_adds_itself_to_routes_as_this_reader_does() {
    let mut published = BTreeMap::new();
    let mut count = 0;
    for (case, is_of_client, method, message) in messages("grpc/real-clients.jsonl") {
        let records = match (is_of_client, method) {
            (true, Method::Publish) => grpc::read_publish_batch(&message).unwrap(),
            (false, Method::Subscribe) => match FromHub::parse(&message).unwrap() {
                FromHub::Batch(records) => records,
                FromHub::Empty | FromHub::Close { .. } => panic!("{case}"),
            },
            _ => continue,
        };
        for record in records.iter() {
            assert!(comes_back(record), "{case}");
            let envelope = Envelope::parse(record).unwrap();
            if is_of_client {
                let forwarded = envelope.forwarded_by("localhost");
                published.insert(envelope.id.into_owned(), forwarded);
            } else if let Some(forwarded) = published.get(&*envelope.id) {
                assert_eq!(record, forwarded, "{case}");
                count += 1;
            }
        }
    }
    assert_eq!(count, 47);
}

#[test]
fn recorded_statuses_are_those_of_the_refusals() {
    let known = [
        Refusal::NotAllowed,
        Refusal::FirstFrame,
        Refusal::Malformed,
        Refusal::TooLong { bytes: 12_583_040, longest: grpc::max_message(65_536) },
        Refusal::UnknownMethod("Nope"),
        Refusal::UnknownService("x.Y"),
    ];
    let mut seen = vec![false; known.len()];
    for line in recorded("grpc/raw.jsonl") {
        let headers = line["headers"].as_array().into_iter().flatten();
        let headers: BTreeMap<_, _> =
            headers.map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap())).collect();
        let (Some(code), Some(message)) = (headers.get("grpc-status"), headers.get("grpc-message"))
        else {
            continue;
        };
        if *code == "0" {
            continue;
        }
        let is_it = |refusal: &Refusal<'_>| {
            refusal.code().number().to_string() == *code
                && grpc::encode_message(&refusal.message()) == *message
        };
        let index = known.iter().position(is_it);
        seen[index.unwrap_or_else(|| panic!("{code} {message}"))] = true;
    }
    assert_eq!(seen, [true; 6]);
}

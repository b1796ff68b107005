//! What is read, what is refused, and what is written.

use bytes::BytesMut;
use proptest::prelude::*;

use super::grpc::{
    self, Code, FromHub, InvalidMessage, Method, Refusal, SubscribeFrame, decode_message,
    encode_message,
};
use super::websocket::{self, Hello, RECORD_OVERHEAD, Records, Truncated};
use super::{Body, Draft, Envelope, Event, InvalidEnvelope, audit_line, id_at};

const RECORD: &str = r#"{"v":1,"id":"r1","ts":"2026-03-31T14:22:01.5Z","channel":"orders","origin":"raw","payload_type":"t","payload":{"x":1}}"#;

fn forwarded(record: &str) -> String {
    let envelope = Envelope::parse(record.as_bytes()).unwrap();
    String::from_utf8(envelope.forwarded_by("h\"b")).unwrap()
}

#[test]
fn record_is_read_with_all_that_it_says() {
    let record = br#" { "V" : 1, "id":"\u0061","ts":null,"channel":"orders","correlation_id":"c","service_name":"s",
        "extra":[1,{"id":2}],"route":["a",null,"b\n"],"payload":{"x": "<"} } "#;
    let envelope = Envelope::parse(record).unwrap();
    assert_eq!((&*envelope.id, &*envelope.ts, &*envelope.channel), ("a", "", "orders"));
    assert_eq!((&*envelope.correlation_id, &*envelope.service_name), ("c", "s"));
    assert_eq!((&*envelope.origin, &*envelope.payload_type), ("", ""));
    let route: Vec<_> = envelope.route.iter().collect();
    assert_eq!(route, ["a", "", "b\n"]);
    assert_eq!(envelope.route.len(), 3);
    assert!(envelope.route.contains("b\n") && !envelope.route.contains("b"));
    assert_eq!(envelope.payload().as_bytes(), br#"{"x":"\u003c"}"#);
}

#[test]
fn what_is_no_record_is_refused_with_its_reason() {
    for (record, expected) in [
        ("", InvalidEnvelope::Malformed),
        ("xx", InvalidEnvelope::Malformed),
        ("[]", InvalidEnvelope::Malformed),
        (r#"{"v":1,"id":5}"#, InvalidEnvelope::Malformed),
        (r#"{"v":1,"id":"a","route":"b"}"#, InvalidEnvelope::Malformed),
        (r#"{"v":1,"id":"a","route":[1]}"#, InvalidEnvelope::Malformed),
        (r#"{"v":1,"id":"a","origin":{}}"#, InvalidEnvelope::Malformed),
        (r#"{"v":1,"id":"a"}x"#, InvalidEnvelope::Malformed),
        ("null", InvalidEnvelope::Version),
        ("{}", InvalidEnvelope::Version),
        (r#"{"id":"a"}"#, InvalidEnvelope::Version),
        (r#"{"v":2,"id":"a"}"#, InvalidEnvelope::Version),
        (r#"{"v":"1","id":"a"}"#, InvalidEnvelope::Version),
        (r#"{"v":1,"id":"a","ts":"yesterday"}"#, InvalidEnvelope::Time),
        (r#"{"v":1}"#, InvalidEnvelope::NoId),
        (r#"{"v":1,"id":""}"#, InvalidEnvelope::NoId),
    ] {
        let refused = Envelope::parse(record.as_bytes()).err();
        assert_eq!(refused, Some(expected), "{record}");
    }
    let mut words = InvalidEnvelope::ALL.map(InvalidEnvelope::word).to_vec();
    words.dedup();
    assert_eq!(words.len(), InvalidEnvelope::ALL.len());
}

#[test]
fn hub_is_added_where_the_original_has_it_and_nothing_else_changes() {
    for (record, expected) in [
        (
            r#"{"v":1,"id":"a","route":["b"],"payload":1}"#,
            r#"{"v":1,"id":"a","route":["b","h\"b"],"payload":1}"#,
        ),
        (
            r#"{"v":1,"id":"a","route" : [ "b" ] ,"payload":1}"#,
            r#"{"v":1,"id":"a","route" : [ "b" ,"h\"b"] ,"payload":1}"#,
        ),
        (
            r#"{"v":1,"id":"a","route":[],"payload":1}"#,
            r#"{"v":1,"id":"a","route":["h\"b"],"payload":1}"#,
        ),
        (
            r#"{"v":1,"id":"a","route": null,"payload":1}"#,
            r#"{"v":1,"id":"a","route": ["h\"b"],"payload":1}"#,
        ),
        (r#"{"v":1,"id":"a", "payload":1 }"#, r#"{"v":1,"id":"a", "route":["h\"b"],"payload":1 }"#),
        (r#"{"payload":1,"v":1,"id":"a"}"#, r#"{"route":["h\"b"],"payload":1,"v":1,"id":"a"}"#),
        (r#"{"v":1,"id":"a" } "#, r#"{"v":1,"id":"a" ,"route":["h\"b"]} "#),
        // The last of two counts.
        (
            r#"{"route":["x"],"v":1,"id":"a","route":["b"]}"#,
            r#"{"route":["x"],"v":1,"id":"a","route":["b","h\"b"]}"#,
        ),
    ] {
        assert_eq!(forwarded(record), expected);
        let again = Envelope::parse(expected.as_bytes()).unwrap();
        assert_eq!(again.route.iter().last().unwrap(), "h\"b");
    }
}

#[test]
fn names_of_records_are_uuids_of_version_7() {
    let id = id_at(0x01a2_22f2_30ed, [0xf5, 0x24, 0xe9, 0xb3, 0xce, 0x77, 0x24, 0x9b, 0x0e, 0x76]);
    assert_eq!(id, "01a222f2-30ed-7524-a9b3-ce77249b0e76");
}

#[test]
fn first_messages_are_read_whatever_they_say() {
    let hello = Hello::parse(br#"{"instance_name":"a","version":"99","foo":1,"ephemeral":true}"#);
    let hello = hello.unwrap();
    assert_eq!((&*hello.instance_name, &*hello.version, &*hello.role), ("a", "99", ""));
    assert!(hello.is_ephemeral && hello.subscribe.is_empty());
    assert_eq!(Hello::parse(b"{}"), Ok(Hello::default()));
    for bad in ["", "nope", "[]", r#"{"subscribe":"a"}"#, r#"{"ephemeral":1}"#, r#"{"role":1}"#] {
        assert!(Hello::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn acknowledgements_are_read_and_written() {
    assert_eq!(websocket::ack("a"), br#"{"last_id":"a"}"#);
    assert_eq!(websocket::read_ack(br#"{"last_id":"a"}"#).unwrap(), "a");
    assert_eq!(websocket::read_ack(b"{}").unwrap(), "");
    for bad in [&b"hello"[..], b"[]", br#"{"last_id":1}"#] {
        assert!(websocket::read_ack(bad).is_err());
    }
}

#[test]
fn batches_that_end_within_a_record_are_refused() {
    let mut batch = Vec::new();
    websocket::push_record(&mut batch, RECORD.as_bytes());
    websocket::push_record(&mut batch, b"");
    let records: Vec<_> = Records::parse(&batch).unwrap().iter().collect();
    assert_eq!(records, [RECORD.as_bytes(), b""]);
    let whole = [0, RECORD.len() + RECORD_OVERHEAD, batch.len()];
    for cut in 0..=batch.len() {
        let is_whole = whole.contains(&cut);
        assert_eq!(Records::parse(&batch[..cut]).err(), (!is_whole).then_some(Truncated), "{cut}");
    }
}

#[test]
fn audit_lines_leave_out_what_is_not_known() {
    let mut event = Event { ts: "t", event: "client_rejected", peer: "n", ..Event::default() };
    let line = audit_line(&event);
    assert_eq!(line, b"{\"ts\":\"t\",\"event\":\"client_rejected\",\"peer\":\"n\"}\n");
    event.detail = "<";
    for (us, text) in [(1, "0.001"), (3_000, "3"), (3_347, "3.347"), (10_010, "10.01")] {
        event.send_duration_us = us;
        let expected = format!(
            "{{\"ts\":\"t\",\"event\":\"client_rejected\",\"peer\":\"n\",\"send_duration_ms\":{text},\"detail\":\"\\u003c\"}}\n"
        );
        assert_eq!(String::from_utf8(audit_line(&event)).unwrap(), expected);
    }
}

#[test]
fn methods_are_known_by_their_paths() {
    for method in [Method::Publish, Method::Subscribe] {
        assert_eq!(Method::of(method.path()), Ok(method));
    }
    for (path, message) in [
        (
            "/federation.v1.FederationService/Nope",
            "unknown method Nope for service federation.v1.FederationService",
        ),
        ("/x.Y/Z", "unknown service x.Y"),
        ("/", "malformed method name: \"/\""),
        ("x/y", "malformed method name: \"x/y\""),
    ] {
        let refusal = Method::of(path).unwrap_err();
        assert_eq!(refusal.code(), Code::Unimplemented);
        assert_eq!(refusal.message(), message);
    }
}

#[test]
fn messages_are_cut_from_a_stream_as_they_were_sent() {
    let sent = [grpc::publish_ack("a"), grpc::publish_ack(""), grpc::publish_ack("bc")].concat();
    for piece in 1..sent.len() {
        let mut received = BytesMut::new();
        let mut taken = Vec::new();
        for piece in sent.chunks(piece) {
            received.extend_from_slice(piece);
            while let Some(message) = grpc::take_message(&mut received, 4).unwrap() {
                taken.push(grpc::read_publish_ack(&message).unwrap().to_owned());
            }
        }
        assert_eq!(taken, ["a", "", "bc"]);
        assert!(received.is_empty());
    }
}

#[test]
fn messages_that_are_too_long_or_compressed_are_refused_at_their_prefix() {
    let take = |prefix: &[u8]| grpc::take_message(&mut BytesMut::from(prefix), 11_534_336);
    let refused = take(&[0, 0, 0xc0, 0, 0x80]).unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let text = "grpc: received message larger than max (12583040 vs. 11534336)";
    assert_eq!(refused.message(), text);
    assert_eq!(grpc::max_message(4 << 20), 11_534_336);
    assert_eq!(grpc::max_message(16 << 20), 17 << 20);
    assert_eq!(take(&[1, 0, 0, 0, 0]), Err(Refusal::Compressed));
    assert_eq!(take(&[7, 0, 0, 0, 0]), Err(Refusal::Format(7)));
    assert_eq!(take(&[0, 0, 0, 0]), Ok(None));
}

#[test]
fn status_codes_come_back_from_their_numbers() {
    for number in 0..20 {
        assert_eq!(Code::of(number).number(), number);
    }
    assert!(Refusal::NotAllowed.code().is_permanent());
    assert!(!Refusal::Stopping.code().is_permanent());
}

#[test]
fn messages_of_statuses_are_percent_encoded() {
    for (text, encoded) in [
        ("not in allowlist", "not in allowlist"),
        ("50 %", "50 %25"),
        ("a\nb\u{7f}ä", "a%0Ab%7F%C3%A4"),
        ("", ""),
    ] {
        assert_eq!(encode_message(text), encoded);
        assert_eq!(decode_message(encoded), text);
    }
    assert_eq!(decode_message("%ff"), "%ff");
}

#[test]
fn unknown_fields_are_passed_over_and_the_last_of_two_counts() {
    let frame = SubscribeFrame::parse(b"\x0a\x03\x0a\x011\x12\x03\x0a\x01x\x20\x01");
    assert_eq!(frame, Ok(SubscribeFrame::Ack("x")));
    assert_eq!(SubscribeFrame::parse(b""), Ok(SubscribeFrame::Empty));
    assert_eq!(SubscribeFrame::parse(b"\x0a\xff"), Err(InvalidMessage));
    // A text that is not UTF-8.
    assert_eq!(SubscribeFrame::parse(b"\x0a\x03\x12\x01\xff"), Err(InvalidMessage));
    assert_eq!(FromHub::parse(b"\x1a\x00"), Ok(FromHub::Empty));
    assert_eq!(grpc::read_publish_batch(b"\x0a"), Err(InvalidMessage));
}

proptest! {
    #[test]
    fn records_come_back_as_they_were_written(
        texts in prop::array::uniform7(".{0,8}"),
        route in prop::collection::vec(".{0,6}", 0..4),
        payload in any::<i64>(),
        hub in ".{0,8}",
    ) {
        let [id, channel, origin, payload_type, correlation_id, service_name, text] = &texts;
        let payload = serde_json::json!({ "n": payload, "text": text }).to_string();
        let id = format!("i{id}");
        let names: Vec<_> = route.iter().map(String::as_str).collect();
        let draft = Draft {
            id: &id,
            ts: "2026-03-31T14:22:01Z",
            channel,
            origin,
            payload_type,
            correlation_id,
            service_name,
            route: &names,
            payload: Body::parse(payload.as_bytes()).unwrap(),
        };
        let record = draft.encode();
        let other: serde_json::Value = serde_json::from_slice(&record).unwrap();
        prop_assert_eq!(other["channel"].as_str(), Some(channel.as_str()));

        let read = Envelope::parse(&record).unwrap();
        prop_assert_eq!(&*read.id, &id);
        prop_assert_eq!(&*read.origin, origin);
        prop_assert_eq!(&*read.payload_type, payload_type);
        prop_assert_eq!(&*read.correlation_id, correlation_id);
        prop_assert_eq!(&*read.service_name, service_name);
        let read_route: Vec<_> = read.route.iter().collect();
        prop_assert_eq!(&read_route, &route);
        prop_assert_eq!(read.payload(), draft.payload.clone());

        let next: Vec<_> = names.iter().copied().chain([hub.as_str()]).collect();
        let expected = Draft { route: &next, ..draft }.encode();
        prop_assert_eq!(read.forwarded_by(&hub), expected);
    }

    #[test]
    fn first_messages_come_back(
        name in ".{0,8}",
        channels in prop::collection::vec(".{0,6}", 0..4),
        is_ephemeral in any::<bool>(),
    ) {
        let channels: Vec<_> = channels.iter().map(String::as_str).collect();
        let message = websocket::client_hello(&name, &channels, is_ephemeral);
        let hello = Hello::parse(&message).unwrap();
        prop_assert_eq!(&*hello.instance_name, &name);
        prop_assert_eq!(hello.is_ephemeral, is_ephemeral);
        let subscribed: Vec<_> = hello.subscribe.iter().collect();
        prop_assert_eq!(subscribed, channels);
    }

    #[test]
    fn messages_of_grpc_come_back(
        records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..5),
        channels in prop::collection::vec(".{0,6}", 0..4),
        text in ".{0,8}",
        code in any::<u32>(),
        is_ephemeral in any::<bool>(),
    ) {
        let body = |message: &[u8]| {
            let mut stream = BytesMut::from(message);
            let body = grpc::take_message(&mut stream, usize::MAX).unwrap().unwrap();
            assert!(stream.is_empty());
            body
        };
        let slices = || records.iter().map(Vec::as_slice);

        let message = body(&grpc::publish_batch(slices()));
        let read: Vec<_> = grpc::read_publish_batch(&message).unwrap().iter().collect();
        prop_assert_eq!(&read, &records);
        let message = body(&grpc::hub_batch(slices()));
        let Ok(FromHub::Batch(read)) = FromHub::parse(&message) else { panic!() };
        prop_assert_eq!(read.iter().collect::<Vec<_>>(), slices().collect::<Vec<_>>());

        let names: Vec<_> = channels.iter().map(String::as_str).collect();
        let message = body(&grpc::subscribe_request(&text, &names, is_ephemeral));
        let Ok(SubscribeFrame::Request(request)) = SubscribeFrame::parse(&message) else { panic!() };
        prop_assert_eq!(request.version, &text);
        prop_assert_eq!(request.is_ephemeral, is_ephemeral);
        prop_assert_eq!(request.channels.iter().collect::<Vec<_>>(), names);

        let message = body(&grpc::subscribe_ack(&text));
        prop_assert_eq!(SubscribeFrame::parse(&message), Ok(SubscribeFrame::Ack(&text)));
        let message = body(&grpc::publish_ack(&text));
        prop_assert_eq!(grpc::read_publish_ack(&message), Ok(text.as_str()));
        let message = body(&grpc::close_notice(code, &text));
        prop_assert_eq!(FromHub::parse(&message), Ok(FromHub::Close { code, text: &text }));
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = Envelope::parse(&bytes);
        let _ = Hello::parse(&bytes);
        let _ = websocket::read_ack(&bytes);
        let _ = SubscribeFrame::parse(&bytes);
        let _ = FromHub::parse(&bytes);
        if let Ok(records) = Records::parse(&bytes) {
            let length: usize = records.iter().map(|record| record.len() + RECORD_OVERHEAD).sum();
            prop_assert_eq!(length, bytes.len());
        }
    }
}

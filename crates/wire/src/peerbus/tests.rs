//! The rules of the JSON, frame by frame.

use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::json::{self, Literal, Reader};

fn envelope(json: &[u8]) -> Envelope<'_> {
    Envelope::parse(json).unwrap()
}

fn compact(json: &[u8]) -> Option<Vec<u8>> {
    Body::parse(json).ok().map(|body| body.as_bytes().to_vec())
}

#[test]
fn member_names_match_in_any_case_and_the_last_of_them_counts() {
    let json = br#"{"Protocol_VERSION":"v1","TYPE":"register","token":"x","To\u212aen":"tok","name":"z",
        "NAME":"len","extra":{"a":[1,{"name":5}]},"protocol_version_and_more":1,"\u0072eceipts":true}"#;
    let register = Register::parse(json).unwrap();
    assert_eq!((&*register.token, &*register.name), ("tok", "len"));
    assert!(register.receipts);
    assert_eq!(envelope("{\"\u{17f}ource\":\"x\"}".as_bytes()).source, "x");
    assert_eq!(envelope(br#"{"sourcf":"x"}"#).source, "");
    assert_eq!(envelope(br#"{"id":"a","id":"b","Id":null}"#).id, "b");
    assert_eq!(envelope(br#"{"body":1,"BODY":{}}"#).body.as_bytes(), b"{}");
}

#[test]
fn only_true_asks_for_receipts() {
    for (value, receipts) in [("true", true), ("false", false), ("1", false), ("[]", false)] {
        let json = format!(
            r#"{{"type":"register","protocol_version":"v1","name":"a","receipts":{value}}}"#
        );
        assert_eq!(Register::parse(json.as_bytes()).unwrap().receipts, receipts, "{value}");
    }
}

#[test]
fn member_of_another_type_counts_where_the_frame_has_it() {
    for (json, read) in [
        (&br#"{"type":"ack","id":"k","from":5}"#[..], Ok(())),
        (br#"{"type":"ack","id":5}"#, Err(DropReason::Malformed)),
        (br#"{"type":"ack","id":5,"id":"k"}"#, Err(DropReason::Malformed)),
        (br#"{"type":"ack","id":"k","protocol_version":[]}"#, Err(DropReason::Malformed)),
        (br#"{"type":"peers","names":7,"id":7}"#, Ok(())),
        (br#"{"id":"a","to":"b","token":7}"#, Ok(())),
        (br#"{"type":7,"id":"a","to":"b"}"#, Ok(())),
        (br#"{"id":"a","to":"b","ts":true}"#, Err(DropReason::Malformed)),
        (b"null", Err(DropReason::NoId)),
        (b"[]", Err(DropReason::Malformed)),
        (b"\"x\"", Err(DropReason::Malformed)),
        (b"", Err(DropReason::Malformed)),
    ] {
        let outcome = Received::parse(json).map(|_| ()).map_err(|dropped| dropped.reason);
        assert_eq!(outcome, read, "{}", String::from_utf8_lossy(json));
    }
}

#[test]
fn dropped_message_has_its_id_for_who_asked_for_receipts() {
    let dropped = Received::parse(br#"{"id":"k2","to":"*","kind":"msg"}"#).unwrap_err();
    assert_eq!((dropped.reason, &*dropped.id), (DropReason::Contradiction, "k2"));
    let dropped = Received::parse(b"{\"id\":\"k3\",\"to\":\"a\",\"body\":\"\xff\"}").unwrap_err();
    assert_eq!((dropped.reason, &*dropped.id), (DropReason::NotUtf8, "k3"));
}

#[test]
fn what_is_no_json_is_malformed() {
    for json in [
        &b"{"[..],
        b"{}x",
        b"{}{}",
        b"{,}",
        b"{\"a\":1,}",
        b"{\"a\" 1}",
        b"{\"a\":}",
        b"{a:1}",
        b"{\"a\":1 \"b\":2}",
        b"{\"a\":01}",
        b"{\"a\":+1}",
        b"{\"a\":.5}",
        b"{\"a\":1.}",
        b"{\"a\":1e}",
        b"{\"a\":-}",
        b"{\"a\":tru}",
        b"{\"a\":nul}",
        b"{\"a\":True}",
        b"{\"a\":[1,]}",
        b"{\"a\":[,1]}",
        b"{\"a\":[1}",
        b"{\"a\":{\"b\":1]}",
        b"{\"a\":{1:2}}",
        b"{\"a\":{\"b\"}}",
        b"{\"a\":\"\n\"}",
        b"{\"a\":\"\\x\"}",
        b"{\"a\":\"\\u12g4\"}",
        b"{\"a\":\"\\u12\"}",
        b"{\"a\":\"\\",
        b"{\"a\":\"b",
        b"{\"a\":1}\0",
        b"\xef\xbb\xbf{}",
    ] {
        assert_eq!(Envelope::parse(json), Err(Malformed), "{}", String::from_utf8_lossy(json));
    }
    for json in [&b" \t\r\n{ } "[..], b"{\"a\":[ ]}", b"{\"a\":-0.10E+02,\"b\":{}}", b" null "] {
        assert!(Envelope::parse(json).is_ok(), "{}", String::from_utf8_lossy(json));
    }
}

#[test]
fn strings_are_read_and_written_as_with_go() {
    for (json, text, written) in [
        (&br#""\u0041\/\"\\\b\f\n\r\t""#[..], "A/\"\\\u{8}\u{c}\n\r\t", r#""A/\"\\\b\f\n\r\t""#),
        (br#""\ud83d\ude00""#, "\u{1f600}", "\"\u{1f600}\""),
        (br#""\ud83d\u0041\ude00""#, "\u{fffd}A\u{fffd}", "\"\u{fffd}A\u{fffd}\""),
        (br#""\ud83dx""#, "\u{fffd}x", "\"\u{fffd}x\""),
        // Half of a character is as many replacements as it has bytes.
        (b"\"\xe2\x82\xff\"", "\u{fffd}\u{fffd}\u{fffd}", "\"\u{fffd}\u{fffd}\u{fffd}\""),
        (b"\"<&>\x7f\"", "<&>\u{7f}", "\"\\u003c\\u0026\\u003e\u{7f}\""),
        (
            "\"\u{2028}\u{2029}\u{2027}\u{20ac}\"".as_bytes(),
            "\u{2028}\u{2029}\u{2027}\u{20ac}",
            "\"\\u2028\\u2029\u{2027}\u{20ac}\"",
        ),
        (br#""\u0000\u001f""#, "\0\u{1f}", r#""\u0000\u001f""#),
    ] {
        let literal: Literal<'_> = Reader::new(json).string().unwrap();
        assert_eq!(literal.text(), text);
        let mut again = Vec::new();
        json::push_text(&mut again, text);
        assert_eq!(String::from_utf8_lossy(&again), written);
        assert_eq!(json::text_length(text), again.len());
    }
}

#[test]
fn body_is_compacted_and_otherwise_left_alone() {
    let written =
        "{\"b\":\"\\u003ca\\u0026b\\u003e\\u2028 \\/ \\u00e9 é\",\"b\":[1.0,1e3,-0,{}],\"z\":null}";
    let spaced = " { \"b\" : \"<a&b>\u{2028} \\/ \\u00e9 é\" ,\n\"b\":[ 1.0, 1e3,\t-0 , { } ] , \"z\" : null }\r\n";
    assert_eq!(compact(spaced.as_bytes()).unwrap(), written.as_bytes());
    assert_eq!(compact(written.as_bytes()).unwrap(), written.as_bytes());
    assert_eq!(compact(b"\"raw\xfftail\"").unwrap(), b"\"raw\xfftail\"");
    assert_eq!(compact(b"1 2"), None);
    assert_eq!(compact(b""), None);
}

#[test]
fn nesting_is_read_as_deep_as_with_go_and_no_deeper() {
    let nested = |depth: usize| {
        // Objects and arrays by turns, so that each has to be closed by its own bracket.
        let open: String = (0..depth).map(|at| if at % 3 == 0 { "{\"a\":" } else { "[" }).collect();
        let close = (0..depth).rev().map(|at| if at % 3 == 0 { '}' } else { ']' });
        format!("{{\"body\":{open}1{}}}", close.collect::<String>())
    };
    for depth in [1, 63, 64, 65, 127, 128, 129, 200, MAX_DEPTH - 1] {
        let json = nested(depth);
        assert_eq!(envelope(json.as_bytes()).body.as_bytes().len(), json.len() - 9, "{depth}");
    }
    assert_eq!(Envelope::parse(nested(MAX_DEPTH).as_bytes()), Err(Malformed));
    assert_eq!(Envelope::parse(&[b'['; MAX_MESSAGE]), Err(Malformed));
    assert_eq!(Envelope::parse(nested(200).replace("}]", "]}").as_bytes()), Err(Malformed));
}

#[test]
fn frames_are_written_to_the_byte() {
    let text = |json: Vec<u8>| String::from_utf8(json).unwrap();
    assert_eq!(
        text(register("tok", "alice", false)),
        r#"{"protocol_version":"v1","type":"register","token":"tok","name":"alice"}"#
    );
    assert_eq!(
        text(register("t", "a", true)),
        r#"{"protocol_version":"v1","type":"register","token":"t","name":"a","receipts":true}"#
    );
    assert_eq!(text(ack("bc1|bob")), r#"{"protocol_version":"v1","type":"ack","id":"bc1|bob"}"#);
    assert_eq!(text(peers([])), r#"{"protocol_version":"v1","type":"peers","names":[]}"#);
    let refused = receipt("m1", ReceiptResult::Refused, "quota");
    assert_eq!(
        text(refused),
        r#"{"type":"receipt","id":"m1","result":"refused","reason":"quota"}"#
    );
    assert_eq!(DELIVER_OVERHEAD, 72);
    assert_eq!(deliver("", b"").len(), DELIVER_OVERHEAD);
    assert_eq!(deliver_length("<", 10), DELIVER_OVERHEAD + 6 + 10);
}

#[test]
fn what_a_broker_says_is_read() {
    let peers = FromBroker::Peers(vec!["a".into(), "b".into()]);
    assert_eq!(FromBroker::parse(&super::peers(["a", "b"])), Ok(peers));
    for json in [&br#"{"type":"peers"}"#[..], br#"{"type":"peers","names":null}"#] {
        assert_eq!(FromBroker::parse(json), Ok(FromBroker::Peers(vec![])));
    }
    for json in [&br#"{"type":"peers","names":[1]}"#[..], br#"{"type":"peers","names":{}}"#] {
        assert_eq!(FromBroker::parse(json), Err(Malformed));
    }
    for result in ReceiptResult::ALL {
        let json = receipt("m\u{2028}", result, "why");
        let read = FromBroker::Receipt { id: "m\u{2028}".into(), result, reason: "why".into() };
        assert_eq!(FromBroker::parse(&json), Ok(read));
    }
    for json in [&br#"{"type":"receipt","result":"lost"}"#[..], br#"{"type":"news"}"#, b"{}"] {
        assert_eq!(FromBroker::parse(json), Ok(FromBroker::Other));
    }
}

#[test]
fn refusals_are_told_apart_by_what_they_say() {
    for refusal in Refusal::ALL {
        assert_eq!(Refusal::of_close(refusal.code(), refusal.reason()), Some(refusal));
        // What a close frame holds (RFC 6455, section 5.5.1).
        assert!(refusal.reason().len() <= 123);
    }
    assert_eq!(Refusal::of_close(1000, "bye"), None);
}

#[test]
fn first_refusal_that_holds_is_the_one() {
    let long = format!(
        r#"{{"type":"register","protocol_version":"v1","name":"{}"}}"#,
        "n".repeat(MAX_NAME + 1)
    );
    for (json, refusal) in [
        (r#"{"type":"peers","protocol_version":"v9","name":5}"#, Refusal::Malformed),
        (r#"{"type":"Register","protocol_version":"v9","name":""}"#, Refusal::NotRegister),
        (r#"{"type":"register","protocol_version":"v9","name":""}"#, Refusal::Version),
        (r#"{"type":"register","protocol_version":"v1"}"#, Refusal::NoName),
        (&long, Refusal::LongName),
        ("null", Refusal::NotRegister),
    ] {
        assert_eq!(Register::parse(json.as_bytes()), Err(refusal), "{json}");
    }
}

#[test]
fn token_is_not_in_the_debug_form() {
    let register = Register { token: "hunter2".into(), name: "a".into(), receipts: true };
    let text = format!("{register:?}");
    assert!(text.contains("***") && !text.contains("hunter2"), "{text}");
}

/// Takes long, and shows something in a release build only.
#[test]
#[ignore = "a measurement: cargo test --release -p beacon-wire reads_and_writes -- --ignored --nocapture"]
fn reads_and_writes_an_envelope_in_about_a_microsecond() {
    const ROUNDS: u32 = 50_000;
    let body = format!("{{\"text\":\"{}\"}}", "lorem ipsum ".repeat(2));
    let hmac = "ab".repeat(32);
    let json = format!(
        r#"{{"protocol_version":"v1","id":"0123456789abcdef0123456789abcdef","from":"bob","to":"alice","ts":"2026-05-18T12:00:00.123456789Z","source":"peer-bus","kind":"msg","body":{body},"hmac":"{hmac}"}}"#
    );
    let mut length = 0;
    let mut round = || {
        let begun = Instant::now();
        for _ in 0..ROUNDS {
            let message = std::hint::black_box(json.as_bytes());
            let Ok(Received::Envelope(envelope)) = Received::parse(message) else { panic!() };
            length = std::hint::black_box(envelope.encode()).len();
        }
        begun.elapsed() / ROUNDS
    };
    let each = (0..20).map(|_| round()).min().unwrap();
    println!("{} bytes in {each:?}", json.len());
    assert_eq!(length, json.len());
}

/// JSON, and what is nearly JSON.
fn json() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        " ",
        "\"",
        "\\",
        "\\u",
        "d83d",
        "\\ude00",
        "0",
        "-1.5e3",
        "true",
        "null",
        "\"id\":\"a\",",
        "\"to\":\"b\",",
        "\"body\":",
        "\"type\":\"ack\"",
        "\"kind\":\"broadcast\"",
        "<",
        "\u{2028}",
        "é",
        "\n",
        "{\"id\":\"<\",\"to\":\"*\"",
    ]);
    let bytes = prop_oneof![
        9 => piece.prop_map(|piece| piece.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    prop::collection::vec(bytes, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(message in prop_oneof![json(), prop::collection::vec(any::<u8>(), 0..200)]) {
        let _ = Register::parse(&message);
        let _ = Received::parse(&message);
        let _ = FromBroker::parse(&message);
    }

    #[test]
    fn bodies_are_those_of_another_reader(message in json()) {
        let other: Result<serde_json::Value, _> = serde_json::from_slice(&message);
        // The other one refuses strings that are no Unicode, and numbers that are too large.
        if let Ok(other) = other {
            let compact = compact(&message).unwrap();
            prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&compact).unwrap(), other);
        }
    }

    #[test]
    fn what_was_written_is_written_so_again(
        texts in prop::array::uniform8(any::<String>()),
        body in json(),
    ) {
        let [id, from, to, ts, source, kind, hmac, version] = texts.map(Into::into);
        let body = Body::parse(&body).unwrap_or(Body::NULL);
        let envelope = Envelope { protocol_version: version, id, from, to, ts, source, kind, body, hmac };
        let json = envelope.encode();
        let again = Envelope::parse(&json).unwrap();
        prop_assert_eq!(&again, &envelope);
        prop_assert_eq!(again.encode(), json);
        prop_assert!(envelope.canonical().len() < envelope.encode().len());
    }

    #[test]
    fn strings_are_those_of_another_reader(text: String) {
        let mut json = Vec::new();
        json::push_text(&mut json, &text);
        prop_assert_eq!(&serde_json::from_slice::<String>(&json).unwrap(), &text);
        let other = serde_json::to_vec(&text).unwrap();
        prop_assert_eq!(Reader::new(&other).string().unwrap().text(), text);
    }
}

//! Against the rows of what the original was seen to read and write.

use proptest::prelude::*;

use super::*;

fn parsed(frame: &str) -> Message<'_> {
    Message::parse(frame.as_bytes()).unwrap()
}

fn encoded(message: &Message<'_>) -> String {
    let mut out = Vec::new();
    message.encode(&mut out);
    String::from_utf8(out).unwrap()
}

fn headers(frame: &str) -> Vec<(String, String)> {
    let headers = parsed(frame).headers.iter().map(|header| {
        let mut name = Vec::new();
        header.push_name(&mut name);
        (String::from_utf8(name).unwrap(), header.value.to_owned())
    });
    headers.collect()
}

fn body(lines: &str) -> String {
    let frame = format!("PUB Chat\r\n\r\n{lines}");
    parsed(&frame).body.text().into_owned()
}

#[test]
fn line_ends_are_crlf_or_lf() {
    let with_crlf = parsed("PUB Chat\r\nroom: a\r\n\r\nx\r\ny\r\n.\r\n");
    let with_lf = parsed("PUB Chat\nroom: a\n\nx\ny\n.\n");

    assert_eq!(with_crlf, with_lf);
    assert_eq!(with_lf.command, Command::Pub);
    assert_eq!(with_lf.target, "Chat");
    assert_eq!(with_lf.body.text(), "x\ny");
}

#[test]
fn every_command_has_its_text_in_upper_case_only() {
    for text in ["SUB", "PUB", "REQ", "RES", "EPUB", "ESUB", "EREQ", "INT"] {
        assert!(!matches!(Command::of(text), Command::Other(_)), "{text}");
        assert_eq!(Command::of(text).as_str(), text);
    }
    for text in ["UNS", "pub", "", "PUBLISH"] {
        assert_eq!(Command::of(text), Command::Other(text));
        assert_eq!(Command::of(text).as_str(), text);
    }
}

#[test]
fn target_is_all_behind_the_first_space() {
    assert_eq!(parsed("PUB Chat Room 2\r\n\r\n.\r\n").target, "Chat Room 2");
    assert_eq!(parsed("PUB Chat \r\n\r\n.\r\n").target, "Chat ");
    assert_eq!(parsed("PUB \r\n\r\n.\r\n").target, "");
    assert_eq!(parsed(" Chat\r\n\r\n.\r\n").command, Command::Other(""));
}

#[test]
fn what_is_no_message_is_refused() {
    for (frame, why) in [
        ("", Malformed::NoTopLine),
        ("PUB Chat", Malformed::NoTopLine),
        ("PUB\r\n\r\n.\r\n", Malformed::NoTarget),
        ("\r\n\r\n.\r\n", Malformed::NoTarget),
        ("PUB Chat\r\n", Malformed::NoBlankLine),
        ("PUB Chat\r\na: 1\r\n", Malformed::NoBlankLine),
        ("PUB Chat\r\na: 1\r\n.\r\n", Malformed::NoColon),
        ("PUB Chat\r\nnocolon\r\n\r\nx\r\n.\r\n", Malformed::NoColon),
        ("PUB Chat\r\n a: 1\r\n\r\nx\r\n.\r\n", Malformed::LeadingSpace),
        ("PUB Chat\r\na: 1\r\n\tb: 2\r\n\r\nx\r\n.\r\n", Malformed::LeadingSpace),
        ("PUB Chat\r\n  \r\n\r\nx\r\n.\r\n", Malformed::LeadingSpace),
        ("PUB Chat\r\n: 1\r\n\r\nx\r\n.\r\n", Malformed::HeaderName),
        ("PUB Chat\r\na(b: 1\r\n\r\nx\r\n.\r\n", Malformed::HeaderName),
        ("PUB Chat\r\né: 1\r\n\r\nx\r\n.\r\n", Malformed::HeaderName),
        ("PUB Chat\r\na: 1\rb: 2\r\n\r\nx\r\n.\r\n", Malformed::HeaderValue),
        ("PUB Chat\r\na: \0\r\n\r\nx\r\n.\r\n", Malformed::HeaderValue),
        ("PUB Chat\r\n\r\n", Malformed::NoDot),
        ("PUB Chat\r\n\r\nx", Malformed::NoDot),
        ("PUB Chat\r\n\r\nx\r\n", Malformed::NoDot),
        // The end of the last line is required.
        ("PUB Chat\r\n\r\nx\r\n.", Malformed::NoDot),
        ("PUB Chat\r\n\r\nx\r\n.\r", Malformed::NoDot),
        ("PUB Chat\r\n\r\nx\r\n..\r\n. \r\n", Malformed::NoDot),
    ] {
        assert_eq!(Message::parse(frame.as_bytes()), Err(why), "{frame:?}");
    }
    assert_eq!(Message::parse(b"PUB Chat\r\n\r\n\xff\r\n.\r\n"), Err(Malformed::NotText));
}

#[test]
fn header_lines_are_bounded() {
    let frame = |headers: &str| format!("PUB Chat\n{headers}\n.\n");
    let most = frame(&"a:1\n".repeat(Headers::MOST));
    assert_eq!(parsed(&most).headers.iter().count(), Headers::MOST);
    let more = frame(&"a:1\n".repeat(Headers::MOST + 1));
    assert_eq!(Message::parse(more.as_bytes()), Err(Malformed::TooManyHeaders));

    // 3 = a colon, a name and a line end.
    let longest = frame(&format!("a:{}\n", "x".repeat(Headers::MOST_BYTES - 3)));
    assert!(Message::parse(longest.as_bytes()).is_ok());
    let longer = frame(&format!("a:{}\n", "x".repeat(Headers::MOST_BYTES - 2)));
    assert_eq!(Message::parse(longer.as_bytes()), Err(Malformed::HeadersTooLong));
}

#[test]
fn header_names_become_canonical_and_values_are_trimmed() {
    let read = headers("PUB Chat\nroom:a\nx-MY-header: \t v w\t \nREQID:\nk: 1\nK: 2\n\n.\n");

    let expected = [("Room", "a"), ("X-My-Header", "v w"), ("Reqid", ""), ("K", "1"), ("K", "2")];
    assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn header_name_with_a_space_stays_as_it_is() {
    let frame = "PUB Chat\r\na b: 1\r\nrid : 2\r\n\r\n.\r\n";

    assert_eq!(headers(frame)[0], ("a b".to_owned(), "1".to_owned()));
    assert_eq!(parsed(frame).headers.find("rid"), None);
    assert_ne!(parsed(frame), parsed(&frame.replace("a b", "A b")));
}

#[test]
fn headers_are_found_in_any_case_and_keep_their_spelling() {
    let message = parsed("REQ Svc\r\nrId: 7\r\nReqID: a:b\r\nreqid: c\r\n\r\n.\r\n");

    let found = message.headers.find("Reqid").unwrap();
    assert_eq!((found.name, found.value), ("ReqID", "a:b"));
    assert_eq!(message.headers.find("RID").unwrap().value, "7");
    assert_eq!(message.headers.find("Cid"), None);
}

#[test]
fn end_of_the_last_line_is_not_part_of_the_body() {
    assert_eq!(body(".\r\n"), "");
    assert_eq!(body("\r\n.\r\n"), "");
    assert_eq!(body("\n\r\n.\r\n"), "\n");
    assert_eq!(body("hello\r\n.\r\n"), "hello");
    assert_eq!(body("a\nb\n.\n"), "a\nb");
    assert_eq!(body("line1\r\n\r\nline3\r\n.\r\n"), "line1\n\nline3");
    assert_eq!(body("hé€\r\n.\r\n"), "hé€");
    assert_eq!(body("a\r\r\nb\r\r\n.\r\n"), "a\r\nb\r");
}

#[test]
fn what_follows_the_dot_is_ignored() {
    assert_eq!(body("a\r\n.\r\nb\r\n.\r\n"), "a");
    assert_eq!(body("a\r\n.\r\nb"), "a");
}

#[test]
fn one_of_two_dots_at_the_beginning_of_a_line_is_taken_away() {
    assert_eq!(body("..x\r\n.\r\n"), ".x");
    assert_eq!(body("..\r\n...\r\n.\r\n"), ".\n..");
    assert_eq!(body("x..\r\n..\r\n.\r\n"), "x..\n.");
}

#[test]
fn single_dot_before_other_characters_stays() {
    assert_eq!(body(".x\r\n. \r\n.\r\n"), ".x\n. ");
}

#[test]
fn only_lines_that_are_a_dot_or_begin_with_two_get_one_more() {
    let body = Body::of(".\n.x\n..\n..x\nx.");
    let message = Message { body, ..parsed("PUB Chat\n\n.\n") };

    let frame = encoded(&message);

    assert_eq!(frame, "PUB Chat\r\n\r\n..\n.x\n...\n...x\nx.\r\n.\r\n");
    assert_eq!(parsed(&frame), message);
}

#[test]
fn messages_are_written_as_the_original_does() {
    for (sent, delivered) in [
        (
            "PUB Chat\nroom:a\nx-MY-header:  v  \n\nhello\r\n.\r\n",
            "PUB Chat\r\nRoom: a\r\nX-My-Header: v\r\n\r\nhello\r\n.\r\n",
        ),
        ("PUB Chat\r\n\r\n.\r\n", "PUB Chat\r\n\r\n\r\n.\r\n"),
        (
            "PUB Chat\r\nk: 1\r\nK: 2\r\n\r\nx\r\n.\r\n",
            "PUB Chat\r\nK: 1\r\nK: 2\r\n\r\nx\r\n.\r\n",
        ),
        ("PUB Chat\n\na\r\nb\n.\n", "PUB Chat\r\n\r\na\nb\r\n.\r\n"),
        ("RES Svc\nuid:\n\n\r\n.\r\n", "RES Svc\r\nUid: \r\n\r\n\r\n.\r\n"),
    ] {
        let message = parsed(sent);
        assert_eq!(encoded(&message), delivered);
        assert_eq!(parsed(delivered), message);
    }
}

#[test]
fn body_does_not_grow_from_hop_to_hop() {
    let mut frame = "PUB Chat\r\n\r\nhello\n\r\n.\r\n".to_owned();
    for _ in 0..3 {
        frame = encoded(&parsed(&frame));
        assert_eq!(parsed(&frame).body.text(), "hello\n");
    }
}

#[test]
fn error_is_written_without_headers() {
    let mut out = Vec::new();

    Encoder::begin(&mut out, Command::Pub, ERROR).finish(Body::of("Not trusted: SUB Room"));

    assert_eq!(out, b"PUB ERROR\r\n\r\nNot trusted: SUB Room\r\n.\r\n");
}

#[test]
fn guid_is_read_and_shown_as_recorded() {
    for text in ["dc5g1j9ksduaqcg5lrsg", "dc5g1l1ksduap2s66s70", "00000000000000000000"] {
        let guid: Guid = text.parse().unwrap();
        assert_eq!(guid.to_string(), text);
    }
    // Two connections of one server in one second.
    let guid = |text: &str| text.parse::<Guid>().unwrap();
    let first = guid("dc5g1j9ksduaqcg5lrsg");
    let second = guid("dc5g1j9ksduaqcg5lrt0");
    assert_eq!(first.maker(), second.maker());
    assert_eq!(second, Guid([0; 12]).max(second));
    let number = |guid: Guid| u32::from_be_bytes([0, guid.0[9], guid.0[10], guid.0[11]]);
    assert_eq!(number(second), number(first) + 1);
    let seconds = u32::from_be_bytes(*first.0.first_chunk().unwrap());
    assert_eq!(Guid::new(seconds, first.maker(), number(first)), first);
}

#[test]
fn what_is_no_guid_is_refused() {
    for text in [
        "",
        "dc5g1j9ksduaqcg5lrs",
        "dc5g1j9ksduaqcg5lrsg0",
        "dc5g1j9ksduaqcg5lrs1",
        "dc5g1j9ksduaqcg5lrsG",
        "dc5g1j9ksduaqcg5lrwg",
        "dc5g1j9ksduaqcg5lré",
    ] {
        assert_eq!(text.parse::<Guid>(), Err(InvalidGuid), "{text}");
    }
}

#[test]
fn messages_of_relays_are_these_bytes() {
    let guid = Guid(*b"0123456789ab");
    let share = TopicShare {
        subscribes: true,
        grants_publications: false,
        grants_subscriptions: true,
        workers: 2,
        outstanding: 258,
    };
    let id = 7;
    let frame = b"PUB Chat\r\n\r\nx\r\n.\r\n";
    let tail = b"\r\nx\r\n.\r\n";
    let request =
        RelayMessage::Request { id, timeout_ms: 30_000, has_request_id: true, topic: "Svc", tail };
    for (message, bytes) in [
        (RelayMessage::Begin { maker: *b"maker" }, &b"\x01maker"[..]),
        (RelayMessage::Topic { share, topic: "Chat" }, b"\x02\x05\0\0\0\x02\0\0\x01\x02Chat"),
        (RelayMessage::Publication { frame }, b"\x03PUB Chat\r\n\r\nx\r\n.\r\n"),
        (RelayMessage::User { guid, uid: "u" }, b"\x040123456789abu"),
        (request, b"\x05\0\0\0\0\0\0\0\x07\0\0\x75\x30\x01\0\x03Svc\r\nx\r\n.\r\n"),
        (
            RelayMessage::Answer { id, outstanding: 3, tail },
            b"\x06\0\0\0\0\0\0\0\x07\0\0\0\x03\r\nx\r\n.\r\n",
        ),
        (RelayMessage::Failed { id, failure: Failure::TimedOut }, b"\x07\0\0\0\0\0\0\0\x07\x04"),
        (RelayMessage::Cancel { id }, b"\x08\0\0\0\0\0\0\0\x07"),
        (RelayMessage::Returned { id, tail }, b"\x09\0\0\0\0\0\0\0\x07\r\nx\r\n.\r\n"),
    ] {
        let mut encoded = Vec::new();
        message.encode(&mut encoded);
        assert_eq!(encoded, bytes);
        assert_eq!(RelayMessage::parse(bytes), Ok(message));
        // Each has fields of fixed length, or a text that is as long as it is.
        let cut = RelayMessage::parse(&bytes[..bytes.len().min(5)]);
        assert!(cut.is_err() || matches!(cut, Ok(RelayMessage::Publication { .. })));
    }
}

#[test]
fn what_no_relay_says_is_refused() {
    for bytes in [
        &b""[..],
        b"\x00",
        b"\x0a",
        b"\x09\0\0\0\0\0\0\0",
        b"\x01make",
        b"\x01maker+",
        b"\x02\x08\0\0\0\x02\0\0\x01\x02Chat",
        b"\x02\x05\0\0\0\x02\0\0\x01\x02\xff",
        b"\x040123456789ab\xff",
        b"\x05\0\0\0\0\0\0\0\x07\0\0\x75\x30\x02\0\x03Svc",
        b"\x05\0\0\0\0\0\0\0\x07\0\0\x75\x30\x01\0\x04Svc",
        b"\x07\0\0\0\0\0\0\0\x07\0",
        b"\x07\0\0\0\0\0\0\0\x07\x07",
        b"\x08\0\0\0\0\0\0\0\x07\0",
    ] {
        assert_eq!(RelayMessage::parse(bytes), Err(InvalidRelayMessage), "{bytes:?}");
    }
}

/// Texts in which what the grammar looks for is frequent.
fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\n".to_owned()),
        Just("\r\n".to_owned()),
        Just("\r".to_owned()),
        Just(".".to_owned()),
        Just("a".to_owned()),
        Just("€".to_owned()),
        any::<String>(),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_text_comes_back_as_a_body(text in any_text()) {
        let message = Message { body: Body::of(&text), ..parsed("PUB Chat\n\n.\n") };

        let frame = encoded(&message);

        let again = parsed(&frame);
        prop_assert_eq!(again, message);
        prop_assert_eq!(again.body.text(), text.as_str());
    }

    #[test]
    fn any_guid_comes_back(bytes in any::<[u8; 12]>()) {
        let guid = Guid(bytes);
        let text = guid.to_string();
        prop_assert_eq!(text.parse(), Ok(guid));
        prop_assert_eq!(text.as_bytes(), guid.text());
    }
}

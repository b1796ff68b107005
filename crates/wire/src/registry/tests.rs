//! Published bytes, round trips and hostile input of the registry's messages.

use proptest::prelude::*;

use super::*;

const KEY: &str = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";

fn node(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

fn encode(request: Request<'_>, mode: Mode) -> Vec<u8> {
    let mut out = BytesMut::new();
    request.encode(mode, &mut out);
    out.to_vec()
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
}

/// A `0x82` message about `node` with `listed` numbers before the key and `further` bytes after it.
fn found(node: u32, listed: u16, key: &[u8], further: &[u8]) -> Vec<u8> {
    let mut message = vec![0x82];
    message.extend(node.to_be_bytes());
    message.extend([0x80, 0, 0, 0, 0]);
    message.extend(listed.to_be_bytes());
    message.extend((0..listed).flat_map(u16::to_be_bytes));
    message.push(u8::try_from(key.len()).unwrap());
    message.extend(key);
    message.extend(further);
    message
}

#[test]
fn spec_8_requests_have_the_published_form() {
    let lookup = Request::Lookup(node(0x0102_0304));
    assert_eq!(encode(lookup, Mode::Binary), [0, 0, 0, 5, 2, 1, 2, 3, 4]);
    assert_eq!(
        encode(Request::Lookup(node(7)), Mode::Json),
        framed(br#"{"type":"lookup","node_id":7}"#)
    );
    let register =
        Request::RegisterBeacon { id: BeaconId(3), address: "h:1", admin_token: Some("secret") };
    let json = br#"{"type":"beacon_register","beacon_id":3,"addr":"h:1","admin_token":"secret"}"#;
    assert_eq!(encode(register, Mode::Json), framed(json));
    assert_eq!(encode(register, Mode::Binary), framed(&[&[0], json.as_slice()].concat()));
    let register = Request::RegisterBeacon { id: BeaconId(3), address: "h:1", admin_token: None };
    let json = br#"{"type":"beacon_register","beacon_id":3,"addr":"h:1"}"#;
    assert_eq!(encode(register, Mode::Json), framed(json));
    assert_eq!(encode(Request::ListBeacons, Mode::Json), framed(br#"{"type":"beacon_list"}"#));
}

#[test]
fn spec_8_requests_follow_each_other_in_one_buffer() {
    let mut out = BytesMut::new();
    for number in [7, 8] {
        Request::Lookup(node(number)).encode(Mode::Binary, &mut out);
    }
    assert_eq!(take_message(&mut out).unwrap().unwrap(), [2, 0, 0, 0, 7].as_slice());
    assert_eq!(take_message(&mut out).unwrap().unwrap(), [2, 0, 0, 0, 8].as_slice());
    assert!(take_message(&mut out).unwrap().is_none());
}

#[test]
fn spec_8_json_responses_are_read() {
    let decode = |text: &str| Response::decode(Mode::Json, text.as_bytes()).unwrap();
    let key = KEY.parse().unwrap();
    assert_eq!(
        decode(&format!(
            r#"{{"type":"lookup_ok","node_id":7,"public_key":"{KEY}","hostname":"h","networks":[1]}}"#
        )),
        Response::Key { node: 7, key }
    );
    assert_eq!(
        decode(r#"{"type":"error","error":"node 7: node not found"}"#),
        Response::NotFound { node: Some(7) }
    );
    assert_eq!(
        decode(r#"{"type":"error","error":"rate limited"}"#),
        Response::Failed("rate limited".to_owned())
    );
    assert_eq!(decode(r#"{"type":"beacon_register_ok","error":""}"#), Response::BeaconRegistered);
    assert_eq!(
        decode(r#"{"type":"beacon_list_ok","beacons":[{"id":3,"addr":"h:1","later":0}]}"#),
        Response::Beacons(vec![BeaconEntry { id: BeaconId(3), address: "h:1".to_owned() }])
    );
    for empty in [r#"{"type":"beacon_list_ok"}"#, r#"{"type":"beacon_list_ok","beacons":null}"#] {
        assert_eq!(decode(empty), Response::Beacons(Vec::new()));
    }
}

#[test]
fn spec_8_binary_responses_are_read() {
    let decode = |message: &[u8]| Response::decode(Mode::Binary, message).unwrap();
    for (listed, further) in [(0, [].as_slice()), (2, &[4, b'h', b'o', b's', b't'])] {
        assert_eq!(
            decode(&found(7, listed, &[9; 32], further)),
            Response::Key { node: 7, key: PublicKey([9; 32]) }
        );
    }
    assert_eq!(decode(b"\xffnode 7: not found"), Response::NotFound { node: Some(7) });
    // As registries send it: the text after its length.
    let sent = b"\xff\x00\x18node 999: node not found";
    assert_eq!(decode(sent), Response::NotFound { node: Some(999) });
    assert_eq!(decode(b"\xff\x00\x04busy"), Response::Failed("busy".to_owned()));
    assert_eq!(decode(b"\xffbusy"), Response::Failed("busy".to_owned()));
    assert_eq!(decode(b"\x00{\"type\":\"beacon_register_ok\"}"), Response::BeaconRegistered);
}

#[test]
fn spec_8_only_the_exact_texts_mean_an_unknown_node() {
    let decode = |text: &str| {
        let length = u16::try_from(text.len()).unwrap().to_be_bytes();
        let binary = [b"\xff", &length[..], text.as_bytes()].concat();
        let binary = Response::decode(Mode::Binary, &binary).unwrap();
        let json = serde_json::json!({"type": "error", "error": text}).to_string();
        assert_eq!(Response::decode(Mode::Json, json.as_bytes()).unwrap(), binary, "{text}");
        binary
    };
    for (text, node) in [
        ("node 7: not found", Some(7)),
        ("node 4294967295: node not found", Some(u32::MAX)),
        ("node not found", None),
    ] {
        assert_eq!(decode(text), Response::NotFound { node }, "{text}");
    }
    for text in [
        "upstream not found: node 7",
        "upstream not found: node 7: not found",
        "not found",
        "node 7 not found",
        "node 7: not found: retry",
        "node 7: Not found",
        "node 7:not found",
        "node 07: not found",
        "node 0: not found",
        "node -7: not found",
        "node 7: node 7: not found",
        "Node not found",
        "node not found ",
        "table nodes not found",
        "hostname \"node 7\" not found",
    ] {
        assert_eq!(decode(text), Response::Failed(text.to_owned()));
    }
}

#[test]
fn spec_8_key_of_another_length_is_refused() {
    for length in [0, 31, 33, 255] {
        let error =
            Response::decode(Mode::Binary, &found(7, 0, &vec![1; length], b"")).unwrap_err();
        assert!(
            matches!(error, DecodeError::PublicKey(InvalidPublicKey::WrongLength(l)) if l == length)
        );
    }
    let json = br#"{"type":"lookup_ok","node_id":7,"public_key":"AAAA"}"#;
    let error = Response::decode(Mode::Json, json).unwrap_err();
    assert!(matches!(error, DecodeError::PublicKey(InvalidPublicKey::WrongLength(3))));
}

#[test]
fn every_cut_of_a_binary_answer_is_refused() {
    let whole = found(7, 3, &[9; 32], b"");
    for length in 0..whole.len() {
        let cut = &whole[..length];
        assert!(Response::decode(Mode::Binary, cut).is_err(), "{length}");
    }
}

#[test]
fn strange_messages_are_refused() {
    for text in [
        "",
        "7",
        "{}",
        r#"{"type":"lookup"}"#,
        r#"{"type":"lookup_ok","node_id":7}"#,
        r#"{"type":"lookup_ok","public_key":"AAAA"}"#,
        r#"{"type":"lookup_ok","node_id":-1,"public_key":"AAAA"}"#,
        r#"{"type":"beacon_list_ok","beacons":[{"id":3}]}"#,
    ] {
        assert!(Response::decode(Mode::Json, text.as_bytes()).is_err(), "{text}");
    }
    assert!(matches!(Response::decode(Mode::Binary, b"{\""), Err(DecodeError::UnknownType(b'{'))));
}

#[test]
fn error_text_is_kept_up_to_its_bound() {
    let text = "ä".repeat(MAX_ERROR_TEXT);
    let message = [b"\xff", text.as_bytes()].concat();
    let Response::Failed(kept) = Response::decode(Mode::Binary, &message).unwrap() else {
        panic!()
    };
    assert_eq!(kept, "ä".repeat(MAX_ERROR_TEXT / 2));
}

#[test]
fn message_is_taken_when_it_is_whole_and_refused_when_it_is_announced_too_long() {
    let mut received = BytesMut::from(framed(b"abc").as_slice());
    let last = received.split_off(6);
    assert!(take_message(&mut received).unwrap().is_none());
    received.unsplit(last);
    assert_eq!(take_message(&mut received).unwrap().unwrap(), b"abc".as_slice());
    assert!(received.is_empty());

    let mut longest = BytesMut::from(framed(&vec![0; MAX_MESSAGE]).as_slice());
    assert_eq!(take_message(&mut longest).unwrap().unwrap().len(), MAX_MESSAGE);
    let announced = u32::try_from(MAX_MESSAGE + 1).unwrap().to_be_bytes();
    let mut received = BytesMut::from(announced.as_slice());
    assert!(matches!(take_message(&mut received), Err(DecodeError::TooLong(_))));
}

#[test]
fn a_registry_without_binary_mode_takes_the_preamble_for_too_long_a_message() {
    let mut received = BytesMut::from(PREAMBLE.as_slice());
    assert!(matches!(take_message(&mut received), Err(DecodeError::TooLong(0x5049_4c54))));
}

proptest! {
    #[test]
    fn key_round_trips_in_both_modes(
        number in 1..=u32::MAX, key: [u8; 32], listed in 0u16..40, further: Vec<u8>,
    ) {
        let expected = Response::Key { node: number, key: PublicKey(key) };
        let message = found(number, listed, &key, &further);
        prop_assert_eq!(&Response::decode(Mode::Binary, &message).unwrap(), &expected);
        let text = PublicKey(key);
        let json = format!(r#"{{"type":"lookup_ok","node_id":{number},"public_key":"{text}"}}"#);
        prop_assert_eq!(&Response::decode(Mode::Json, json.as_bytes()).unwrap(), &expected);
    }

    #[test]
    fn lookup_round_trips_in_both_modes(number in 1..=u32::MAX) {
        let mut binary = BytesMut::from(encode(Request::Lookup(node(number)), Mode::Binary).as_slice());
        let message = take_message(&mut binary).unwrap().unwrap();
        prop_assert_eq!(&message[..], &[&[2][..], &number.to_be_bytes()].concat()[..]);
        let mut json = BytesMut::from(encode(Request::Lookup(node(number)), Mode::Json).as_slice());
        let message = take_message(&mut json).unwrap().unwrap();
        let value: serde_json::Value = serde_json::from_slice(&message).unwrap();
        prop_assert_eq!(&value["node_id"], &serde_json::json!(number));
    }

    #[test]
    fn any_address_and_token_survive_the_encoding(address: String, token: String) {
        let request = Request::RegisterBeacon {
            id: BeaconId(1), address: &address, admin_token: Some(&token),
        };
        let encoded = encode(request, Mode::Json);
        let value: serde_json::Value = serde_json::from_slice(&encoded[4..]).unwrap();
        prop_assert_eq!(&value["addr"], &serde_json::json!(address));
        prop_assert_eq!(&value["admin_token"], &serde_json::json!(token));
    }

    #[test]
    fn decoders_never_panic(bytes: Vec<u8>) {
        let _ = Response::decode(Mode::Binary, &bytes);
        let _ = Response::decode(Mode::Json, &bytes);
        let mut received = BytesMut::from(bytes.as_slice());
        while let Ok(Some(_)) = take_message(&mut received) {}
    }

    #[test]
    fn decoders_never_panic_on_cut_and_flipped_messages(
        binary: bool, listed in 0u16..9, cut in 0usize..200, flip in 0usize..1_600,
    ) {
        let (mode, mut message) = if binary {
            (Mode::Binary, found(7, listed, &[1; 32], b"more"))
        } else {
            let text = format!(r#"{{"type":"lookup_ok","node_id":7,"public_key":"{KEY}"}}"#);
            (Mode::Json, text.into_bytes())
        };
        if let Some(byte) = message.get_mut(flip / 8) {
            *byte ^= 1 << (flip % 8);
        }
        message.truncate(cut);
        let _ = Response::decode(mode, &message);
        let mut received = BytesMut::from(framed(&message).as_slice());
        received.truncate(cut);
        let _ = take_message(&mut received);
    }
}

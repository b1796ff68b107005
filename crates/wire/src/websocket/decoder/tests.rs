//! SPEC §3.5 to §3.8: what is taken, what ends a connection, and "never panics".

use proptest::prelude::*;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader, FrameSocket};

use super::*;
use crate::websocket::{CloseCode, frame_header};

const MASK: [u8; 4] = [0xa1, 0xb2, 0xc3, 0xd4];

fn masked(opcode: u8, fin: bool, payload: &[u8]) -> Vec<u8> {
    let (header, used) = frame_header(Opcode::Binary, payload.len());
    let mut frame = header[..used].to_vec();
    frame[0] = opcode | if fin { 0x80 } else { 0 };
    frame[1] |= 0x80;
    frame.extend_from_slice(&MASK);
    let start = frame.len();
    frame.extend_from_slice(payload);
    apply_mask(&mut frame[start..], MASK);
    frame
}

fn server() -> Decoder {
    Decoder::new(Role::Server, 65_536)
}

fn decode(bytes: &[u8]) -> Result<Option<Message>, Violation> {
    server().next(&mut bytes.to_vec(), &mut 0)
}

#[test]
fn spec_3_5_whole_frame_is_unmasked_in_place() {
    let mut buffer = masked(2, true, b"hello");
    buffer.extend(masked(2, true, b""));
    let mut at = 0;
    let mut decoder = server();
    let Ok(Some(Message::Binary(range))) = decoder.next(&mut buffer, &mut at) else { panic!() };
    assert_eq!(&buffer[range], b"hello");
    assert!(
        matches!(decoder.next(&mut buffer, &mut at), Ok(Some(Message::Binary(r))) if r.is_empty())
    );
    assert_eq!(at, buffer.len());
    assert_eq!(decoder.next(&mut buffer, &mut at), Ok(None));
}

#[test]
fn spec_3_5_fragments_are_reassembled_around_control_frames() {
    let mut buffer = masked(2, false, b"one ");
    buffer.extend(masked(9, true, b"ping"));
    buffer.extend(masked(0, false, b"two "));
    buffer.extend(masked(0, true, b"three"));
    let mut at = 0;
    let mut decoder = server();
    let mut found = Vec::new();
    while let Some(message) = decoder.next(&mut buffer, &mut at).unwrap() {
        found.push(message);
    }
    assert!(matches!(
        &found[..],
        [Message::Fragment, Message::Ping(_), Message::Fragment, Message::FragmentedBinary(bytes)]
            if bytes == b"one two three"
    ));
}

#[test]
fn spec_3_6_longest_message_is_taken_and_one_more_is_refused_unread() {
    assert!(matches!(decode(&masked(2, true, &vec![0; 65_536])), Ok(Some(Message::Binary(_)))));
    let header_only = &masked(2, true, &vec![0; 65_537])[..14];
    assert_eq!(decode(header_only), Err(Violation::TooLarge));

    let mut buffer = masked(2, false, &vec![0; 40_000]);
    buffer.extend(masked(0, true, &vec![0; 30_000]));
    let mut at = 0;
    let mut decoder = server();
    assert_eq!(decoder.next(&mut buffer, &mut at), Ok(Some(Message::Fragment)));
    assert_eq!(decoder.next(&mut buffer, &mut at), Err(Violation::TooLarge));
    assert_eq!(Violation::TooLarge.close_code(), CloseCode::TooLarge);
}

#[test]
fn spec_3_8_violations_have_their_close_codes() {
    let mut unmasked = masked(2, true, b"x");
    unmasked[1] &= 0x7f;
    let cases: [(&[u8], Violation, CloseCode); 9] = [
        (&unmasked, Violation::Masking(Opcode::Binary), CloseCode::Protocol),
        // Caddy 2.6.2 sends this one when it is reloaded.
        (&[0x88, 2, 3, 0xe9], Violation::Masking(Opcode::Close), CloseCode::Protocol),
        (&masked(0, true, b"x"), Violation::Fragments, CloseCode::Protocol),
        (&masked(1, true, b"\xff"), Violation::InvalidText, CloseCode::InvalidText),
        (&masked(8, true, b"\x03"), Violation::CloseFrame, CloseCode::Protocol),
        (&masked(8, true, &1005u16.to_be_bytes()), Violation::CloseFrame, CloseCode::Protocol),
        (&masked(3, true, b""), Violation::Opcode(3), CloseCode::Protocol),
        (&masked(9, false, b""), Violation::ControlFrame, CloseCode::Protocol),
        (&masked(0x42, true, b""), Violation::ReservedBits, CloseCode::Protocol),
    ];
    for (bytes, violation, code) in cases {
        assert_eq!(decode(bytes), Err(violation));
        assert_eq!(violation.close_code(), code);
    }
}

#[test]
fn spec_3_5_new_message_within_another_is_refused() {
    let mut buffer = masked(1, false, b"one");
    buffer.extend(masked(2, true, b"two"));
    let mut at = 0;
    let mut decoder = server();
    assert_eq!(decoder.next(&mut buffer, &mut at), Ok(Some(Message::Fragment)));
    assert_eq!(decoder.next(&mut buffer, &mut at), Err(Violation::Fragments));
}

#[test]
fn client_takes_only_unmasked_frames() {
    let (header, used) = frame_header(Opcode::Text, 2);
    let mut buffer = header[..used].to_vec();
    buffer.extend_from_slice(b"ok");
    let mut client = Decoder::new(Role::Client, 1_024);
    assert_eq!(client.next(&mut buffer, &mut 0), Ok(Some(Message::Text(2..4))));
    let mut masked = masked(2, true, b"x");
    assert_eq!(client.next(&mut masked, &mut 0), Err(Violation::Masking(Opcode::Binary)));
}

/// What a public implementation makes of the same bytes: the payloads of its frames.
fn oracle(bytes: &[u8]) -> Option<Vec<(u8, Vec<u8>)>> {
    let mut socket = FrameSocket::new(std::io::Cursor::new(bytes.to_vec()));
    let mut frames = Vec::new();
    while let Ok(Some(frame)) = socket.read(Some(65_536)) {
        let FrameHeader { opcode, mask, .. } = frame.header();
        let mut payload = frame.payload().to_vec();
        if let Some(mask) = *mask {
            apply_mask(&mut payload, mask);
        }
        frames.push((u8::from(*opcode), payload));
    }
    Some(frames)
}

#[test]
fn frames_equal_those_of_a_public_implementation() {
    let mut bytes = Vec::new();
    let mut expected = Vec::new();
    for length in [0, 1, 125, 126, 127, 1_200, 16_384, 65_535, 65_536] {
        let payload: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let mut frame = Frame::message(payload.clone(), OpCode::Data(Data::Binary), true);
        frame.header_mut().mask = Some(MASK);
        frame.format(&mut bytes).unwrap();
        expected.push(payload);
    }
    let mut at = 0;
    let mut decoder = server();
    for payload in expected {
        let Ok(Some(Message::Binary(range))) = decoder.next(&mut bytes, &mut at) else { panic!() };
        assert!(bytes[range] == payload[..]);
    }
    assert_eq!(at, bytes.len());
}

proptest! {
    #[test]
    fn decoder_never_panics_and_never_passes_the_end(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let mut at = 0;
        let mut decoder = Decoder::new(Role::Server, 300);
        while let Ok(Some(_)) = decoder.next(&mut bytes, &mut at) {
            prop_assert!(at <= bytes.len());
        }
    }

    #[test]
    fn whole_frames_agree_with_a_public_implementation(
        frames in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..300)), 1..8),
        cut in 0usize..2_400,
    ) {
        let mut bytes = Vec::new();
        for (binary, payload) in &frames {
            bytes.extend(masked(if *binary { 2 } else { 9 }, true, &payload[..payload.len().min(125)]));
        }
        bytes.truncate(cut);
        let expected = oracle(&bytes).unwrap();
        let mut at = 0;
        let mut decoder = server();
        let mut found = Vec::new();
        while let Some(message) = decoder.next(&mut bytes, &mut at).unwrap() {
            if let Message::Binary(range) = message {
                found.push((2, bytes[range].to_vec()));
            } else if let Message::Ping(range) = message {
                found.push((9, bytes[range].to_vec()));
            } else {
                prop_assert!(false, "{:?}", message);
            }
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn bytes_may_come_one_at_a_time(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
        let whole = masked(2, true, &payload);
        let mut decoder = server();
        for end in 0..whole.len() {
            let mut at = 0;
            prop_assert_eq!(decoder.next(&mut whole[..end].to_vec(), &mut at), Ok(None));
            prop_assert_eq!(at, 0);
        }
        let mut buffer = whole;
        let found = decoder.next(&mut buffer, &mut 0);
        let Ok(Some(Message::Binary(range))) = found else { panic!("{found:?}") };
        prop_assert_eq!(&buffer[range], &payload[..]);
    }
}

//! Published bytes, and that messages come back.

use proptest::prelude::*;

use super::*;

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

#[test]
fn messages_have_these_bytes() {
    let claimant = Claimant { realm: 2, owner: [7; 32], name: "bob" };
    let open = Message::Open { session: 5, age_ms: 258, is_listening: true, claimant };
    let head = b"\x05\0\0\0\0\0\0\0\x05\0\0\x01\x02\x01\x02";
    assert_eq!(encoded(&open), [&head[..], &[7; 32], b"bob"].concat());
    let to = Recipient::Name("al");
    let submit = Message::Submit { session: 5, to, id: "m1", wants_receipt: false, body: b"hi" };
    assert_eq!(encoded(&submit), b"\x08\0\0\0\0\0\0\0\x05\0\x01\0\x02al\0\x02m1hi");
    let to = Recipient::Everybody;
    let broadcast = Message::Submit { session: 5, to, id: "m", wants_receipt: true, body: b"" };
    assert_eq!(encoded(&broadcast), b"\x08\0\0\0\0\0\0\0\x05\x01\0\0\x01m");
    let to = Recipient::Channel("c");
    let record = Message::Submit { session: 5, to, id: "m", wants_receipt: true, body: b"" };
    assert_eq!(encoded(&record), b"\x08\0\0\0\0\0\0\0\x05\x01\x02\0\x01c\0\x01m");
    let to = Recipient::Dropped { channel: "c", is_loop: true };
    let dropped = Message::Submit { session: 5, to, id: "m", wants_receipt: true, body: b"" };
    assert_eq!(encoded(&dropped), b"\x08\0\0\0\0\0\0\0\x05\x01\x03\x01\0\x01c\0\x01m");
    let acknowledged = Message::AcknowledgeRecords { session: 5, batch: 6 };
    assert_eq!(encoded(&acknowledged), b"\x16\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x06");
    let took = Message::Took { by_leader: true, bytes: 9 };
    assert_eq!(encoded(&took), b"\x11\x01\0\0\0\x09");
    let name = Message::Name { is_here: true, realm: 2, name: "al" };
    assert_eq!(encoded(&name), b"\x10\x01\x02al");
}

#[test]
fn lists_come_back_in_their_order() {
    let mut bytes = Vec::new();
    Message::begin_deliver(&mut bytes, 3);
    Letters::push(&mut bytes, "m1", b"one");
    Letters::push(&mut bytes, "m2", b"");
    let Ok(Message::Deliver { session: 3, letters }) = Message::parse(&bytes) else { panic!() };
    assert!(letters.into_iter().eq([("m1", &b"one"[..]), ("m2", b"")]));
    let ends: Vec<_> =
        (0..=bytes.len()).filter(|end| Message::parse(&bytes[..*end]).is_ok()).collect();
    assert_eq!(ends, [9, 9 + 11, 9 + 11 + 8], "no message is cut off");

    bytes.clear();
    Message::begin_records(&mut bytes, 3, 4, true);
    Letters::push(&mut bytes, "r1", b"one");
    let parsed = Message::parse(&bytes);
    let Ok(Message::Records { session: 3, batch: 4, is_last: true, records }) = parsed else {
        panic!()
    };
    assert!(records.into_iter().eq([("r1", &b"one"[..])]));

    bytes.clear();
    Message::begin_subscribe(&mut bytes, 3, true);
    ["a", "", "b"].iter().for_each(|name| Texts::push(&mut bytes, name));
    let parsed = Message::parse(&bytes);
    let Ok(Message::Subscribe { session: 3, is_ephemeral: true, channels }) = parsed else {
        panic!()
    };
    assert!(channels.into_iter().eq(["a", "", "b"]));
    assert!(Message::parse(&bytes[..bytes.len() - 1]).is_err(), "a name is cut off");

    let refused = Refusal::ALL.map(Outcome::Refused);
    let others = [Outcome::Stored, Outcome::Duplicate, Outcome::Partly { stored: 2, of: 3 }];
    let all: Vec<_> = others.into_iter().chain(refused).collect();
    bytes.clear();
    Message::begin_answered(&mut bytes, 3);
    all.iter().for_each(|outcome| outcome.encode(&mut bytes));
    let Ok(Message::Answered { outcomes, .. }) = Message::parse(&bytes) else { panic!() };
    assert!(outcomes.into_iter().eq(all));
}

#[test]
fn text_that_is_too_long_or_none_is_refused() {
    let longest = "x".repeat(MAX_TEXT);
    let message = Message::Acknowledge { session: 1, key: &longest };
    let mut bytes = encoded(&message);
    assert_eq!(Message::parse(&bytes), Ok(message));
    bytes.push(b'x');
    assert_eq!(Message::parse(&bytes), Err(Invalid));
    assert_eq!(Message::parse(b"\x09\0\0\0\0\0\0\0\x01\xff"), Err(Invalid));
    assert_eq!(Message::parse(b""), Err(Invalid));
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_of_one_form_or_none(mut bytes: Vec<u8>, kind in 0..26_u8) {
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        if let Ok(message) = Message::parse(&bytes) {
            prop_assert_eq!(encoded(&message), bytes);
        }
    }

    #[test]
    fn submissions_come_back(
        session: u64, to: Option<String>, id: String, wants_receipt: bool, body: Vec<u8>,
    ) {
        let to = to.as_deref().map_or(Recipient::Everybody, Recipient::Channel);
        let message = Message::Submit { session, to, id: &id, wants_receipt, body: &body };
        let bytes = encoded(&message);
        prop_assert_eq!(Message::parse(&bytes), Ok(message));
    }
}

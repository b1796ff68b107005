use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::cluster::{Frame, Frames, Run, add_packet, begin_packets, encode};

/// A realm that no test registers.
const UNREGISTERED: Realm = Realm(7);

/// What a `Hasher` was given, one item a call.
#[derive(Default)]
struct Calls(Vec<Vec<u8>>);

impl Hasher for Calls {
    fn write(&mut self, bytes: &[u8]) {
        self.0.push(bytes.to_vec());
    }

    fn finish(&self) -> u64 {
        0
    }
}

fn node(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

/// A realm whose names are texts.
fn texts() -> Realm {
    let realm = Realm(220);
    realm
        .register(Spelling {
            door: "texts",
            show: |bytes, f| f.write_str(&String::from_utf8_lossy(bytes)),
            parse: |text| (!text.is_empty()).then(|| text.into()),
        })
        .unwrap();
    realm
}

fn find(id: impl cluster::Name) -> Vec<u8> {
    let mut batch = Vec::new();
    encode(&Frame::Find { id }, &mut batch);
    batch
}

fn frames(batch: &[u8]) -> Vec<Result<Frame<'_, Name>, cluster::DecodeError>> {
    Frames::new(batch).collect()
}

proptest! {
    #[test]
    fn name_of_any_bytes_round_trips(realm in 1..=255u8, bytes in vec(any::<u8>(), 0..80)) {
        let name = Name::new(Realm(realm), &bytes);

        let sent = frames(&find(name)) == [Ok(Frame::Find { id: name })];
        let json = serde_json::to_string(&name).unwrap();

        prop_assert!(sent);
        prop_assert_eq!(name.realm(), Realm(realm));
        prop_assert_eq!(name.is_hashed(), bytes.len() > MAX_LENGTH);
        prop_assert_eq!(name.bytes() == bytes, bytes.len() <= MAX_LENGTH);
        if realm < 200 {
            prop_assert_eq!(name.to_string().parse(), Ok(name));
            prop_assert_eq!(serde_json::from_str::<Name>(&json).unwrap(), name);
        }
    }

    #[test]
    fn any_text_as_a_name_is_one_word_that_is_read_again(text in ".{1,12}|[\\x00-\\x20\\\\u{}a]{1,12}") {
        let name = Name::new(texts(), text.as_bytes());

        let shown = name.to_string();

        prop_assert!(!shown.contains(|c: char| c.is_whitespace() || c.is_control()), "{:?}", shown);
        prop_assert_eq!(shown.parse(), Ok(name));
    }

    #[test]
    fn node_round_trips_and_keeps_its_order(one in 1..=u32::MAX, other in 1..=u32::MAX) {
        let name = Name::from(node(one));

        prop_assert_eq!(name.node_id(), Some(node(one)));
        prop_assert_eq!(name.cmp(&node(other).into()), one.cmp(&other));
        prop_assert_eq!(name.to_string(), one.to_string());
        prop_assert_eq!(name.to_string().parse(), Ok(name));
    }

    #[test]
    fn names_are_equal_where_all_their_bytes_are(
        (one, other) in (vec(0..2u8, 0..39), vec(0..2u8, 0..39)),
        (at, change) in (0..39usize, 0..2u8),
    ) {
        let name = |bytes: &[u8]| Name::new(UNREGISTERED, bytes);
        let mut changed = one.clone();
        if let Some(byte) = changed.get_mut(at) {
            *byte ^= change;
        }

        prop_assert_eq!(name(&one) == name(&other), one == other);
        prop_assert_eq!(name(&one) == name(&changed), one == changed);
        prop_assert_eq!(name(&one) == Name::new(Realm(8), &one), false);
    }

    #[test]
    fn text_never_panics(text in "(pilot|texts|realm-[0-9]{1,3})?:?(sha-256=)?.{0,70}") {
        let _read = text.parse::<Name>();
    }

    #[test]
    fn node_is_on_the_wire_what_its_id_is(number in 1..=u32::MAX, payload in vec(any::<u8>(), 0..9)) {
        let id = node(number);
        let name = Name::from(id);
        let mut of_id = find(id);
        let mut of_name = find(name);

        let at = begin_packets(&Run { dest: id, sender: id, epoch: 5 }, &mut of_id);
        add_packet(at, &payload, &mut of_id);
        let at = begin_packets(&Run { dest: name, sender: name, epoch: 5 }, &mut of_name);
        add_packet(at, &payload, &mut of_name);

        prop_assert_eq!(of_name, of_id);
    }
}

#[test]
fn name_takes_forty_bytes() {
    assert_eq!(size_of::<Name>(), 40);
    assert_eq!(size_of::<Option<Name>>(), 41);
}

#[test]
fn hash_is_of_the_bytes_that_are_there_in_one_call() {
    let hashed = |name: Name| {
        let mut calls = Calls::default();
        name.hash(&mut calls);
        calls.0
    };
    assert_eq!(hashed(node(0x0102_0304).into()), [b"\x00\x04\x01\x02\x03\x04\0\0"]);
    assert_eq!(hashed(Name::new(UNREGISTERED, b"")), [b"\x07\0\0\0\0\0\0\0"]);
    assert_eq!(hashed(Name::new(UNREGISTERED, &[9; 7])), [b"\x07\x07\x09\x09\x09\x09\x09\x09\x09"]);
    assert_eq!(hashed(Name::new(UNREGISTERED, &[9; 38]))[0].len(), 40);
    assert_eq!(hashed(Name::new(UNREGISTERED, &[9; 39]))[0].len(), 34);
}

#[test]
fn published_bytes() {
    assert_eq!(find(Name::from(node(7))), *b"\x18\0\0\0\x06\x00\x04\0\0\0\x07");
    assert_eq!(find(Name::new(UNREGISTERED, b"abc")), *b"\x18\0\0\0\x05\x07\x03abc");
    let long = b"a name that is longer than thirty-eight bytes";
    let digest = b"\xfd\x8c\x05\x35\x91\xe0\x6f\x9a\xb5\x32\x0b\x21\xbf\x74\x95\xe1";
    let bytes = find(Name::new(UNREGISTERED, long));
    assert_eq!(bytes[..7], *b"\x18\0\0\0\x29\x07\x27");
    assert_eq!(bytes[7..23], *digest);
    assert_eq!(bytes[39..], *b"sha-256");
}

#[test]
fn hash_of_a_long_name_is_not_the_name_of_these_bytes() {
    let long = Name::new(UNREGISTERED, &[b'x'; 39]);
    let raw = Name::new(UNREGISTERED, long.bytes());
    assert_eq!(long.bytes(), raw.bytes());
    assert_ne!(long, raw);
    assert_ne!(find(long), find(raw));
}

#[test]
fn name_of_another_realm_with_the_bytes_of_a_node_is_no_node() {
    let other = Name::new(UNREGISTERED, &[0, 0, 0, 7]);
    assert_eq!(other.node_id(), None);
    assert_ne!(other, node(7).into());
    assert_eq!(Name::new(Realm::PILOT, &[0, 0, 0, 7]), node(7).into());
    assert_eq!(Name::new(Realm::PILOT, &[0; 4]).node_id(), None);
}

#[test]
fn id_that_is_too_long_is_skipped_and_a_broken_node_refused() {
    let mut batch = vec![0x18, 0, 0, 0, 41, 7, 39];
    batch.extend([0; 39]);
    batch.extend(find(node(1)));
    assert_eq!(frames(&batch), [Ok(Frame::Unknown), Ok(Frame::Find { id: node(1).into() })]);

    for broken in [&[0, 4, 0, 0, 0, 0][..], &[0, 3, 1, 1, 1]] {
        let length = u8::try_from(broken.len()).unwrap();
        let batch = [&[0x18, 0, 0, 0, length], broken].concat();
        assert!(matches!(frames(&batch)[..], [Err(cluster::DecodeError::BadField { .. })]));
    }
}

#[test]
fn name_is_shown_and_read_as_its_door_writes_it() {
    let texts = texts();
    let long = "x".repeat(39);
    let digest = Hex(&Sha256::digest(&long)).to_string();
    let shown = [
        (Name::from(node(7)), "7".to_owned()),
        (Name::new(texts, b"alice"), "texts:alice".to_owned()),
        (Name::new(texts, b"a:b"), "texts:a:b".to_owned()),
        (Name::new(texts, long.as_bytes()), format!("texts:sha-256={digest}")),
        (Name::new(UNREGISTERED, &[0x00, 0xff]), "realm-7:00ff".to_owned()),
        (Name::new(UNREGISTERED, b""), "realm-7:".to_owned()),
        (Name::new(UNREGISTERED, long.as_bytes()), format!("realm-7:sha-256={digest}")),
    ];
    for (name, text) in shown {
        assert_eq!(name.to_string(), text);
        assert_eq!(text.parse(), Ok(name), "{text}");
    }
    assert_eq!(format!("texts:{long}").parse(), Ok(Name::new(texts, long.as_bytes())));
    assert_eq!("pilot:7".parse(), Ok(Name::from(node(7))));
    assert_eq!(Name::new(Realm::PILOT, b"x").to_string(), "realm-0:78");
}

#[test]
fn name_could_end_its_line_and_command_the_terminal_that_showed_it() {
    let texts = texts();
    let shown = [
        ("a\u{1b}[2J\r\nWARN b", r"texts:a\u{1b}[2J\u{d}\u{a}WARN\u{20}b"),
        (r"C:\u{41}", r"texts:C:\\u{41}"),
        ("x\u{202e}y\u{200b}\u{2028}\u{9b}", r"texts:x\u{202e}y\u{200b}\u{2028}\u{9b}"),
        ("o'\"é日🦀", "texts:o'\"é日🦀"),
    ];
    for (text, expected) in shown {
        let name = Name::new(texts, text.as_bytes());
        assert_eq!(name.to_string(), expected);
        assert_eq!(expected.parse(), Ok(name), "{expected}");
        assert_eq!(serde_json::to_value(name).unwrap(), expected);
    }
    // As who types it may write it as well.
    assert_eq!("texts:a b".parse(), Ok(Name::new(texts, b"a b")));
    for text in [r"texts:a\b", r"texts:\u{110000}", r"texts:\u{}", r"texts:\u{41", r"texts:\"] {
        assert_eq!(text.parse::<Name>(), Err(InvalidName::Door(text.to_owned())), "{text:?}");
    }
}

#[test]
fn text_that_is_no_name_is_refused() {
    texts();
    for text in ["", "0", "+7", "seven", "4294967296"] {
        assert!(matches!(text.parse::<Name>(), Err(InvalidName::Node(_))), "{text:?}");
    }
    let no_names = [
        ":",
        ":7",
        "pilot:0",
        "pilot:07",
        "realm-0:78",
        "realm-256:00",
        "realm-07:00",
        "realm-7:0",
        "realm-7:0g",
        "nobody:7",
        "texts:",
        "realm-:00",
    ];
    for text in no_names {
        assert_eq!(text.parse::<Name>(), Err(InvalidName::Door(text.to_owned())), "{text:?}");
    }
}

#[test]
fn json_has_a_node_as_a_number_and_others_as_text() {
    let names = [Name::from(node(7)), Name::new(texts(), b"alice")];

    let json = serde_json::to_string(&names).unwrap();
    let by_name: BTreeMap<Name, u8> = names.into_iter().zip(0..).collect();
    let map = serde_json::to_string(&by_name).unwrap();

    assert_eq!(json, r#"[7,"texts:alice"]"#);
    assert_eq!(serde_json::from_str::<[Name; 2]>(&json).unwrap(), names);
    assert_eq!(map, r#"{"7":0,"texts:alice":1}"#);
    assert_eq!(serde_json::from_str::<BTreeMap<Name, u8>>(&map).unwrap(), by_name);
    for wrong in ["0", "-7", "4294967296", "7.5", "null", r#""nobody:7""#] {
        assert!(serde_json::from_str::<Name>(wrong).is_err(), "{wrong}");
    }
}

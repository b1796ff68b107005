//! The vectors of RFC 5769, round trips, and what is no request.

use proptest::prelude::*;

use super::*;

/// RFC 5769 §2.1: a request of ICE, with its fingerprint.
const REQUEST: &str = "000100582112a442b7e7a701bc34d686fa87dfae80220010\
    5354554e207465737420636c69656e74002400046e0001ff80290008932ff9b151263b36\
    000600096576746a3a6836765920202000080014\
    9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf";

/// RFC 5769 §2.2: the address that an answer with that transaction has for 192.0.2.1:32853.
const MAPPED: &str = "002000080001a147e112a643";

/// RFC 5769 §2.3: the same for [2001:db8:1234:5678:11:2233:4455:6677]:32853.
const MAPPED_IPV6: &str = "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

/// A request of this type with these attributes.
fn datagram(kind: u16, attributes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(attributes.len()).unwrap();
    let head = [kind.to_be_bytes(), length.to_be_bytes()].concat();
    [&head, &COOKIE[..], &[7; 12], attributes].concat()
}

fn answer(request: &Request, from: &str) -> Vec<u8> {
    let mut out = Vec::new();
    request.answer(from.parse().unwrap(), &mut out);
    assert_eq!(usize::from(u16::from_be_bytes([out[2], out[3]])), out.len() - HEADER);
    out
}

#[test]
fn published_request_is_read_and_answered_as_published() {
    let request = Request::decode(&bytes(REQUEST)).unwrap();
    assert!(request.has_fingerprint);
    // ICE-CONTROLLED is optional, and PRIORITY is known.
    assert_eq!(request.unknown, [0; 0]);

    let told = answer(&request, "192.0.2.1:32853");
    assert_eq!(told[..2], [1, 1]);
    assert_eq!(told[4..HEADER], bytes(REQUEST)[4..HEADER]);
    assert_eq!(told[HEADER..HEADER + 12], bytes(MAPPED));
    assert_eq!(told.len(), HEADER + 12 + FINGERPRINT_LENGTH);
    let told = answer(&request, "[2001:db8:1234:5678:11:2233:4455:6677]:32853");
    assert_eq!(told[HEADER..HEADER + 24], bytes(MAPPED_IPV6));
    assert_eq!(told.len(), MAX_SUCCESS);
}

#[test]
fn fingerprint_of_an_answer_is_that_of_the_message_with_it() {
    let request = Request::decode(&bytes(REQUEST)).unwrap();
    let told = answer(&request, "192.0.2.1:32853");
    let (covered, fingerprint) = told.split_at(told.len() - FINGERPRINT_LENGTH);
    let sum = crc32(covered) ^ FINGERPRINT_MASK;
    assert_eq!(fingerprint, [&[0x80, 0x28, 0, 4], &sum.to_be_bytes()[..]].concat());
}

#[test]
fn plain_request_has_the_smallest_answer() {
    let plain = Request::decode(&datagram(BINDING_REQUEST, &[])).unwrap();
    assert_eq!(answer(&plain, "192.0.2.1:1").len(), 32);
    assert_eq!(answer(&plain, "[2001:db8::1]:1").len(), 44);
}

#[test]
fn unknown_attributes_that_must_be_understood_are_listed_in_the_refusal() {
    // CHANGE-REQUEST of RFC 5780, a comment, and one that is nobody's.
    let attributes = bytes("0003000400000006 c0de0001ff000000 7ffe0000");
    let request = Request::decode(&datagram(BINDING_REQUEST, &attributes)).unwrap();
    assert_eq!(request.unknown, [0x0003, 0x7ffe]);
    let told = answer(&request, "192.0.2.1:1");
    assert_eq!(told[..2], [1, 0x11]);
    assert_eq!(told[HEADER..], bytes("0009000400000414 000a000400037ffe"));

    // Behind the seal nobody looks.
    let sealed = [&bytes("00080014")[..], &[1; 20], &bytes("7ffe0000")].concat();
    let sealed = Request::decode(&datagram(BINDING_REQUEST, &sealed)).unwrap();
    assert_eq!(sealed.unknown, [0; 0]);
}

#[test]
fn whatever_else_comes_is_no_request() {
    use DecodeError::{Attributes, Fingerprint, NoRequest, NotStun};

    let plain = datagram(BINDING_REQUEST, &[]);
    let changed = |at: usize, byte: u8| {
        let mut changed = plain.clone();
        changed[at] = byte;
        changed
    };
    let mut forged = bytes(REQUEST);
    forged[30] ^= 1;
    for (datagram, error) in [
        (vec![], NotStun),
        (plain[..19].to_vec(), NotStun),
        (changed(0, 0x40), NotStun),
        (changed(3, 4), NotStun),
        (changed(4, 0), NotStun),
        ([&plain[..], &[0; 4]].concat(), NotStun),
        (datagram(BINDING_REQUEST, &[0; 3]), NotStun),
        // An indication, an answer, and TURN's Allocate: no loop, and no other service.
        (datagram(0x0011, &[]), NoRequest(0x0011)),
        (datagram(BINDING_SUCCESS, &[]), NoRequest(BINDING_SUCCESS)),
        (datagram(0x0003, &[]), NoRequest(0x0003)),
        (datagram(BINDING_REQUEST, &bytes("80220005 61616161")), Attributes),
        (datagram(BINDING_REQUEST, &bytes("80280004 00000000")), Fingerprint),
        (datagram(BINDING_REQUEST, &bytes("80280004 00000000 80220000")), Attributes),
        (forged, Fingerprint),
    ] {
        assert_eq!(Request::decode(&datagram), Err(error), "{datagram:02x?}");
    }
}

proptest! {
    #[test]
    fn reading_never_panics_and_an_answer_repeats_the_transaction(
        attributes in proptest::collection::vec(any::<u8>(), 0..300),
        from in any::<[u8; 4]>(),
    ) {
        let padded: Vec<u8> =
            attributes.iter().copied().chain([0; 3]).take(attributes.len() / 4 * 4).collect();
        let datagram = datagram(BINDING_REQUEST, &padded);
        let _any = Request::decode(&attributes);
        if let Ok(request) = Request::decode(&datagram) {
            let mut out = Vec::new();
            request.answer((from, 9).into(), &mut out);
            prop_assert_eq!(&out[4..HEADER], &datagram[4..HEADER]);
            prop_assert!(out.len() <= datagram.len() + 20);
        }
    }
}

//! SPEC §2: published bytes, round trips, and "never panics".

use proptest::prelude::*;

use super::*;

fn id(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

#[test]
fn spec_2_1_discover_takes_an_optional_key_and_ignores_what_follows() {
    let bare = [0x01, 0, 0, 0x10, 0x92];
    assert_eq!(
        decode(&bare),
        Ok(Packet::Discover(Discover { node: Some(id(4242)), key: None, extended: false }))
    );

    let mut packet = bare.to_vec();
    packet.extend_from_slice(&[7; 31]);
    assert!(matches!(decode(&packet), Ok(Packet::Discover(Discover { key: None, .. }))));
    packet.extend_from_slice(&[7, 9, 9]);
    assert!(
        matches!(decode(&packet), Ok(Packet::Discover(Discover { key: Some(key), .. })) if *key == [7; 32])
    );
}

#[test]
fn spec_2_1_discover_of_nobody_is_an_address_question_and_other_packets_name_a_node() {
    for (kind, extended) in [(0x01, false), (0x08, true)] {
        assert_eq!(
            decode(&[kind, 0, 0, 0, 0]),
            Ok(Packet::Discover(Discover { node: None, key: None, extended }))
        );
    }
    let mut question = Vec::new();
    encode_address_question(&mut question);
    assert_eq!(question, [0x01, 0, 0, 0, 0]);
    for (kind, length) in [(0x03, 9), (0x05, 9), (0x06, 5), (0x09, 9)] {
        let mut packet = vec![1; length];
        packet[0] = kind;
        for first in (1..length).step_by(4) {
            let mut nobody = packet.clone();
            nobody[first..first + 4].fill(0);
            assert_eq!(decode(&nobody), Err(DecodeError::ZeroId), "{nobody:?}");
        }
    }
}

#[test]
fn spec_2_2_mapped_address_goes_out_as_ipv4() {
    let mut out = Vec::new();
    encode_discover_reply("[::ffff:192.0.2.7]:9001".parse().unwrap(), &mut out);
    assert_eq!(out, [0x02, 4, 192, 0, 2, 7, 0x23, 0x29]);
}

#[test]
fn spec_2_2_ipv6_address_takes_sixteen_bytes() {
    let mut out = Vec::new();
    encode_discover_reply("[2001:db8::1]:9001".parse().unwrap(), &mut out);
    assert_eq!(out.len(), 20);
    assert_eq!(decode(&out), Ok(Packet::DiscoverReply("[2001:db8::1]:9001".parse().unwrap())));
}

#[test]
fn spec_2_5_relay_and_its_deliveries_have_the_published_bytes() {
    let mut out = Vec::new();
    encode_relay(id(1), id(2), b"hi", &mut out);
    assert_eq!(out, [0x05, 0, 0, 0, 1, 0, 0, 0, 2, b'h', b'i']);
    assert_eq!(deliver_header(id(1)), [0x06, 0, 0, 0, 1]);
    assert_eq!(deliver_dest_header(id(1), id(2)), [0x09, 0, 0, 0, 1, 0, 0, 0, 2]);
}

#[test]
fn spec_2_3_grant_is_taken_only_whole() {
    let request = PunchRequest {
        requester: id(9201),
        target: id(9202),
        grant: Some(Grant { expiry: 1_767_225_660, signature: [3; 64] }),
    };
    let mut out = Vec::new();
    encode_punch_request(&request, &mut out);
    assert_eq!(out.len(), RELAY_HEADER + GRANT_LENGTH);
    assert_eq!(decode(&out), Ok(Packet::PunchRequest(request)));
    out.pop();
    assert_eq!(decode(&out), Ok(Packet::PunchRequest(PunchRequest { grant: None, ..request })));
}

#[test]
fn spec_2_7_sync_holds_16375_nodes_at_most() {
    let nodes: Vec<_> = (1..=20_000).map(id).collect();
    let mut out = Vec::new();
    assert_eq!(encode_sync(BeaconId(3), &nodes, &mut out), 16_375);
    assert_eq!(out.len(), MAX_UDP_PACKET);
    let Ok(Packet::Sync(sync)) = decode(&out) else { panic!("not a Sync") };
    assert_eq!(sync.beacon, BeaconId(3));
    assert!(sync.nodes().eq(nodes.into_iter().take(16_375)));
}

#[test]
fn spec_2_8_notify_is_a_kind_and_what_follows_is_ignored() {
    let mut out = Vec::new();
    encode_notify(NOTIFY_POLL, &mut out);
    assert_eq!(out, [0x0a, 0x01]);
    assert_eq!(decode(&out), Ok(Packet::Notify(NOTIFY_POLL)));
    assert_eq!(decode(&[0x0a, 7, 1, 2]), Ok(Packet::Notify(7)));
}

#[test]
fn short_packets_say_what_they_lack() {
    let needs = [
        (0x01, 5),
        (0x02, 2),
        (0x03, 9),
        (0x05, 9),
        (0x06, 5),
        (0x07, 7),
        (0x08, 5),
        (0x09, 9),
        (0x0a, 2),
    ];
    for (kind, need) in needs {
        for got in 1..need {
            let mut packet = vec![1; got];
            packet[0] = kind;
            assert_eq!(
                decode(&packet),
                Err(DecodeError::Truncated { need, got }),
                "type {kind:#04x}, {got} bytes"
            );
        }
    }
    assert_eq!(decode(&[]), Err(DecodeError::Empty));
    assert_eq!(decode(&[0x0b]), Err(DecodeError::UnknownType(0x0b)));
    assert_eq!(decode(&[0x02, 5, 0, 0]), Err(DecodeError::AddressLength(5)));
    assert_eq!(
        decode(&[0x07, 0, 0, 0, 1, 0, 2, 0, 0, 0, 1]),
        Err(DecodeError::Truncated { need: 15, got: 11 })
    );
}

proptest! {
    #[test]
    fn decode_never_panics(packet in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&packet);
    }

    #[test]
    fn decode_never_panics_on_cut_and_flipped_packets(
        kind in 0u8..=11,
        tail in proptest::collection::vec(any::<u8>(), 0..100),
        cut in 0usize..100,
        flip in 0usize..800,
    ) {
        let mut packet = vec![kind];
        packet.extend_from_slice(&tail);
        packet.truncate(cut);
        if let Some(byte) = packet.get_mut(flip / 8) {
            *byte ^= 1 << (flip % 8);
        }
        let _ = decode(&packet);
    }

    #[test]
    fn relay_round_trips(
        sender in 1u32.., dest in 1u32.., payload in proptest::collection::vec(any::<u8>(), 0..2_000),
    ) {
        let mut out = Vec::new();
        encode_relay(id(sender), id(dest), &payload, &mut out);
        prop_assert_eq!(out.len(), RELAY_HEADER + payload.len());
        let relay = Relay { sender: id(sender), dest: id(dest), payload: &payload };
        prop_assert_eq!(decode(&out), Ok(Packet::Relay(relay)));
    }
}

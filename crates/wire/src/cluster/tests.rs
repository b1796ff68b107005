use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::ids::{NodeId, PublicKey};

fn node(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

fn location() -> impl Strategy<Value = Location> {
    let ownership =
        prop_oneof![Just(Ownership::Gateway), Just(Ownership::Endpoint), Just(Ownership::Session)];
    (any::<[u8; 32]>(), any::<u64>(), ownership).prop_map(|(owner, epoch, ownership)| Location {
        owner: RelayId(PublicKey(owner)),
        epoch,
        ownership,
    })
}

fn frame() -> impl Strategy<Value = Frame<'static, NodeId>> {
    let id = (1..u32::MAX).prop_map(node);
    let takeover =
        prop_oneof![Just(Takeover::Always), Just(Takeover::SameCredential), Just(Takeover::Refuse)];
    (id, any::<u64>(), any::<u64>(), any::<u32>(), location(), takeover).prop_flat_map(
        |(id, epoch, serial, nonce, location, takeover)| {
            prop_oneof![
                Just(Frame::Nack { id, epoch }),
                Just(Frame::Claim(Claim {
                    id,
                    epoch,
                    serial,
                    nonce,
                    ownership: location.ownership,
                    takeover,
                    credential: epoch ^ serial,
                    age_ms: 1_000,
                })),
                Just(Frame::Granted { id, epoch, serial, nonce }),
                Just(Frame::Refused { id, nonce, refusal: Refusal::Held(location) }),
                Just(Frame::Refused { id, nonce, refusal: Refusal::TooSoon }),
                Just(Frame::Refused { id, nonce, refusal: Refusal::EpochAhead }),
                Just(Frame::Refused { id, nonce, refusal: Refusal::Full }),
                Just(Frame::Moved { id, location, ends: serial }),
                Just(Frame::Leave { id, serial }),
                Just(Frame::Left { id, serial }),
                Just(Frame::Noted { id, serial }),
                Just(Frame::Gone { id, epoch }),
                Just(Frame::Find { id }),
                Just(Frame::Found { id, location, serial }),
                Just(Frame::Missing { id }),
                any::<bool>().prop_map(move |is_on| Frame::Watch { id, nonce, is_on }),
                prop_oneof![
                    Just(Sight::Unknown),
                    Just(Sight::At(location)),
                    Just(Sight::Over(location)),
                    Just(Sight::Full),
                    Just(Sight::Ended),
                ]
                .prop_map(move |sight| Frame::Locate {
                    id,
                    nonce,
                    version: epoch,
                    serial,
                    sight
                }),
                Just(Frame::Heard { id, version: serial }),
                Just(Frame::About(About { features: nonce, told: epoch, channels: None })),
                any::<Vec<u8>>().prop_map(move |mut realms| {
                    realms.truncate(255);
                    let channels = Some(realms.into_iter().filter(|realm| *realm < 255).collect());
                    Frame::About(About { features: nonce, told: epoch, channels })
                }),
                Just(Frame::Alive),
                any::<(u64, u64, u32)>().prop_map(|(shown_ms, echo_ms, held_ms)| {
                    Frame::Clock(Reading { shown_ms, echo_ms, held_ms })
                }),
                any::<(u8, u64, u32, bool)>().prop_flat_map(|(realm, number, seq, is_last)| {
                    let part = ChannelWord::Part { seq, is_last, bytes: b"a part" };
                    let words = [ChannelWord::Open, ChannelWord::Accept, ChannelWord::Reset, part];
                    proptest::sample::select(words.to_vec())
                        .prop_map(move |word| Frame::Channel(Channel { realm, number, word }))
                }),
                Just(Frame::Draining),
                Just(Frame::TakesTcp),
            ]
        },
    )
}

fn frames(batch: &[u8]) -> Vec<Result<Frame<'_, NodeId>, DecodeError>> {
    Frames::new(batch).collect()
}

proptest! {
    #[test]
    fn batch_round_trips(sent in vec(frame(), 0..20)) {
        let mut batch = Vec::new();
        sent.iter().for_each(|frame| encode(frame, &mut batch));
        prop_assert_eq!(frames(&batch), sent.into_iter().map(Ok).collect::<Vec<_>>());
    }

    #[test]
    fn packets_round_trip(payloads in vec(vec(any::<u8>(), 0..200), 0..10)) {
        let run = Run { dest: node(7), sender: node(9), epoch: 5 };
        let mut batch = Vec::new();
        let at = begin_packets(&run, &mut batch);
        payloads.iter().for_each(|payload| add_packet(at, payload, &mut batch));
        let got = frames(&batch);
        let [Ok(Frame::Packets(packets))] = got[..] else { panic!("{got:?}") };
        prop_assert_eq!((packets.run, packets.count()), (run, payloads.len()));
        prop_assert_eq!(packets.iter().collect::<Vec<_>>(), payloads);
    }

    #[test]
    fn random_bytes_never_panic_and_end(bytes in vec(any::<u8>(), 0..2_000)) {
        let got = frames(&bytes);
        prop_assert!(got.iter().rev().skip(1).all(Result::is_ok), "goes on after an error");
    }

    #[test]
    fn batch_that_is_cut_or_bent_never_panics(
        sent in vec(frame(), 1..5),
        cut in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        bits in any::<u8>(),
    ) {
        let mut batch = Vec::new();
        sent.iter().for_each(|frame| encode(frame, &mut batch));
        let at = at.index(batch.len());
        batch[at] ^= bits;
        batch.truncate(cut.index(batch.len()));
        frames(&batch);
    }
}

#[test]
fn published_bytes() {
    let mut batch = Vec::new();
    encode(&Frame::Nack { id: node(0x0102_0304), epoch: 0x1122 }, &mut batch);
    assert_eq!(batch, *b"\x02\0\0\0\x0e\0\x04\x01\x02\x03\x04\0\0\0\0\0\0\x11\x22");
    let claim = Claim {
        id: node(0x0102_0304),
        epoch: 0,
        serial: 1,
        nonce: 9,
        ownership: Ownership::Session,
        takeover: Takeover::Always,
        credential: 7,
        age_ms: 0,
    };
    batch.clear();
    encode(&Frame::Claim(claim), &mut batch);
    let reading = Reading { shown_ms: 0x0102, echo_ms: 0x0304, held_ms: 5 };
    let mut clock = Vec::new();
    encode(&Frame::<NodeId>::Clock(reading), &mut clock);
    assert_eq!(clock, *b"\x22\0\0\0\x14\0\0\0\0\0\0\x01\x02\0\0\0\0\0\0\x03\x04\0\0\0\x05");
    let head = *b"\x10\0\0\0\x28\0\x04\x01\x02\x03\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\x09";
    assert_eq!(batch, [&head[..], b"\x02\0\0\0\0\0\0\0\0\x07\0\0\0\0"].concat());
}

#[test]
fn published_bytes_of_watches() {
    let id = node(0x0102_0304);
    let mut batch = Vec::new();
    encode(&Frame::Watch { id, nonce: 9, is_on: true }, &mut batch);
    assert_eq!(batch, *b"\x1d\0\0\0\x0b\0\x04\x01\x02\x03\x04\0\0\0\x09\x01");
    batch.clear();
    encode(
        &Frame::Locate { id, nonce: 9, version: 7, serial: 3, sight: Sight::Unknown },
        &mut batch,
    );
    let head = *b"\x1c\0\0\0\x1b\0\x04\x01\x02\x03\x04\0\0\0\x09\0\0\0\0\0\0\0\x07";
    assert_eq!(batch, [&head[..], b"\0\0\0\0\0\0\0\x03\0"].concat());
    batch.clear();
    encode(&Frame::Heard { id, version: 7 }, &mut batch);
    assert_eq!(batch, *b"\x1e\0\0\0\x0e\0\x04\x01\x02\x03\x04\0\0\0\0\0\0\0\x07");
    batch.clear();
    let about = About { features: 1, told: 2, channels: None };
    encode(&Frame::<NodeId>::About(about), &mut batch);
    assert_eq!(batch, *b"\x24\0\0\0\x0c\0\0\0\x01\0\0\0\0\0\0\0\x02");
    batch.push(9);
    batch[4] += 1;
    assert_eq!(frames(&batch), [Ok(Frame::About(about))], "nine realms that are not there");
    batch.clear();
    let about = About { channels: Some([7, 2, 7].into_iter().collect()), ..about };
    encode(&Frame::<NodeId>::About(about), &mut batch);
    assert_eq!(batch, *b"\x24\0\0\0\x0f\0\0\0\x01\0\0\0\0\0\0\0\x02\x02\x02\x07");
    batch.push(9);
    batch[4] += 1;
    assert_eq!(frames(&batch), [Ok(Frame::About(about))], "a later version may say more");
}

#[test]
fn sign_of_life_with_a_body_is_one_all_the_same() {
    let batch = [kind::ALIVE, 0, 0, 0, 2, 9, 9, kind::DRAINING, 0, 0, 0, 1, 9];
    assert_eq!(frames(&batch), [Ok(Frame::Alive), Ok(Frame::Draining)]);
}

#[test]
fn what_a_later_version_says_is_skipped() {
    let mut batch = vec![0x1f, 0, 0, 0, 3, 9, 9, 9];
    // An id of another realm.
    batch.extend([kind::FIND, 0, 0, 0, 3, 77, 1, 5]);
    encode(&Frame::Find { id: node(1) }, &mut batch);
    let found = Ok(Frame::Find { id: node(1) });
    assert_eq!(frames(&batch), [Ok(Frame::Unknown), Ok(Frame::Unknown), found]);
}

#[test]
fn bytes_behind_the_last_field_and_ids_that_are_none_are_refused() {
    let mut batch = Vec::new();
    encode(&Frame::Find { id: node(1) }, &mut batch);
    batch.push(0);
    batch[4] += 1;
    assert_eq!(frames(&batch), [Err(DecodeError::TooLong { kind: kind::FIND })]);
    let zero = [kind::FIND, 0, 0, 0, 6, 0, 4, 0, 0, 0, 0];
    assert_eq!(frames(&zero), [Err(DecodeError::BadField { kind: kind::FIND })]);
}

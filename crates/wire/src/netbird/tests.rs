//! Against what real clients and servers said to each other.

use proptest::prelude::*;

use super::*;

/// `sha-` and the SHA-256 of `alice` and of `bob`.
const ALICE: &str = "7368612d2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90";
const BOB: &str = "7368612d81b637d8fcd2c6da6359e6963113a1170de795e4b725b84d1e0b4cfd9ec58ce9";

/// The code of bob's token, which is good until [`EXPIRY`], under the secret `s3cret`.
const CODE: &str = "2367bb929e4c1b2eb62de2005110fdd01da3c831974adb39e98b36464249ee39";
const EXPIRY: u64 = 1_795_884_421;

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn peer(hex: &str) -> PeerId {
    PeerId(bytes(hex).try_into().unwrap())
}

fn login(more: &[u8]) -> Vec<u8> {
    [&bytes(&format!("01062112a442{BOB}01{CODE}")), more].concat()
}

#[test]
fn recorded_messages_of_clients_are_read() {
    let message = login(b"1795884421");
    assert_eq!(message.len(), 85);
    let code = bytes(CODE).try_into().unwrap();
    let token = Token { code: &code, signed: b"1795884421", expiry: EXPIRY };
    let auth = Auth { peer: peer(BOB), token };
    assert_eq!(Message::decode(&message), Ok(Message::Auth(auth)));

    let message = bytes(&format!("0108{ALICE}"));
    let Ok(Message::Subscribe(ids)) = Message::decode(&message) else { panic!() };
    assert_eq!(ids.iter().collect::<Vec<_>>(), [peer(ALICE)]);
    let message = bytes(&format!("0109{BOB}{ALICE}"));
    let Ok(Message::Unsubscribe(ids)) = Message::decode(&message) else { panic!() };
    assert_eq!(ids.iter().collect::<Vec<_>>(), [peer(BOB), peer(ALICE)]);

    let message = bytes(&format!("0103{BOB}7878787878"));
    let transport = Message::Transport { dest: peer(BOB), payload: b"xxxxx" };
    assert_eq!(Message::decode(&message), Ok(transport));
    assert_eq!(Message::decode(&HEALTHY), Ok(Message::HealthCheck));
    assert_eq!(Message::decode(&CLOSING), Ok(Message::Close));
}

#[test]
fn recorded_messages_of_servers_are_made() {
    let response = bytes("010772656c3a2f2f3132372e302e302e313a3333303739");
    assert_eq!(auth_response("rel://127.0.0.1:33079"), response);
    let online: Vec<_> = peers_online(&[peer(ALICE)]).collect();
    assert_eq!(online, [bytes(&format!("010a{ALICE}"))]);
    let offline: Vec<_> = peers_went_offline(&[peer(BOB)]).collect();
    assert_eq!(offline, [bytes(&format!("010b{BOB}"))]);
    assert_eq!(transport_header(peer(ALICE))[..], bytes(&format!("0103{ALICE}")));
}

#[test]
fn recorded_messages_of_clients_are_made() {
    let token = [&[1][..], &bytes(CODE), b"1795884421"].concat();
    assert_eq!(auth(peer(BOB), &token), login(b"1795884421"));
    let subscribed: Vec<_> = subscribe(&[peer(ALICE)]).collect();
    assert_eq!(subscribed, [bytes(&format!("0108{ALICE}"))]);
    let unsubscribed: Vec<_> = unsubscribe(&[peer(BOB)]).collect();
    assert_eq!(unsubscribed, [bytes(&format!("0109{BOB}"))]);
    assert_eq!(subscribe(&[peer(ALICE); 245]).map(|message| message.len()).sum::<usize>(), 8_824);
}

#[test]
fn recorded_messages_of_servers_are_read() {
    let response = bytes("010772656c3a2f2f3132372e302e302e313a3333303739");
    let instance = FromRelay::AuthResponse("rel://127.0.0.1:33079");
    assert_eq!(FromRelay::decode(&response), Ok(instance));
    let online = bytes(&format!("010a{ALICE}"));
    let Ok(FromRelay::PeersOnline(ids)) = FromRelay::decode(&online) else { panic!() };
    assert_eq!(ids.iter().collect::<Vec<_>>(), [peer(ALICE)]);
    let offline = bytes(&format!("010b{BOB}"));
    let Ok(FromRelay::PeersWentOffline(ids)) = FromRelay::decode(&offline) else { panic!() };
    assert_eq!(ids.iter().collect::<Vec<_>>(), [peer(BOB)]);
    let packet = bytes(&format!("0103{ALICE}7878787878"));
    let transport = FromRelay::Transport { source: peer(ALICE), payload: b"xxxxx" };
    assert_eq!(FromRelay::decode(&packet), Ok(transport));
    assert_eq!(FromRelay::decode(&HEALTHY), Ok(FromRelay::HealthCheck));
    assert_eq!(FromRelay::decode(&CLOSING), Ok(FromRelay::Close));
}

#[test]
fn what_no_relay_says_is_refused() {
    let length = |kind, length| DecodeError::Length { kind, length };
    for (message, error) in [
        (vec![], DecodeError::NoType(0)),
        (vec![1], DecodeError::NoType(1)),
        (vec![2, 5], DecodeError::Version(2)),
        (vec![1, 6], DecodeError::TypeOfRelay(6)),
        (vec![1, 8], DecodeError::TypeOfRelay(8)),
        (vec![1, 3, 9], length(3, 3)),
        (vec![1, 10, 9], length(10, 3)),
        (vec![1, 7, 0xff], DecodeError::Login),
        ([&[1, 3][..], &[0; MAX_MESSAGE - 1]].concat(), length(3, 8_821)),
    ] {
        assert_eq!(FromRelay::decode(&message), Err(error), "{message:?}");
    }
}

#[test]
fn as_many_peers_as_there_are_take_as_many_messages_as_needed() {
    let peers = [peer(ALICE); 500];
    let lengths: Vec<_> = peers_online(&peers).map(|message| message.len()).collect();
    assert_eq!(lengths, [8_786, 8_786, 2 + 12 * 36]);
    assert_eq!(peers_online(&[]).count(), 0);
}

#[test]
fn login_that_is_not_just_so_is_none() {
    let good = login(b"1795884421");
    let with = |at: usize, byte: u8| {
        let mut message = good.clone();
        message[at] = byte;
        message
    };
    for (what, message) in [
        ("magic", with(2, 0)),
        ("algorithm 0", with(42, 0)),
        ("algorithm 2", with(42, 2)),
        ("no token", good[..42].to_vec()),
        ("a code that ends early", good[..60].to_vec()),
        ("no expiry", login(b"")),
        ("9 digits", login(b"999999999")),
        ("a sign", login(b"+1795884421")),
        ("letters", login(b"healthcheck")),
        ("more than there are seconds", login(&[b'9'; 130])),
        ("213 bytes", login(&[b'0'; 213 - 75])),
    ] {
        assert_eq!(Message::decode(&message), Err(DecodeError::Login), "{what}");
    }
    // Zeros in front say nothing.
    let longest = login(&[b'0'; MAX_AUTH - 75]);
    assert!(matches!(Message::decode(&longest), Ok(Message::Auth(auth)) if auth.token.expiry == 0));
}

#[test]
fn message_that_is_none_says_whether_the_connection_survives_it() {
    let length = |kind, length| DecodeError::Length { kind, length };
    let ids = |count: usize| [&[1, 8][..], &vec![7; count * PeerId::LENGTH]].concat();
    for (message, error, is_survived) in [
        (vec![], DecodeError::NoType(0), false),
        (vec![1], DecodeError::NoType(1), false),
        (vec![2, 5], DecodeError::Version(2), false),
        (vec![1, 0], DecodeError::Type(0), false),
        (vec![1, 1], DecodeError::Type(1), false),
        (vec![1, 7], DecodeError::Type(7), false),
        (vec![1, 12], DecodeError::Type(12), false),
        (vec![1, 3, 9], length(3, 3), true),
        (vec![1, 8, 9], length(8, 3), true),
        (vec![1, 9, 9], length(9, 3), true),
        (ids(245), length(8, 2 + 245 * 36), true),
        ([&[1, 3][..], &[0; MAX_MESSAGE - 1]].concat(), length(3, 8_821), true),
        (vec![1, 6], DecodeError::Login, true),
    ] {
        assert_eq!(Message::decode(&message), Err(error), "{message:?}");
        assert_eq!(error.is_survived(), is_survived, "{error}");
    }
    let (none, most) = (ids(0), ids(MAX_IDS));
    assert!(matches!(Message::decode(&none), Ok(Message::Subscribe(ids)) if ids.is_empty()));
    assert!(matches!(Message::decode(&most), Ok(Message::Subscribe(ids)) if ids.len() == MAX_IDS));
    let largest = [&[1, 3][..], &[0; MAX_MESSAGE - 2]].concat();
    let Ok(Message::Transport { payload, .. }) = Message::decode(&largest) else { panic!() };
    assert_eq!(payload.len(), 8_782);
}

#[test]
fn id_is_shown_in_one_way_and_read_back() {
    assert_eq!(PeerId::of_name("alice"), peer(ALICE));
    let shown = peer(ALICE).to_string();
    assert_eq!(shown, "sha-K9gGyX8OAK8aH8Myj6djqSaXI8jbj6xPk69x2xhtbpA=");
    assert_eq!(shown.parse(), Ok(peer(ALICE)));
    let strange = PeerId([b'X'; 36]);
    assert_eq!(strange.to_string().parse(), Ok(strange));
    let twice = format!("raw-{}", STANDARD.encode(peer(ALICE).0));
    for text in ["", "sha-", "sha-AAAA", "raw-AAAA", "alice", &twice, &shown[..46]] {
        assert_eq!(text.parse::<PeerId>(), Err(InvalidPeerId), "{text}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(message in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Message::decode(&message);
    }

    #[test]
    fn payload_is_what_follows_the_header(id in any::<[u8; 36]>(), payload: Vec<u8>) {
        let id = PeerId(id);
        let message = [&transport_header(id)[..], &payload].concat();
        let read = Message::decode(&message);
        prop_assert_eq!(read, Ok(Message::Transport { dest: id, payload: &payload }));
        prop_assert_eq!(id.to_string().parse(), Ok(id));
    }
}

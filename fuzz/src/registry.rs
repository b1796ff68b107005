//! The registry's stream: messages are cut as they were sent, and read within their bounds.

use beacon_wire::ids::{BeaconId, NodeId};
use beacon_wire::registry::{MAX_MESSAGE, Mode, Request, Response, take_message};
use bytes::BytesMut;

/// Takes one message as it is, and a stream of messages with their lengths; then asks for
/// what the input says.
///
/// # Panics
/// Where a bound does not hold, or a request is cut otherwise than it was sent.
pub fn run(input: &[u8]) {
    read(input);
    let mut stream = BytesMut::from(input);
    loop {
        let before = stream.len();
        let Ok(Some(message)) = take_message(&mut stream) else { break };
        assert!(message.len() <= MAX_MESSAGE);
        assert_eq!(before, 4 + message.len() + stream.len());
        read(&message);
    }
    ask(input);
}

fn read(message: &[u8]) {
    for mode in [Mode::Binary, Mode::Json] {
        match Response::decode(mode, message) {
            Ok(Response::Failed(text)) => assert!(text.len() <= 200, "{} bytes", text.len()),
            Ok(Response::NotFound { node }) => assert_ne!(node, Some(0)),
            Ok(Response::Key { .. } | Response::BeaconRegistered | Response::Beacons(_))
            | Err(_) => {}
        }
    }
}

fn ask(input: &[u8]) {
    let Some((number, rest)) = input.split_first_chunk::<4>() else { return };
    let number = u32::from_be_bytes(*number);
    let address = String::from_utf8_lossy(rest);
    let admin_token = Some(&*address).filter(|_| number.is_multiple_of(2));
    let register = Request::RegisterBeacon { id: BeaconId(number), address: &address, admin_token };
    let mut requests = vec![register, Request::ListBeacons];
    requests.extend(NodeId::new(number).map(Request::Lookup));
    for mode in [Mode::Binary, Mode::Json] {
        let mut out = BytesMut::new();
        requests.iter().for_each(|request| request.encode(mode, &mut out));
        for request in &requests {
            let message = take_message(&mut out).ok().flatten().expect("a request of our own");
            let json = match (mode, request) {
                (Mode::Binary, Request::Lookup(node)) => {
                    assert_eq!(message[..], [&[2], &node.number().to_be_bytes()[..]].concat());
                    continue;
                }
                (Mode::Binary, _) => message.strip_prefix(&[0]).expect("a JSON message"),
                (Mode::Json, _) => &message[..],
            };
            let json: serde_json::Value = serde_json::from_slice(json).expect("JSON");
            if matches!(request, Request::RegisterBeacon { .. }) {
                assert_eq!(json["addr"], *address);
                assert_eq!(json["admin_token"].as_str(), admin_token);
            }
        }
        assert!(out.is_empty());
    }
}

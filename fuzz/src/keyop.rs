//! The protocol of keyop-messenger: whatever is read is written so that it reads the same, and a
//! record that a hub passes on is the same but for its route.

use beacon_wire::keyop::grpc::{self, FromHub, PREFIX, SubscribeFrame};
use beacon_wire::keyop::websocket::{self, Hello, Records};
use beacon_wire::keyop::{Draft, Envelope};
use bytes::BytesMut;
use serde_json::Value;

/// Takes one input: a record, or a message of either side over WebSocket or gRPC.
///
/// # Panics
/// Where something does not come back.
pub fn run(input: &[u8]) {
    if let Ok(envelope) = Envelope::parse(input) {
        of_a_record(input, &envelope);
    }
    if let Ok(hello) = Hello::parse(input) {
        of_a_first_message(&hello);
    }
    if let Ok(last_id) = websocket::read_ack(input) {
        let ack = websocket::ack(&last_id);
        assert_eq!(websocket::read_ack(&ack), Ok(last_id));
    }
    if let Ok(records) = Records::parse(input) {
        let mut again = Vec::new();
        records.iter().for_each(|record| websocket::push_record(&mut again, record));
        assert_eq!(again, input);
    }
    of_a_subscriber(input);
    of_a_hub(input);
    of_a_publisher(input);
    of_a_stream(input);
}

fn of_a_record(record: &[u8], envelope: &Envelope<'_>) {
    let route: Vec<_> = envelope.route.iter().collect();
    assert_eq!(route.len(), envelope.route.len());
    let names: Vec<_> = route.iter().map(AsRef::as_ref).collect();
    let draft = Draft {
        id: &envelope.id,
        ts: &envelope.ts,
        channel: &envelope.channel,
        origin: &envelope.origin,
        payload_type: &envelope.payload_type,
        correlation_id: &envelope.correlation_id,
        service_name: &envelope.service_name,
        route: &names,
        payload: envelope.payload(),
    };
    let written = draft.encode();
    let again = Envelope::parse(&written).expect("what is written is read");
    assert_eq!(again.id, envelope.id);
    assert!(again.route.iter().eq(route.iter().map(AsRef::as_ref)));
    assert_eq!(again.payload(), envelope.payload());

    let forwarded = envelope.forwarded_by("hub");
    let next = Envelope::parse(&forwarded).expect("what is passed on is read");
    let mut expected = names.clone();
    expected.push("hub");
    assert!(next.route.iter().eq(expected.iter().copied()));
    assert_eq!(next.id, envelope.id);
    assert_eq!(next.channel, envelope.channel);
    assert_eq!(next.payload(), envelope.payload());
    assert_one_place_changed(record, &forwarded);
    // Another reader finds nothing but the route changed. It refuses duplicates of members that it
    // knows, and texts that are not UTF-8; those it does not judge.
    let values = [record, &forwarded].map(serde_json::from_slice::<Value>);
    if let [Ok(mut before), Ok(mut after)] = values {
        for value in [&mut before, &mut after] {
            if let Some(members) = value.as_object_mut() {
                members.retain(|name, _| !name.eq_ignore_ascii_case("route"));
            }
        }
        assert_eq!(before, after);
    }
}

/// Nothing of the record is gone but a route that names nobody: `null`, or a list of spaces.
fn assert_one_place_changed(before: &[u8], after: &[u8]) {
    let same = before.iter().zip(after).take_while(|(one, other)| one == other).count();
    let (before, after) = (&before[same..], &after[same..]);
    let ends = before.iter().rev().zip(after.iter().rev());
    let same = ends.take_while(|(one, other)| one == other).count();
    let gone = &before[..before.len() - same];
    assert!(gone.iter().all(|byte| b" \t\r\nnul[]".contains(byte)), "{}", gone.escape_ascii());
}

fn of_a_first_message(hello: &Hello<'_>) {
    let channels: Vec<_> = hello.subscribe.iter().collect();
    let channels: Vec<_> = channels.iter().map(AsRef::as_ref).collect();
    let written = websocket::client_hello(&hello.instance_name, &channels, hello.is_ephemeral);
    let again = Hello::parse(&written).expect("what is written is read");
    assert_eq!(again.instance_name, hello.instance_name);
    assert_eq!(again.is_ephemeral, hello.is_ephemeral);
    assert!(again.subscribe.iter().eq(hello.subscribe.iter()));
}

/// A message without its prefix.
fn body(message: &[u8]) -> &[u8] {
    message.get(PREFIX..).expect("a message has a prefix")
}

fn of_a_subscriber(input: &[u8]) {
    let Ok(frame) = SubscribeFrame::parse(input) else { return };
    match frame {
        SubscribeFrame::Empty => {}
        SubscribeFrame::Ack(last_id) => {
            let written = grpc::subscribe_ack(last_id);
            assert_eq!(SubscribeFrame::parse(body(&written)), Ok(frame));
        }
        SubscribeFrame::Request(request) => {
            let channels: Vec<_> = request.channels.iter().collect();
            let written = grpc::subscribe_request(request.version, &channels, request.is_ephemeral);
            let Ok(SubscribeFrame::Request(again)) = SubscribeFrame::parse(body(&written)) else {
                panic!("a request that comes back as another frame");
            };
            assert_eq!(again.version, request.version);
            assert_eq!(again.is_ephemeral, request.is_ephemeral);
            assert!(again.channels.iter().eq(channels.iter().copied()));
        }
    }
}

fn of_a_hub(input: &[u8]) {
    match FromHub::parse(input) {
        Ok(FromHub::Batch(records)) => {
            let written = grpc::hub_batch(records.iter());
            let Ok(FromHub::Batch(again)) = FromHub::parse(body(&written)) else {
                panic!("a batch that comes back as another frame");
            };
            assert!(again.iter().eq(records.iter()));
        }
        Ok(frame @ FromHub::Close { code, text }) => {
            let written = grpc::close_notice(code, text);
            assert_eq!(FromHub::parse(body(&written)), Ok(frame));
        }
        Ok(FromHub::Empty) | Err(_) => {}
    }
}

fn of_a_publisher(input: &[u8]) {
    if let Ok(records) = grpc::read_publish_batch(input) {
        let written = grpc::publish_batch(records.iter());
        let again = grpc::read_publish_batch(body(&written)).expect("what is written is read");
        assert!(again.iter().eq(records.iter()));
    }
    if let Ok(last_id) = grpc::read_publish_ack(input) {
        let written = grpc::publish_ack(last_id);
        assert_eq!(grpc::read_publish_ack(body(&written)), Ok(last_id));
    }
}

fn of_a_stream(input: &[u8]) {
    const LONGEST: usize = 1_024;
    let mut received = BytesMut::from(input);
    loop {
        let before = received.len();
        match grpc::take_message(&mut received, LONGEST) {
            Ok(Some(message)) => {
                assert!(message.len() <= LONGEST);
                assert_eq!(received.len() + message.len() + PREFIX, before);
            }
            Ok(None) => {
                assert!(received.len() < PREFIX + LONGEST);
                return;
            }
            Err(refusal) => {
                assert!(!refusal.message().is_empty());
                return;
            }
        }
    }
}

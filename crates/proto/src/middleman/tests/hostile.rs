//! Another relay that breaks the rules, or has other bounds.

use beacon_wire::middleman::{Failure, RelayMessage, TopicShare};

use super::super::{Bounds, LinkId, Violation};
use super::*;

/// A broker with one link, over which it has been told how its end begins.
fn told() -> (Broker<usize>, LinkId, Output) {
    let mut broker = Broker::new(Limits::default());
    let link = LinkId(1);
    let mut out = Output::default();
    broker.link_up(link, *b"local", &mut out);
    let mut begin = Vec::new();
    RelayMessage::Begin { maker: *b"other" }.encode(&mut begin);
    broker.from_relay(link, &begin, Instant::now(), &mut out).unwrap();
    out.clear();
    (broker, link, out)
}

fn hear(broker: &mut Broker<usize>, message: RelayMessage<'_>) -> Result<Handled, Violation> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    broker.from_relay(LinkId(1), &bytes, Instant::now(), &mut Output::default())
}

#[test]
fn hostile_relay_is_held_to_the_grammar() {
    let (mut broker, link, mut out) = told();
    let service = broker.connect(0, Role::Service, guid(1)).unwrap();
    let command = Message::parse(b"EREQ Svc\n\n.\n").unwrap();
    broker.handle(service, &command, Instant::now(), &mut out);
    let request = |id, topic, tail| RelayMessage::Request {
        id,
        timeout_ms: 1,
        has_request_id: false,
        topic,
        tail,
    };
    let good: &[u8] = b"\r\nx\r\n.\r\n";

    for violation in [
        RelayMessage::Begin { maker: *b"again" },
        RelayMessage::Publication { frame: b"PUB Chat\r\n\r\nx" },
        RelayMessage::Publication { frame: b"RES Chat\r\n\r\nx\r\n.\r\n" },
        RelayMessage::Publication { frame: b"PUB Chat\r\n\r\n\xff\r\n.\r\n" },
        request(1, "Svc", b"no tail"),
        request(1, "Svc", b"\r\n\xff\r\n.\r\n"),
        request(1, "Svc\r\nRid: 1", good),
    ] {
        assert_eq!(hear(&mut broker, violation), Err(Violation), "{violation:?}");
    }
    assert_eq!(broker.from_relay(link, b"\xff", Instant::now(), &mut out), Err(Violation));
    assert_eq!(hear(&mut broker, request(1, "Svc", good)), Ok(Handled::Asked));
    assert_eq!(hear(&mut broker, request(1, "Svc", good)), Err(Violation));
    broker.link_down(link, &mut out);
    assert_eq!(hear(&mut broker, request(2, "Svc", good)), Ok(Handled::Ignored));
    assert_eq!(broker.counts().requests, 0);
}

#[test]
fn hostile_relay_answers_only_what_it_was_asked() {
    let (mut broker, _, mut out) = told();
    let service = broker.connect(0, Role::Service, guid(1)).unwrap();
    for frame in [&b"EREQ Svc\n\n.\n"[..], b"REQ Svc\n\n.\n"] {
        let message = Message::parse(frame).unwrap();
        broker.handle(service, &message, Instant::now(), &mut out);
    }
    let tail = b"\r\nstolen\r\n.\r\n";

    let stolen = RelayMessage::Answer { id: 1, outstanding: 0, tail };
    assert_eq!(hear(&mut broker, stolen), Err(Violation));
    let unknown = RelayMessage::Answer { id: 2, outstanding: 0, tail };
    assert_eq!(hear(&mut broker, unknown), Ok(Handled::Ignored));
    let failure = Failure::TimedOut;
    assert_eq!(hear(&mut broker, RelayMessage::Failed { id: 1, failure }), Ok(Handled::Noted));
    assert_eq!(hear(&mut broker, RelayMessage::Cancel { id: 1 }), Ok(Handled::Noted));
    assert_eq!(broker.counts().requests, 1);
}

#[test]
fn hostile_relay_returns_only_what_it_was_asked_and_that_whole() {
    let (mut broker, link, mut out) = told();
    let share = TopicShare { workers: 1, ..TopicShare::default() };
    hear(&mut broker, RelayMessage::Topic { share, topic: "Svc" }).unwrap();
    let service = broker.connect(0, Role::Service, guid(1)).unwrap();
    let ask = |broker: &mut Broker<usize>, out: &mut Output| {
        let request = Message::parse(b"REQ Svc\nrid: a\n\n.\n").unwrap();
        assert_eq!(broker.handle(service, &request, Instant::now(), out), Handled::Asked);
    };
    ask(&mut broker, &mut out);
    let tail: &[u8] = b"\r\n\r\n.\r\n";

    for id in [0, 2] {
        assert_eq!(hear(&mut broker, RelayMessage::Returned { id, tail }), Ok(Handled::Noted));
    }
    assert_eq!(broker.counts().requests, 1);
    let long = format!("\r\n{}\r\n.\r\n", "x".repeat(broker.limits.message_bytes));
    for tail in [&b"no tail"[..], b"\r\n\xff\r\n.\r\n", long.as_bytes()] {
        assert_eq!(hear(&mut broker, RelayMessage::Returned { id: 1, tail }), Err(Violation));
    }
    // It has said that it has a responder, and is not asked again until it says so again.
    out.clear();
    let mut returned = Vec::new();
    RelayMessage::Returned { id: 1, tail }.encode(&mut returned);
    broker.from_relay(link, &returned, Instant::now(), &mut out).unwrap();
    assert_eq!(out.ended(), [Ended::Failed(Refusal::NoResponder)]);
    assert_eq!(out.to_relays().len(), 0);
    assert_eq!(broker.counts().requests, 0);
    hear(&mut broker, RelayMessage::Topic { share, topic: "Svc" }).unwrap();
    ask(&mut broker, &mut out);
}

#[test]
fn what_is_longer_than_this_relay_delivers_goes_no_further() {
    let (mut broker, link, mut out) = told();
    let limits = Limits { message_bytes: 100, ..Limits::default() };
    broker.set_limits(limits);
    let share = TopicShare { workers: 1, ..TopicShare::default() };
    hear(&mut broker, RelayMessage::Topic { share, topic: "There" }).unwrap();
    let service = broker.connect(0, Role::Service, guid(1)).unwrap();
    for frame in [&b"SUB Chat\n\n.\n"[..], b"EREQ Here\n\n.\n", b"REQ There\nrid: a\n\n.\n"] {
        broker.handle(service, &Message::parse(frame).unwrap(), Instant::now(), &mut out);
    }
    let tail = format!("\r\n{}\r\n.\r\n", "x".repeat(100));
    let frame = format!("PUB Chat\r\n{tail}");
    let (timeout_ms, has_request_id, topic) = (1, false, "Here");
    let tail = tail.as_bytes();

    let refused = Handled::Refused(Refusal::MessageTooLong);
    for (message, expected, deliveries) in [
        (RelayMessage::Publication { frame: frame.as_bytes() }, Handled::Lost, &[][..]),
        (RelayMessage::Request { id: 1, timeout_ms, has_request_id, topic, tail }, refused, &[]),
        (
            RelayMessage::Answer { id: 1, outstanding: 0, tail },
            refused,
            &[
                "PUB ERROR\r\n\r\nToo long REQ There\r\n.\r\n",
                "RES There\r\nrid: a\r\nError: Too long\r\n\r\n\r\n.\r\n",
            ],
        ),
    ] {
        out.clear();
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        let handled = broker.from_relay(link, &bytes, Instant::now(), &mut out);
        assert_eq!(handled, Ok(expected));
        let heard: Vec<_> =
            out.deliveries().map(|(_, _, frame)| str::from_utf8(frame).unwrap()).collect();
        assert_eq!(heard, deliveries);
        let told: Vec<_> = out.to_relays().map(|(_, message)| message.to_vec()).collect();
        let mut failed = Vec::new();
        let failure = Failure::MessageTooLong;
        RelayMessage::Failed { id: 1, failure }.encode(&mut failed);
        let is_request = matches!(message, RelayMessage::Request { .. });
        assert_eq!(told, if is_request { vec![failed] } else { vec![] });
    }
    assert_eq!(broker.counts().requests, 0);
}

#[test]
fn topics_of_a_hostile_relay_are_bounded() {
    let bounds = Bounds { subscriptions: 1, grants: 1, workers: 1, requests: 1 };
    let mut broker = Broker::<usize>::new(Limits { all: bounds, ..Limits::default() });
    let mut out = Output::default();
    broker.link_up(LinkId(1), *b"local", &mut out);
    let share = TopicShare { subscribes: true, ..TopicShare::default() };

    for topic in ["A", "B", "C", "A"] {
        let message = RelayMessage::Topic { share, topic };
        assert_eq!(hear(&mut broker, message), Ok(Handled::Noted));
    }
    assert_eq!(hear(&mut broker, RelayMessage::Topic { share, topic: "D" }), Err(Violation));
    let long = "x".repeat(256);
    let message = RelayMessage::Topic { share, topic: &long };
    assert_eq!(hear(&mut broker, message), Ok(Handled::Noted));
    let none = RelayMessage::Topic { share: TopicShare::default(), topic: "E" };
    assert_eq!(broker.counts().topics, 3);
    assert_eq!(hear(&mut broker, none), Ok(Handled::Noted));
    broker.link_down(LinkId(1), &mut out);
    assert_eq!(broker.counts(), Counts::default());
}

#[test]
fn requests_of_one_relay_leave_room_for_others() {
    let bounds = Bounds { requests: 100, ..Limits::default().all };
    let mut broker = Broker::new(Limits { all: bounds, ..Limits::default() });
    let mut out = Output::default();
    broker.link_up(LinkId(1), *b"local", &mut out);
    let service = broker.connect(0, Role::Service, guid(1)).unwrap();
    let command = Message::parse(b"EREQ Svc\n\n.\n").unwrap();
    broker.handle(service, &command, Instant::now(), &mut out);

    for id in 0..200 {
        let tail = b"\r\n\r\n.\r\n";
        let (timeout_ms, has_request_id, topic) = (1, false, "Svc");
        let request = RelayMessage::Request { id, timeout_ms, has_request_id, topic, tail };
        hear(&mut broker, request).unwrap();
    }

    assert_eq!(broker.counts().requests, 50);
}

//! The client of peerbus against a broker that is made by hand: what is sent until when, what is
//! handed out how often, and what becomes of both when connections break.

use std::fmt::Debug;

use beacon_client::peerbus::{
    Client, Interruption, Options, QUEUE_BYTES, Refusal, Refused, Secret, SendError, Sent, State,
};
use beacon_client::wire::peerbus::{
    Envelope, MAX_MESSAGE, ReceiptResult, Received, Register, deliver, peers, receipt,
};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};

use super::{PATIENCE, SHORT};

const SECRET: &str = "peerbus-test-peerbus-test-peerbu";

/// A broker's side of a session.
struct Session(WebSocketStream<TcpStream>);

/// Awaits what happens at once.
async fn soon<T>(awaited: impl Future<Output = T>) -> T {
    timeout(PATIENCE, awaited).await.unwrap()
}

async fn listen() -> (TcpListener, Options) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    (listener, Options::new(url, "alice", "tok"))
}

/// Upgrades a connection; checks that the request is one as the original's clients make it.
#[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
async fn accept(listener: &TcpListener) -> Session {
    let check = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        assert_eq!(request.uri().path(), "/");
        for absent in ["origin", "sec-websocket-protocol", "sec-websocket-extensions"] {
            assert!(request.headers().get(absent).is_none(), "{absent}");
        }
        Ok(response)
    };
    let (tcp, _) = soon(listener.accept()).await.unwrap();
    let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE));
    Session(
        tokio_tungstenite::accept_hdr_async_with_config(tcp, check, Some(config)).await.unwrap(),
    )
}

/// Takes a connection and its registration.
async fn register(listener: &TcpListener) -> Session {
    let mut session = accept(listener).await;
    let text = session.text().await;
    let register = Register::parse(text.as_bytes()).unwrap();
    assert_eq!((&*register.token, &*register.name), ("tok", "alice"));
    session.say(peers(["alice", "bob"])).await;
    session
}

/// Takes a connection and refuses it.
async fn refuse(listener: &TcpListener, refusal: Refusal) {
    let mut session = accept(listener).await;
    session.text().await;
    session.close(refusal.code(), refusal.reason()).await;
}

impl Session {
    async fn text(&mut self) -> String {
        loop {
            let message = soon(self.0.next()).await.unwrap().unwrap();
            if matches!(message, Message::Ping(_)) {
                continue;
            }
            let Message::Text(text) = message else { panic!("{message:?}") };
            return text.as_str().to_owned();
        }
    }

    async fn say(&mut self, json: Vec<u8>) {
        self.0.send(Message::text(String::from_utf8(json).unwrap())).await.unwrap();
    }

    /// The next message of the client: its id, and what it is.
    async fn envelope(&mut self) -> Envelope<'static> {
        let text = self.text().await;
        let Ok(Received::Envelope(envelope)) = Received::parse(text.as_bytes()) else {
            panic!("{text}")
        };
        assert_eq!(String::from_utf8(envelope.encode()).unwrap(), text);
        Envelope {
            protocol_version: envelope.protocol_version.into_owned().into(),
            id: envelope.id.into_owned().into(),
            from: envelope.from.into_owned().into(),
            to: envelope.to.into_owned().into(),
            ts: envelope.ts.into_owned().into(),
            source: envelope.source.into_owned().into(),
            kind: envelope.kind.into_owned().into(),
            body: envelope.body.into_owned(),
            hmac: envelope.hmac.into_owned().into(),
        }
    }

    /// The key of the client's next acknowledgement.
    async fn ack(&mut self) -> String {
        let text = self.text().await;
        let Ok(Received::Ack { key }) = Received::parse(text.as_bytes()) else { panic!("{text}") };
        key.into_owned()
    }

    async fn receipt(&mut self, envelope: &Envelope<'_>, result: ReceiptResult, reason: &str) {
        self.say(receipt(&envelope.id, result, reason)).await;
    }

    async fn deliver(&mut self, id: &str, body: &str) {
        let envelope = format!(
            r#"{{"protocol_version":"v1","id":"{id}","from":"bob","to":"alice","ts":"t","source":"s","kind":"msg","body":{body},"hmac":""}}"#
        );
        self.say(deliver(id, envelope.as_bytes())).await;
    }

    async fn close(mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        self.0.close(Some(frame)).await.unwrap();
        while let Some(Ok(_)) = soon(self.0.next()).await {}
    }
}

/// A registered client, and the broker's side.
async fn session(change: impl FnOnce(&mut Options)) -> (Client, TcpListener, Session) {
    let (listener, mut options) = listen().await;
    change(&mut options);
    let mut client = Client::start(options).unwrap();
    let session = register(&listener).await;
    soon(client.connected()).await.unwrap();
    (client, listener, session)
}

/// What the client waits for, once it does.
async fn interruption(client: Client) -> String {
    let (_sender, _receiver, mut state) = client.split();
    let waits = |state: &State| matches!(state, State::Waiting { .. });
    let state = soon(state.wait_for(waits)).await.unwrap().clone();
    let State::Waiting { cause, .. } = state else { panic!("{state:?}") };
    format!("{cause:?}")
}

fn is_pending(outcome: &impl Debug) -> bool {
    format!("{outcome:?}").contains("Elapsed")
}

#[tokio::test]
async fn message_counts_as_sent_once_it_has_its_receipt() {
    let (client, _listener, mut broker) = session(|_| ()).await;
    let (sender, _receiver, _state) = client.split();

    let sending = tokio::spawn({
        let sender = sender.clone();
        async move { sender.send("bob", &["<hi>"]).await }
    });
    let first = broker.envelope().await;
    assert!(!sending.is_finished());
    broker.receipt(&first, ReceiptResult::Stored, "").await;
    assert_eq!(soon(sending).await.unwrap(), Ok(Sent::Stored));
    let sent = [&first.from, &first.to, &first.kind, &first.source].map(AsRef::as_ref);
    assert_eq!(sent, ["alice", "bob", "msg", "peer-bus"]);
    assert_eq!(first.body.as_bytes(), br#"["\u003chi\u003e"]"#);

    let [second, third] = [sender.post("bob", &2).await, sender.post("*", &3).await];
    let (refused, broadcast) = (broker.envelope().await, broker.envelope().await);
    assert_eq!((&*broadcast.to, &*broadcast.kind), ("*", "broadcast"));
    // In any order.
    broker.receipt(&broadcast, ReceiptResult::Stored, "").await;
    broker.receipt(&refused, ReceiptResult::Refused, "quota").await;
    let reason = "quota".to_owned();
    assert_eq!(soon(second.unwrap().sent()).await, Err(SendError::Refused { reason }));
    assert_eq!(soon(third.unwrap().sent()).await, Ok(Sent::Stored));
}

#[tokio::test]
async fn messages_without_a_receipt_are_sent_again_under_their_ids_and_in_order() {
    let (client, listener, mut broker) = session(|_| ()).await;
    let (sender, _receiver, _state) = client.split();
    let mut pending = Vec::new();
    for number in 0..5 {
        pending.push(sender.post("bob", &number).await.unwrap());
    }
    let mut first = Vec::new();
    for _ in 0..5 {
        first.push(broker.envelope().await);
    }
    broker.receipt(&first[1], ReceiptResult::Stored, "").await;
    assert_eq!(soon(pending.remove(1).sent()).await, Ok(Sent::Stored));
    first.remove(1);
    drop(broker);

    let mut broker = register(&listener).await;
    pending.push(sender.post("bob", &5).await.unwrap());
    for envelope in &first {
        assert_eq!(&broker.envelope().await, envelope);
        broker.receipt(envelope, ReceiptResult::Duplicate, "").await;
    }
    let new = broker.envelope().await;
    assert_eq!(new.body.as_bytes(), b"5");
    broker.receipt(&new, ReceiptResult::Stored, "").await;
    let mut outcomes = Vec::new();
    for pending in pending {
        outcomes.push(soon(pending.sent()).await.unwrap());
    }
    let again = Sent::Duplicate;
    assert_eq!(outcomes, [again, again, again, again, Sent::Stored]);
}

#[tokio::test]
async fn refusal_that_nothing_changes_ends_the_client() {
    for refusal in [Refusal::Token, Refusal::Claimed, Refusal::LongName] {
        let (listener, options) = listen().await;
        let mut client = Client::start(options).unwrap();
        let (sent, ()) = tokio::join!(soon(client.send("bob", &1)), refuse(&listener, refusal));
        assert_eq!(sent, Err(SendError::Ended));
        assert_eq!(soon(client.recv()).await.unwrap_err(), Refused(refusal));
        assert!(soon(client.recv()).await.unwrap().is_none());
        assert_eq!(soon(client.send("bob", &1)).await, Err(SendError::Ended));
        // It dials once and never again.
        assert!(is_pending(&timeout(SHORT * 2, listener.accept()).await));
    }
}

#[tokio::test]
async fn refusal_that_passes_is_tried_again() {
    let (listener, options) = listen().await;
    let mut client = Client::start(options).unwrap();
    refuse(&listener, Refusal::NotStored).await;
    let _broker = register(&listener).await;
    soon(client.connected()).await.unwrap();
}

#[tokio::test]
async fn server_that_is_no_broker_is_told_apart() {
    let (listener, options) = listen().await;
    let client = Client::start(options).unwrap();
    let mut other = accept(&listener).await;
    other.text().await;
    other.say(b"{\"type\":\"deliver\"}".to_vec()).await;
    let cause = interruption(client).await;
    assert_eq!(cause, format!("{:?}", Interruption::Unexpected));
}

#[tokio::test]
async fn queue_is_bounded_while_there_is_no_broker_and_leaves_in_order() {
    let (listener, options) = listen().await;
    let client = Client::start(options).unwrap();
    let (sender, _receiver, _state) = client.split();
    let mut pending = Vec::new();
    let body = |number: usize| format!("\"{number} {}\"", "x".repeat(MAX_MESSAGE - 1_024));
    for number in 0..QUEUE_BYTES / MAX_MESSAGE {
        pending.push(soon(sender.post_json("bob", body(number).as_bytes())).await.unwrap());
    }
    let more = "y".repeat(8 * 1_024);
    assert!(is_pending(&timeout(SHORT, sender.post("bob", &more)).await));

    let mut broker = register(&listener).await;
    for (number, pending) in pending.into_iter().enumerate() {
        let envelope = broker.envelope().await;
        assert_eq!(envelope.body.as_bytes(), body(number).as_bytes());
        broker.receipt(&envelope, ReceiptResult::Stored, "").await;
        assert_eq!(soon(pending.sent()).await, Ok(Sent::Stored));
    }
    let _pending = soon(sender.post("bob", &more)).await.unwrap();
    broker.envelope().await;
}

#[tokio::test]
async fn message_is_handed_out_once_and_acknowledged_by_the_caller() {
    let (mut client, listener, mut broker) = session(|_| ()).await;
    broker.deliver("m1", "[1, 2]").await;
    broker.deliver("m1", "[1, 2]").await;
    broker.deliver("m2", "\"x\"").await;
    let first = soon(client.recv()).await.unwrap().unwrap();
    assert_eq!((first.from(), first.id(), first.body()), ("bob", "m1", "[1,2]"));
    assert_eq!(first.read::<Vec<u8>>().unwrap(), [1, 2]);
    assert!(!first.is_broadcast());
    let second = soon(client.recv()).await.unwrap().unwrap();
    assert_eq!(second.id(), "m2");
    second.ack().await;
    assert_eq!(broker.ack().await, "m2");
    drop(broker);

    // Acknowledged without a session, and delivered again to the next.
    first.ack().await;
    let mut broker = register(&listener).await;
    broker.deliver("m2", "\"x\"").await;
    broker.deliver("m1", "[1,2]").await;
    broker.deliver("m3", "3").await;
    assert_eq!([broker.ack().await, broker.ack().await], ["m2", "m1"]);
    let third = soon(client.recv()).await.unwrap().unwrap();
    assert_eq!(third.id(), "m3");
}

#[tokio::test]
async fn message_that_was_dropped_is_handed_out_when_it_comes_again() {
    let (mut client, _listener, mut broker) = session(|_| ()).await;
    broker.deliver("m1", "1").await;
    drop(soon(client.recv()).await.unwrap().unwrap());
    broker.deliver("m1", "1").await;
    soon(client.recv()).await.unwrap().unwrap().ack().await;
    assert_eq!(broker.ack().await, "m1");
}

#[tokio::test]
async fn forged_messages_are_neither_handed_out_nor_acknowledged() {
    let sign = |options: &mut Options| options.secret = Some(Secret::new(SECRET).unwrap());
    let (mut client, _listener, mut broker) = session(sign).await;
    let signed = |hmac: &str, body: u8| {
        format!(
            r#"{{"protocol_version":"v1","id":"m1","from":"bob","to":"alice","ts":"t","source":"peer-bus","kind":"msg","body":{{"hi":{body}}},"hmac":"{hmac}"}}"#
        )
    };
    // Recorded of the original.
    let code = "a0625dd3949ec949ab29f1e7a771308b7c8ed0d60c1e01f08af287e0323a8e32";
    broker.say(deliver("m1", signed("", 1).as_bytes())).await;
    broker.say(deliver("m1", signed(code, 2).as_bytes())).await;
    broker.say(deliver("", signed(code, 1).as_bytes())).await;
    broker.say(deliver("m1|6368", signed(code, 1).as_bytes())).await;
    let genuine = soon(client.recv()).await.unwrap().unwrap();
    assert_eq!(genuine.body(), r#"{"hi":1}"#);
    genuine.ack().await;
    assert_eq!(broker.ack().await, "m1|6368");

    let (sender, _receiver, _state) = client.split();
    let _pending = sender.post("bob", &1).await.unwrap();
    assert_eq!(broker.envelope().await.hmac.len(), 64);
}

#[tokio::test]
async fn broker_without_receipts_gets_messages_all_the_same() {
    let (client, _listener, mut broker) = session(|options| options.receipts = false).await;
    assert_eq!(soon(client.send("bob", &1)).await, Ok(Sent::Written));
    assert_eq!(broker.envelope().await.body.as_bytes(), b"1");
}

#[tokio::test]
async fn peers_are_asked_for_between_messages() {
    let (client, _listener, mut broker) = session(|_| ()).await;
    let answering = async {
        let question = broker.text().await;
        assert_eq!(Received::parse(question.as_bytes()), Ok(Received::Peers));
        broker.deliver("m1", "1").await;
        broker.say(peers(["alice", "bob", "carol"])).await;
    };
    let (names, ()) = tokio::join!(soon(client.peers()), answering);
    assert_eq!(names.unwrap(), ["alice", "bob", "carol"]);
}

#[tokio::test]
async fn close_waits_for_the_receipts() {
    let (client, _listener, mut broker) = session(|_| ()).await;
    let (sender, mut receiver, _state) = client.split();
    let pending = sender.post("bob", &1).await.unwrap();
    sender.close().await;
    let envelope = broker.envelope().await;
    assert!(is_pending(&timeout(SHORT, broker.0.next()).await));
    broker.receipt(&envelope, ReceiptResult::Stored, "").await;
    assert_eq!(soon(pending.sent()).await, Ok(Sent::Stored));
    let Message::Close(Some(frame)) = soon(broker.0.next()).await.unwrap().unwrap() else {
        panic!("no close")
    };
    assert_eq!(u16::from(frame.code), 1000);
    drop(broker);
    assert!(soon(receiver.recv()).await.unwrap().is_none());
}

#[tokio::test]
async fn broker_that_falls_silent_is_left() {
    let hurried = |options: &mut Options| {
        options.timeouts.ping_interval = SHORT;
        options.timeouts.pong = SHORT;
    };
    // It does not read, and so answers no ping.
    let (client, _listener, _broker) = session(hurried).await;
    let cause = interruption(client).await;
    assert!(cause.contains("Silent"), "{cause}");
}

#[tokio::test]
async fn message_that_no_broker_takes_is_refused_here() {
    let (client, _listener, _broker) = session(|_| ()).await;
    let body = "<".repeat(MAX_MESSAGE / 6);
    let sent = soon(client.send("bob", &body)).await;
    assert!(matches!(sent, Err(SendError::TooLarge { .. })), "{sent:?}");
    assert_eq!(soon(client.send("", &1)).await, Err(SendError::NoRecipient));
}

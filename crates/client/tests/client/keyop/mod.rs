//! The client of keyop-messenger against a hub that is made by hand: what is published until when,
//! what is acknowledged, and what becomes of both when connections break.

#[cfg(feature = "grpc")]
mod grpc;
mod hub;

use std::time::Duration;

use beacon_client::keyop::{
    Client, HubName, Identity, Interruption, Publication, PublishError, Published, Refused, State,
    Transport,
};
use beacon_client::wire::keyop::websocket::{ack, push_record};
use beacon_client::wire::keyop::{Envelope, channel};
use beacon_client::{ConnectError, InvalidUrl};
use tokio_tungstenite::tungstenite::Message;

use hub::{Authority, Hub, soon};

const HELLO: &str =
    r#"{"instance_name":"alpha","role":"client","version":"1","subscribe":["alerts"]}"#;
const HELLO_OF_A_PUBLISHER: &str = r#"{"instance_name":"alpha","role":"client","version":"1"}"#;

fn record(id: &str) -> Vec<u8> {
    format!(r#"{{"v":1,"id":"{id}","channel":"alerts","payload":{{}}}}"#).into_bytes()
}

fn batch(ids: &[&str]) -> Message {
    let mut batch = Vec::new();
    ids.iter().for_each(|id| push_record(&mut batch, &record(id)));
    Message::binary(batch)
}

fn acknowledgement(id: &str) -> Message {
    Message::text(String::from_utf8(ack(id)).unwrap())
}

#[tokio::test]
async fn record_is_published_as_the_original_writes_it_and_acknowledged() {
    let authority = Authority::new();
    let (hub, options) = Hub::listen(&authority, "localhost", Transport::WebSocket).await;
    let client = Client::start(options).unwrap();
    let mut publication = Publication::new("orders", "t", "<hello>");
    publication.correlation_id = "c";
    let hub = async {
        let mut peer = hub.greet(HELLO_OF_A_PUBLISHER).await.welcome().await;
        let records = peer.records().await;
        let [record] = &records[..] else { panic!("{} records", records.len()) };
        let envelope = Envelope::parse(record).unwrap();
        assert_eq!((&*envelope.channel, &*envelope.origin), ("orders", "alpha"));
        assert_eq!((&*envelope.payload_type, &*envelope.correlation_id), ("t", "c"));
        assert_eq!(envelope.payload().as_bytes(), br#""\u003chello\u003e""#);
        assert!(envelope.route.iter().eq(["alpha"]));
        assert_eq!(envelope.id.as_bytes()[14], b'7');
        peer.send(acknowledgement(&envelope.id)).await;
        assert_eq!(peer.records().await.len(), 1);
        peer.send(acknowledgement("")).await;
        peer
    };
    let publishing = async {
        let first = client.publish(&publication).await;
        (first, client.publish(&publication).await)
    };

    let (mut peer, published) = tokio::join!(hub, publishing);

    assert_eq!(published, (Ok(Published::Acknowledged), Ok(Published::NothingNew)));
    let (closed, is_closed) = tokio::join!(client.close(), peer.is_closed());
    assert_eq!((closed, is_closed), (Ok(()), true));
}

#[tokio::test]
async fn batch_is_acknowledged_when_the_application_has_dealt_with_it() {
    let authority = Authority::new();
    let (hub, mut options) = Hub::listen(&authority, "localhost", Transport::WebSocket).await;
    options.subscribe = vec!["alerts".to_owned()];
    let mut client = Client::start(options).unwrap();
    let mut peer = hub.greet(HELLO).await.welcome().await;
    peer.send(batch(&["a", "b"])).await;

    let received = soon(client.recv()).await.unwrap().unwrap();

    assert_eq!(received.records(), [record("a"), record("b")]);
    let ids: Vec<_> = received.envelopes().map(|record| record.unwrap().id.into_owned()).collect();
    assert_eq!(ids, ["a", "b"]);
    received.ack().await;
    assert_eq!(peer.text().await, r#"{"last_id":"b"}"#);
}

#[tokio::test]
async fn batch_that_comes_again_while_the_application_has_it_comes_once() {
    let authority = Authority::new();
    let (hub, mut options) = Hub::listen(&authority, "localhost", Transport::WebSocket).await;
    options.subscribe = vec!["alerts".to_owned()];
    let mut client = Client::start(options).unwrap();
    let mut peer = hub.greet(HELLO).await.welcome().await;
    peer.send(batch(&["a"])).await;
    let received = soon(client.recv()).await.unwrap().unwrap();
    for _ in 0..9 {
        peer.send(batch(&["a"])).await;
    }
    peer.send(batch(&["b"])).await;

    let next = soon(client.recv()).await.unwrap().unwrap();

    assert_eq!(next.records(), [record("b")]);
    received.ack().await;
    assert_eq!(peer.text().await, r#"{"last_id":"a"}"#);
    drop(next);
    peer.send(batch(&["b"])).await;
    let again = soon(client.recv()).await.unwrap().unwrap();
    again.ack().await;
    assert_eq!(peer.text().await, r#"{"last_id":"b"}"#);
}

#[tokio::test]
async fn batch_of_an_earlier_session_is_not_acknowledged_in_the_next() {
    let authority = Authority::new();
    let (hub, mut options) = Hub::listen(&authority, "localhost", Transport::WebSocket).await;
    options.subscribe = vec!["alerts".to_owned()];
    let mut client = Client::start(options).unwrap();
    let mut peer = hub.greet(HELLO).await.welcome().await;
    peer.send(batch(&["a"])).await;
    let first = soon(client.recv()).await.unwrap().unwrap();
    drop(peer);
    let mut peer = hub.greet(HELLO).await.welcome().await;
    first.ack().await;

    peer.send(batch(&["a", "b"])).await;
    soon(client.recv()).await.unwrap().unwrap().ack().await;

    assert_eq!(peer.text().await, r#"{"last_id":"b"}"#);
}

#[tokio::test]
async fn what_is_not_acknowledged_is_published_again_in_its_order() {
    let authority = Authority::new();
    let (hub, options) = Hub::listen(&authority, "localhost", Transport::WebSocket).await;
    let client = Client::start(options).unwrap();
    let mut pending = Vec::new();
    for number in 0..5 {
        let publication = Publication::new("orders", "t", &number);
        pending.push(client.publisher().post(&publication).await.unwrap());
    }
    let mut peer = hub.greet(HELLO_OF_A_PUBLISHER).await.welcome().await;
    let mut first = Vec::new();
    while first.len() < 5 {
        first.extend(peer.records().await);
        if first.len() < 5 {
            peer.send(acknowledgement("x")).await;
        }
    }
    drop(peer);

    let mut peer = hub.greet(HELLO_OF_A_PUBLISHER).await.welcome().await;
    let again = peer.records().await;

    assert!(!again.is_empty() && first.ends_with(&again), "other records, or another order");
    peer.send(acknowledgement("x")).await;
    for pending in pending {
        assert_eq!(soon(pending.published()).await, Ok(Published::Acknowledged));
    }
}

#[tokio::test]
async fn hub_that_does_not_acknowledge_is_left() {
    let authority = Authority::new();
    let (hub, mut options) = Hub::listen(&authority, "localhost", Transport::WebSocket).await;
    options.timeouts.acknowledgement = Duration::from_millis(50);
    let client = Client::start(options).unwrap();
    let (publisher, _receiver, mut state) = client.split();
    publisher.post(&Publication::new("orders", "t", &1)).await.unwrap();
    let _peer = hub.greet(HELLO_OF_A_PUBLISHER).await.welcome().await;

    let is_waiting = |state: &State| matches!(state, State::Waiting { .. });
    let state = soon(state.wait_for(is_waiting)).await.unwrap().clone();

    let State::Waiting { cause, .. } = state else { panic!() };
    assert!(matches!(*cause, Interruption::Unacknowledged(_)), "{cause}");
}

#[tokio::test]
async fn hub_that_does_not_wait_for_acknowledgements_is_left() {
    let authority = Authority::new();
    let (hub, mut options) = Hub::listen(&authority, "localhost", Transport::WebSocket).await;
    options.subscribe = vec!["alerts".to_owned()];
    let client = Client::start(options).unwrap();
    let (_publisher, _receiver, mut state) = client.split();
    let mut peer = hub.greet(HELLO).await.welcome().await;
    for id in ["a", "b", "c", "d", "e"] {
        peer.send(batch(&[id])).await;
    }

    let is_waiting = |state: &State| matches!(state, State::Waiting { .. });
    let state = soon(state.wait_for(is_waiting)).await.unwrap().clone();

    let State::Waiting { cause, .. } = state else { panic!() };
    assert!(matches!(*cause, Interruption::NoHub(_)), "{cause}");
}

#[tokio::test]
async fn client_that_is_not_on_the_allow_list_does_not_try_again() {
    let authority = Authority::new();
    let (hub, options) = Hub::listen(&authority, "localhost", Transport::WebSocket).await;
    let mut client = Client::start(options).unwrap();
    let peer = hub.greet(HELLO_OF_A_PUBLISHER).await;

    let ((), refused) = tokio::join!(peer.close(4403, "not in allowlist"), client.recv());

    let reason = "not in allowlist".to_owned();
    assert_eq!(refused.unwrap_err(), Refused { reason });
    let late = client.publish(&Publication::new("orders", "t", &1)).await;
    assert_eq!(late, Err(PublishError::Ended));
}

#[tokio::test]
async fn records_that_no_hub_takes_are_refused_at_once() {
    let authority = Authority::new();
    let (_hub, mut options) = Hub::listen(&authority, "localhost", Transport::WebSocket).await;
    options.max_record = 300;
    let client = Client::start(options).unwrap();
    for name in ["", "a/b", &channel::dead_letter("orders")] {
        let refused = client.publish(&Publication::new(name, "t", &1)).await;
        assert_eq!(refused, Err(PublishError::Channel(name.to_owned())));
    }
    let long = "x".repeat(300);
    let refused = client.publish(&Publication::new("orders", "t", &*long)).await;
    assert!(matches!(refused, Err(PublishError::TooLarge { most: 300, .. })), "{refused:?}");
}

/// What became of a handshake with a hub of this certificate.
async fn is_trusted(of_hub: &str, hub_name: HubName) -> bool {
    let authority = Authority::new();
    let (hub, mut options) = Hub::listen(&authority, of_hub, Transport::WebSocket).await;
    options.hub_name = hub_name;
    let _client = Client::start(options).unwrap();
    hub.accept().await.is_some()
}

#[tokio::test]
async fn hub_must_have_the_name_that_is_asked_of_it() {
    assert!(is_trusted("localhost", HubName::Host).await);
    assert!(!is_trusted("other", HubName::Host).await);
    assert!(is_trusted("other", HubName::Is("other".to_owned())).await);
    assert!(!is_trusted("localhost", HubName::Is("other".to_owned())).await);
    assert!(is_trusted("other", HubName::Any).await);
}

#[tokio::test]
async fn hub_of_another_authority_is_never_trusted() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (_, options) = Hub::listen(&ours, "localhost", Transport::WebSocket).await;
    let (hub, to_hub) = Hub::listen(&theirs, "localhost", Transport::WebSocket).await;
    let mut options = options;
    options.address = to_hub.address;
    options.hub_name = HubName::Any;
    let _client = Client::start(options).unwrap();
    assert!(hub.accept().await.is_none());
}

#[tokio::test]
async fn files_that_cannot_be_read_are_told_and_read_again() {
    let authority = Authority::new();
    let (hub, mut options) = Hub::listen(&authority, "localhost", Transport::WebSocket).await;
    let good = options.identity;
    options.identity = Identity::new(good.certificate.with_extension("new"), &good.key);
    let missing = options.identity.certificate.clone();
    let client = Client::start(options).unwrap();
    let (_publisher, _receiver, mut state) = client.split();
    let is_waiting = |state: &State| matches!(state, State::Waiting { .. });
    let told = soon(state.wait_for(is_waiting)).await.unwrap().clone();
    let State::Waiting { cause, .. } = told else { panic!() };
    assert!(matches!(*cause, Interruption::Connect(ConnectError::Trust(_))), "{cause}");

    std::fs::copy(&good.certificate, &missing).unwrap();

    assert!(hub.accept().await.is_some());
}

#[tokio::test]
async fn addresses_that_are_none_are_refused() {
    let authority = Authority::new();
    let (_hub, mut options) = Hub::listen(&authority, "localhost", Transport::WebSocket).await;
    options.address = "wss://localhost".to_owned();
    let refused = Client::start(options).unwrap_err();
    assert!(
        matches!(refused, ConnectError::Url(InvalidUrl::Form | InvalidUrl::Address)),
        "{refused}"
    );
}

//! Over gRPC.

use beacon_client::keyop::{
    Client, Interruption, Publication, Published, Refused, State, Transport,
};
use beacon_client::wire::keyop::grpc::{
    Code, Method, Refusal, SubscribeFrame, encode_message, hub_batch, publish_ack,
    read_publish_batch, take_message,
};
use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::http::{HeaderMap, Request, Response};

use super::hub::{Authority, Hub, soon};
use super::record;

type Connection = h2::server::Connection<TlsStream<TcpStream>, Bytes>;

/// One call of a client.
struct Call {
    request: Request<RecvStream>,
    answer: SendResponse<Bytes>,
    body: Option<SendStream<Bytes>>,
    received: BytesMut,
}

impl Call {
    async fn accept(connection: &mut Connection, method: Method) -> Self {
        let (request, answer) = soon(connection.accept()).await.unwrap().unwrap();
        assert_eq!(request.uri().path(), method.path());
        assert_eq!(request.headers()["content-type"], "application/grpc");
        assert_eq!(request.headers()["te"], "trailers");
        assert_eq!(request.headers()["x-federation-instance"], "alpha");
        Self { request, answer, body: None, received: BytesMut::new() }
    }

    async fn message(&mut self) -> Bytes {
        loop {
            if let Some(message) = take_message(&mut self.received, 1 << 20).unwrap() {
                return message;
            }
            let data = self.request.body_mut().data().await.unwrap().unwrap();
            self.request.body_mut().flow_control().release_capacity(data.len()).unwrap();
            self.received.extend_from_slice(&data);
        }
    }

    fn send(&mut self, message: Vec<u8>) {
        let response = || {
            let response = Response::builder().header("content-type", "application/grpc");
            response.body(()).unwrap()
        };
        let answer = &mut self.answer;
        let body =
            self.body.get_or_insert_with(|| answer.send_response(response(), false).unwrap());
        body.send_data(message.into(), false).unwrap();
    }

    /// Ends the call with trailers only.
    fn refuse(&mut self, code: Code, message: &str) {
        let response = Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", code.number())
            .header("grpc-message", &*encode_message(message))
            .body(());
        self.answer.send_response(response.unwrap(), true).unwrap();
    }
}

async fn accept(hub: &Hub) -> Connection {
    h2::server::handshake(hub.accept().await.unwrap()).await.unwrap()
}

/// Has a connection go on, or end, while something else happens.
async fn beside<T>(connection: &mut Connection, awaited: impl Future<Output = T>) -> T {
    let awaited = soon(awaited);
    tokio::pin!(awaited);
    tokio::select! {
        output = &mut awaited => return output,
        other = connection.accept() => assert!(other.is_none(), "another call"),
    }
    awaited.await
}

#[tokio::test]
async fn records_are_published_and_received_in_two_calls() {
    let authority = Authority::new();
    let (hub, mut options) = Hub::listen(&authority, "localhost", Transport::Grpc).await;
    options.subscribe = vec!["alerts".to_owned(), "orders".to_owned()];
    options.publish = vec!["orders".to_owned(), "alerts".to_owned()];
    options.is_ephemeral = true;
    let mut client = Client::start(options).unwrap();
    let mut connection = accept(&hub).await;
    let mut publish = Call::accept(&mut connection, Method::Publish).await;
    let channels = publish.request.headers().get_all("x-federation-publish-channels");
    assert!(channels.iter().eq(["orders", "alerts"]));
    let mut subscribe = Call::accept(&mut connection, Method::Subscribe).await;

    let frame = beside(&mut connection, subscribe.message()).await;
    let Ok(SubscribeFrame::Request(request)) = SubscribeFrame::parse(&frame) else { panic!() };
    assert_eq!((request.version, request.is_ephemeral), ("1", true));
    assert!(request.channels.iter().eq(["alerts", "orders"]));
    let records = [record("a"), record("b")];
    subscribe.send(hub_batch(records.iter().map(Vec::as_slice)));
    let batch = beside(&mut connection, client.recv()).await.unwrap().unwrap();
    assert_eq!(batch.records(), records);
    batch.ack().await;
    let frame = beside(&mut connection, subscribe.message()).await;
    assert_eq!(SubscribeFrame::parse(&frame), Ok(SubscribeFrame::Ack("b")));

    let pending = client.publisher().post(&Publication::new("orders", "t", &1)).await.unwrap();
    let published = beside(&mut connection, publish.message()).await;
    assert_eq!(read_publish_batch(&published).unwrap().iter().count(), 1);
    publish.send(publish_ack("x"));
    let published = beside(&mut connection, pending.published()).await;
    assert_eq!(published, Ok(Published::Acknowledged));

    // Takes leave: both calls end, and then the connection.
    let hub = async {
        let mut publish = publish;
        let ended = async {
            // The end may come in a frame of its own.
            while let Some(data) = publish.request.body_mut().data().await {
                assert!(data.unwrap().is_empty(), "more than the end of the call");
            }
        };
        beside(&mut connection, ended).await;
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", 0.into());
        publish.body.as_mut().unwrap().send_trailers(trailers).unwrap();
        while connection.accept().await.is_some() {}
    };
    let (closed, ()) = soon(async { tokio::join!(client.close(), hub) }).await;
    assert_eq!(closed, Ok(()));
}

#[tokio::test]
async fn refusal_for_good_ends_the_client_with_what_the_hub_said() {
    let authority = Authority::new();
    let (hub, options) = Hub::listen(&authority, "localhost", Transport::Grpc).await;
    let mut client = Client::start(options).unwrap();
    let mut connection = accept(&hub).await;
    let mut publish = Call::accept(&mut connection, Method::Publish).await;
    publish.refuse(Refusal::NotAllowed.code(), "not in 50 % of allowlists");

    let refused = beside(&mut connection, client.recv()).await.unwrap_err();

    assert_eq!(refused, Refused { reason: "not in 50 % of allowlists".to_owned() });
}

#[tokio::test]
async fn other_statuses_are_told_and_the_client_comes_back() {
    let authority = Authority::new();
    let (hub, options) = Hub::listen(&authority, "localhost", Transport::Grpc).await;
    let (publisher, _receiver, mut state) = Client::start(options).unwrap().split();
    let mut connection = accept(&hub).await;
    let mut publish = Call::accept(&mut connection, Method::Publish).await;
    publish.refuse(Code::Unavailable, "the hub stops");
    let is_waiting = |state: &State| matches!(state, State::Waiting { .. });
    let told = beside(&mut connection, state.wait_for(is_waiting)).await.unwrap().clone();
    let State::Waiting { cause, .. } = told else { panic!() };
    let Interruption::Status { code, message } = &*cause else { panic!("{cause}") };
    assert_eq!((*code, &**message), (Code::Unavailable, "the hub stops"));

    let mut connection = accept(&hub).await;
    let mut publish = Call::accept(&mut connection, Method::Publish).await;
    publisher.post(&Publication::new("orders", "t", &1)).await.unwrap();

    beside(&mut connection, publish.message()).await;
}

#[tokio::test]
async fn client_that_may_subscribe_to_nothing_goes_on_publishing() {
    let authority = Authority::new();
    let (hub, mut options) = Hub::listen(&authority, "localhost", Transport::Grpc).await;
    options.subscribe = vec!["secret".to_owned()];
    let client = Client::start(options).unwrap();
    let mut connection = accept(&hub).await;
    let mut publish = Call::accept(&mut connection, Method::Publish).await;
    let mut subscribe = Call::accept(&mut connection, Method::Subscribe).await;
    subscribe.refuse(Code::Ok, "");

    let pending = client.publisher().post(&Publication::new("orders", "t", &1)).await.unwrap();
    beside(&mut connection, publish.message()).await;
    publish.send(publish_ack(""));

    let published = beside(&mut connection, pending.published()).await;
    assert_eq!(published, Ok(Published::NothingNew));
}

#[tokio::test]
async fn call_that_ends_with_trailers_is_begun_again_in_another_session() {
    let authority = Authority::new();
    let (hub, mut options) = Hub::listen(&authority, "localhost", Transport::Grpc).await;
    options.subscribe = vec!["alerts".to_owned()];
    let (_publisher, _receiver, mut state) = Client::start(options).unwrap().split();
    let mut connection = accept(&hub).await;
    let _publish = Call::accept(&mut connection, Method::Publish).await;
    let mut subscribe = Call::accept(&mut connection, Method::Subscribe).await;
    subscribe.send(hub_batch([&record("a")[..]].into_iter()));
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", 0.into());
    subscribe.body.as_mut().unwrap().send_trailers(trailers).unwrap();

    let is_waiting = |state: &State| matches!(state, State::Waiting { .. });
    beside(&mut connection, state.wait_for(is_waiting)).await.unwrap();

    let mut connection = accept(&hub).await;
    Call::accept(&mut connection, Method::Publish).await;
    Call::accept(&mut connection, Method::Subscribe).await;
}

#[tokio::test]
async fn server_without_http_2_is_no_hub() {
    let authority = Authority::new();
    let (hub, mut options) = Hub::listen(&authority, "localhost", Transport::WebSocket).await;
    options.transport = Transport::Grpc;
    let (_publisher, _receiver, mut state) = Client::start(options).unwrap().split();
    let _stream = hub.accept().await;
    let is_waiting = |state: &State| matches!(state, State::Waiting { .. });
    let told = soon(state.wait_for(is_waiting)).await.unwrap().clone();
    let State::Waiting { cause, .. } = told else { panic!() };
    assert!(matches!(*cause, Interruption::NoHub(_)), "{cause}");
}

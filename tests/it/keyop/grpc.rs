//! A peer over gRPC, message by message, written from the protocol's description.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::HUB;
use super::pki::{Authority, Identity};
use crate::harness::PATIENCE;

pub(crate) const PUBLISH: &str = "/federation.v1.FederationService/Publish";
pub(crate) const SUBSCRIBE: &str = "/federation.v1.FederationService/Subscribe";

/// A connection.
pub(crate) struct Rpc {
    requests: SendRequest<Bytes>,
    connection: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

/// A call.
pub(crate) struct Call {
    send: SendStream<Bytes>,
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    received: BytesMut,
    /// What ended it: trailers, or headers that are all of it.
    trailers: Option<HeaderMap>,
}

impl Rpc {
    pub(crate) async fn connect(
        address: SocketAddr,
        authority: &Authority,
        identity: &Identity,
    ) -> io::Result<Self> {
        let config = authority.client(Some(identity), &TLS13, &["h2"]);
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from(HUB).unwrap();
        let stream = TlsConnector::from(config).connect(name, socket).await?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        // As the original's clients: what one call does not take keeps nothing of others back.
        let mut builder = h2::client::Builder::new();
        builder.initial_connection_window_size(16 << 20);
        let connected = builder.handshake(stream).await;
        let (requests, connection) = connected.map_err(io::Error::other)?;
        let connection = tokio::spawn(connection);
        Ok(Self { requests, connection })
    }

    /// Calls a method, where the connection is still there.
    pub(crate) async fn try_call(&mut self, path: &str) -> Option<Call> {
        self.begin(path, "POST", "application/grpc").await
    }

    /// Calls a method.
    pub(crate) async fn call(&mut self, path: &str) -> Call {
        self.call_as(path, "POST", "application/grpc").await
    }

    pub(crate) async fn call_as(&mut self, path: &str, method: &str, content: &str) -> Call {
        self.begin(path, method, content).await.expect("the connection is there")
    }

    async fn begin(&mut self, path: &str, method: &str, content: &str) -> Option<Call> {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://localhost:7740{path}"))
            .header("content-type", content)
            .header("te", "trailers")
            .header("x-federation-instance", "somebody else")
            .body(())
            .unwrap();
        std::future::poll_fn(|cx| self.requests.poll_ready(cx)).await.ok()?;
        let (response, send) = self.requests.send_request(request, false).ok()?;
        let (body, trailers) = (None, None);
        Some(Call { send, response: Some(response), body, received: BytesMut::new(), trailers })
    }

    pub(crate) async fn publisher(&mut self) -> Call {
        self.call(PUBLISH).await
    }

    /// Calls Subscribe, and asks for these channels.
    pub(crate) async fn subscriber(&mut self, channels: &[&str], is_ephemeral: bool) -> Call {
        let mut call = self.call(SUBSCRIBE).await;
        call.say(&request(channels, is_ephemeral)).await;
        call
    }

    /// Waits for the end of the connection.
    pub(crate) async fn ended(self) {
        drop(self.requests);
        let _ended = timeout(PATIENCE, self.connection).await.expect("the connection ends");
    }
}

impl Call {
    /// Sends a message.
    pub(crate) async fn say(&mut self, message: &[u8]) {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        self.say_raw([&[0][..], &length, message].concat()).await;
    }

    /// Sends bytes, as the relay takes them.
    pub(crate) async fn say_raw(&mut self, bytes: Vec<u8>) {
        let mut bytes = Bytes::from(bytes);
        while bytes.has_remaining() {
            self.send.reserve_capacity(bytes.len());
            let more = std::future::poll_fn(|cx| self.send.poll_capacity(cx));
            let Ok(Some(Ok(room))) = timeout(PATIENCE, more).await else { return };
            let piece = bytes.split_to(room.min(bytes.len()));
            if self.send.send_data(piece, false).is_err() {
                return;
            }
        }
    }

    /// Says nothing more.
    pub(crate) fn finish(&mut self) {
        // The relay may have ended the call before.
        let _ended = self.send.send_data(Bytes::new(), true);
    }

    pub(crate) fn cancel(&mut self) {
        self.send.send_reset(h2::Reason::CANCEL);
    }

    /// The next message; none at the end of the call.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        timeout(PATIENCE, self.receive()).await.expect("an answer comes")
    }

    /// The same, however long that takes.
    pub(crate) async fn next_or_end(&mut self) -> Option<Vec<u8>> {
        self.receive().await
    }

    async fn receive(&mut self) -> Option<Vec<u8>> {
        if let Some(response) = self.response.take() {
            let response = response.await.ok()?;
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["content-type"], "application/grpc");
            let (head, body) = response.into_parts();
            if head.headers.contains_key("grpc-status") {
                self.trailers = Some(head.headers);
                return None;
            }
            self.body = Some(body);
        }
        let body = self.body.as_mut()?;
        loop {
            if let Some([0, length @ ..]) = self.received.first_chunk::<5>() {
                let length = u32::from_be_bytes(*length) as usize;
                if self.received.len() >= 5 + length {
                    self.received.advance(5);
                    return Some(self.received.split_to(length).to_vec());
                }
            }
            match body.data().await {
                Some(Ok(data)) => {
                    body.flow_control().release_capacity(data.len()).unwrap();
                    self.received.extend_from_slice(&data);
                }
                Some(Err(_)) => return None,
                None => {
                    self.trailers = body.trailers().await.ok().flatten();
                    return None;
                }
            }
        }
    }

    /// The status of HTTP that came.
    pub(crate) async fn http_status(&mut self) -> u16 {
        let response = self.response.take().expect("nobody has asked before");
        response.await.expect("an answer comes").status().as_u16()
    }

    /// Waits for the end of the call: its code, and its message.
    pub(crate) async fn status(&mut self) -> (u32, String) {
        while self.next().await.is_some() {}
        let trailers = self.trailers.as_ref().expect("the call ends with a status");
        let text = |name: &str| {
            trailers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
        };
        (text("grpc-status").parse().unwrap(), text("grpc-message"))
    }

    /// The records that come for a while.
    pub(crate) async fn records_for_a_while(&mut self) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        let all = async {
            loop {
                records.extend(self.records().await);
            }
        };
        let _over = timeout(Duration::from_millis(200), all).await;
        records
    }

    /// Publishes records, and returns the id that they are acknowledged by.
    pub(crate) async fn publish(&mut self, records: &[Vec<u8>]) -> String {
        self.say(&repeated(1, records)).await;
        last_id(&self.next().await.expect("an acknowledgement comes"))
    }

    /// The records of the next batch.
    pub(crate) async fn records(&mut self) -> Vec<Vec<u8>> {
        let message = self.next().await.expect("a batch comes");
        let [(1, batch)] = &fields(&message)[..] else { panic!("{message:?}") };
        fields(batch).into_iter().map(|(_, record)| record).collect()
    }

    pub(crate) async fn acknowledge(&mut self, last_id: &str) {
        let ack = if last_id.is_empty() { Vec::new() } else { field(1, last_id.as_bytes()) };
        self.say(&field(2, &ack)).await;
    }

    /// Receives so many records, and acknowledges each batch.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<Vec<u8>> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let records = self.records().await;
            let last = super::ids(&records).pop().unwrap();
            self.acknowledge(&last).await;
            taken.extend(records);
        }
        assert_eq!(taken.len(), count);
        taken
    }
}

/// SubscribeRequest in a SubscribeFrame.
pub(crate) fn request(channels: &[&str], is_ephemeral: bool) -> Vec<u8> {
    let mut request = field(1, b"1");
    for channel in channels {
        request.extend(field(2, channel.as_bytes()));
    }
    if is_ephemeral {
        request.extend([0x18, 1]);
    }
    field(1, &request)
}

/// A field of bytes.
pub(crate) fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        field.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    field.push(u8::try_from(length).unwrap());
    field.extend_from_slice(bytes);
    field
}

pub(crate) fn repeated(number: u8, all: &[Vec<u8>]) -> Vec<u8> {
    all.iter().flat_map(|bytes| field(number, bytes)).collect()
}

/// The fields of a message, which are all of bytes.
pub(crate) fn fields(message: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut rest = message;
    let mut fields = Vec::new();
    while let Some((tag, more)) = rest.split_first() {
        assert_eq!(tag & 7, 2, "{message:?}");
        let (mut length, mut shift, mut at) = (0, 0, 0);
        loop {
            let byte = more[at];
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let (bytes, more) = more[at..].split_at(length);
        fields.push((tag >> 3, bytes.to_vec()));
        rest = more;
    }
    fields
}

pub(crate) fn last_id(ack: &[u8]) -> String {
    let fields = fields(ack);
    fields.first().map(|(_, id)| String::from_utf8(id.clone()).unwrap()).unwrap_or_default()
}

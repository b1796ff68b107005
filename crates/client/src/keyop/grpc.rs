//! Hubs from v1.5.0 on: two calls over one HTTP/2 connection, Publish and Subscribe.
//!
//! HTTP/2 is spoken by `h2` itself: a gRPC library would bring a service framework and a second
//! task, for two calls of four messages.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::client::{Connection, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, RecvStream, SendStream};
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderValue, Method as Verb, Request};

use super::error::{Interruption, Over};
use super::event::Event;
use super::options::Options;
use crate::SessionError;
use crate::socket::Stream;
use crate::wire::keyop::VERSION;
use crate::wire::keyop::grpc::{
    CONTENT_TYPE, Code, FromHub, INSTANCE_HEADER, Method, PUBLISH_CHANNELS_HEADER, decode_message,
    max_message, publish_batch, read_publish_ack, subscribe_ack, subscribe_request, take_message,
};

/// How far a hub may send ahead, in bytes: what a batch of ours takes, and as much again for the rest
/// of the connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 2 << 20;

/// Most that is read of the headers of an answer, in bytes.
const MAX_HEADERS: u32 = 16 << 10;

pub(super) struct Grpc {
    connection: Connection<Box<dyn Stream>, Bytes>,
    /// The connection ends when nobody could make a call any more.
    calls: SendRequest<Bytes>,
    pings: PingPong,
    is_pinging: bool,
    publish: Call,
    /// None where there is nothing to subscribe to, or the hub allows nothing of it.
    subscribe: Option<Call>,
}

/// One call, from its request to its status.
struct Call {
    request: SendStream<Bytes>,
    answer: Answer,
    /// What has arrived of a message.
    received: BytesMut,
    longest: usize,
    /// Whether a message has come.
    is_used: bool,
}

enum Answer {
    /// Hubs send the headers with the first message.
    Awaited(ResponseFuture),
    Body(RecvStream),
}

/// Begins both calls over a stream that has agreed on HTTP/2.
pub(super) async fn open(
    stream: Box<dyn Stream>,
    authority: &str,
    options: &Options,
) -> Result<Grpc, Over> {
    let handshake = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADERS)
        .enable_push(false)
        .handshake(stream);
    let (mut calls, mut connection) = handshake.await.map_err(Interruption::from)?;
    let pings = connection.ping_pong().expect("nobody has asked before");
    let mut begin = |method, headers: &HeaderMap| {
        Call::begin(&mut calls, method, authority, headers, max_message(options.max_record))
    };

    let mut headers = HeaderMap::new();
    // The name of a certificate need not be one of a header; the hub believes none.
    if let Ok(name) = HeaderValue::from_str(&options.name) {
        headers.insert(INSTANCE_HEADER, name);
    }
    let mut of_publish = headers.clone();
    for channel in &options.publish {
        if let Ok(channel) = HeaderValue::from_str(channel) {
            of_publish.append(PUBLISH_CHANNELS_HEADER, channel);
        }
    }
    let publish = begin(Method::Publish, &of_publish)?;
    let subscribe = if options.subscribe.is_empty() {
        None
    } else {
        let mut call = begin(Method::Subscribe, &headers)?;
        let channels: Vec<_> = options.subscribe.iter().map(String::as_str).collect();
        call.send(subscribe_request(VERSION, &channels, options.is_ephemeral));
        Some(call)
    };
    Ok(Grpc { connection, calls, pings, is_pinging: false, publish, subscribe })
}

impl Grpc {
    pub(super) fn publish<'a>(&mut self, records: impl Iterator<Item = &'a [u8]> + Clone) {
        self.publish.send(publish_batch(records));
    }

    pub(super) fn acknowledge(&mut self, last_id: &str) {
        if let Some(call) = &mut self.subscribe {
            call.send(subscribe_ack(last_id));
        }
    }

    pub(super) fn ping(&mut self) -> Result<(), Over> {
        if !self.is_pinging {
            self.pings.send_ping(Ping::opaque()).map_err(Interruption::from)?;
            self.is_pinging = true;
        }
        Ok(())
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Over>> {
        if let Poll::Ready(event) = self.poll_publish(cx) {
            return Poll::Ready(event);
        }
        if let Poll::Ready(event) = self.poll_subscribe(cx) {
            return Poll::Ready(event);
        }
        if self.is_pinging && self.pings.poll_pong(cx).map_err(Interruption::from)?.is_ready() {
            self.is_pinging = false;
            return Poll::Ready(Ok(Event::Alive));
        }
        // Last: it writes what was sent above, and wakes us for what it reads.
        let ended = ready!(Pin::new(&mut self.connection).poll(cx));
        ended.map_err(Interruption::from)?;
        Poll::Ready(Err(SessionError::closed(None).into()))
    }

    fn poll_publish(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Over>> {
        let Some(message) = ready!(self.publish.poll_message(cx))? else {
            let message = "Publish is over".to_owned();
            return Poll::Ready(Err(Interruption::Status { code: Code::Ok, message }.into()));
        };
        let last_id = read_publish_ack(&message).map_err(|_| unreadable())?;
        Poll::Ready(Ok(Event::Acknowledged { is_new: !last_id.is_empty() }))
    }

    fn poll_subscribe(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Over>> {
        let Some(call) = &mut self.subscribe else { return Poll::Pending };
        let Some(message) = ready!(call.poll_message(cx))? else {
            if call.is_used {
                // Another session subscribes again.
                let message = "Subscribe is over".to_owned();
                return Poll::Ready(Err(Interruption::Status { code: Code::Ok, message }.into()));
            }
            self.subscribe = None;
            return Poll::Pending;
        };
        match FromHub::parse(&message).map_err(|_| unreadable())? {
            FromHub::Batch(records) => {
                let records = records.iter().map(|record| message.slice_ref(record));
                Poll::Ready(Ok(Event::Batch(records.collect())))
            }
            FromHub::Close { code: _, text } => {
                let message = text.to_owned();
                let code = Code::Unavailable;
                Poll::Ready(Err(Interruption::Status { code, message }.into()))
            }
            FromHub::Empty => Poll::Ready(Ok(Event::Alive)),
        }
    }

    /// Takes leave: ends both calls, and once the hub has answered the end of Publish, so that it has
    /// all that was said before, the connection.
    pub(super) async fn close(self) {
        let Self { mut connection, calls, pings, is_pinging: _, mut publish, mut subscribe } = self;
        for call in [Some(&mut publish), subscribe.as_mut()].into_iter().flatten() {
            // One that is over needs no end.
            let _ = call.request.send_data(Bytes::new(), true);
        }
        let is_connected = poll_fn(|cx| {
            while let Poll::Ready(message) = publish.poll_message(cx) {
                if !matches!(message, Ok(Some(_))) {
                    return Poll::Ready(true);
                }
            }
            Pin::new(&mut connection).poll(cx).map(|_ended| false)
        });
        let is_connected = is_connected.await;
        drop((publish, subscribe, calls, pings));
        if is_connected {
            // It is over in any case.
            let _ = connection.await;
        }
    }
}

impl Call {
    fn begin(
        calls: &mut SendRequest<Bytes>,
        method: Method,
        authority: &str,
        headers: &HeaderMap,
        longest: usize,
    ) -> Result<Self, Over> {
        let uri = format!("https://{authority}{}", method.path());
        let mut request = Request::builder()
            .method(Verb::POST)
            .uri(uri)
            .header("content-type", CONTENT_TYPE)
            .header("te", "trailers")
            .body(())
            .expect("the address was parsed");
        request.headers_mut().extend(headers.clone());
        let (answer, request) = calls.send_request(request, false).map_err(Interruption::from)?;
        let answer = Answer::Awaited(answer);
        Ok(Self { request, answer, received: BytesMut::new(), longest, is_used: false })
    }

    /// Buffers a message until the hub lets it in.
    fn send(&mut self, message: Vec<u8>) {
        // A call that is over says why when its answer is read.
        let _ = self.request.send_data(message.into(), false);
    }

    /// The next message; none where the call has ended well.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Over>> {
        loop {
            let message = take_message(&mut self.received, self.longest);
            let message = message.map_err(|_| Interruption::NoHub("it sent a message too long"))?;
            if let Some(message) = message {
                self.is_used = true;
                return Poll::Ready(Ok(Some(message)));
            }
            match &mut self.answer {
                Answer::Awaited(answer) => {
                    let answer = ready!(Pin::new(answer).poll(cx)).map_err(Interruption::from)?;
                    if answer.status().as_u16() != 200 {
                        let why = "it answered a call with an HTTP status other than 200";
                        return Poll::Ready(Err(Interruption::NoHub(why).into()));
                    }
                    // A call that is refused has its status where others have their headers.
                    if answer.headers().contains_key("grpc-status") {
                        return Poll::Ready(status(answer.headers()).map(|()| None));
                    }
                    self.answer = Answer::Body(answer.into_body());
                }
                Answer::Body(body) => match ready!(body.poll_data(cx)) {
                    Some(data) => {
                        let data = data.map_err(Interruption::from)?;
                        self.received.extend_from_slice(&data);
                        let window = body.flow_control();
                        window.release_capacity(data.len()).map_err(Interruption::from)?;
                    }
                    None => {
                        let trailers =
                            ready!(body.poll_trailers(cx)).map_err(Interruption::from)?;
                        let trailers = trailers.unwrap_or_default();
                        return Poll::Ready(status(&trailers).map(|()| None));
                    }
                },
            }
        }
    }
}

fn unreadable() -> Interruption {
    Interruption::NoHub("it sent a message that cannot be read")
}

/// What the trailers of a call say; without a status it broke off.
fn status(trailers: &HeaderMap) -> Result<(), Over> {
    let text = |name| trailers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let code =
        text("grpc-status").and_then(|code| code.parse().ok()).map_or(Code::Unknown, Code::of);
    if code == Code::Ok {
        return Ok(());
    }
    let message = decode_message(text("grpc-message").unwrap_or_default()).into_owned();
    Err(Over::of_status(code, message))
}

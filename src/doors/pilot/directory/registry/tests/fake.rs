//! A registry over real TCP that says what a test tells it to, written from SPEC §8.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsAcceptor;

use crate::doors::pilot::directory::registry::dial::Stream;
use crate::ids::PublicKey;

/// What the registry does with a lookup.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    Key(u8),
    KeyOf(u32, u8),
    NotFound,
    Error(&'static str),
    /// The key, so long after the question.
    After(Duration, u8),
    /// These bytes as they are, whatever the mode.
    Raw(Vec<u8>),
    RawThenClose(Vec<u8>),
    Silence,
    Close,
}

/// What the registry makes of the preamble of binary mode.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Modes {
    Both,
    /// It is a length that is too long: closes.
    JsonCloses,
    /// It says in JSON that the message is too long.
    JsonComplains,
}

/// What came in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Event {
    Connected,
    /// A lookup of this node, in binary mode or not.
    Lookup(u32, bool),
    /// Another JSON message.
    Json(Value),
    /// The client is gone.
    Ended,
}

type Answer = dyn Fn(u32) -> Reply + Send + Sync;

#[derive(Clone)]
struct Shared {
    answer: Arc<Mutex<Arc<Answer>>>,
    events: Arc<Mutex<Vec<Event>>>,
    modes: Modes,
}

/// Ends with all its connections when it is dropped.
pub(super) struct Fake {
    pub(super) address: SocketAddr,
    shared: Shared,
    _tasks: JoinSet<()>,
}

impl Fake {
    pub(super) async fn start(
        modes: Modes,
        tls: Option<TlsAcceptor>,
        answer: impl Fn(u32) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Shared {
            answer: Arc::new(Mutex::new(Arc::new(answer))),
            events: Arc::default(),
            modes,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, tls, shared.clone()));
        Self { address, shared, _tasks: tasks }
    }

    /// Answers otherwise from now on.
    pub(super) fn answer_with(&self, answer: impl Fn(u32) -> Reply + Send + Sync + 'static) {
        *self.shared.answer.lock() = Arc::new(answer);
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.shared.events.lock().clone()
    }

    /// How often `node` was asked for.
    pub(super) fn lookups(&self, node: u32) -> usize {
        let asked = |event: &&Event| matches!(event, Event::Lookup(n, _) if *n == node);
        self.shared.events.lock().iter().filter(asked).count()
    }

    pub(super) fn connections(&self) -> usize {
        self.shared.events.lock().iter().filter(|event| **event == Event::Connected).count()
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Shared) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        shared.events.lock().push(Event::Connected);
        let (tls, shared) = (tls.clone(), shared.clone());
        connections.spawn(async move {
            let stream: Box<dyn Stream> = match tls {
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => Box::new(stream),
                    Err(_) => return,
                },
                None => Box::new(stream),
            };
            let _closed = serve(stream, &shared).await;
            shared.events.lock().push(Event::Ended);
        });
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
}

async fn serve(stream: Box<dyn Stream>, shared: &Shared) -> std::io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut length = [0; 4];
    reader.read_exact(&mut length).await?;
    let binary = length == *b"PILT";
    if binary {
        match shared.modes {
            Modes::Both => {
                assert_eq!(reader.read_u8().await?, 1);
                reader.read_exact(&mut length).await?;
            }
            Modes::JsonCloses => return Ok(()),
            Modes::JsonComplains => {
                return writer.write_all(&framed(br#"{"error":"message too large"}"#)).await;
            }
        }
    }
    // Responses wait for their time in their order, while further requests are read.
    let (responses, mut queue) = mpsc::channel::<(Instant, Option<Vec<u8>>)>(2_000);
    let writing = async move {
        while let Some((at, bytes)) = queue.recv().await {
            sleep_until(at).await;
            match bytes {
                Some(bytes) => writer.write_all(&bytes).await?,
                // Closed for good when the client closes as well.
                None => writer.shutdown().await?,
            }
            writer.flush().await?;
        }
        Ok(())
    };
    let reading = async {
        loop {
            let mut body = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
            reader.read_exact(&mut body).await?;
            let now = Instant::now();
            let send = |at, bytes| responses.try_send((at, bytes)).unwrap();
            for (after, bytes) in respond(&body, binary, shared) {
                send(now + after, bytes);
            }
            reader.read_exact(&mut length).await?;
        }
    };
    tokio::select! {
        ended = writing => ended,
        ended = reading => ended,
    }
}

/// Bytes to send, or `None` to close, each with its delay.
fn respond(body: &[u8], binary: bool, shared: &Shared) -> Vec<(Duration, Option<Vec<u8>>)> {
    let json: Option<Value> = match (binary, body) {
        (true, [0x02, ..]) => None,
        (true, [0x00, json @ ..]) | (false, json) => Some(serde_json::from_slice(json).unwrap()),
        (true, other) => panic!("an unknown frame: {other:?}"),
    };
    let node = match &json {
        None => u32::from_be_bytes(body[1..].try_into().unwrap()),
        Some(json) if json["type"] == "lookup" => {
            u32::try_from(json["node_id"].as_u64().unwrap()).unwrap()
        }
        Some(json) => {
            shared.events.lock().push(Event::Json(json.clone()));
            let response = control(json).to_string().into_bytes();
            let response = if binary { [&[0], response.as_slice()].concat() } else { response };
            return vec![(Duration::ZERO, Some(framed(&response)))];
        }
    };
    shared.events.lock().push(Event::Lookup(node, binary));
    let answer = shared.answer.lock().clone();
    let now = |bytes| vec![(Duration::ZERO, Some(bytes))];
    match answer(node) {
        Reply::Key(key) => now(found(node, key, binary)),
        Reply::KeyOf(other, key) => now(found(other, key, binary)),
        Reply::NotFound => now(error(&format!("node {node}: not found"), binary)),
        Reply::Error(text) => now(error(text, binary)),
        Reply::After(after, key) => vec![(after, Some(found(node, key, binary)))],
        Reply::Raw(bytes) => now(bytes),
        Reply::RawThenClose(bytes) => vec![(Duration::ZERO, Some(bytes)), (Duration::ZERO, None)],
        Reply::Silence => Vec::new(),
        Reply::Close => vec![(Duration::ZERO, None)],
    }
}

fn control(request: &Value) -> Value {
    if request["type"] == "beacon_list" {
        return json!({"type": "beacon_list_ok", "beacons": [{"id": 3, "addr": "192.0.2.3:9001"}]});
    }
    if request["admin_token"] == "wrong" {
        return json!({"error": "admin token required"});
    }
    json!({"type": "beacon_register_ok"})
}

fn found(node: u32, key: u8, binary: bool) -> Vec<u8> {
    if binary {
        let mut body = vec![0x82];
        body.extend(node.to_be_bytes());
        body.extend([0x01, 0, 0, 0, 0, 0, 1, 0, 9, 32]);
        body.extend([key; 32]);
        return framed(&body);
    }
    let key = PublicKey([key; 32]).to_string();
    let body = json!({"type": "lookup_ok", "node_id": node, "public_key": key, "hostname": "h"});
    framed(body.to_string().as_bytes())
}

fn error(text: &str, binary: bool) -> Vec<u8> {
    if binary {
        let length = u16::try_from(text.len()).unwrap().to_be_bytes();
        return framed(&[&[0xff], &length[..], text.as_bytes()].concat());
    }
    framed(json!({"type": "error", "error": text}).to_string().as_bytes())
}

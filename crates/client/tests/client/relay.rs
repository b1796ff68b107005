//! A minimal relay for these tests, made of the library's codecs and nothing else of it:
//! logs WebSocket peers in, takes UDP nodes' Discovers, forwards Relay packets.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use beacon_wire::auth::{AUTH_OK, BYE, Challenge, Generation, Reply};
use beacon_wire::beacon::{self, Packet};
use beacon_wire::ids::NodeId;
use ed25519_dalek::{Signature, VerifyingKey};
use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

pub(super) type Socket = WebSocketStream<TcpStream>;

/// Upgrades a connection; checks what every daemon's request has.
#[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
pub(super) async fn upgrade(tcp: TcpStream) -> Socket {
    let check = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        assert_eq!(request.uri().path(), "/v1/compat");
        assert_eq!(request.headers().get("sec-websocket-protocol").unwrap(), "pilot.v1");
        for absent in ["origin", "sec-websocket-extensions"] {
            assert!(request.headers().get(absent).is_none(), "{absent}");
        }
        let echo = HeaderValue::from_static("pilot.v1");
        response.headers_mut().insert("sec-websocket-protocol", echo);
        Ok(response)
    };
    tokio_tungstenite::accept_hdr_async(tcp, check).await.unwrap()
}

/// Sends a challenge and verifies the reply, up to but without the acceptance.
pub(super) async fn challenge(
    socket: &mut Socket,
    relay: Option<&str>,
) -> Option<(NodeId, Generation)> {
    let relay = relay.map(str::to_owned);
    let challenge = Challenge { nonce: "5a".repeat(32), ts: 1_767_225_600, relay };
    socket.send(Message::text(challenge.encode())).await.unwrap();
    let Some(Ok(Message::Text(reply))) = socket.next().await else { return None };
    let reply = Reply::decode(reply.as_bytes()).unwrap();
    let generation =
        if reply.generation == Some(3) { Generation::Third } else { Generation::Second };
    let text = challenge.signed_text(reply.node, generation);
    let key = VerifyingKey::from_bytes(&reply.public_key.0).unwrap();
    key.verify_strict(text.as_bytes(), &Signature::from_bytes(&reply.signature)).unwrap();
    Some((reply.node, generation))
}

/// Challenges and accepts.
pub(super) async fn log_in(socket: &mut Socket) -> NodeId {
    let (node, _generation) = challenge(socket, None).await.unwrap();
    socket.send(Message::text(AUTH_OK)).await.unwrap();
    node
}

/// Closes with a code and waits for the other side.
pub(super) async fn close(mut socket: Socket, code: u16, reason: &'static str) {
    let frame = CloseFrame { code: code.into(), reason: reason.into() };
    socket.close(Some(frame)).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
}

/// A running relay; ends when dropped.
pub(super) struct Relay {
    pub(super) url: String,
    pub(super) udp: SocketAddr,
    _tasks: JoinSet<()>,
}

struct Table {
    socket: UdpSocket,
    wss: Mutex<HashMap<NodeId, mpsc::Sender<Vec<u8>>>>,
    endpoints: Mutex<HashMap<NodeId, SocketAddr>>,
    relayed: AtomicU32,
    /// Drops each packet whose number is a multiple of this.
    drop_every: u32,
}

impl Relay {
    /// Starts a relay that drops every packet whose number is a multiple of `drop_every`.
    pub(super) async fn start(drop_every: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let udp = socket.local_addr().unwrap();
        let table = Arc::new(Table {
            socket,
            wss: Mutex::default(),
            endpoints: Mutex::default(),
            relayed: AtomicU32::new(1),
            drop_every,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(table.clone()));
        tasks.spawn(async move {
            let mut sessions = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                tcp.set_nodelay(true).unwrap();
                sessions.spawn(serve_wss(table.clone(), tcp));
            }
        });
        Self { url, udp, _tasks: tasks }
    }
}

async fn serve_wss(table: Arc<Table>, tcp: TcpStream) {
    let mut socket = upgrade(tcp).await;
    let (outbox, mut packets) = mpsc::channel(1_024);
    let node = log_in(&mut socket).await;
    table.wss.lock().insert(node, outbox);
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Binary(packet))) => {
                    if let Ok(Packet::Discover(_)) = beacon::decode(&packet) {
                        let mut reply = Vec::new();
                        let peer = socket.get_ref().peer_addr().unwrap();
                        beacon::encode_discover_reply(peer, &mut reply);
                        socket.send(Message::binary(reply)).await.unwrap();
                    }
                    table.forward(&packet).await;
                }
                Some(Ok(Message::Text(text))) if text.as_str() == BYE => {
                    return close(socket, 1000, "bye").await;
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
            Some(packet) = packets.recv() => {
                if socket.send(Message::binary(packet)).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn serve_udp(table: Arc<Table>) {
    let mut buffer = vec![0; 65_536];
    loop {
        let (length, from) = table.socket.recv_from(&mut buffer).await.unwrap();
        if let Ok(Packet::Discover(discover)) = beacon::decode(&buffer[..length]) {
            if let Some(node) = discover.node {
                table.endpoints.lock().insert(node, from);
            }
            let mut reply = Vec::new();
            beacon::encode_discover_reply(from, &mut reply);
            table.socket.send_to(&reply, from).await.unwrap();
        }
        table.forward(&buffer[..length]).await;
    }
}

impl Table {
    async fn forward(&self, packet: &[u8]) {
        let Ok(Packet::Relay(relay)) = beacon::decode(packet) else { return };
        if self.relayed.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.drop_every) {
            return;
        }
        let mut deliver = beacon::deliver_header(relay.sender).to_vec();
        deliver.extend_from_slice(relay.payload);
        let outbox = self.wss.lock().get(&relay.dest).cloned();
        let endpoint = self.endpoints.lock().get(&relay.dest).copied();
        match (outbox, endpoint) {
            // A full outbox drops, as a relay does.
            (Some(outbox), _) => drop(outbox.try_send(deliver)),
            (None, Some(endpoint)) => {
                self.socket.send_to(&deliver, endpoint).await.unwrap();
            }
            (None, None) => {}
        }
    }
}

//! Raw peers for the tests, written from the specification and not with the project's own
//! client: one over WebSocket, byte by byte, and one over UDP.

use std::io::{ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::Value;
use socket2::Socket;

use crate::harness::{Node, PATIENCE};

/// The mask of every frame: any will do, and a fixed one repeats.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What an accepted peer is told.
pub(crate) const AUTH_OK: &[u8] = br#"{"type":"auth_ok"}"#;

/// A frame as it came: its opcode and payload.
pub(crate) type Frame = (u8, Vec<u8>);

/// One connection to the listener, before or after its upgrade and login.
pub(crate) struct Peer {
    /// The stream, TCP or Unix.
    pub(crate) stream: Socket,
}

impl Peer {
    /// Upgrades, and logs in with the text of the current generation.
    pub(crate) fn log_in(wss: SocketAddr, node: &Node) -> Self {
        let mut peer = Self::upgrade(wss);
        peer.authenticate(node, 2);
        peer
    }

    /// Logs in like that, and says that it takes the largest messages.
    pub(crate) fn log_in_for_largest(wss: SocketAddr, node: &Node) -> Self {
        let mut peer = Self::upgrade(wss);
        let text = signed_text(node.id, &peer.challenge(), 2);
        let mut reply = reply(node, &text, None);
        reply["max_message"] = 65_536.into();
        peer.send(1, reply.to_string().as_bytes());
        assert_eq!(peer.read(), Some((1, AUTH_OK.to_vec())));
        peer
    }

    /// Logs in as the client of this address, for whom a proxy speaks.
    pub(crate) fn log_in_from(client: &str, wss: SocketAddr, node: &Node) -> Self {
        let (mut peer, status) = Self::request(wss, &format!("X-Forwarded-For: {client}\r\n"));
        assert_eq!(status, 101);
        peer.authenticate(node, 2);
        peer
    }

    /// Upgrades as a daemon does.
    pub(crate) fn upgrade(wss: SocketAddr) -> Self {
        let (peer, status) = Self::request(wss, "");
        assert_eq!(status, 101);
        peer
    }

    /// Asks for an upgrade with further headers, each ended by CRLF; the status that came.
    pub(crate) fn request(wss: SocketAddr, headers: &str) -> (Self, u16) {
        let mut peer = Self::connect(wss);
        let status = peer.ask_for_upgrade(headers);
        (peer, status)
    }

    /// Connects and says nothing.
    pub(crate) fn connect(wss: SocketAddr) -> Self {
        let stream = TcpStream::connect(wss).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    /// Speaks over a stream that is connected.
    pub(crate) fn over(stream: impl Into<Socket>) -> Self {
        let stream = stream.into();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream }
    }

    /// Asks for an upgrade with further headers; the status that came.
    pub(crate) fn ask_for_upgrade(&mut self, headers: &str) -> u16 {
        let (status, head) = self.ask(&upgrade_request(headers));
        if status == 101 {
            assert!(head.contains("sec-websocket-protocol: pilot.v1\r\n"), "{head}");
            assert!(head.contains("s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
        }
        status
    }

    /// Sends a request; the status that came, and the head of the response in lower case.
    pub(crate) fn ask(&mut self, request: &str) -> (u16, String) {
        self.write(request.as_bytes());
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head)
    }

    /// Answers the challenge as this generation does, and is accepted.
    pub(crate) fn authenticate(&mut self, node: &Node, generation: u8) {
        assert_eq!(self.try_to_authenticate(node, generation), (1, AUTH_OK.to_vec()));
    }

    /// Answers the challenge as this generation does; what came back.
    pub(crate) fn try_to_authenticate(&mut self, node: &Node, generation: u8) -> Frame {
        let challenge = self.challenge();
        let text = signed_text(node.id, &challenge, generation);
        self.reply(node, &text, (generation == 3).then_some(3));
        self.read().expect("a verdict comes")
    }

    /// Reads the challenge.
    pub(crate) fn challenge(&mut self) -> Value {
        let (opcode, payload) = self.read().unwrap();
        assert_eq!(opcode, 1);
        let challenge: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(challenge["type"], "auth_challenge");
        assert_eq!(nonce(&challenge).len(), 64);
        challenge
    }

    /// Answers the challenge by signing `text`.
    pub(crate) fn reply(&mut self, node: &Node, text: &str, generation: Option<u8>) {
        self.send(1, reply(node, text, generation).to_string().as_bytes());
    }

    /// Sends one masked frame.
    pub(crate) fn send(&mut self, opcode: u8, payload: &[u8]) {
        self.write(&frame(0x80 | opcode, payload));
    }

    /// Sends any bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends a Relay packet.
    pub(crate) fn relay(&mut self, sender: u32, dest: u32, payload: &[u8]) {
        self.send(2, &relay(sender, dest, payload));
    }

    /// Reads one frame; `None` at the end of the connection.
    pub(crate) fn read(&mut self) -> Option<Frame> {
        let mut header = [0; 2];
        if let Err(error) = self.stream.read_exact(&mut header) {
            let ended = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
            assert!(ended.contains(&error.kind()), "{error}");
            return None;
        }
        assert_eq!(header[0] & 0x80, 0x80, "the relay sends whole messages");
        assert_eq!(header[1] & 0x80, 0, "the relay does not mask");
        let length = match header[1] {
            126 => {
                let mut length = [0; 2];
                self.stream.read_exact(&mut length).unwrap();
                u16::from_be_bytes(length).into()
            }
            127 => {
                let mut length = [0; 8];
                self.stream.read_exact(&mut length).unwrap();
                usize::try_from(u64::from_be_bytes(length)).unwrap()
            }
            short => short.into(),
        };
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).unwrap();
        Some((header[0] & 0x0f, payload))
    }

    /// Reads all frames up to the end of the connection.
    pub(crate) fn read_to_end(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.read()).collect()
    }

    /// Reads up to the close frame: its code and reason; answers it.
    pub(crate) fn read_close(&mut self) -> (u16, String) {
        loop {
            let (opcode, payload) = self.read().expect("a close frame comes first");
            if opcode == 8 {
                let (code, reason) = payload.split_first_chunk::<2>().unwrap();
                let _gone = self.stream.write_all(&frame(0x88, code));
                let reason = String::from_utf8(reason.to_vec()).unwrap();
                return (u16::from_be_bytes(*code), reason);
            }
        }
    }

    /// Reads the next delivery (0x06): its sender and payload.
    pub(crate) fn delivery(&mut self) -> (u32, Vec<u8>) {
        loop {
            let (opcode, packet) = self.read().expect("a delivery comes");
            if opcode == 2 {
                return delivery(&packet);
            }
        }
    }

    /// Whether nothing comes for a while.
    pub(crate) fn is_silent(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).unwrap();
        let result = self.stream.peek(&mut [MaybeUninit::uninit()]);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        result.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

/// The request of a daemon, with further headers.
pub(crate) fn upgrade_request(headers: &str) -> String {
    format!(
        "GET /v1/compat HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: pilot.v1\r\n{headers}\r\n"
    )
}

/// The nonce of a challenge.
pub(crate) fn nonce(challenge: &Value) -> &str {
    challenge["nonce"].as_str().unwrap()
}

/// What a node of a generation signs in answer to a challenge (SPEC §4.3).
pub(crate) fn signed_text(node: u32, challenge: &Value, generation: u8) -> String {
    let (nonce, ts) = (nonce(challenge), &challenge["ts"]);
    match generation {
        1 => format!("compat_auth:{node}:{nonce}"),
        2 => format!("compat_auth:{node}:{ts}:{nonce}"),
        3 => {
            let relay = challenge["relay"].as_str().expect("the relay has a name");
            format!("compat_auth:{node}:{ts}:{relay}:{nonce}")
        }
        _ => panic!("there is no generation {generation}"),
    }
}

/// The reply that signs `text` (SPEC §4.2).
pub(crate) fn reply(node: &Node, text: &str, generation: Option<u8>) -> Value {
    let mut reply = serde_json::json!({
        "type": "auth_reply",
        "node_id": node.id,
        "public_key": STANDARD.encode(node.key.verifying_key().to_bytes()),
        "sig": STANDARD.encode(node.key.sign(text.as_bytes()).to_bytes()),
    });
    if let Some(generation) = generation {
        reply["gen"] = generation.into();
    }
    reply
}

/// A masked frame with this first byte.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    if let Ok(short @ 0..=125) = u8::try_from(payload.len()) {
        frame.push(0x80 | short);
    } else if let Ok(medium) = u16::try_from(payload.len()) {
        frame.push(0x80 | 126);
        frame.extend_from_slice(&medium.to_be_bytes());
    } else {
        frame.push(0x80 | 127);
        frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A Relay packet (0x05).
pub(crate) fn relay(sender: u32, dest: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x05];
    packet.extend_from_slice(&sender.to_be_bytes());
    packet.extend_from_slice(&dest.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

fn delivery(packet: &[u8]) -> (u32, Vec<u8>) {
    assert_eq!(packet[0], 0x06, "{packet:?}");
    (u32::from_be_bytes(packet[1..5].try_into().unwrap()), packet[5..].to_vec())
}

/// A Discover (0x01) or DiscoverEx (0x08), with a key where one is given.
pub(crate) fn discover(kind: u8, node: u32, key: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind];
    packet.extend_from_slice(&node.to_be_bytes());
    packet.extend_from_slice(key);
    packet
}

/// A PunchRequest (0x03), with a grant where one is given.
pub(crate) fn punch(requester: u32, target: u32, grant: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x03];
    packet.extend_from_slice(&requester.to_be_bytes());
    packet.extend_from_slice(&target.to_be_bytes());
    packet.extend_from_slice(grant);
    packet
}

/// A probe for a direct way that begins so.
pub(crate) fn direct_probe(magic: &[u8; 4]) -> Vec<u8> {
    let mut probe = magic.to_vec();
    probe.resize(70, 0x5a);
    probe
}

/// A grant that `key` signs in the name of `target` (SPEC §2.4).
pub(crate) fn grant(requester: u32, target: u32, expiry: u64, key: &SigningKey) -> Vec<u8> {
    let text = format!("punch-grant:{requester}:{target}:{expiry}");
    let mut grant = expiry.to_be_bytes().to_vec();
    grant.extend_from_slice(&key.sign(text.as_bytes()).to_bytes());
    grant
}

/// A Sync (0x07).
pub(crate) fn sync(beacon: u32, nodes: &[u32]) -> Vec<u8> {
    let mut packet = vec![0x07];
    packet.extend_from_slice(&beacon.to_be_bytes());
    packet.extend_from_slice(&u16::try_from(nodes.len()).unwrap().to_be_bytes());
    packet.extend(nodes.iter().flat_map(|node| node.to_be_bytes()));
    packet
}

/// The address in a DiscoverReply (0x02) or PunchCommand (0x04).
pub(crate) fn address(kind: u8, packet: &[u8]) -> SocketAddr {
    let [first, length, rest @ ..] = packet else { panic!("{packet:?}") };
    assert_eq!(*first, kind, "{packet:?}");
    let (ip, port) = rest.split_at((*length).into());
    let ip = match length {
        4 => IpAddr::from(<[u8; 4]>::try_from(ip).unwrap()),
        16 => IpAddr::from(<[u8; 16]>::try_from(ip).unwrap()),
        _ => panic!("{packet:?}"),
    };
    SocketAddr::new(ip, u16::from_be_bytes(port.try_into().unwrap()))
}

/// A node over UDP, or anybody else with a UDP socket.
pub(crate) struct UdpNode {
    pub(crate) id: u32,
    pub(crate) socket: UdpSocket,
    relay: SocketAddr,
}

impl UdpNode {
    /// A socket that the relay does not know.
    pub(crate) fn silent(relay: SocketAddr, id: u32) -> Self {
        Self::at("127.0.0.1:0", relay, id)
    }

    /// A socket on this address that the relay does not know.
    pub(crate) fn at(local: &str, relay: SocketAddr, id: u32) -> Self {
        Self::with(UdpSocket::bind(local).unwrap(), relay, id)
    }

    /// This socket, to talk to the relay.
    pub(crate) fn with(socket: UdpSocket, relay: SocketAddr, id: u32) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { id, socket, relay }
    }

    /// Its own address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// A node that the relay has answered.
    pub(crate) fn register(relay: SocketAddr, id: u32) -> Self {
        let node = Self::silent(relay, id);
        assert_eq!(node.observed(), node.address());
        node
    }

    /// Sends a Discover in its own name.
    pub(crate) fn discover(&self) {
        self.send(&discover(0x01, self.id, &[]));
    }

    /// Sends a Discover and takes the answer: its address as the relay sees it. Whatever was
    /// sent before has been dealt with by then, and had no answer.
    pub(crate) fn observed(&self) -> SocketAddr {
        self.discover();
        address(0x02, &self.receive())
    }

    /// Sends any bytes to the relay.
    pub(crate) fn send(&self, packet: &[u8]) {
        self.socket.send_to(packet, self.relay).unwrap();
    }

    /// Sends a Relay packet.
    pub(crate) fn relay(&self, dest: u32, payload: &[u8]) {
        self.send(&relay(self.id, dest, payload));
    }

    /// Receives one datagram.
    pub(crate) fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 65_536];
        let length = self.socket.recv(&mut buffer).expect("a datagram comes");
        buffer.truncate(length);
        buffer
    }

    /// Receives a delivery (0x06): its sender and payload.
    pub(crate) fn delivery(&self) -> (u32, Vec<u8>) {
        delivery(&self.receive())
    }

    /// Whether nothing comes for a while.
    pub(crate) fn is_silent(&self, time: Duration) -> bool {
        self.socket.set_read_timeout(Some(time)).unwrap();
        let result = self.socket.recv(&mut [0; 2_048]);
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        result.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

//! The peers of the load: they speak only the wire protocol, and share no code path with
//! the relay but the codecs.

use std::io::{self, BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use beacon_relay::net::udp::{self, BatchSocket, Datagrams as _, Received};
use beacon_wire::auth::{AUTH_OK, Challenge, Generation, MaxMessage, Reply};
use beacon_wire::beacon;
use beacon_wire::ids::{NodeId, PublicKey};
use beacon_wire::websocket::{Header, MAX_HEADER, Opcode, apply_mask, frame_header};
use ed25519_dalek::{Signer as _, SigningKey};
use rustls::ClientConfig;

use crate::tls::{NAME, Tls, TlsStream};

/// Longest wait for a server that should answer at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// A node of the load, whose key its id makes.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    key: SigningKey,
}

impl Node {
    pub(super) fn new(number: u32) -> Self {
        let mut seed = [0x42; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        let id = NodeId::new(number).expect("the load counts its nodes from 1");
        Self { id, key: SigningKey::from_bytes(&seed) }
    }

    pub(super) fn public_key(&self) -> PublicKey {
        PublicKey(self.key.verifying_key().to_bytes())
    }
}

/// Small random numbers, the same in each run: nothing here is secret.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(super) const fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A mask without a zero byte, as a client's mask is most of the time.
    pub(super) const fn mask(&mut self) -> [u8; 4] {
        #[allow(clippy::cast_possible_truncation)] // any 32 of the 64 bits
        let mask = (self.next() >> 16) as u32;
        (mask | 0x0101_0101).to_be_bytes()
    }
}

/// Logs a node in over WebSocket without TLS.
pub(super) fn log_in(server: SocketAddr, node: &Node) -> anyhow::Result<TcpStream> {
    let stream = log_in_over(connect(server)?, node)?;
    stream.set_read_timeout(None)?;
    Ok(stream)
}

/// Logs a node in over WebSocket with TLS.
pub(super) fn log_in_with_tls(
    server: SocketAddr,
    config: &Arc<ClientConfig>,
    node: &Node,
) -> anyhow::Result<TlsStream> {
    let stream = TlsStream::new(connect(server)?, Tls::client(Arc::clone(config))?);
    let stream = log_in_over(stream.context("no TLS handshake")?, node)?;
    stream.socket().set_read_timeout(None)?;
    Ok(stream)
}

pub(super) fn connect(server: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(server).context("cannot connect")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn log_in_over<S: io::Read + io::Write>(stream: S, node: &Node) -> anyhow::Result<S> {
    let request = format!(
        "GET /v1/compat HTTP/1.1\r\nHost: {NAME}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: pilot.v1\r\n\r\n"
    );
    let mut reader = BufReader::with_capacity(2_048, stream);
    upgrade(&mut reader, &request)?;
    let challenge = Challenge::decode(&read_text(&mut reader)?)?;
    let text = challenge.signed_text(node.id, Generation::Second);
    let reply = Reply {
        node: node.id,
        public_key: node.public_key(),
        signature: node.key.sign(text.as_bytes()).to_bytes(),
        generation: None,
        max_message: MaxMessage::MOST,
    };
    let mut frame = Vec::new();
    push_frame(Opcode::Text, reply.encode().as_bytes(), [1, 2, 3, 4], &mut frame);
    reader.get_mut().write_all(&frame)?;
    let accepted = read_text(&mut reader)?;
    if accepted != AUTH_OK {
        bail!("not logged in: {accepted}");
    }
    Ok(reader.into_inner())
}

/// Asks for the upgrade, and reads up to the end of the answer's head.
pub(super) fn upgrade<S: io::Read + io::Write>(
    reader: &mut BufReader<S>,
    request: &str,
) -> anyhow::Result<()> {
    reader.get_mut().write_all(request.as_bytes())?;
    let mut line = String::new();
    reader.read_line(&mut line)?;
    if !line.contains(" 101 ") {
        bail!("no upgrade: {}", line.trim());
    }
    while line != "\r\n" {
        line.clear();
        anyhow::ensure!(reader.read_line(&mut line)? > 0, "the server ended the connection");
    }
    Ok(())
}

fn read_text(reader: &mut impl io::Read) -> anyhow::Result<String> {
    let mut head = [0; 2];
    reader.read_exact(&mut head).context("the server ended the connection")?;
    let length = match head[1] {
        126 => {
            let mut length = [0; 2];
            reader.read_exact(&mut length)?;
            u16::from_be_bytes(length).into()
        }
        short => usize::from(short),
    };
    let mut text = vec![0; length];
    reader.read_exact(&mut text)?;
    if head[0] != 0x81 {
        bail!("a frame of type {:#x} instead of text", head[0]);
    }
    Ok(String::from_utf8(text)?)
}

/// Appends a masked frame.
pub(super) fn push_frame(opcode: Opcode, payload: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
    let (mut header, used) = frame_header(opcode, payload.len());
    header[1] |= 0x80;
    out.extend_from_slice(header.get(..used).unwrap_or_default());
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload);
    apply_mask(out.get_mut(start..).unwrap_or_default(), mask);
}

/// Reads frames and tells each whole binary one.
#[derive(Debug)]
pub(super) struct FrameReader {
    buffer: Vec<u8>,
    filled: usize,
}

impl FrameReader {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; 4 * (beacon::MAX_WSS_PACKET + MAX_HEADER)], filled: 0 }
    }

    /// One for a stream among many, for packets of 16 KiB at most.
    pub(super) fn small() -> Self {
        Self { buffer: vec![0; 32_768], filled: 0 }
    }

    /// Reads once, and calls `each` with every binary frame that is whole; 0 is the end of
    /// the stream.
    pub(super) fn read(
        &mut self,
        mut stream: impl io::Read,
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<usize> {
        let read = stream.read(self.buffer.get_mut(self.filled..).unwrap_or_default())?;
        self.filled += read;
        let mut at = 0;
        while let Some(rest) = self.buffer.get(at..self.filled)
            && let Ok(Some(header)) = Header::decode(rest)
        {
            let end = header.size + usize::try_from(header.length).unwrap_or(usize::MAX);
            let Some(payload) = rest.get(header.size..end) else { break };
            if header.opcode == Opcode::Binary {
                each(payload);
            }
            at += end;
        }
        self.buffer.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(read)
    }
}

/// Registers a node over UDP; its socket sends and receives in batches.
pub(super) fn register(server: SocketAddr, id: NodeId) -> anyhow::Result<BatchSocket> {
    let local = SocketAddr::new(server.ip(), 0);
    let socket = BatchSocket::new(udp::open(local)?)?;
    let mut discover = Vec::new();
    beacon::encode_discover(id, None, false, &mut discover);
    let mut received = Received::new();
    for _ in 0..50 {
        let run = udp::Run { to: server, from: None, bytes: &discover, segment: discover.len() };
        socket.send(&[run], &mut |_, _, _| {});
        socket.receive(&mut received)?;
        let answered =
            |packet| matches!(beacon::decode(packet), Ok(beacon::Packet::DiscoverReply(_)));
        if received.iter().any(|(_, packet)| answered(packet)) {
            return Ok(socket);
        }
    }
    bail!("the server at {server} answers no Discover")
}

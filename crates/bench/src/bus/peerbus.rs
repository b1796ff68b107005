//! Peers of peerbus's protocol, with receipts: they speak only what is on the wire.

use std::io::{self, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, bail};
use beacon_wire::websocket::{Header, Opcode};

use super::{Lines, Pair};
use crate::peer::{Random, connect, push_frame, upgrade};

/// The token of all peers.
pub(crate) const TOKEN: &str = "a-token-for-as-long-as-a-measurement-lasts";

/// What a delivery begins with, up to its key.
const DELIVER: &[u8] = b"{\"protocol_version\":\"v1\",\"type\":\"deliver\",\"delivery_key\":\"";

/// A registered peer.
pub(crate) struct Peer {
    lines: Lines,
    name: String,
    random: Random,
    out: Vec<u8>,
    hmac: String,
}

/// What a relay says to a peer.
pub(crate) enum Said<'a> {
    /// A message, by its delivery key and its envelope.
    Deliver(&'a str, &'a [u8]),
    /// A message of its own is durable.
    Stored,
}

/// Registers a name: what a peer that does nothing is, and what was read of what follows.
///
/// # Errors
/// The server does not let it in.
pub(crate) fn log_in(server: SocketAddr, name: &str) -> anyhow::Result<(TcpStream, Vec<u8>)> {
    let mut reader = BufReader::with_capacity(2_048, connect(server)?);
    upgrade(
        &mut reader,
        "GET / HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )?;
    let register = format!(
        "{{\"protocol_version\":\"v1\",\"type\":\"register\",\"token\":\"{TOKEN}\",\
         \"name\":\"{name}\",\"receipts\":true}}"
    );
    let mut frame = Vec::new();
    push_frame(Opcode::Text, register.as_bytes(), [1, 2, 3, 4], &mut frame);
    reader.get_mut().write_all(&frame)?;
    let peers = read_peers(&mut reader).context("the server refuses the name")?;
    anyhow::ensure!(
        peers.starts_with(b"{\"protocol_version\":\"v1\",\"type\":\"peers\""),
        "not registered: {}",
        String::from_utf8_lossy(&peers)
    );
    let read = reader.buffer().to_vec();
    Ok((reader.into_inner(), read))
}

/// The first frame, which lists the peers.
fn read_peers(stream: &mut impl io::Read) -> anyhow::Result<Vec<u8>> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    let length = match head[1] {
        126 => {
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            u64::from(u16::from_be_bytes(length))
        }
        127 => {
            let mut length = [0; 8];
            stream.read_exact(&mut length)?;
            u64::from_be_bytes(length)
        }
        short => u64::from(short),
    };
    let mut payload = Vec::new();
    stream.take(length).read_to_end(&mut payload)?;
    if head[0] != 0x81 {
        bail!("a frame of type {:#x} instead of text", head[0]);
    }
    Ok(payload)
}

impl Peer {
    pub(crate) fn open(server: SocketAddr, name: &str, seed: u64) -> anyhow::Result<Self> {
        let (stream, read) = log_in(server, name)?;
        Ok(Self {
            lines: Lines::over(stream, &read),
            name: name.to_owned(),
            random: Random::new(seed),
            out: Vec::new(),
            hmac: "0123456789abcdef".repeat(4),
        })
    }

    pub(crate) const fn stream(&self) -> &TcpStream {
        &self.lines.stream
    }

    /// Has a message leave with the next flush.
    pub(crate) fn push_message(&mut self, to: &str, id: u64, body: &str) {
        let Self { name, hmac, .. } = self;
        let envelope = format!(
            "{{\"protocol_version\":\"v1\",\"id\":\"{id:032x}\",\"from\":\"{name}\",\"to\":\"{to}\",\
             \"ts\":\"2026-11-29T12:00:00.123456789Z\",\"source\":\"peer-bus\",\"kind\":\"msg\",\
             \"body\":\"{body}\",\"hmac\":\"{hmac}\"}}"
        );
        self.push(&envelope);
    }

    fn push(&mut self, text: &str) {
        push_frame(Opcode::Text, text.as_bytes(), self.random.mask(), &mut self.out);
    }

    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        self.lines.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Reads once, and tells what was said.
    pub(crate) fn read(&mut self, mut each: impl FnMut(Said<'_>)) -> anyhow::Result<()> {
        self.lines.read(|bytes| {
            let Ok(Some(header)) = Header::decode(bytes) else { return Ok(0) };
            let end = header.size + usize::try_from(header.length)?;
            let Some(payload) = bytes.get(header.size..end) else { return Ok(0) };
            match header.opcode {
                Opcode::Text => said(payload).map(&mut each)?,
                Opcode::Close => bail!("the relay closes: {}", String::from_utf8_lossy(payload)),
                // The idle time of the relay is far longer than a measurement.
                Opcode::Ping | Opcode::Pong | Opcode::Binary | Opcode::Continuation => {}
            }
            Ok(end)
        })
    }

    /// Reads once and acknowledges what came: how many messages, after each was looked at.
    pub(crate) fn take(
        &mut self,
        mut each: impl FnMut(&str, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<u32> {
        let mut keys = Vec::new();
        let mut looked = Ok(());
        self.read(|said| {
            if let Said::Deliver(key, envelope) = said
                && looked.is_ok()
            {
                looked = each(key, envelope);
                keys.push(key.to_owned());
            }
        })?;
        looked?;
        let mut count = 0;
        for key in keys {
            self.push(&format!(
                "{{\"protocol_version\":\"v1\",\"type\":\"ack\",\"id\":\"{key}\"}}"
            ));
            count += 1;
        }
        self.flush()?;
        Ok(count)
    }

    /// Reads once: how many of its messages are durable.
    pub(crate) fn receipts(&mut self) -> anyhow::Result<u32> {
        let mut count = 0;
        self.read(|said| count += u32::from(matches!(said, Said::Stored)))?;
        Ok(count)
    }
}

/// What a frame says.
fn said(payload: &[u8]) -> anyhow::Result<Said<'_>> {
    if let Some(rest) = payload.strip_prefix(DELIVER) {
        let end = rest.iter().position(|byte| *byte == b'"').context("a key ends")?;
        let (key, rest) = rest.split_at(end);
        return Ok(Said::Deliver(str::from_utf8(key)?, rest));
    }
    let text = str::from_utf8(payload)?;
    anyhow::ensure!(
        text.contains("\"type\":\"receipt\"") && text.contains("\"result\":\"stored\""),
        "the relay says {text}"
    );
    Ok(Said::Stored)
}

/// Two peers of a relay, or of its floor.
pub(crate) struct PeerbusPair {
    sender: Peer,
    receiver: Peer,
    to: String,
    body: String,
    id: u64,
}

impl PeerbusPair {
    pub(crate) fn open(server: SocketAddr, number: u32, size: usize) -> anyhow::Result<Self> {
        let to = format!("receiver-{number}");
        let seed = u64::from(number);
        let receiver = Peer::open(server, &to, 2 * seed)?;
        let sender = Peer::open(server, &format!("sender-{number}"), 2 * seed + 1)?;
        Ok(Self { sender, receiver, to, body: "x".repeat(size), id: seed << 32 })
    }
}

impl Pair for PeerbusPair {
    fn sockets(&self) -> [&TcpStream; 2] {
        [self.sender.stream(), self.receiver.stream()]
    }

    fn send(&mut self) -> anyhow::Result<()> {
        self.id += 1;
        self.sender.push_message(&self.to, self.id, &self.body);
        self.sender.flush()
    }

    fn read_receipts(&mut self) -> anyhow::Result<u32> {
        self.sender.receipts()
    }

    fn read_deliveries(&mut self) -> anyhow::Result<u32> {
        self.receiver.take(|_, _| Ok(()))
    }
}

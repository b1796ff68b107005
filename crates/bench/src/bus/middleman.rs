//! Pairs of services in middleman's protocol: a publication to one subscriber, a request to one
//! responder.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, bail};
use beacon_wire::middleman::{Command, Message, WELCOME};
use beacon_wire::websocket::{Header, Opcode};

use super::{Exchange, Lines, Pair};
use crate::peer::{Random, connect, push_frame, upgrade};

/// The key of all services.
pub(crate) const KEY: &str = "a-key-for-as-long-as-a-measurement-lasts";

/// A service.
struct Service {
    lines: Lines,
    random: Random,
    out: Vec<u8>,
}

impl Service {
    /// Logs in.
    fn open(server: SocketAddr, seed: u64) -> anyhow::Result<Self> {
        let mut reader = std::io::BufReader::with_capacity(2_048, connect(server)?);
        upgrade(
            &mut reader,
            "GET / HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )?;
        let read = reader.buffer().to_vec();
        let lines = Lines::over(reader.into_inner(), &read);
        let mut service = Self { lines, random: Random::new(seed), out: Vec::new() };
        service.say(KEY)?;
        let mut greeting = Vec::new();
        while greeting.len() < 2 {
            service.read(|text| {
                greeting.push(text.to_owned());
                Ok(())
            })?;
        }
        anyhow::ensure!(greeting[0] == WELCOME, "the relay says {greeting:?}");
        Ok(service)
    }

    fn say(&mut self, text: &str) -> anyhow::Result<()> {
        push_frame(Opcode::Text, text.as_bytes(), self.random.mask(), &mut self.out);
        self.lines.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Reads once, and tells what was said.
    fn read(&mut self, mut each: impl FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.lines.read(|bytes| {
            let Ok(Some(header)) = Header::decode(bytes) else { return Ok(0) };
            let end = header.size + usize::try_from(header.length)?;
            let Some(payload) = bytes.get(header.size..end) else { return Ok(0) };
            match header.opcode {
                Opcode::Text => each(str::from_utf8(payload)?)?,
                Opcode::Close => bail!("the relay closes: {}", String::from_utf8_lossy(payload)),
                // The idle time of the relay is far longer than a measurement.
                Opcode::Ping | Opcode::Pong | Opcode::Binary | Opcode::Continuation => {}
            }
            Ok(end)
        })
    }

    /// Reads once: how many messages of a command there are, after each was looked at.
    fn count(
        &mut self,
        command: Command<'_>,
        mut each: impl FnMut(&Message<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<u32> {
        let mut count = 0;
        self.read(|text| {
            let message = Message::parse(text.as_bytes())?;
            anyhow::ensure!(message.command == command, "the relay says {text}");
            count += 1;
            each(&message)
        })?;
        Ok(count)
    }

    /// Waits until the relay has carried out all that was said.
    fn settle(&mut self, number: u32) -> anyhow::Result<()> {
        self.say(&format!("SUB settle-{number}\n\n.\n"))?;
        self.say(&format!("PUB settle-{number}\n\n.\n"))?;
        while self.count(Command::Pub, |_| Ok(()))? == 0 {}
        Ok(())
    }
}

/// Logs in a service that does nothing.
///
/// # Errors
/// The server does not let it in.
pub(crate) fn log_in(server: SocketAddr) -> anyhow::Result<TcpStream> {
    Ok(Service::open(server, 0)?.lines.stream)
}

/// A service that publishes or asks, and one that hears or answers.
pub(crate) struct MiddlemanPair {
    sender: Service,
    receiver: Service,
    exchange: Exchange,
    topic: String,
    body: String,
    message: String,
}

impl MiddlemanPair {
    pub(crate) fn open(
        server: SocketAddr,
        exchange: Exchange,
        number: u32,
        size: usize,
    ) -> anyhow::Result<Self> {
        let topic = format!("topic-{number}");
        let body = "x".repeat(size);
        let seed = u64::from(number);
        let mut receiver = Service::open(server, 2 * seed)?;
        let sender = Service::open(server, 2 * seed + 1)?;
        let (subscribe, message) = match exchange {
            Exchange::Request => {
                let request = format!("REQ {topic}\r\nrid: {number}\r\n\r\n{body}\r\n.\r\n");
                (format!("EREQ {topic}\n\n.\n"), request)
            }
            Exchange::Publication | Exchange::Durable => {
                let publication = format!("PUB {topic}\r\n\r\n{body}\r\n.\r\n");
                (format!("SUB {topic}\n\n.\n"), publication)
            }
        };
        receiver.say(&subscribe)?;
        receiver.settle(number)?;
        Ok(Self { sender, receiver, exchange, topic, body, message })
    }
}

impl Pair for MiddlemanPair {
    fn exchange(&self) -> Exchange {
        self.exchange
    }

    fn sockets(&self) -> [&TcpStream; 2] {
        [&self.sender.lines.stream, &self.receiver.lines.stream]
    }

    fn send(&mut self) -> anyhow::Result<()> {
        self.sender.say(&self.message)
    }

    fn read_receipts(&mut self) -> anyhow::Result<u32> {
        self.sender.count(Command::Res, |answer| {
            anyhow::ensure!(answer.headers.find("Error").is_none(), "a request has failed");
            Ok(())
        })
    }

    fn read_deliveries(&mut self) -> anyhow::Result<u32> {
        if self.exchange != Exchange::Request {
            return self.receiver.count(Command::Pub, |_| Ok(()));
        }
        let mut ids = Vec::new();
        let count = self.receiver.count(Command::Req, |request| {
            let id = request.headers.find("Rid").context("a request has an id")?;
            ids.push(id.value.to_owned());
            Ok(())
        })?;
        let Self { topic, body, .. } = self;
        for id in ids {
            self.receiver.say(&format!("RES {topic}\r\nrid: {id}\r\n\r\n{body}\r\n.\r\n"))?;
        }
        Ok(count)
    }
}

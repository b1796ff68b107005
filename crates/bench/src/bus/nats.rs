//! Pairs in NATS's protocol: over a stream of JetStream (publish, PubAck, a push consumer, +ACK), and
//! without one (publish to a subscriber, request and reply).

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::{Exchange, Lines, Pair, line};

/// Where the answers to a client's requests go, which has a number of its own.
const ANSWERS: &str = "_INBOX.answers";

/// A client with one subscription.
struct Client {
    lines: Lines,
    pongs: u32,
}

/// A message of a subscription.
struct Got {
    reply: String,
    payload: Vec<u8>,
}

impl Client {
    /// Connects, and subscribes to `subject`.
    fn open(server: SocketAddr, subject: &str) -> anyhow::Result<Self> {
        let mut client = Self { lines: Lines::connect(server)?, pongs: 0 };
        let options = json!({"verbose": false, "pedantic": false, "headers": true,
            "no_responders": true, "lang": "bench", "version": "1", "protocol": 1});
        let hello = format!("CONNECT {options}\r\nSUB {subject} 1\r\nPING\r\n");
        client.lines.stream.write_all(hello.as_bytes())?;
        while client.pongs == 0 {
            client.read()?;
        }
        Ok(client)
    }

    /// Reads once: the messages that are whole.
    fn read(&mut self) -> anyhow::Result<Vec<Got>> {
        let mut got = Vec::new();
        let mut pings = 0;
        let pongs = &mut self.pongs;
        self.lines.read(|bytes| {
            let Some((head, at)) = line(bytes) else { return Ok(0) };
            let mut words = head.split(' ');
            match words.next().unwrap_or_default() {
                "MSG" => {
                    // MSG subject sid [reply] length
                    let fields: Vec<_> = words.skip(2).collect();
                    let length: usize = fields.last().context("a length")?.parse()?;
                    let Some(payload) = bytes.get(at..at + length) else { return Ok(0) };
                    if bytes.len() < at + length + 2 {
                        return Ok(0);
                    }
                    let reply = if fields.len() > 1 { fields[0].to_owned() } else { String::new() };
                    got.push(Got { reply, payload: payload.to_vec() });
                    Ok(at + length + 2)
                }
                "PING" => {
                    pings += 1;
                    Ok(at)
                }
                "PONG" => {
                    *pongs += 1;
                    Ok(at)
                }
                "INFO" | "+OK" => Ok(at),
                _ => bail!("NATS says {head}"),
            }
        })?;
        for _ in 0..pings {
            self.lines.stream.write_all(b"PONG\r\n")?;
        }
        Ok(got)
    }

    fn publish(&mut self, subject: &str, reply: &str, payload: &[u8]) -> anyhow::Result<()> {
        let head = format!("PUB {subject} {reply} {}\r\n", payload.len());
        Ok(self.lines.stream.write_all(&[head.as_bytes(), payload, b"\r\n"].concat())?)
    }

    /// Asks JetStream for something.
    fn request(&mut self, subject: &str, body: &Value) -> anyhow::Result<()> {
        self.publish(&format!("$JS.API.{subject}"), ANSWERS, body.to_string().as_bytes())?;
        loop {
            if let Some(answer) = self.read()?.into_iter().next() {
                let answer: Value = serde_json::from_slice(&answer.payload)?;
                anyhow::ensure!(answer.get("error").is_none(), "JetStream refuses: {answer}");
                return Ok(());
            }
        }
    }
}

/// Which streams the messages of the pairs go through.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Streams {
    /// One that all have: less to do where the disk is written in intervals.
    One,
    /// One for each pair: more at a time where each message waits for the disk, which messages of
    /// one stream do one after the other.
    Each,
}

impl Streams {
    /// Makes the streams.
    ///
    /// # Errors
    /// JetStream refuses.
    pub(crate) fn make(self, server: SocketAddr, pairs: u32) -> anyhow::Result<()> {
        let mut client = Client::open(server, ANSWERS)?;
        let mut make = |name: String, subjects: String| {
            let stream = json!({"name": name, "subjects": [subjects], "storage": "file",
                "retention": "limits", "num_replicas": 1});
            client.request(&format!("STREAM.CREATE.{name}"), &stream)
        };
        match self {
            Self::One => make(self.of(0), "bus.*".to_owned()),
            Self::Each => (1..=pairs).try_for_each(|pair| make(self.of(pair), subject(pair))),
        }
    }

    /// The name of the stream of a pair.
    fn of(self, pair: u32) -> String {
        match self {
            Self::One => "BUS".to_owned(),
            Self::Each => format!("BUS-{pair}"),
        }
    }
}

fn subject(pair: u32) -> String {
    format!("bus.{pair}")
}

/// A pair with a subject and a durable consumer of its own.
pub(crate) struct NatsPair {
    sender: Client,
    receiver: Client,
    publish: Vec<u8>,
}

impl NatsPair {
    pub(crate) fn open(
        server: SocketAddr,
        streams: Streams,
        number: u32,
        size: usize,
    ) -> anyhow::Result<Self> {
        let subject = subject(number);
        let stream = streams.of(number);
        let deliveries = format!("_INBOX.deliveries-{number}");
        let receiver = Client::open(server, &deliveries)?;
        let consumer = json!({"stream_name": stream, "action": "", "config": {
            "name": format!("receiver-{number}"), "durable_name": format!("receiver-{number}"),
            "deliver_subject": deliveries, "ack_policy": "explicit", "filter_subject": subject,
            "deliver_policy": "all", "replay_policy": "instant"}});
        Client::open(server, ANSWERS)?
            .request(&format!("CONSUMER.CREATE.{stream}.receiver-{number}.{subject}"), &consumer)?;
        let receipts = format!("_INBOX.receipts-{number}");
        let sender = Client::open(server, &receipts)?;
        let payload = "x".repeat(size);
        let publish = format!("PUB {subject} {receipts} {size}\r\n{payload}\r\n").into_bytes();
        Ok(Self { sender, receiver, publish })
    }
}

impl Pair for NatsPair {
    fn sockets(&self) -> [&TcpStream; 2] {
        [&self.sender.lines.stream, &self.receiver.lines.stream]
    }

    fn send(&mut self) -> anyhow::Result<()> {
        Ok(self.sender.lines.stream.write_all(&self.publish)?)
    }

    fn read_receipts(&mut self) -> anyhow::Result<u32> {
        let mut receipts = 0;
        for got in self.sender.read()? {
            let is_stored = got.payload.starts_with(b"{\"stream\":\"BUS");
            let text = String::from_utf8_lossy(&got.payload);
            anyhow::ensure!(is_stored, "JetStream refuses a message: {text}");
            receipts += 1;
        }
        Ok(receipts)
    }

    fn read_deliveries(&mut self) -> anyhow::Result<u32> {
        let mut count = 0;
        for got in self.receiver.read()? {
            let answer = format!("PUB {} 4\r\n+ACK\r\n", got.reply);
            self.receiver.lines.stream.write_all(answer.as_bytes())?;
            count += 1;
        }
        Ok(count)
    }
}

/// A pair without a stream.
pub(crate) struct CorePair {
    sender: Client,
    receiver: Client,
    exchange: Exchange,
    publish: Vec<u8>,
    payload: Vec<u8>,
}

impl CorePair {
    pub(crate) fn open(
        server: SocketAddr,
        exchange: Exchange,
        number: u32,
        size: usize,
    ) -> anyhow::Result<Self> {
        let subject = subject(number);
        let inbox = format!("_INBOX.answers-{number}");
        let receiver = Client::open(server, &subject)?;
        let sender = Client::open(server, &inbox)?;
        let payload = "x".repeat(size);
        let reply = if exchange == Exchange::Request { format!("{inbox} ") } else { String::new() };
        let publish = format!("PUB {subject} {reply}{size}\r\n{payload}\r\n").into_bytes();
        Ok(Self { sender, receiver, exchange, publish, payload: payload.into_bytes() })
    }
}

impl Pair for CorePair {
    fn exchange(&self) -> Exchange {
        self.exchange
    }

    fn sockets(&self) -> [&TcpStream; 2] {
        [&self.sender.lines.stream, &self.receiver.lines.stream]
    }

    fn send(&mut self) -> anyhow::Result<()> {
        Ok(self.sender.lines.stream.write_all(&self.publish)?)
    }

    fn read_receipts(&mut self) -> anyhow::Result<u32> {
        Ok(u32::try_from(self.sender.read()?.len())?)
    }

    fn read_deliveries(&mut self) -> anyhow::Result<u32> {
        let mut count = 0;
        for got in self.receiver.read()? {
            if self.exchange == Exchange::Request {
                let head = format!("PUB {} {}\r\n", got.reply, self.payload.len());
                let answer = [head.as_bytes(), &self.payload, b"\r\n"].concat();
                self.receiver.lines.stream.write_all(&answer)?;
            }
            count += 1;
        }
        Ok(count)
    }
}

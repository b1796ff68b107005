//! Peers of keyop-messenger over gRPC with certificates on both sides: they speak only what is on the
//! wire.

mod authority;
pub(crate) mod frame;
mod http2;
pub(crate) mod order;

use std::io;
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, bail};
use beacon_wire::keyop::grpc::{
    self, FromHub, Method, publish_batch, read_publish_ack, subscribe_ack, subscribe_request,
};
use beacon_wire::keyop::{Body, Draft, Envelope, VERSION, id_at};
use bytes::{Bytes, BytesMut};

use super::Pair;
use http2::Connection;

pub(crate) use authority::{Authority, hub_config};

/// Longest message of a hub that is taken, in bytes.
pub(crate) const MAX_MESSAGE: usize = 16 << 20;

/// The calls of a peer: stream numbers of a client are odd.
pub(crate) const PUBLISH: u32 = 1;
pub(crate) const SUBSCRIBE: u32 = 3;

/// What is around the text of a payload: quotes.
const QUOTES: usize = 2;

/// A peer with both of its calls.
pub(crate) struct Peer {
    connection: Connection,
    publish: BytesMut,
    subscribe: BytesMut,
    /// Acknowledgements that came, and records.
    acks: u32,
    batches: Vec<Bytes>,
}

impl Peer {
    /// Connects as `name`, and subscribes to a channel if there is one.
    pub(crate) fn open(
        server: SocketAddr,
        authority: &Authority,
        name: &str,
        channel: Option<&str>,
    ) -> anyhow::Result<Self> {
        let mut connection = Connection::open(server, authority.client(name)?)?;
        connection.begin_call(PUBLISH, Method::Publish.path());
        if let Some(channel) = channel {
            connection.begin_call(SUBSCRIBE, Method::Subscribe.path());
            connection.push_data(SUBSCRIBE, &subscribe_request(VERSION, &[channel], false));
        }
        connection.flush()?;
        let (publish, subscribe) = (BytesMut::new(), BytesMut::new());
        Ok(Self { connection, publish, subscribe, acks: 0, batches: Vec::new() })
    }

    /// The same, with the certainty that what is published from here on comes. The id of what it
    /// publishes for that is made with the seed.
    fn open_subscribed(
        server: SocketAddr,
        authority: &Authority,
        name: &str,
        (channel, seed): (&str, u64),
    ) -> anyhow::Result<Self> {
        let mut peer = Self::open(server, authority, name, Some(channel))?;
        peer.sync()?;
        // Without a route it comes back to who has published it.
        let mut probe = Writer::new(channel, name, seed, 0);
        probe.route.clear();
        let record = probe.record(u64::MAX);
        peer.push_batch([&record[..]].into_iter());
        peer.connection.flush()?;
        let mut has_come = false;
        while !has_come || peer.acks == 0 {
            has_come |= peer.take(|_| Ok(()))? > 0;
        }
        peer.acks = 0;
        Ok(peer)
    }

    /// Waits until the hub has read all that was said.
    pub(crate) fn sync(&mut self) -> anyhow::Result<()> {
        self.connection.push_ping();
        self.connection.flush()?;
        while !self.connection.take_pong() {
            self.read()?;
        }
        Ok(())
    }

    fn push_batch<'a>(&mut self, records: impl Iterator<Item = &'a [u8]> + Clone) {
        self.connection.push_data(PUBLISH, &publish_batch(records));
    }

    /// Reads once.
    fn read(&mut self) -> anyhow::Result<()> {
        let Self { connection, publish, subscribe, acks, batches } = self;
        connection.read(|stream, data| match stream {
            PUBLISH => publish.extend_from_slice(data),
            _ => subscribe.extend_from_slice(data),
        })?;
        let refused = |refusal: grpc::Refusal<'_>| anyhow::anyhow!(refusal.message());
        while let Some(ack) = grpc::take_message(publish, MAX_MESSAGE).map_err(refused)? {
            anyhow::ensure!(!read_publish_ack(&ack)?.is_empty(), "a record is no news to the hub");
            *acks += 1;
        }
        while let Some(batch) = grpc::take_message(subscribe, MAX_MESSAGE).map_err(refused)? {
            batches.push(batch);
        }
        Ok(())
    }

    /// Reads once: how many batches of its own are acknowledged.
    fn receipts(&mut self) -> anyhow::Result<u32> {
        self.read()?;
        Ok(std::mem::take(&mut self.acks))
    }

    /// Reads once and acknowledges what came: how many records, after each was looked at.
    fn take(
        &mut self,
        mut each: impl FnMut(&Envelope<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<u32> {
        self.read()?;
        let mut count = 0;
        for batch in std::mem::take(&mut self.batches) {
            let FromHub::Batch(records) = FromHub::parse(&batch)? else {
                bail!("the hub says something else than records");
            };
            let mut last_id = String::new();
            for record in records.iter() {
                let envelope = Envelope::parse(record)?;
                each(&envelope)?;
                last_id = envelope.id.into_owned();
                count += 1;
            }
            self.connection.push_data(SUBSCRIBE, &subscribe_ack(&last_id));
        }
        self.connection.flush()?;
        Ok(count)
    }
}

/// Writes the records of one publisher.
struct Writer {
    channel: String,
    name: String,
    /// Tells it from other writers, in ids.
    seed: u64,
    route: Vec<String>,
    text: String,
}

impl Writer {
    /// Of payloads of so many bytes.
    fn new(channel: &str, name: &str, seed: u64, size: usize) -> Self {
        let text = "x".repeat(size.saturating_sub(QUOTES));
        let route = vec![name.to_owned()];
        Self { channel: channel.to_owned(), name: name.to_owned(), seed, route, text }
    }

    /// The record of this number, which is its correlation id.
    fn record(&self, number: u64) -> Vec<u8> {
        let mut random = [0; 10];
        random[2..].copy_from_slice(&number.to_be_bytes());
        let route: Vec<_> = self.route.iter().map(String::as_str).collect();
        let payload = format!("\"{}\"", self.text);
        Draft {
            id: &id_at(self.seed, random),
            ts: "2026-11-29T12:00:00.123456789Z",
            channel: &self.channel,
            origin: &self.name,
            payload_type: "bench",
            correlation_id: &number.to_string(),
            service_name: "",
            route: &route,
            payload: Body::parse(payload.as_bytes()).expect("a string of letters"),
        }
        .encode()
    }
}

/// Two peers of a hub, with a channel of their own.
pub(crate) struct KeyopPair {
    sender: Peer,
    receiver: Peer,
    writer: Writer,
    number: u64,
}

impl KeyopPair {
    pub(crate) fn open(
        server: SocketAddr,
        authority: &Authority,
        number: u32,
        size: usize,
    ) -> anyhow::Result<Self> {
        let (channel, to) = (format!("bench-{number}"), format!("receiver-{number}"));
        let from = format!("sender-{number}");
        let seed = u64::from(number) << 1;
        let receiver = Peer::open_subscribed(server, authority, &to, (&channel, seed))?;
        let sender = Peer::open(server, authority, &from, None)?;
        let writer = Writer::new(&channel, &from, seed + 1, size);
        Ok(Self { sender, receiver, writer, number: 0 })
    }
}

impl Pair for KeyopPair {
    fn sockets(&self) -> [&TcpStream; 2] {
        [self.sender.connection.socket(), self.receiver.connection.socket()]
    }

    fn send(&mut self) -> anyhow::Result<()> {
        self.number += 1;
        let record = self.writer.record(self.number);
        self.sender.push_batch([&record[..]].into_iter());
        self.sender.connection.flush().context("the hub takes nothing")
    }

    fn read_receipts(&mut self) -> anyhow::Result<u32> {
        self.sender.receipts()
    }

    fn read_deliveries(&mut self) -> anyhow::Result<u32> {
        self.receiver.take(|_| Ok(()))
    }
}

/// A connection that ended.
fn over() -> anyhow::Error {
    io::Error::from(io::ErrorKind::UnexpectedEof).into()
}

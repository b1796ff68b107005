//! What durable messages cost: compared with their floor, with JetStream and with Redis; what an
//! idle peer takes, and what messages take that wait.

use std::path::Path;

use anyhow::Context as _;

use super::{Scenarios, word};
use crate::bus::nats::{NatsPair, Streams};
use crate::bus::peerbus::PeerbusPair;
use crate::bus::pending::{self, Waiting};
use crate::bus::redis::RedisPair;
use crate::bus::{self, Figures, Load, Pair};
use crate::connections;
use crate::report::Value;
use crate::subject::{Broker, Brokers, Kind, Servers};

/// Bytes of a message, without what the protocol adds.
const SIZE: usize = 256;

/// CPU time for a message at most, in multiples of JetStream's.
const CPU: f64 = 0.75;

/// Rate of JetStream at most, in multiples of that of a relay which has its messages there: it
/// appends for many senders at a time, waits for each append, and works beside the server.
const OVER: f64 = 2.0;

/// Memory of an idle peer at most, in bytes.
const IDLE_BYTES: f64 = 8_192.0;

/// What is measured: a server with its durability.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Subject {
    /// One of ours, by how the durability is called there.
    Ours(Kind, &'static str),
    Broker(Brokers),
    /// The relay over JetStream, by its `sync_interval`: what both take.
    Over(&'static str),
}

/// All of them: the first five sync in intervals, the others always.
const SUBJECTS: [Subject; 10] = [
    Subject::Ours(Kind::Peerbus, "interval"),
    Subject::Ours(Kind::PeerbusFloor, "interval"),
    Subject::Broker(Brokers::JetStream("\"200ms\"")),
    Subject::Broker(Brokers::Redis("everysec")),
    Subject::Over("\"200ms\""),
    Subject::Ours(Kind::Peerbus, "always"),
    Subject::Ours(Kind::PeerbusFloor, "always"),
    Subject::Broker(Brokers::JetStream("always")),
    Subject::Broker(Brokers::Redis("always")),
    Subject::Over("always"),
];

impl Subject {
    const fn server(self) -> &'static str {
        match self {
            Self::Ours(kind, _) => kind.word(),
            Self::Broker(Brokers::Core) => "NATS",
            Self::Broker(Brokers::JetStream(_)) => "JetStream",
            Self::Broker(Brokers::Redis(_)) => "Redis streams",
            Self::Over(_) => "relay over JetStream",
        }
    }

    /// When a message is on the disk.
    fn disk(self) -> &'static str {
        match self {
            Self::Ours(_, "always")
            | Self::Over("always")
            | Self::Broker(Brokers::JetStream("always") | Brokers::Redis("always")) => "always",
            Self::Broker(Brokers::Redis(_)) => "each second",
            Self::Broker(Brokers::Core) => "never",
            Self::Ours(..) | Self::Over(_) | Self::Broker(Brokers::JetStream(_)) => "each 200 ms",
        }
    }

    fn measure(self, servers: &Servers, load: &Load) -> anyhow::Result<Figures> {
        match self {
            Self::Ours(kind, durability) => {
                let is_floor = kind == Kind::PeerbusFloor;
                let flag = if is_floor { "--floor-peerbus" } else { "--bus-durability" };
                let flags = [flag, durability];
                let server = servers.start(kind, &[], &flags)?;
                let mut pairs = open(load, |number| {
                    Ok(Box::new(PeerbusPair::open(server.wss, number, load.size)?))
                })?;
                bus::run(&mut pairs, || server.usage(), load.time)
            }
            Self::Over(interval) => {
                let broker = Broker::start(Brokers::JetStream(interval))?;
                let nats = format!("nats://{}", broker.address);
                let server = servers.start(Kind::Peerbus, &[], &["--bus-nats", &nats])?;
                let mut pairs = open(load, |number| {
                    Ok(Box::new(PeerbusPair::open(server.wss, number, load.size)?))
                })?;
                bus::run(&mut pairs, || Ok(server.usage()? + broker.usage()?), load.time)
            }
            Self::Broker(which) => {
                let broker = Broker::start(which)?;
                let server = broker.address;
                let streams = match which {
                    Brokers::JetStream("always") => Streams::Each,
                    Brokers::Core | Brokers::JetStream(_) | Brokers::Redis(_) => Streams::One,
                };
                if matches!(which, Brokers::JetStream(_)) {
                    streams.make(server, load.pairs)?;
                }
                let mut pairs = open(load, |number| {
                    Ok(match which {
                        Brokers::Core | Brokers::JetStream(_) => {
                            Box::new(NatsPair::open(server, streams, number, load.size)?)
                        }
                        Brokers::Redis(_) => Box::new(RedisPair::open(server, number, load.size)?),
                    })
                })?;
                bus::run(&mut pairs, || broker.usage(), load.time)
            }
        }
        .with_context(|| format!("{}, {}", self.server(), self.disk()))
    }
}

pub(super) fn open(
    load: &Load,
    pair: impl Fn(u32) -> anyhow::Result<Box<dyn Pair>>,
) -> anyhow::Result<Vec<Box<dyn Pair>>> {
    (1..=load.pairs).map(pair).collect()
}

impl Scenarios<'_> {
    pub(super) fn bus(&mut self) -> anyhow::Result<()> {
        has_disk(&std::env::temp_dir())?;
        let common = &self.args.common;
        let load = Load { pairs: common.pairs, size: SIZE, time: common.time() };
        let measure = |subject: Subject| subject.measure(&self.servers, &load);
        let all = self.all_in_turn(&SUBJECTS, measure)?;
        let all: Vec<_> =
            all.iter().map(|(subject, runs)| (*subject, Figures::median(runs))).collect();
        for (subject, figures) in &all {
            self.report.row(
                "durable messages: sent, delivered, acknowledged",
                &[
                    ("on disk", word(subject.disk())),
                    ("bytes", Value::Count(load.size as u64)),
                    ("pairs", Value::Count(load.pairs.into())),
                    ("server", word(subject.server())),
                    ("messages/s", Value::Number(figures.per_second, 0)),
                    ("µs/message", Value::Number(figures.cpu_us_each, 1)),
                    ("p50 µs", Value::Number(figures.p50_us, 0)),
                    ("switches", Value::Number(figures.switches_each, 3)),
                    ("memory MB", Value::Number(figures.memory_mb, 1)),
                ],
            )?;
        }
        let figures: Vec<_> = all.iter().map(|(_, figures)| figures).collect();
        let [relay, _, jet_stream, _, over, relay_always, _, jet_stream_always, _, over_always] =
            *figures
        else {
            anyhow::bail!("each is measured");
        };
        let rate = jet_stream.per_second / relay.per_second;
        self.limit("messages on disk each 200 ms: rate of JetStream, × relay's", rate, 1.0);
        let cpu = relay.cpu_us_each / jet_stream.cpu_us_each;
        self.limit("messages on disk each 200 ms: CPU for each, × JetStream's", cpu, CPU);
        let rate = jet_stream_always.per_second / relay_always.per_second;
        self.limit("messages always on disk: rate of JetStream, × relay's", rate, 1.0);
        let rate = jet_stream.per_second / over.per_second;
        self.limit("messages over JetStream: rate of JetStream, × relay's", rate, OVER);
        let rate = jet_stream_always.per_second / over_always.per_second;
        self.limit(
            "messages over JetStream always on disk: rate of JetStream, × relay's",
            rate,
            OVER,
        );
        Ok(())
    }

    pub(super) fn bus_idle(&mut self) -> anyhow::Result<()> {
        let count = self.args.peers().min(2_000);
        let idle = connections::idle(&self.servers, Kind::Peerbus, count)?;
        self.report.row(
            "idle peers of the message bus",
            &[
                ("server", word(Kind::Peerbus.word())),
                ("connections", Value::Count(idle.connections.into())),
                ("bytes each", Value::Number(idle.bytes_each, 0)),
            ],
        )?;
        self.limit("idle peer of the message bus, bytes", idle.bytes_each, IDLE_BYTES);
        Ok(())
    }

    pub(super) fn bus_pending(&mut self) -> anyhow::Result<()> {
        has_disk(&std::env::temp_dir())?;
        let messages = self.args.messages.into();
        let waiting = Waiting { names: 1_000, messages, drained: messages / 10 };
        let figures = pending::run(&self.servers, &waiting)?;
        let [first, longest] = figures.first_ms;
        self.report.row(
            "messages that wait for 1,000 peers",
            &[
                ("messages", Value::Count(figures.messages)),
                ("memory MB", Value::Number(figures.memory_mb, 1)),
                ("memory MB, started again", Value::Number(figures.memory_again_mb, 1)),
                ("start s", Value::Number(figures.start_s, 2)),
                ("first ms", Value::Number(first, 2)),
                ("first ms, most", Value::Number(longest, 2)),
                ("drained/s", Value::Number(figures.drained_per_second, 0)),
            ],
        )?;
        let memory = figures.memory_mb.max(figures.memory_again_mb);
        self.limit("messages that wait, memory MB", memory, 200.0);
        self.limit("messages that wait, start s", figures.start_s, 5.0);
        self.limit("messages that wait, first to a peer who is back, ms", longest, 10.0);
        Ok(())
    }
}

/// Whether what is written there reaches a disk.
pub(super) fn has_disk(folder: &Path) -> anyhow::Result<()> {
    /// TMPFS_MAGIC of statfs(2).
    const TMPFS: i64 = 0x0102_1994;
    let folder_name = folder.display();
    let kind =
        rustix::fs::statfs(folder).with_context(|| format!("cannot look at {folder_name}"))?;
    anyhow::ensure!(
        kind.f_type != TMPFS,
        "{folder_name} is in memory, where no message is durable; have TMPDIR name a folder on a disk"
    );
    Ok(())
}

//! What records of channels cost: compared with their floor and with JetStream; what an idle peer takes, and whether many
//! records arrive in their order.

use anyhow::Context as _;

use super::bus::open;
use super::{Scenarios, word};
use crate::bus::keyop::{Authority, KeyopPair, Peer, order};
use crate::bus::nats::{NatsPair, Streams};
use crate::bus::{self, Figures, Load};
use crate::report::Value;
use crate::subject::{Broker, Brokers, Kind, Servers};

/// Bytes of a record's payload.
const SIZE: usize = 256;

/// Rate of JetStream at most, in multiples of the relay's: 1 / 0.7.
const RATE: f64 = 1.43;

/// CPU time for a record at most, in multiples of JetStream's, whose connections have no TLS.
const CPU: f64 = 1.5;

/// Memory of an idle peer at most, in bytes.
const IDLE_BYTES: f64 = 65_536.0;

/// Peers before the measurement, so that what is kept for all is not counted for each.
const WARM_UP: u32 = 50;

/// What is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Server {
    Relay,
    Floor,
    JetStream,
}

impl Server {
    const ALL: [Self; 3] = [Self::Relay, Self::Floor, Self::JetStream];

    const fn word(self) -> &'static str {
        match self {
            Self::Relay => "relay, gRPC and TLS",
            Self::Floor => "floor, gRPC and TLS",
            Self::JetStream => "JetStream",
        }
    }
}

/// A server, and what is connected with it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Subject {
    server: Server,
    pairs: u32,
}

impl Subject {
    fn measure(self, servers: &Servers, load: &Load) -> anyhow::Result<Figures> {
        let load = &Load { pairs: self.pairs, ..*load };
        if self.server != Server::JetStream {
            let authority = Authority::make(servers.folder())?;
            let server = match self.server {
                Server::Floor => servers.start(Kind::KeyopFloor, &[], &["--floor-keyop"])?,
                Server::Relay | Server::JetStream => servers.start_keyop(&authority, &[])?,
            };
            let mut pairs = open(load, |number| {
                Ok(Box::new(KeyopPair::open(server.wss, &authority, number, load.size)?))
            })?;
            return bus::run(&mut pairs, || server.usage(), load.time).context(self.server.word());
        }
        let broker = Broker::start(Brokers::JetStream("\"200ms\""))?;
        Streams::One.make(broker.address, load.pairs)?;
        let mut pairs = open(load, |number| {
            Ok(Box::new(NatsPair::open(broker.address, Streams::One, number, load.size)?))
        })?;
        bus::run(&mut pairs, || broker.usage(), load.time).context(self.server.word())
    }
}

impl Scenarios<'_> {
    pub(super) fn keyop(&mut self) -> anyhow::Result<()> {
        super::bus::has_disk(&std::env::temp_dir())?;
        let common = &self.args.common;
        let load = Load { pairs: common.pairs, size: SIZE, time: common.time() };
        let mut pairs = vec![load.pairs, 1];
        pairs.dedup();
        let of_each = |pairs| Server::ALL.map(|server| Subject { server, pairs });
        let subjects: Vec<_> = pairs.into_iter().flat_map(of_each).collect();
        let all = self.all_in_turn(&subjects, |one: Subject| one.measure(&self.servers, &load))?;
        let mut measured = Vec::new();
        for (Subject { server, pairs }, runs) in all {
            let figures = Figures::median(&runs);
            measured.push(figures);
            self.report.row(
                "records of channels: published, delivered, acknowledged",
                &[
                    ("bytes", Value::Count(load.size as u64)),
                    ("pairs", Value::Count(pairs.into())),
                    ("server", word(server.word())),
                    ("records/s", Value::Number(figures.per_second, 0)),
                    ("µs/record", Value::Number(figures.cpu_us_each, 1)),
                    ("p50 µs", Value::Number(figures.p50_us, 0)),
                    ("switches", Value::Number(figures.switches_each, 3)),
                    ("memory MB", Value::Number(figures.memory_mb, 1)),
                ],
            )?;
        }
        let [relay, _, jet_stream, ..] = *measured else { anyhow::bail!("each is measured") };
        let rate = jet_stream.per_second / relay.per_second;
        self.limit("records of channels: rate of JetStream, × relay's", rate, RATE);
        let cpu = relay.cpu_us_each / jet_stream.cpu_us_each;
        self.limit("records of channels: CPU for each, × JetStream's", cpu, CPU);
        Ok(())
    }

    pub(super) fn keyop_idle(&mut self) -> anyhow::Result<()> {
        let count = self.args.peers().min(500);
        let authority = Authority::make(self.servers.folder())?;
        let server = self.servers.start_keyop(&authority, &["--upgrade-burst", "1000000"])?;
        let mut peers = Vec::new();
        let mut before = 0;
        for number in 0..count + WARM_UP {
            if number == WARM_UP {
                before = server.usage()?.anonymous;
            }
            let name = format!("peer-{number}");
            let mut peer = Peer::open(server.wss, &authority, &name, Some("orders"))?;
            peer.sync()?;
            peers.push(peer);
        }
        let after = server.usage()?.anonymous;
        #[allow(clippy::cast_precision_loss)] // far below 2^53
        let bytes_each = after.saturating_sub(before) as f64 / f64::from(count);
        self.report.row(
            "idle federated peers, gRPC and TLS",
            &[
                ("connections", Value::Count(count.into())),
                ("bytes each", Value::Number(bytes_each, 0)),
            ],
        )?;
        self.limit("idle federated peer, bytes", bytes_each, IDLE_BYTES);
        Ok(())
    }

    pub(super) fn keyop_order(&mut self) -> anyhow::Result<()> {
        super::bus::has_disk(&std::env::temp_dir())?;
        let figures = order::run(&self.servers, self.args.messages.into())?;
        self.report.row(
            "records through one publisher and one subscriber, all in their order",
            &[
                ("records", Value::Count(figures.records)),
                ("records/s", Value::Number(figures.per_second, 0)),
                ("µs/record", Value::Number(figures.cpu_us_each, 2)),
                ("memory MB", Value::Number(figures.memory_mb, 1)),
            ],
        )?;
        Ok(())
    }
}

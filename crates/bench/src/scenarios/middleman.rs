//! What publications and requests cost, compared with NATS without JetStream.

use anyhow::Context as _;

use super::bus::open;
use super::{Scenarios, word};
use crate::bus::middleman::MiddlemanPair;
use crate::bus::nats::CorePair;
use crate::bus::{self, Exchange, Figures, Load};
use crate::report::Value;
use crate::subject::{Broker, Brokers, Kind, Servers};

/// Bytes of a body.
const SIZE: usize = 256;

/// What is measured: which exchange, and whether by the relay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Subject {
    exchange: Exchange,
    is_ours: bool,
}

/// Each exchange, and its CPU at most, in multiples of NATS's.
const EXCHANGES: [(Exchange, &str, f64); 2] = [
    (Exchange::Publication, "a publication to a subscriber", 1.0),
    (Exchange::Request, "a request and its answer", 2.2),
];

impl Subject {
    fn measure(self, servers: &Servers, load: &Load) -> anyhow::Result<Figures> {
        let Self { exchange, is_ours } = self;
        if is_ours {
            let server = servers.start(Kind::Middleman, &[], &[])?;
            let mut pairs = open(load, |number| {
                Ok(Box::new(MiddlemanPair::open(server.wss, exchange, number, load.size)?))
            })?;
            return bus::run(&mut pairs, || server.usage(), load.time).context("the relay");
        }
        let broker = Broker::start(Brokers::Core)?;
        let mut pairs = open(load, |number| {
            Ok(Box::new(CorePair::open(broker.address, exchange, number, load.size)?))
        })?;
        bus::run(&mut pairs, || broker.usage(), load.time).context("NATS")
    }
}

impl Scenarios<'_> {
    pub(super) fn middleman(&mut self) -> anyhow::Result<()> {
        let common = &self.args.common;
        let load = Load { pairs: common.pairs, size: SIZE, time: common.time() };
        for (exchange, what, at_most) in EXCHANGES {
            let subjects = [true, false].map(|is_ours| Subject { exchange, is_ours });
            let measure = |subject: Subject| subject.measure(&self.servers, &load);
            let all = self.all_in_turn(&subjects, measure)?;
            let mut cpu = Vec::new();
            for (Subject { is_ours, .. }, runs) in all {
                let figures = Figures::median(&runs);
                cpu.push(figures.cpu_us_each);
                self.report.row(
                    "publications and requests",
                    &[
                        ("exchange", word(what)),
                        ("bytes", Value::Count(load.size as u64)),
                        ("pairs", Value::Count(load.pairs.into())),
                        ("server", word(if is_ours { "relay" } else { "NATS" })),
                        ("messages/s", Value::Number(figures.per_second, 0)),
                        ("µs/message", Value::Number(figures.cpu_us_each, 1)),
                        ("p50 µs", Value::Number(figures.p50_us, 0)),
                        ("switches", Value::Number(figures.switches_each, 3)),
                        ("memory MB", Value::Number(figures.memory_mb, 1)),
                    ],
                )?;
            }
            let [relay, nats] = *cpu else { anyhow::bail!("both are measured") };
            self.limit(format!("{what}: CPU, × NATS's"), relay / nats, at_most);
        }
        Ok(())
    }
}

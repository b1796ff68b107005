//! What a second relay costs: time, and CPU compared with one relay and with two floors.

use super::{Scenarios, cost, cost_of, figure_columns, load_columns, word};
use crate::closed_loop::median;
use crate::latency;
use crate::options::Cell;
use crate::report::Value;
use crate::subject::{Joined, Kind};
use crate::throughput::{self, Load};

/// The size that limits speak of, in bytes.
const LIMITED: usize = 1_200;

/// What a packet through two relays costs at most, in multiples of two floors that are joined by
/// one TLS connection over TCP.
const FLOORS: f64 = 1.5;

/// What carries packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Carrier {
    One,
    Two(Joined),
}

const CARRIERS: [Carrier; 5] = [
    Carrier::One,
    Carrier::Two(Joined::Mesh),
    Carrier::Two(Joined::Nats),
    Carrier::Two(Joined::Tcp),
    Carrier::Two(Joined::Quic),
];

impl Carrier {
    const fn word(self) -> &'static str {
        match self {
            Self::One => "one relay",
            Self::Two(joined) => joined.word(),
        }
    }
}

/// What a packet through two relays costs at most, in multiples of one.
const fn relays_at_most(cell: Cell) -> f64 {
    match cell {
        Cell::UdpUdp => 2.5,
        Cell::WssWss | Cell::WssUdp | Cell::UdpWss => 4.5,
    }
}

impl Scenarios<'_> {
    pub(super) fn cluster(&mut self) -> anyhow::Result<()> {
        for cell in &self.args.cell {
            let rate = self.rate(*cell);
            let runs = self.runs(|| {
                let alone = latency::run(&self.servers, Kind::Relay, &rate)?;
                Ok((alone, latency::across(&self.servers, &rate)?))
            })?;
            let (alone, across): (Vec<_>, Vec<_>) = runs.into_iter().unzip();
            let [alone, across] = [alone, across].map(|runs| *median(&runs, |l| l.p50_us));
            self.report.row(
                "through a second relay of a cluster, on one machine",
                &[
                    ("cell", word(cell.word())),
                    ("p50 µs alone", Value::Number(alone.p50_us, 1)),
                    ("p50 µs across", Value::Number(across.p50_us, 1)),
                    ("p99 µs across", Value::Number(across.p99_us, 1)),
                    ("added p50 µs", Value::Number(across.p50_us - alone.p50_us, 1)),
                    ("loss %", Value::Number(across.loss_percent, 2)),
                ],
            )?;
        }
        Ok(())
    }

    pub(super) fn cluster_throughput(&mut self) -> anyhow::Result<()> {
        for cell in &self.args.cell {
            for size in &self.args.size {
                self.cluster_cell(&self.load(*cell, *size))?;
            }
        }
        Ok(())
    }

    fn cluster_cell(&mut self, load: &Load) -> anyhow::Result<()> {
        let measure = |carrier| match carrier {
            Carrier::One => throughput::run(&self.servers, Kind::Relay, load),
            Carrier::Two(joined) => throughput::across(&self.servers, joined, load),
        };
        let all = self.in_turn(&CARRIERS, measure, cost)?;
        let one = cost_of(&all, Carrier::One);
        let floors = cost_of(&all, Carrier::Two(Joined::Tcp));
        for (carrier, figures) in &all {
            let mut columns = load_columns(load, carrier.word());
            columns.extend(figure_columns(figures));
            let cost = figures.cpu_us_per_packet;
            columns.push(("× one relay", Value::Number(cost / one, 2)));
            columns.push(("× two floors", Value::Number(cost / floors, 2)));
            self.report.row("throughput through two relays, CPU of both", &columns)?;
        }
        if load.size == LIMITED {
            let mesh = cost_of(&all, Carrier::Two(Joined::Mesh));
            let cell = load.cell.word();
            let relays = format!("two relays on the mesh, {cell}, 1,200 bytes, × one relay");
            self.limit(relays, mesh / one, relays_at_most(load.cell));
            let two = format!("two relays on the mesh, {cell}, 1,200 bytes, × two floors, TLS/TCP");
            self.limit(two, mesh / floors, FLOORS);
        }
        Ok(())
    }
}

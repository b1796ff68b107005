//! What is measured for each table, and how its rows come about.

use std::fs::File;
use std::io;

use anyhow::Context as _;

use crate::closed_loop::{Figures, median};
use crate::latency::{Latency, Rate};
use crate::options::{Args, Cell, Scenario};
use crate::report::{Report, Value, progress};
use crate::subject::{Kind, Servers};
use crate::throughput::Load;
use crate::{connections, crowd, floor, growth, latency, stuck, throughput};

/// Measures, and prints each row as soon as it is known.
///
/// # Errors
/// A server that does not start, a peer that is not let in, an output that is closed.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if args.serve_floor {
        return floor::run().context("the floor has ended");
    }
    let servers = Servers::new(args.beacon_relay.as_deref())?;
    let rows = args.rows.as_ref().map(|path| {
        File::create(path).with_context(|| format!("cannot write --rows {}", path.display()))
    });
    let report = Report::new(io::stdout().lock(), args.common.json, 8);
    let report = report.with_rows(rows.transpose()?);
    let mut scenarios = Scenarios { args, servers, report };
    args.scenario.iter().try_for_each(|scenario| scenarios.run(*scenario))
}

struct Scenarios<'a> {
    args: &'a Args,
    servers: Servers,
    report: Report<io::StdoutLock<'static>>,
}

impl Scenarios<'_> {
    fn run(&mut self, scenario: Scenario) -> anyhow::Result<()> {
        match scenario {
            Scenario::Throughput => self.throughput(),
            Scenario::Latency => self.latency(),
            Scenario::Cluster => self.cluster(),
            Scenario::Login => self.login(),
            Scenario::Idle => self.idle(),
            Scenario::Stuck => self.stuck(),
            Scenario::Growth => self.growth(),
            Scenario::Pairs => self.pairs(),
            Scenario::Crowd => self.crowd(&[10, 100, 1_000, self.args.peers()]),
            Scenario::FanIn => self.crowd(&[1]),
        }
    }

    const fn load(&self, cell: Cell, size: usize) -> Load {
        let common = &self.args.common;
        Load { cell, pairs: common.pairs, size, window: common.window, time: common.time() }
    }

    const fn rate(&self, cell: Cell) -> Rate {
        let common = &self.args.common;
        Rate { cell, pairs: common.pairs, size: 200, per_second: 200, time: common.time() }
    }

    /// Measures as often as the arguments say.
    fn runs<T>(&self, measure: impl Fn() -> anyhow::Result<T>) -> anyhow::Result<Vec<T>> {
        let runs = self.args.common.runs.max(1);
        let measured = (1..=runs).map(|run| {
            progress(&format!("measuring: run {run} of {runs}"));
            measure()
        });
        measured.collect()
    }

    /// Measures relay and floor in turn, so that a slow moment of the machine meets both.
    fn in_turn<T: Copy>(
        &self,
        measure: impl Fn(Kind) -> anyhow::Result<T>,
        key: impl Fn(&T) -> f64,
    ) -> anyhow::Result<[(Kind, T); 2]> {
        let runs = self.runs(|| Ok((measure(Kind::Relay)?, measure(Kind::Floor)?)))?;
        let (relay, floor): (Vec<_>, Vec<_>) = runs.into_iter().unzip();
        Ok([(Kind::Relay, *median(&relay, &key)), (Kind::Floor, *median(&floor, &key))])
    }

    fn throughput(&mut self) -> anyhow::Result<()> {
        for cell in &self.args.cell {
            for size in &self.args.size {
                self.beside_floor("throughput", &self.load(*cell, *size))?;
            }
        }
        Ok(())
    }

    fn pairs(&mut self) -> anyhow::Result<()> {
        for pairs in [8, 32, 64, 128, 256] {
            let load = Load { pairs, ..self.load(Cell::WssWss, 1_200) };
            self.beside_floor("all pairs active", &load)?;
        }
        Ok(())
    }

    fn beside_floor(&mut self, table: &'static str, load: &Load) -> anyhow::Result<()> {
        let measure = |kind| throughput::run(&self.servers, kind, load);
        let figures = self.in_turn(measure, |figures| figures.cpu_us_per_packet)?;
        let [_, (_, floor)] = figures;
        for (kind, figures) in figures {
            let ratio = figures.cpu_us_per_packet / floor.cpu_us_per_packet;
            let mut columns = load_columns(load, kind);
            columns.extend(figure_columns(&figures));
            columns.push(("× floor", Value::Number(ratio, 2)));
            self.report.row(table, &columns)?;
        }
        Ok(())
    }

    fn cluster(&mut self) -> anyhow::Result<()> {
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

    fn latency(&mut self) -> anyhow::Result<()> {
        for cell in &self.args.cell {
            let rate = self.rate(*cell);
            let measure = |kind| latency::run(&self.servers, kind, &rate);
            let figures = self.in_turn(measure, |latency| latency.p50_us)?;
            let [_, (_, floor)] = figures;
            for (kind, Latency { p50_us, p99_us, max_us, late_percent, loss_percent }) in figures {
                self.report.row(
                    "latency: 8 pairs, 200 packets a second each, 200 bytes",
                    &[
                        ("cell", word(cell.word())),
                        ("server", word(kind.word())),
                        ("p50 µs", Value::Number(p50_us, 1)),
                        ("p99 µs", Value::Number(p99_us, 1)),
                        ("max µs", Value::Number(max_us, 1)),
                        ("late %", Value::Number(late_percent, 2)),
                        ("loss %", Value::Number(loss_percent, 2)),
                        ("× floor", Value::Number(p50_us / floor.p50_us, 2)),
                    ],
                )?;
            }
        }
        Ok(())
    }

    fn login(&mut self) -> anyhow::Result<()> {
        const LOGINS: u32 = 1_000;
        let measure = |kind| connections::logins(&self.servers, kind, LOGINS);
        let figures = self.in_turn(measure, |login| login.cpu_us_each)?;
        let verification = connections::verification_us();
        let [_, (_, floor)] = figures;
        for (kind, login) in figures {
            let allowed = floor.cpu_us_each + verification + 20.0;
            self.report.row(
                "login",
                &[
                    ("server", word(kind.word())),
                    ("logins", Value::Count(login.logins.into())),
                    ("µs each", Value::Number(login.cpu_us_each, 1)),
                    ("one verification µs", Value::Number(verification, 1)),
                    ("floor + verification + 20 µs", Value::Number(allowed, 1)),
                ],
            )?;
        }
        Ok(())
    }

    fn idle(&mut self) -> anyhow::Result<()> {
        for count in [2_000, self.args.peers().min(10_000)] {
            let idle = connections::idle(&self.servers, count)?;
            self.report.row(
                "idle connections",
                &[
                    ("server", word(Kind::Relay.word())),
                    ("connections", Value::Count(idle.connections.into())),
                    ("bytes each", Value::Number(idle.bytes_each, 0)),
                ],
            )?;
        }
        Ok(())
    }

    fn stuck(&mut self) -> anyhow::Result<()> {
        let load = self.load(Cell::WssWss, 1_200);
        let runs = self.runs(|| stuck::run(&self.servers, &load))?;
        let stuck = median(&runs, |stuck| stuck.left_percent);
        self.report.row(
            "healthy pairs beside 8 readers that never read",
            &[
                ("pairs", Value::Count(load.pairs.into())),
                ("packets/s beside absent", Value::Number(stuck.beside_absent, 0)),
                ("packets/s beside stuck", Value::Number(stuck.beside_stuck, 0)),
                ("left %", Value::Number(stuck.left_percent, 1)),
                ("memory MB", Value::Number(stuck.memory_mb, 1)),
                ("kernel TCP MB", Value::Number(stuck.kernel_mb, 1)),
            ],
        )?;
        Ok(())
    }

    fn crowd(&mut self, receivers: &[u32]) -> anyhow::Result<()> {
        let load = self.load(Cell::WssWss, 1_200);
        for receivers in receivers {
            let runs = self.runs(|| crowd::run(&self.servers, &load, *receivers))?;
            let figures = median(&runs, |figures| figures.cpu_us_per_packet);
            let mut columns = vec![
                ("senders", Value::Count(load.pairs.into())),
                ("receivers", Value::Count((*receivers).into())),
                ("bytes", Value::Count(load.size as u64)),
            ];
            columns.extend(figure_columns(figures));
            self.report.row("senders to many receivers, chosen by Zipf's law", &columns)?;
        }
        Ok(())
    }

    fn growth(&mut self) -> anyhow::Result<()> {
        let wss = self.load(Cell::WssWss, 1_200);
        self.among("among idle WSS peers", self.args.peers(), |servers, count| {
            growth::among_wss(servers, &wss, count)
        })?;
        let udp = self.load(Cell::UdpUdp, 1_200);
        self.among("among idle UDP nodes", self.args.nodes, |servers, count| {
            growth::among_udp(servers, &udp, count)
        })
    }

    /// Measures among more and more of those that do nothing, up to `most`.
    fn among(
        &mut self,
        table: &'static str,
        most: u32,
        measure: impl Fn(&Servers, u32) -> anyhow::Result<Figures>,
    ) -> anyhow::Result<()> {
        let steps = [10, 100, 1_000, 10_000, 100_000];
        let mut first = None;
        for count in steps.into_iter().filter(|step| *step < most).chain([most]) {
            let runs = self.runs(|| measure(&self.servers, count))?;
            let figures = median(&runs, |figures| figures.cpu_us_per_packet);
            let first = *first.get_or_insert(figures.cpu_us_per_packet);
            let mut columns = vec![("idle", Value::Count(count.into()))];
            columns.extend(figure_columns(figures));
            columns.push(("× fewest", Value::Number(figures.cpu_us_per_packet / first, 2)));
            self.report.row(table, &columns)?;
        }
        Ok(())
    }
}

fn word(word: &str) -> Value {
    Value::Text(word.to_owned())
}

fn load_columns(load: &Load, kind: Kind) -> Vec<(&'static str, Value)> {
    vec![
        ("cell", word(load.cell.word())),
        ("bytes", Value::Count(load.size as u64)),
        ("pairs", Value::Count(load.pairs.into())),
        ("server", word(kind.word())),
    ]
}

fn figure_columns(figures: &Figures) -> Vec<(&'static str, Value)> {
    vec![
        ("packets/s", Value::Number(figures.packets_per_second, 0)),
        ("µs/packet", Value::Number(figures.cpu_us_per_packet, 3)),
        ("switches", Value::Number(figures.switches_per_packet, 4)),
        ("loss %", Value::Number(figures.loss_percent, 2)),
        ("memory MB", Value::Number(figures.memory_mb, 1)),
    ]
}

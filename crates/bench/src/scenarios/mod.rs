//! What is measured for each table, and how its rows come about.

mod bus;
mod cluster;
mod connections;
mod keyop;
mod middleman;
mod netbird;
mod scale;
mod tls;

use std::fs::File;
use std::io;

use anyhow::Context as _;

use crate::closed_loop::{Figures, median};
use crate::latency::{Latency, Rate};
use crate::options::{Args, Cell, Scenario};
use crate::report::{Report, Value, progress};
use crate::subject::{Kind, Servers};
use crate::throughput::Load;
use crate::{crowd, floor, growth, latency, stuck, throughput};

/// Measures, and prints each row as soon as it is known.
///
/// # Errors
/// A server that does not start, a peer that is not let in, an output that is closed.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if args.floor.serve_floor {
        return floor::run(&args.floor).context("the floor has ended");
    }
    let servers = Servers::new(args.beacon_relay.as_deref())?;
    let rows = args.rows.as_ref().map(|path| {
        File::create(path).with_context(|| format!("cannot write --rows {}", path.display()))
    });
    let report = Report::new(io::stdout().lock(), args.common.json, 20);
    let report = report.with_rows(rows.transpose()?);
    let mut scenarios = Scenarios { args, servers, report, limits: Vec::new() };
    args.scenario.iter().try_for_each(|scenario| scenarios.run(*scenario))?;
    scenarios.print_limits()
}

/// What a figure is held to.
struct Limit {
    what: String,
    measured: f64,
    at_most: f64,
}

struct Scenarios<'a> {
    args: &'a Args,
    servers: Servers,
    report: Report<io::StdoutLock<'static>>,
    limits: Vec<Limit>,
}

impl Scenarios<'_> {
    fn run(&mut self, scenario: Scenario) -> anyhow::Result<()> {
        match scenario {
            Scenario::Throughput => self.throughput(),
            Scenario::Latency => self.latency(),
            Scenario::Tls => self.tls(),
            Scenario::Cluster => self.cluster(),
            Scenario::ClusterThroughput => self.cluster_throughput(),
            Scenario::Login => self.login(),
            Scenario::TlsLogin => self.tls_login(),
            Scenario::Idle => self.idle(Kind::Relay),
            Scenario::TlsIdle => self.idle(Kind::RelayTls),
            Scenario::Stuck => self.stuck(),
            Scenario::Growth => self.growth(),
            Scenario::Pairs => self.pairs(),
            Scenario::Crowd => self.crowd(&[10, 100, 1_000, self.args.peers()]),
            Scenario::FanIn => self.crowd(&[1]),
            Scenario::Netbird => self.netbird(),
            Scenario::NetbirdLogin => self.netbird_login(),
            Scenario::NetbirdIdle => self.idle(Kind::Netbird),
            Scenario::NetbirdCluster => self.netbird_cluster(),
            Scenario::Bus => self.bus(),
            Scenario::BusIdle => self.bus_idle(),
            Scenario::BusPending => self.bus_pending(),
            Scenario::Middleman => self.middleman(),
            Scenario::Keyop => self.keyop(),
            Scenario::KeyopIdle => self.keyop_idle(),
            Scenario::KeyopOrder => self.keyop_order(),
            Scenario::Links => self.links(),
            Scenario::Scale => self.scale(),
        }
    }

    fn limit(&mut self, what: impl Into<String>, measured: f64, at_most: f64) {
        self.limits.push(Limit { what: what.into(), measured, at_most });
    }

    /// Each limit of what was measured, with its figure.
    fn print_limits(&mut self) -> anyhow::Result<()> {
        for Limit { what, measured, at_most } in &self.limits {
            let is_kept = measured <= at_most;
            self.report.row(
                "limits",
                &[
                    ("measured", Value::Number(*measured, 3)),
                    ("at most", Value::Number(*at_most, 3)),
                    ("kept", word(if is_kept { "yes" } else { "no" })),
                    ("what", word(what)),
                ],
            )?;
        }
        Ok(())
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
        let runs = self.args.common.runs;
        let measured = (1..=runs).map(|run| {
            progress(&format!("measuring: run {run} of {runs}"));
            measure()
        });
        measured.collect()
    }

    /// Measures all in turn, so that a slow moment of the machine meets each; the median of each,
    /// in their order.
    fn in_turn<S: Copy, T: Copy>(
        &self,
        subjects: &[S],
        measure: impl Fn(S) -> anyhow::Result<T>,
        key: impl Fn(&T) -> f64,
    ) -> anyhow::Result<Vec<(S, T)>> {
        let all = self.all_in_turn(subjects, measure)?;
        Ok(all.into_iter().map(|(subject, runs)| (subject, *median(&runs, &key))).collect())
    }

    /// Measures all in turn: the runs of each, in their order.
    fn all_in_turn<S: Copy, T: Copy>(
        &self,
        subjects: &[S],
        measure: impl Fn(S) -> anyhow::Result<T>,
    ) -> anyhow::Result<Vec<(S, Vec<T>)>> {
        let runs = self.runs(|| {
            subjects.iter().map(|subject| measure(*subject)).collect::<anyhow::Result<Vec<_>>>()
        })?;
        let of_subject = |(index, subject): (usize, &S)| {
            (*subject, runs.iter().filter_map(|run| run.get(index).copied()).collect())
        };
        Ok(subjects.iter().enumerate().map(of_subject).collect())
    }

    fn throughput(&mut self) -> anyhow::Result<()> {
        for cell in &self.args.cell {
            for size in &self.args.size {
                self.against_floor("throughput", &self.load(*cell, *size))?;
            }
        }
        Ok(())
    }

    fn pairs(&mut self) -> anyhow::Result<()> {
        for pairs in [8, 32, 64, 128, 256] {
            let load = Load { pairs, ..self.load(Cell::WssWss, 1_200) };
            self.against_floor("all pairs active", &load)?;
        }
        Ok(())
    }

    fn against_floor(&mut self, table: &'static str, load: &Load) -> anyhow::Result<()> {
        let measure = |kind| throughput::run(&self.servers, kind, load);
        let figures = self.in_turn(&[Kind::Relay, Kind::Floor], measure, cost)?;
        let floor = cost_of(&figures, Kind::Floor);
        for (kind, figures) in figures {
            let ratio = figures.cpu_us_per_packet / floor;
            let mut columns = load_columns(load, kind.word());
            columns.extend(figure_columns(&figures));
            columns.push(("× floor", Value::Number(ratio, 2)));
            self.report.row(table, &columns)?;
        }
        Ok(())
    }

    fn latency(&mut self) -> anyhow::Result<()> {
        for cell in &self.args.cell {
            let rate = self.rate(*cell);
            let measure = |kind| latency::run(&self.servers, kind, &rate);
            let p50 = |latency: &Latency| latency.p50_us;
            let figures = self.in_turn(&[Kind::Relay, Kind::Floor], measure, p50)?;
            let floor = figures.last().map_or(f64::NAN, |(_, floor)| floor.p50_us);
            for (kind, Latency { p50_us, p99_us, max_us, late_percent, loss_percent }) in figures {
                self.report.row(
                    "latency: 200 packets a second of each pair, 200 bytes",
                    &[
                        ("cell", word(cell.word())),
                        ("pairs", Value::Count(rate.pairs.into())),
                        ("server", word(kind.word())),
                        ("p50 µs", Value::Number(p50_us, 1)),
                        ("p99 µs", Value::Number(p99_us, 1)),
                        ("max µs", Value::Number(max_us, 1)),
                        ("late %", Value::Number(late_percent, 2)),
                        ("loss %", Value::Number(loss_percent, 2)),
                        ("× floor", Value::Number(p50_us / floor, 2)),
                    ],
                )?;
            }
        }
        Ok(())
    }

    fn stuck(&mut self) -> anyhow::Result<()> {
        let load = self.load(Cell::WssWss, 1_200);
        let runs = self.runs(|| stuck::run(&self.servers, &load))?;
        let stuck = median(&runs, |stuck| stuck.left_percent);
        self.report.row(
            "healthy pairs next to 8 readers that never read",
            &[
                ("pairs", Value::Count(load.pairs.into())),
                ("packets/s, readers absent", Value::Number(stuck.with_absent, 0)),
                ("packets/s, readers stuck", Value::Number(stuck.with_stuck, 0)),
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

fn cost(figures: &Figures) -> f64 {
    figures.cpu_us_per_packet
}

/// What a packet costs with one of those that were measured, in microseconds.
fn cost_of<S: Copy + PartialEq>(figures: &[(S, Figures)], subject: S) -> f64 {
    let found = figures.iter().find(|(measured, _)| *measured == subject);
    found.map_or(f64::NAN, |(_, figures)| figures.cpu_us_per_packet)
}

fn load_columns(load: &Load, server: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("cell", word(load.cell.word())),
        ("bytes", Value::Count(load.size as u64)),
        ("pairs", Value::Count(load.pairs.into())),
        ("server", word(server)),
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

//! What the door for NetBird's clients costs: packets, logins, idle connections, and a second relay.

use super::{Scenarios, cost, cost_of, figure_columns, load_columns, word};
use crate::netbird::PAYLOAD;
use crate::options::Cell;
use crate::report::Value;
use crate::subject::{Joined, Kind};
use crate::throughput::{self, Load};

/// The cells of the door: how a cell of the load is called there.
const fn word_of(cell: Cell) -> &'static str {
    match cell {
        Cell::WssWss => "WS→WS",
        Cell::WssUdp => "WS→QUIC",
        Cell::UdpWss => "QUIC→WS",
        Cell::UdpUdp => "QUIC→QUIC",
    }
}

/// What a packet costs at most, in multiples of the floor.
const FLOORS: f64 = 1.3;

impl Scenarios<'_> {
    pub(super) fn netbird(&mut self) -> anyhow::Result<()> {
        let floors = self.netbird_cell(Cell::WssWss, [Kind::Netbird, Kind::NetbirdFloor])?;
        self.limit("netbird WS→WS 1,312 B, × floor", floors, FLOORS);
        self.netbird_cell(Cell::UdpUdp, [Kind::NetbirdQuic, Kind::NetbirdQuicFloor])?;
        Ok(())
    }

    /// Compares a relay with its floor: what a packet costs there, in multiples of the floor.
    fn netbird_cell(&mut self, cell: Cell, kinds: [Kind; 2]) -> anyhow::Result<f64> {
        let load = self.load(cell, PAYLOAD);
        let measure = |kind| throughput::run(&self.servers, kind, &load);
        let all = self.in_turn(&kinds, measure, cost)?;
        let [relay, floor] = kinds.map(|kind| cost_of(&all, kind));
        for (kind, figures) in &all {
            let mut columns = netbird_columns(&load, kind.word());
            columns.extend(figure_columns(figures));
            columns.push(("× floor", Value::Number(figures.cpu_us_per_packet / floor, 2)));
            self.report.row("NetBird's protocol: throughput", &columns)?;
        }
        Ok(relay / floor)
    }

    pub(super) fn netbird_login(&mut self) -> anyhow::Result<()> {
        let (all, _) = self.logins([Kind::Netbird, Kind::NetbirdFloor])?;
        let [_, (_, floor)] = all;
        for (kind, login) in all {
            self.report.row(
                "NetBird's protocol: login",
                &[
                    ("server", word(kind.word())),
                    ("logins", Value::Count(login.logins.into())),
                    ("logins/s", Value::Number(login.per_second, 0)),
                    ("µs each", Value::Number(login.cpu_us_each, 1)),
                    ("× floor", Value::Number(login.cpu_us_each / floor.cpu_us_each, 2)),
                ],
            )?;
        }
        Ok(())
    }

    pub(super) fn netbird_cluster(&mut self) -> anyhow::Result<()> {
        let load = self.load(Cell::WssWss, PAYLOAD);
        let carriers = [None, Some(Joined::NetbirdMesh), Some(Joined::NetbirdNats)];
        let measure = |carrier| match carrier {
            None => throughput::run(&self.servers, Kind::Netbird, &load),
            Some(joined) => throughput::across(&self.servers, joined, &load),
        };
        let all = self.in_turn(&carriers, measure, cost)?;
        let one = cost_of(&all, None);
        for (carrier, figures) in &all {
            let mut columns = netbird_columns(&load, carrier.map_or("one relay", Joined::word));
            columns.extend(figure_columns(figures));
            columns.push(("× one relay", Value::Number(figures.cpu_us_per_packet / one, 2)));
            self.report.row("NetBird's protocol: through two relays, CPU of both", &columns)?;
        }
        Ok(())
    }
}

fn netbird_columns(load: &Load, server: &str) -> Vec<(&'static str, Value)> {
    let mut columns = load_columns(load, server);
    if let Some((_, cell)) = columns.iter_mut().find(|(name, _)| *name == "cell") {
        *cell = word(word_of(load.cell));
    }
    columns
}

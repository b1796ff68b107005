//! What TLS costs: in process, in the cheapest server, and in a proxy.

use super::{Scenarios, cost, cost_of, figure_columns, load_columns};
use crate::options::{Cell, Way};
use crate::report::Value;
use crate::subject::Kind;
use crate::throughput::{self, Load};
use crate::tls::CIPHER;

/// The size that limits speak of, in bytes.
const LIMITED: usize = 1_200;

/// What a packet costs at most, in multiples of the floor with TLS.
const FLOORS: f64 = 1.3;

/// What a packet costs at most, in multiples of Caddy with the relay.
///
/// The floor with TLS itself stands at 0.25 to 0.27: what is allowed here is 1.3 times that.
const CADDIES: f64 = 0.34;

impl Scenarios<'_> {
    pub(super) fn tls(&mut self) -> anyhow::Result<()> {
        let mut windows = self.args.tls_window.clone();
        if windows.is_empty() {
            windows = vec![self.args.common.window, 1];
            windows.dedup();
        }
        for cell in &self.args.cell {
            if cell.ways() == (Way::Udp, Way::Udp) {
                continue;
            }
            for size in &self.args.size {
                for window in &windows {
                    self.tls_cell(&Load { window: *window, ..self.load(*cell, *size) })?;
                }
            }
        }
        Ok(())
    }

    fn tls_cell(&mut self, load: &Load) -> anyhow::Result<()> {
        let kinds = [Kind::RelayTls, Kind::FloorTls, Kind::Caddy];
        let measure = |kind| throughput::run(&self.servers, kind, load);
        let all = self.in_turn(&kinds, measure, cost)?;
        let floor = cost_of(&all, Kind::FloorTls);
        let caddy = cost_of(&all, Kind::Caddy);
        for (kind, figures) in &all {
            let mut columns = load_columns(load, kind.word());
            columns.insert(3, ("window", Value::Count(load.window)));
            columns.extend(figure_columns(figures));
            let cost = figures.cpu_us_per_packet;
            columns.push(("× floor", Value::Number(cost / floor, 3)));
            columns.push(("× Caddy", Value::Number(cost / caddy, 3)));
            self.report.row(&format!("throughput with TLS 1.3, {CIPHER}"), &columns)?;
        }
        let relay = cost_of(&all, Kind::RelayTls);
        let is_limited = load.cell == Cell::WssWss && load.size == LIMITED;
        if is_limited && load.window == self.args.common.window {
            self.limit("WSS→WSS with TLS, 1,200 bytes, × floor with TLS", relay / floor, FLOORS);
            self.limit("WSS→WSS with TLS, 1,200 bytes, × Caddy + relay", relay / caddy, CADDIES);
        }
        Ok(())
    }
}

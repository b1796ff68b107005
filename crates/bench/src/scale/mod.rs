//! A simulated cluster: what relays tell each other about nodes that come, move and go.
//!
//! The relays decide by `beacon_proto::presence`, as real ones do; links, nodes and time are
//! simulated (`world`). Packets are no part of it.

mod meters;
mod nodes;
mod relay;
mod world;

use std::process;

use anyhow::Context as _;

pub(crate) use meters::Figures;
use world::World;

use crate::process::Usage;

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cluster {
    /// Relays, 2 at least.
    pub(crate) relays: usize,
    /// Nodes, all of which want to be connected.
    pub(crate) nodes: u32,
}

/// What happens to a cluster of which all nodes are connected, in this order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    /// All nodes log in, over 20 s.
    Start,
    /// One node in a hundred moves to another relay each second, for 30 s.
    Churn,
    /// The same, and eight relays restart one after the other, each within 10 s.
    RollingRestart,
    /// The same, and a relay dies without a word; the others notice it after 15 s.
    LostRelay,
}

impl Phase {
    pub(crate) const ALL: [Self; 4] =
        [Self::Start, Self::Churn, Self::RollingRestart, Self::LostRelay];

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Start => "all log in",
            Self::Churn => "1 % moves",
            Self::RollingRestart => "restarts",
            Self::LostRelay => "lost relay",
        }
    }
}

/// What a phase took.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) phase: Phase,
    pub(crate) figures: Figures,
    /// CPU time of the simulation for each control message, in microseconds: the presence of both
    /// ends, and the simulation itself.
    pub(crate) cpu_us_per_message: f64,
    /// Memory of the simulation for each relay, in MB.
    pub(crate) memory_mb: f64,
}

/// Plays all phases; `done` gets each as it ends.
///
/// # Errors
/// proc(5) does not answer, or `done` fails.
pub(crate) fn run(
    cluster: Cluster,
    mut done: impl FnMut(Row) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let usage = || Usage::of(process::id()).context("cannot read /proc/self");
    let before = usage()?;
    let mut world = World::new(cluster);
    for phase in Phase::ALL {
        let began = usage()?;
        let figures = world.play(phase);
        let ended = usage()?;
        let cpu_us = (ended.cpu - began.cpu).as_secs_f64() * 1e6;
        let memory = ended.anonymous.saturating_sub(before.anonymous);
        done(Row {
            phase,
            cpu_us_per_message: cpu_us / figures.messages as f64,
            memory_mb: memory as f64 / 1e6 / cluster.relays as f64,
            figures,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_finds_every_node_through_churn_restarts_and_a_loss() -> anyhow::Result<()> {
        let mut rows = Vec::new();
        run(Cluster { relays: 12, nodes: 3_000 }, |row| {
            rows.push(row);
            Ok(())
        })?;

        assert_eq!(rows.iter().map(|row| row.phase).collect::<Vec<_>>(), Phase::ALL);
        for Row { phase, figures, .. } in rows {
            assert!(figures.messages > 1_000, "{phase:?}: {figures:?}");
            // Nobody is looked up while all log in.
            assert_eq!(figures.found > 1_000, phase != Phase::Start, "{phase:?}: {figures:?}");
            assert_eq!(figures.lost_at_end, 0, "{phase:?}: {figures:?}");
        }
        Ok(())
    }
}

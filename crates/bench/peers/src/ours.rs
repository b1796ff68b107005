//! beacon-relay and the floor, as `beacon-bench` measures them.

use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use beacon_bench::closed_loop::Figures;
use serde_json::{Map, Value};

use crate::closed_loop::Load;
use crate::server::Channel;

/// The names of the floor and of the relay in their rows.
pub(crate) const FLOORS: [&str; 2] = ["floor", "floor, TLS"];
pub(crate) const RELAY_TLS: &str = "relay, TLS";

/// The rows of one measurement, each with the server that it is about.
type Rows = Vec<(String, Map<String, Value>)>;

/// Packets in the cell that `beacon-bench` calls by `word`, over this channel.
///
/// # Errors
/// `beacon-bench` fails, or prints other rows than this expects.
pub(crate) fn throughput(
    program: &str,
    word: &str,
    channel: Channel,
    load: &Load,
) -> anyhow::Result<Vec<(String, Figures)>> {
    let scenario = match channel {
        Channel::Plain => "throughput",
        Channel::Tls => "tls",
    };
    let window = load.window;
    let options = format!(
        "{scenario} --cell {word} --size {} --pairs {} --window {window} --tls-window {window} \
         --seconds {}",
        load.size,
        load.pairs,
        load.time.as_secs()
    );
    let figures = bench(program, &options)?.into_iter().map(|(server, row)| {
        let figures = Figures {
            packets_per_second: number(&row, "packets/s")?,
            cpu_us_per_packet: number(&row, "µs/packet")?,
            switches_per_packet: number(&row, "switches")?,
            loss_percent: number(&row, "loss %")?,
            memory_mb: number(&row, "memory MB")?,
        };
        Ok((server, figures))
    });
    figures.collect()
}

/// CPU time for a connection with its login, in microseconds.
///
/// # Errors
/// As [`throughput`].
pub(crate) fn login_us(program: &str, channel: Channel) -> anyhow::Result<Vec<(String, f64)>> {
    let scenario = match channel {
        Channel::Plain => "login",
        Channel::Tls => "tls-login",
    };
    let rows = bench(program, scenario)?.into_iter();
    rows.map(|(server, row)| Ok((server, number(&row, "µs each")?))).collect()
}

/// Memory for each of `count` connections that do nothing, in bytes.
///
/// # Errors
/// As [`throughput`].
pub(crate) fn idle_bytes(
    program: &str,
    channel: Channel,
    count: u32,
) -> anyhow::Result<Vec<(String, f64)>> {
    let scenario = match channel {
        Channel::Plain => "idle",
        Channel::Tls => "tls-idle",
    };
    let rows = bench(program, &format!("{scenario} --peers {count}"))?;
    let (server, row) =
        rows.into_iter().next().context("beacon-bench prints rows of idle connections")?;
    Ok(vec![(server, number(&row, "bytes each")?)])
}

fn bench(program: &str, options: &str) -> anyhow::Result<Rows> {
    let output = Command::new(program)
        .args(["--json", "--runs", "1", "--scenario"])
        .args(options.split_whitespace())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} --scenario {options}: {}", output.status);
    }
    let rows = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut servers = Vec::new();
    for line in rows {
        let row: Map<_, _> = serde_json::from_slice(line)?;
        // Limits, which are of the whole run, are of no server.
        if let Some(server) = row.get("server").and_then(Value::as_str) {
            servers.push((server.to_owned(), row));
        }
    }
    Ok(servers)
}

fn number(row: &Map<String, Value>, key: &str) -> anyhow::Result<f64> {
    row.get(key).and_then(Value::as_f64).with_context(|| format!("a row without {key}"))
}

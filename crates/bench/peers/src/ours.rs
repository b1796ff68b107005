//! beacon-relay and the floor, as `beacon-bench` measures them.

use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use beacon_bench::closed_loop::Figures;
use serde_json::{Map, Value};

use crate::closed_loop::Load;

/// The name of the floor in its rows.
pub(crate) const FLOOR: &str = "floor";

/// The rows of one measurement, each with the server that it is about.
type Rows = Vec<(String, Map<String, Value>)>;

/// Packets in the cell that `beacon-bench` calls by `word`.
///
/// # Errors
/// `beacon-bench` fails, or prints other rows than this expects.
pub(crate) fn throughput(
    program: &str,
    word: &str,
    load: &Load,
) -> anyhow::Result<Vec<(String, Figures)>> {
    let options = format!(
        "throughput --cell {word} --size {} --pairs {} --window {} --seconds {}",
        load.size,
        load.pairs,
        load.window,
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
pub(crate) fn login_us(program: &str) -> anyhow::Result<Vec<(String, f64)>> {
    let rows = bench(program, "login")?.into_iter();
    rows.map(|(server, row)| Ok((server, number(&row, "µs each")?))).collect()
}

/// Memory for each of `count` connections that do nothing, in bytes.
///
/// # Errors
/// As [`throughput`].
pub(crate) fn idle_bytes(program: &str, count: u32) -> anyhow::Result<Vec<(String, f64)>> {
    let rows = bench(program, &format!("idle --peers {count}"))?;
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
    let rows = rows.map(|line| {
        let row: Map<_, _> = serde_json::from_slice(line)?;
        let server = row.get("server").and_then(Value::as_str).context("a row names its server")?;
        Ok((server.to_owned(), row))
    });
    rows.collect()
}

fn number(row: &Map<String, Value>, key: &str) -> anyhow::Result<f64> {
    row.get(key).and_then(Value::as_f64).with_context(|| format!("a row without {key}"))
}

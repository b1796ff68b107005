//! Clusters: more and more real relays without peers, and a simulated one with many nodes.

use std::thread;

use super::{Scenarios, word};
use crate::report::{Value, progress};
use crate::scale::{self, Cluster, Row};
use crate::subject::Joined;

/// How many relays are started, and told of each other.
const STARTED: [usize; 4] = [2, 8, 16, 32];

/// The table of simulated clusters; scripts/scale knows it by this name.
const MESSAGES: &str = "what relays tell each other";

impl Scenarios<'_> {
    /// What links between relays cost.
    pub(super) fn links(&mut self) -> anyhow::Result<()> {
        for joined in [Joined::Mesh, Joined::Nats] {
            STARTED.into_iter().try_for_each(|count| self.idle_cluster(joined, count))?;
        }
        Ok(())
    }

    /// What relays tell each other. One cluster in a process: a second one would find the memory that
    /// the first has freed.
    pub(super) fn scale(&mut self) -> anyhow::Result<()> {
        let (relays, nodes) = (self.args.relays, self.args.cluster_nodes);
        let cluster = Cluster { relays: relays as usize, nodes };
        progress(&format!("simulating {relays} relays"));
        let report = &mut self.report;
        scale::run(cluster, |row| {
            report.row(MESSAGES, &messages(cluster, &row))?;
            Ok(())
        })
    }

    /// What relays without peers cost: their links.
    fn idle_cluster(&mut self, joined: Joined, count: usize) -> anyhow::Result<()> {
        progress(&format!("{count} relays"));
        let cluster = self.servers.cluster(joined, count)?;
        let time = self.args.common.time() * 3;
        // What they say to each other as they meet is over.
        thread::sleep(time);
        let (before, between_before) = cluster.usage()?;
        thread::sleep(time);
        let (after, between_after) = cluster.usage()?;
        let ms_per_second = |time: std::time::Duration| {
            time.as_secs_f64() * 1e3 / (self.args.common.time() * 3).as_secs_f64()
        };
        let (relays_cpu, between_cpu) =
            (after.cpu - before.cpu, between_after.cpu - between_before.cpu);
        self.report.row(
            "relays without peers",
            &[
                ("joined by", word(if joined == Joined::Nats { "NATS" } else { "mesh" })),
                ("relays", Value::Count(count as u64)),
                ("MB of each", Value::Number(after.anonymous as f64 / 1e6 / count as f64, 1)),
                ("CPU ms/s of each", Value::Number(ms_per_second(relays_cpu) / count as f64, 2)),
                ("NATS MB", Value::Number(between_after.anonymous as f64 / 1e6, 1)),
                ("NATS ms/s", Value::Number(ms_per_second(between_cpu), 2)),
            ],
        )?;
        Ok(())
    }
}

fn messages(cluster: Cluster, row: &Row) -> Vec<(&'static str, Value)> {
    let Row { phase, figures, cpu_us_per_message, memory_mb } = row;
    vec![
        ("relays", Value::Count(cluster.relays as u64)),
        ("links of each", Value::Count(cluster.relays as u64 - 1)),
        ("nodes", Value::Count(cluster.nodes.into())),
        ("phase", word(phase.word())),
        ("seconds", Value::Number(figures.seconds, 0)),
        ("messages/s of each", Value::Number(figures.messages_per_relay, 0)),
        ("most", Value::Count(figures.most_messages)),
        ("kB/s of each", Value::Number(figures.bytes_per_relay / 1e3, 1)),
        ("most kB", Value::Count(figures.most_bytes / 1_000)),
        ("find p50 ms", Value::Count(figures.p50_ms)),
        ("p99 ms", Value::Count(figures.p99_ms)),
        ("longest ms", Value::Count(figures.longest_ms)),
        ("found", Value::Count(figures.found)),
        ("dialling", Value::Count(figures.missing)),
        ("not found", Value::Count(figures.not_found)),
        ("lost at end", Value::Count(figures.lost_at_end)),
        ("µs/message", Value::Number(*cpu_us_per_message, 2)),
        ("MB of each", Value::Number(*memory_mb, 1)),
    ]
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;
    use crate::report::Report;
    use crate::scale::Phase;

    const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

    #[test]
    fn rows_replace_the_table_of_the_document() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let (rows, document) = (folder.path().join("rows"), folder.path().join("SCALE.md"));
        fs::copy(format!("{ROOT}/docs/SCALE.md"), &document)?;
        let mut report = Report::new(fs::File::create(&rows)?, true, 0);
        let cluster = Cluster { relays: 3, nodes: 200 };
        scale::run(cluster, |row| Ok(report.row(MESSAGES, &messages(cluster, &row))?))?;

        let script =
            Command::new(format!("{ROOT}/scripts/scale")).args([&document, &rows]).output()?;

        assert!(script.status.success(), "{}", String::from_utf8_lossy(&script.stderr));
        let text = fs::read_to_string(document)?;
        let table = text.split("<!-- clusters begin -->\n").nth(1);
        let table = table.and_then(|table| table.split("<!-- clusters end -->").next());
        let lines: Vec<_> = table.into_iter().flat_map(str::lines).collect();
        assert!(lines[0].ends_with(" | not found | lost at end | MB of each |"), "{lines:?}");
        let phases = Phase::ALL.map(|phase| format!("| 3 | {} | ", phase.word()));
        assert_eq!(lines.len(), 2 + phases.len(), "{lines:?}");
        for (line, phase) in lines[2..].iter().zip(&phases) {
            assert!(line.starts_with(phase), "{line}");
        }
        // The other table is kept.
        assert!(text.contains("| mesh | 32 |"), "{text}");
        Ok(())
    }
}

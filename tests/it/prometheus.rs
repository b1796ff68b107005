//! The real Prometheus and its promtool against the relay's /metrics.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;

use crate::deploy::{deploy, put_in};
use crate::harness::{PATIENCE, Program, Relay, http_get, look_until};

#[test]
fn promtool_finds_no_fault_in_the_metrics() {
    let relay = Relay::start([] as [&str; 0]);

    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is missing; `make setup` installs it");
    promtool.stdin.take().unwrap().write_all(relay.metrics().as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();

    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.is_empty(), "{}: {said}", output.status);
}

#[test]
fn prometheus_scrapes_the_relay() {
    let relay = Relay::start([] as [&str; 0]);
    let prometheus = Prometheus::start(&[&relay]);
    prometheus.wait_for(&["1"], "up");
    prometheus.wait_for(&["0"], "pilot_beacon_wss_active");
}

/// Prometheus, with deploy/prometheus/prometheus.yml and its alerts.
pub(crate) struct Prometheus {
    program: Program,
    address: SocketAddr,
    _folder: TempDir,
}

impl Prometheus {
    /// Scrapes these relays five times a second.
    pub(crate) fn start(relays: &[&Relay]) -> Self {
        Self::start_with(relays, str::to_owned)
    }

    /// The same, with the alerts changed.
    pub(crate) fn start_with(relays: &[&Relay], change: impl FnOnce(&str) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("prometheus.yml");
        let targets: Vec<_> = relays.iter().map(|relay| format!("\"{}\"", relay.admin)).collect();
        let text = put_in(
            "prometheus/prometheus.yml",
            &[
                (
                    "interval: 15s\n  evaluation_interval: 15s",
                    "interval: 200ms\n  scrape_timeout: 200ms\n  evaluation_interval: 500ms",
                ),
                ("\"127.0.0.1:9464\"", &targets.join(", ")),
            ],
        );
        fs::write(&config, text).unwrap();
        let alerts = fs::read_to_string(deploy("prometheus/alerts.yml")).unwrap();
        fs::write(folder.path().join("alerts.yml"), change(&alerts)).unwrap();
        let program = Program::start(
            Command::new("prometheus")
                .arg("--config.file")
                .arg(&config)
                .arg("--storage.tsdb.path")
                .arg(folder.path().join("data"))
                .args(["--web.listen-address", "127.0.0.1:0"]),
        );
        let line = program.wait_for_line("msg=\"Listening on\"");
        let address = line.split("address=").nth(1).unwrap().trim().parse().unwrap();
        Self { program, address, _folder: folder }
    }

    /// The values that a query has at the moment: one for each series.
    pub(crate) fn query(&self, query: &str) -> Vec<String> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let (status, body) = http_get(self.address, &format!("/api/v1/query?query={encoded}"));
        // Until its storage is open, Prometheus answers 503.
        if status == 503 {
            return Vec::new();
        }
        assert_eq!(status, 200, "{query}: {body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        let series = answer.pointer("/data/result").and_then(Value::as_array).unwrap();
        let value = |one: &Value| one.pointer("/value/1").unwrap().as_str().unwrap().to_owned();
        series.iter().map(value).collect()
    }

    /// Waits until a query has these values.
    pub(crate) fn wait_for(&self, values: &[&str], query: &str) {
        let scraped = || (self.query(query) == values).then_some(());
        look_until(Instant::now() + PATIENCE, scraped)
            .unwrap_or_else(|| panic!("{query} is not {values:?}:\n{}", self.program.log()));
    }
}

//! The real Prometheus and its promtool against the relay's /metrics.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

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
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("prometheus.yml");
    let text = format!(
        "scrape_configs:\n- job_name: relay\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  \
         static_configs: [{{ targets: ['{}'] }}]\n",
        relay.admin
    );
    fs::write(&config, text).unwrap();

    let prometheus = Program::start(
        Command::new("prometheus")
            .arg("--config.file")
            .arg(&config)
            .arg("--storage.tsdb.path")
            .arg(folder.path().join("data"))
            .args(["--web.listen-address", "127.0.0.1:0"]),
    );
    let line = prometheus.wait_for_line("msg=\"Listening on\"");
    let address = line.split("address=").nth(1).unwrap().trim().parse().unwrap();

    wait_for_sample(address, "up", "1", &prometheus);
    wait_for_sample(address, "pilot_beacon_wss_active", "0", &prometheus);
}

/// Waits until Prometheus has this value for `metric`.
fn wait_for_sample(address: SocketAddr, metric: &str, value: &str, prometheus: &Program) {
    let scraped = look_until(Instant::now() + PATIENCE, || {
        let (status, body) = http_get(address, &format!("/api/v1/query?query={metric}"));
        // Until its storage is open, Prometheus answers 503.
        if status != 200 {
            return None;
        }
        let answer: Value = serde_json::from_str(&body).unwrap();
        let sample = answer.pointer("/data/result/0/value/1").and_then(Value::as_str);
        (sample == Some(value)).then_some(())
    });
    scraped.unwrap_or_else(|| panic!("{metric} is not {value}:\n{}", prometheus.log()));
}

//! The program as it is used: short measurements of the relay that was built with it.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_beacon-bench");

fn bench(arguments: &str) -> Output {
    Command::new(PROGRAM).args(arguments.split_whitespace()).output().unwrap()
}

fn rows(text: &[u8]) -> Vec<Value> {
    serde_json::Deserializer::from_slice(text).into_iter().collect::<Result<_, _>>().unwrap()
}

/// The relay is in the same folder once the workspace is built; cargo builds it for its own
/// tests, not for these alone.
#[test]
fn relay_is_measured_beside_the_floor_and_across_a_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.jsonl");
    let output = bench(&format!(
        "--scenario throughput,cluster --cell wss-udp --size 64 --pairs 1 --window 16 \
         --seconds 1 --runs 1 --json --rows {}",
        file.display()
    ));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}; `cargo build` makes the relay");

    let [relay, floor, cluster] = &*rows(&output.stdout) else { panic!("{output:?}") };
    for (row, server) in [(relay, "relay"), (floor, "floor")] {
        assert_eq!((&row["table"], &row["server"]), (&"throughput".into(), &server.into()));
        assert_eq!((&row["cell"], &row["bytes"]), (&"WSS→UDP".into(), &64.into()));
        assert!(row["packets/s"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["µs/packet"].as_f64().unwrap() > 0.0, "{row}");
    }
    assert_eq!(floor["× floor"], 1.0);
    assert!(cluster["p50 µs across"].as_f64().unwrap() > 0.0, "{cluster}");
    assert_eq!(fs::read(file).unwrap(), output.stdout);
}

#[test]
fn relay_that_is_not_there_is_named() {
    let output = bench("--scenario login --beacon-relay /nonexistent/relay");
    assert!(!output.status.success());
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "beacon-bench: there is no /nonexistent/relay to measure; build it, or name one with \
         --beacon-relay\n"
    );
}

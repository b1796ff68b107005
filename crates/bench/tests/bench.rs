//! The program as it is used: short measurements of the relay that was built with it.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
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
fn relay_is_compared_with_the_floor_and_measured_across_a_cluster() {
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

/// Short measurements of a scenario, whose rows these are.
fn measure(scenario: &str, further: &str) -> Vec<Value> {
    let output = bench(&format!(
        "--scenario {scenario} --size 64 --pairs 1 --seconds 1 --runs 1 --json {further}"
    ));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}; `cargo build` makes the relay");
    rows(&output.stdout)
}

/// Each server of a table, all of which have delivered packets.
fn servers(rows: &[Value]) -> Vec<&str> {
    for row in rows {
        assert!(row["packets/s"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["µs/packet"].as_f64().unwrap() > 0.0, "{row}");
    }
    rows.iter().map(|row| row["server"].as_str().unwrap()).collect()
}

#[test]
fn tls_in_process_is_compared_with_the_floor_and_with_caddy() {
    let rows = measure("tls", "--cell wss-udp --window 16");

    let one_window = ["relay, TLS", "floor, TLS", "Caddy + relay"];
    assert_eq!(servers(&rows), [one_window, one_window].concat());
    let windows: Vec<_> = rows.iter().map(|row| row["window"].as_u64().unwrap()).collect();
    assert_eq!(windows, [16, 16, 16, 1, 1, 1]);
    assert!(rows.iter().all(|row| row["× Caddy"].as_f64().unwrap() > 0.0), "{rows:?}");
}

#[test]
fn packets_reach_tls_peers_from_datagrams() {
    let rows = measure("tls", "--cell udp-wss --window 1");

    assert_eq!(servers(&rows), ["relay, TLS", "floor, TLS", "Caddy + relay"]);
}

#[test]
fn two_relays_are_compared_with_one_and_with_two_floors() {
    let rows = measure("cluster-throughput", "--cell wss-udp --window 16");

    let expected = [
        "one relay",
        "two relays, mesh",
        "two relays, NATS",
        "two floors, TLS/TCP",
        "two floors, QUIC",
    ];
    assert_eq!(servers(&rows), expected);
    assert_eq!(rows[0]["× one relay"], 1.0);
    assert_eq!(rows[3]["× two floors"], 1.0);
}

#[test]
fn limits_follow_the_figures_that_they_are_about() {
    let rows = measure("tls-login,tls-idle", "--logins 20 --peers 20");

    let [relay, floor, idle, limit] = &*rows else { panic!("{rows:?}") };
    for (row, server) in [(relay, "relay, TLS"), (floor, "floor, TLS")] {
        assert_eq!((&row["server"], &row["logins"]), (&server.into(), &20.into()));
        assert!(row["logins/s"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["µs each"].as_f64().unwrap() > 0.0, "{row}");
    }
    assert!(idle["bytes each"].as_f64().unwrap() > 0.0, "{idle}");
    assert_eq!(limit["table"], "limits");
    let is_kept = limit["measured"].as_f64() <= limit["at most"].as_f64();
    assert_eq!(limit["kept"], if is_kept { "yes" } else { "no" });
}

#[test]
fn door_for_netbirds_clients_is_compared_with_its_floors_and_limited() {
    let rows = measure("netbird,netbird-login", "--window 16 --logins 20");

    let [websocket @ .., of_login, of_floor, limit] = &*rows else { panic!("{rows:?}") };
    assert_eq!(servers(websocket), ["relay", "floor", "relay", "floor"]);
    let cells: Vec<_> = websocket.iter().map(|row| row["cell"].as_str().unwrap()).collect();
    assert_eq!(cells, ["WS→WS", "WS→WS", "QUIC→QUIC", "QUIC→QUIC"]);
    assert!(websocket.iter().all(|row| row["bytes"] == 1_312), "{websocket:?}");
    for row in [of_login, of_floor] {
        assert!(row["µs each"].as_f64().unwrap() > 0.0, "{row}");
    }
    assert_eq!(limit["what"], "netbird WS→WS 1,312 B, × floor");
    assert_eq!(limit["at most"], 1.3);
}

#[test]
fn durable_messages_are_compared_with_a_floor_and_with_brokers_and_limited() {
    let rows = measure("bus", "");

    let (measured, limits) = rows.split_at(10);
    let each = ["relay", "floor", "JetStream", "Redis streams", "relay over JetStream"];
    for (row, server) in measured.iter().zip([each, each].concat()) {
        assert_eq!((&row["server"], &row["bytes"]), (&server.into(), &256.into()));
        assert!(row["messages/s"].as_f64().unwrap() > 0.0, "{row}");
        // Of one message that a busy disk took in a second, there is no more to say.
        for figure in ["µs/message", "p50 µs"] {
            assert!(row[figure].as_f64().unwrap() >= 0.0, "{row}");
        }
    }
    let disk: Vec<_> = measured.iter().map(|row| row["on disk"].as_str().unwrap()).collect();
    let interval = ["each 200 ms", "each 200 ms", "each 200 ms", "each second", "each 200 ms"];
    assert_eq!(disk, [interval, ["always"; 5]].concat());
    let at_most: Vec<_> = limits.iter().map(|limit| limit["at most"].as_f64().unwrap()).collect();
    assert_eq!(at_most, [1.0, 0.75, 1.0, 2.0, 2.0]);
}

#[test]
fn publications_and_requests_are_compared_with_nats_and_limited() {
    let rows = measure("middleman", "");

    let (measured, limits) = rows.split_at(4);
    let servers: Vec<_> = measured.iter().map(|row| row["server"].as_str().unwrap()).collect();
    assert_eq!(servers, ["relay", "NATS", "relay", "NATS"]);
    for row in measured {
        assert_eq!(row["bytes"], 256);
        for figure in ["messages/s", "µs/message", "p50 µs"] {
            assert!(row[figure].as_f64().unwrap() > 0.0, "{row}");
        }
    }
    let at_most: Vec<_> = limits.iter().map(|limit| limit["at most"].as_f64().unwrap()).collect();
    assert_eq!(at_most, [1.0, 2.2]);
}

#[test]
fn messages_that_wait_arrive_in_order_after_a_restart_and_idle_peers_are_measured() {
    let rows = measure("bus-idle,bus-pending", "--messages 2000 --peers 20");

    let [idle, waiting, limits @ ..] = &*rows else { panic!("{rows:?}") };
    assert!(idle["bytes each"].as_f64().unwrap() > 0.0, "{idle}");
    assert!(waiting["messages"].as_u64().unwrap() >= 2_000, "{waiting}");
    for figure in ["memory MB", "start s", "first ms", "drained/s"] {
        assert!(waiting[figure].as_f64().unwrap() > 0.0, "{waiting}");
    }
    assert_eq!(limits.len(), 4, "{limits:?}");
}

/// A benchmark that goes on until somebody ends it.
struct Going(Child);

impl Drop for Going {
    fn drop(&mut self) {
        // Both fail only where it has ended before.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Looks again and again until something is there, for 20 s at most.
fn look_until<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        if let Some(found) = look() {
            return Some(found);
        }
        thread::sleep(Duration::from_millis(10));
    }
    None
}

/// A field of what proc(5) says of a process; `None` where there is no such process.
fn status(id: &str, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    status.lines().find_map(|line| Some(line.strip_prefix(field)?.trim().to_owned()))
}

/// The relay that a process has started.
fn relay_of(parent: u32) -> Option<String> {
    let ids = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let parent = parent.to_string();
    let mut relays = ids.filter(|id| status(id, "Name:").as_deref() == Some("beacon-relay"));
    relays.find(|id| status(id, "PPid:").as_ref() == Some(&parent))
}

#[test]
fn servers_end_with_a_benchmark_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    for signal in [Signal::KILL, Signal::TERM] {
        let mut command = Command::new(PROGRAM);
        command.args(["--scenario=throughput", "--cell=wss-wss", "--size=64", "--pairs=1"]);
        command.args(["--runs=1", "--seconds=60"]).stdout(Stdio::null());
        // What it leaves behind goes with this folder.
        let mut bench = Going(command.env("TMPDIR", folder.path()).spawn().unwrap());
        let relay = look_until(|| relay_of(bench.0.id()));
        let relay = relay.expect("it starts a relay; `cargo build` makes one");

        kill_process(Pid::from_child(&bench.0), signal).unwrap();
        assert!(!bench.0.wait().unwrap().success());

        let ended = look_until(|| {
            let state = status(&relay, "State:");
            state.is_none_or(|state| state.starts_with('Z')).then_some(())
        });
        if ended.is_none() {
            kill_process(Pid::from_raw(relay.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
        }
        assert!(ended.is_some(), "the relay goes on after {signal:?}");
    }
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

#[test]
fn numbers_that_measure_nothing_are_refused() {
    let wrong = [
        (
            "--window 0",
            "'0' for '--window <N>': nothing would be measured; give a whole number from 1 to 1000000",
        ),
        (
            "--pairs 0",
            "'0' for '--pairs <N>': nothing would be measured; give a whole number from 1 to 1000",
        ),
        (
            "--seconds 0",
            "'0' for '--seconds <S>': nothing would be measured; give a whole number from 1 to 86400",
        ),
        (
            "--runs 0",
            "'0' for '--runs <N>': nothing would be measured; give a whole number from 1 to 1000",
        ),
        (
            "--nodes 0",
            "'0' for '--nodes <N>': nothing would be measured; give a whole number from 1 to 1000000",
        ),
        (
            "--peers 0",
            "'0' for '--peers <N>': nothing would be measured; give a whole number from 1 to 1000000",
        ),
        (
            "--size 64,0",
            "'0' for '--size <BYTES>': nothing would be measured; give a whole number from 1 to 65498",
        ),
        (
            "--size 65499",
            "'65499' for '--size <BYTES>': more than can be measured; give a whole number from 1 to 65498",
        ),
        (
            "--window many",
            "'many' for '--window <N>': not such a number; give a whole number from 1 to 1000000",
        ),
        (
            "--window -1",
            "'-1' for '--window <N>': not such a number; give a whole number from 1 to 1000000",
        ),
    ];
    for (arguments, expected) in wrong {
        let output = bench(&arguments.replacen(' ', "=", 1));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments}: {stderr}");
        assert!(stderr.starts_with(&format!("error: invalid value {expected}\n")), "{stderr}");
    }
    assert!(bench("--help").status.success());
}

#[test]
fn records_of_channels_are_compared_with_their_floor_and_jetstream_and_limited() {
    let rows = measure("keyop,keyop-idle,keyop-order", "--messages 2000 --peers 20");

    let [measured @ .., idle, order, rate, cpu, bytes] = &*rows else { panic!("{rows:?}") };
    let servers = ["relay, gRPC and TLS", "floor, gRPC and TLS", "JetStream"];
    for (row, server) in measured.iter().zip(servers) {
        assert_eq!(row["server"], server);
        assert_eq!(row["bytes"], 256);
        for figure in ["records/s", "µs/record", "p50 µs"] {
            assert!(row[figure].as_f64().unwrap() > 0.0, "{row}");
        }
    }
    assert_eq!(measured.len(), 3, "one pair is measured once");
    assert!(idle["bytes each"].as_f64().unwrap() > 0.0, "{idle}");
    assert_eq!(order["records"], 2_000);
    assert!(order["records/s"].as_f64().unwrap() > 0.0, "{order}");
    let at_most = [rate, cpu, bytes].map(|limit| limit["at most"].as_f64().unwrap());
    assert_eq!(at_most, [1.43, 1.5, 65_536.0]);
}

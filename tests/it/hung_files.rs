//! Files that do not answer, as on a network disk that is gone: here FIFOs that nobody writes.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::control::say;
use crate::harness::{Node, Program, Relay, http_get};
use crate::peer::Peer;

/// Says that a reload has begun.
const READING: &str = "reading settings and keys again";

/// A relay with one node, that reads for ever once it was told to reload.
fn relay_that_reads_for_ever(drain_time: &str) -> Relay {
    let relay = Relay::with_nodes(&[&Node::new(1)], &["--drain-time", drain_time]);
    hang(&relay.keys().join("keys.json"));
    relay.signal("HUP");
    relay.wait_for_line(READING);
    relay
}

/// Makes a file one that does not answer.
fn hang(path: &Path) {
    let _absent = fs::remove_file(path);
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn reload_of_a_hung_key_file_made_the_relay_deaf_to_sigterm() {
    let mut relay = relay_that_reads_for_ever("0s");
    relay.signal("TERM");
    assert_eq!(relay.wait_for_end(), 0);
}

#[test]
fn reload_of_a_hung_key_file_made_the_relay_deaf_to_the_second_signal() {
    let mut relay = relay_that_reads_for_ever("60s");
    let _peer = Peer::log_in(relay.wss, &Node::new(1));
    relay.signal("TERM");
    relay.wait_for_line("draining");
    // Half a second later it is another one.
    assert_eq!(relay.signal_until_gone("TERM"), 1);
}

#[test]
fn reloads_of_a_hung_key_file_made_the_relay_deaf_to_operators() {
    let mut relay = relay_that_reads_for_ever("0s");
    let mut reload = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    reload.arg("reload").arg("--state-dir").arg(relay.state_dir());
    reload.stdout(Stdio::null()).stderr(Stdio::null());
    // More than may wait: the others are refused.
    let mut waiting: Vec<_> = (0..6).map(|_| reload.spawn().unwrap()).collect();
    relay.wait_for_metric("pilot_beacon_reloads_total{result=\"busy\"}", 4.0);
    assert_eq!(http_get(relay.admin, "/healthz").0, 200);
    say(&relay, &["log-level", "debug"]);
    say(&relay, &["drain"]);
    assert_eq!(relay.wait_for_end(), 0);
    for asked in &mut waiting {
        assert!(!asked.wait().unwrap().success());
    }
}

#[test]
fn start_with_a_hung_key_file_was_deaf_to_sigterm() {
    let folder = TempDir::new().unwrap();
    let keys = folder.path().join("keys.json");
    hang(&keys);
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    command.args(["serve", "--log-level", "debug", "--state-dir"]).arg(folder.path());
    command.arg("--keys").arg(&keys);
    let mut relay = Program::start(&mut command);
    relay.wait_for_line("starting");
    let id = relay.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    relay.wait_for_success();
}

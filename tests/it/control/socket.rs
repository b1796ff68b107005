//! The control socket: whose it is, what becomes of a stale one, and what abuse costs.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{ask, audit, fail, run, say};
use crate::harness::{PATIENCE, Program, Relay};

fn connect(relay: &Relay) -> UnixStream {
    let stream = UnixStream::connect(relay.state_dir().join("control.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What the relay answers to these bytes.
fn send(relay: &Relay, request: &[u8]) -> String {
    let mut stream = connect(relay);
    // The relay may have heard enough before all of it.
    let _ = stream.write_all(request).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn socket_is_its_owners_alone() {
    let relay = Relay::start::<&str>([]);
    let file = fs::metadata(relay.state_dir().join("control.sock")).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    assert_eq!(send(&relay, b"{\"action\":\"peers\"}\n").lines().count(), 1);
}

#[test]
fn command_without_a_relay_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (code, error) = fail(folder.path(), &["status"]);
    assert_eq!(code, 69);
    let advice = "start one, or name its state folder with --state-dir";
    assert!(error.contains("control.sock") && error.contains(advice), "{error}");
    assert_eq!(error.lines().count(), 1);
}

#[test]
fn broken_configuration_is_no_concern_of_who_names_the_state_folder() {
    let relay = Relay::start::<&str>([]);
    let file = relay.state_dir().join("broken.toml");
    fs::write(&file, "no TOML").unwrap();
    let command = |state_dir: Option<&Path>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
        command.arg("peers").env("BEACON_RELAY_CONFIG", &file);
        command.args(state_dir.map(|folder| [Path::new("--state-dir"), folder]).iter().flatten());
        command.output().unwrap().status.code()
    };
    assert_eq!(command(Some(relay.state_dir())), Some(0));
    assert_eq!(command(None), Some(78));
}

fn serve(folder: &Path) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    command.arg("serve").arg("--state-dir").arg(folder);
    for bind in ["--wss-bind", "--udp-bind", "--admin-bind"] {
        command.args([bind, "127.0.0.1:0"]);
    }
    let program = Program::start(&mut command);
    program.wait_for_line("listening");
    program
}

#[test]
fn second_relay_of_a_state_folder_is_refused_unless_the_first_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    // Dropping it kills it.
    drop(serve(folder.path()));
    assert!(folder.path().join("control.sock").exists());
    assert_eq!(fail(folder.path(), &["status"]).0, 69);

    let _first = serve(folder.path());
    assert!(run(folder.path(), &["peers"]).status.success());
    let (code, error) =
        fail(folder.path(), &["serve", "--wss-bind=127.0.0.1:0", "--udp-bind=127.0.0.1:0"]);
    assert_eq!(code, 69);
    assert!(error.contains("another relay runs with it (process "), "{error}");
    assert!(error.contains("give this one another folder"), "{error}");
    assert!(run(folder.path(), &["peers"]).status.success(), "the first one still answers");
}

#[test]
fn request_that_is_none_or_too_long_is_refused() {
    let relay = Relay::start::<&str>([]);
    let long = [b"{\"action\":\"".as_slice(), &[b'a'; 70_000], b"\"}\n"].concat();
    for (request, part) in [
        (b"".as_slice(), "not a request"),
        (b"\n", "not a request"),
        (b"GET / HTTP/1.1\r\n\r\n", "not a request"),
        (b"{\"action\":\"shutdown\"}\n", "unknown variant"),
        (b"{\"action\":\"kick\",\"node\":0}\n", "expected a node's number from 1 to 4294967295"),
        (b"{\"action\":\"kick\",\"node\":7,\"all\":true}\n", "unknown field"),
    ] {
        let answer = send(&relay, request);
        assert!(answer.starts_with("{\"") && answer.contains(part), "{answer}");
        assert!(answer.contains("\"ok\":false"), "{answer}");
    }
    assert!(send(&relay, &long).contains("65536 bytes at most"));
    relay.wait_for_metric("pilot_beacon_control_rejects_total{reason=\"malformed\"}", 6.0);
    relay.wait_for_metric("pilot_beacon_control_rejects_total{reason=\"too_large\"}", 1.0);
    assert!(!relay.state_dir().join("audit.jsonl").exists(), "nothing was done");
}

#[test]
fn first_line_is_the_request_and_nothing_after_it_is_done() {
    let relay = Relay::start::<&str>([]);
    let answer = send(&relay, b"{\"action\":\"status\"}\n{\"action\":\"peers\"}\n");
    assert!(answer.starts_with("{\"ok\":true") && answer.contains("uptime_seconds"), "{answer}");
    assert_eq!(answer.lines().count(), 1);
    let done: Vec<_> = audit(&relay).iter().map(|line| line["action"].clone()).collect();
    assert_eq!(done, ["status"]);
}

#[test]
fn silent_clients_keep_nobody_out_and_cost_little() {
    let relay = Relay::start::<&str>([]);
    let before = relay.descriptors();
    // Each is accepted, says a little and no more.
    let silent: Vec<_> = (0..1_000)
        .map(|_| {
            let mut stream = connect(&relay);
            stream.write_all(b"{").unwrap();
            stream
        })
        .collect();
    let began = Instant::now();
    assert_eq!(ask(&relay, &["status"])["phase"], "running");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    // Eight of them stay; the scrape that counts them has a connection as well.
    let during = relay.descriptors();
    assert!(during <= before + 12, "{before} descriptors, then {during}");
    let evicted = "pilot_beacon_control_rejects_total{reason=\"crowded_out\"}";
    assert!(relay.metric(evicted) >= 900.0);
    drop(silent);
    say(&relay, &["status"]);
}

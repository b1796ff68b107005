//! How the server ends: with its input, by a signal, in a bounded time whatever the relay does.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Pass, read};
use crate::harness::Program;
use crate::peerbus::Site;

/// Hosts kill what has not ended after two seconds. A busy machine gets more.
pub(super) const PROMPT: Duration = Duration::from_secs(10);

pub(super) fn start(pass: &Pass) -> Child {
    start_with(pass, "alice", &[])
}

pub(super) fn start_with(pass: &Pass, name: &str, more: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_beacon-relay"))
        .args(pass.arguments(name, more))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

pub(super) fn request(id: u32, method: &str, params: &Value) -> String {
    format!("{}\n", json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
}

/// What a host says first.
pub(super) fn hello() -> String {
    let params = json!({
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "0"},
    });
    let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    format!("{}{initialized}\n", request(0, "initialize", &params))
}

pub(super) fn call(id: u32, tool: &str, arguments: &Value) -> String {
    request(id, "tools/call", &json!({"name": tool, "arguments": arguments}))
}

#[test]
fn script_that_ends_its_input_gets_all_answers_and_nothing_else() {
    let site = Site::start(&[]);
    let mut child = start(&Pass::of(&site));
    let mut input = child.stdin.take().unwrap();
    let script = [
        hello(),
        "this is no JSON\n".to_owned(),
        call(1, "bus.send", &json!({"to": "alice", "body": "hello"})),
        call(2, "bus.peers", &json!({})),
    ];
    input.write_all(script.concat().as_bytes()).unwrap();
    drop(input);
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(child.wait().unwrap().success());
    let messages: Vec<Value> =
        output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(messages.iter().all(|message| message["jsonrpc"] == "2.0"), "{output}");
    for id in 0..=2 {
        let answer = messages.iter().find(|message| message["id"] == id).expect(&output);
        assert!(answer["error"].is_null(), "{answer}");
    }
}

#[test]
fn server_ends_with_its_input_though_the_relay_says_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let pass = Pass::at(silent.local_addr().unwrap(), folder.path(), "tok");
    let mut child = start(&pass);
    let mut input = child.stdin.take().unwrap();
    let waiting = call(1, "bus.wait", &json!({"timeout_ms": 60_000}));
    let sending = call(2, "bus.send", &json!({"to": "bob", "body": 1}));
    input.write_all([hello(), waiting, sending].concat().as_bytes()).unwrap();
    // It dials.
    let (_connection, _) = silent.accept().unwrap();
    let ended = Instant::now();
    drop(input);
    assert!(child.wait().unwrap().success());
    assert!(ended.elapsed() < PROMPT, "{:?}", ended.elapsed());
}

#[test]
fn server_ends_by_a_signal_though_nobody_reads_its_output() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let pass = Pass::at(silent.local_addr().unwrap(), folder.path(), "tok");
    let mut child = start(&pass);
    let mut input = child.stdin.take().unwrap();
    input.write_all(hello().as_bytes()).unwrap();
    let mut byte = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
    // More than a pipe holds.
    for id in 1..200 {
        input.write_all(request(id, "tools/list", &json!({})).as_bytes()).unwrap();
    }
    let ended = Instant::now();
    let kill = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(kill.unwrap().success());
    assert!(child.wait().unwrap().success());
    assert!(ended.elapsed() < PROMPT, "{:?}", ended.elapsed());
}

#[test]
fn settings_that_are_of_no_use_are_one_line_and_an_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let pass = Pass::at("127.0.0.1:1".parse().unwrap(), folder.path(), "hunter2-token");
    let token = pass.token.to_str().unwrap();
    for (arguments, line) in [
        (&["--url=http://user:hunter2@a", "--name=a", "--token-file", token][..], "--url = "),
        (&["--name=a", "--token-file", token], "--url or PEERBUS_URL is missing"),
        (&["--url=ws://a", "--name=a", "--tool-separator=/"], "--tool-separator"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
        let mut program = Program::start(command.arg("mcp").args(arguments));
        program.wait_for_end();
        let log = program.log();
        assert!(log.contains(line), "{log}");
        assert!(!log.contains(&read(&pass.token)) && !log.contains("hunter2"), "{log}");
    }
}

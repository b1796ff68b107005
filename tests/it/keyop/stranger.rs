//! Runs tests/stranger/keyop_*.py, which were written from a description of the wire alone: a program of
//! each generation, and records of both through the relay.

use std::process::{Command, Stdio};

use super::{HUB, Site};
use crate::deploy::{root, tools};
use crate::harness::Program;

/// What the stranger over gRPC says of each step.
const STEPS_OF_GRPC: [&str; 6] = [
    "vectors hold",
    "refused with the recorded statuses",
    "subscribed",
    "published, and known when published again",
    "got the answers in order, once",
    "came back for what it had not acknowledged",
];

/// And the one over WebSocket.
const STEPS_OF_WEBSOCKET: [&str; 3] =
    ["refused without a word", "subscribed", "answered all that came, once"];

/// Starts a stranger, who has a certificate of this name.
fn stranger(site: &Site, name: &str) -> Command {
    site.authority.issue(name).write(site.folder.path(), name);
    let file = |name: &str| site.folder.path().join(name);
    let mut command = Command::new("python3");
    command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONPATH", tools())
        .arg(root(&format!("tests/stranger/keyop_{name}.py")))
        .args([HUB, &site.address.port().to_string(), HUB])
        .args([file("ca.crt"), file(&format!("{name}.crt")), file(&format!("{name}.key"))]);
    command
}

#[test]
fn strangers_of_both_generations_exchange_records() {
    let site = Site::start(&[]);
    let mut websocket = Program::start(&mut stranger(&site, "websocket"));
    let steps = STEPS_OF_WEBSOCKET;
    let until_subscribed: usize = steps[..2].iter().map(|step| step.len() + 1).sum();
    websocket.wait_for_stdout(until_subscribed);

    let output = stranger(&site, "grpc").stdin(Stdio::null()).output();
    let output = output.expect("python3 is missing; `make setup` installs it");
    let said = String::from_utf8(output.stdout).unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}{complaint}{}", site.relay.log());
    let mut steps_of_grpc = STEPS_OF_GRPC.to_vec();
    steps_of_grpc.push("left");
    assert_eq!(said.lines().collect::<Vec<_>>(), steps_of_grpc);

    websocket.wait_for_success();
    let said = websocket.wait_for_stdout(0);
    let said = String::from_utf8(said).unwrap();
    assert_eq!(said.lines().collect::<Vec<_>>(), [&steps[..], &["left"]].concat());
}

//! Commands that go on: each event as it happens, and who is busy, again and again.

use std::process::Command;

use serde_json::Value;

use super::{audit, say};
use crate::harness::{Node, Program, Relay};
use crate::peer::Peer;

fn follow(relay: &Relay, words: &[&str]) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    command.args(words).arg("--follow").arg("--state-dir").arg(relay.state_dir());
    Program::start(&mut command)
}

#[test]
fn record_goes_on_with_each_event_that_happens_and_tells_none_twice() {
    let nodes = [11, 12].map(Node::new);
    let relay = Relay::with_nodes(&nodes.each_ref(), &[]);
    let _before = Peer::log_in(relay.wss, &nodes[0]);
    let following = follow(&relay, &["record", "--json"]);
    following.wait_for_stdout_lines("\"node\":11", 1);

    let _after = Peer::log_in(relay.wss, &nodes[1]);
    let lines = following.wait_for_stdout_lines("\"node\":12", 1);

    let events: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<_> = events.iter().map(|event| event["number"].as_u64().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    let asked = audit(&relay).iter().filter(|line| line["action"] == "record").count();
    assert_eq!(asked, 1, "who follows is one line of the audit log");
}

#[test]
fn top_is_shown_again_and_again_until_the_relay_is_gone() {
    let mut relay = Relay::start::<&str>([]);
    let mut following = follow(&relay, &["top"]);
    following.wait_for_stdout_lines("SENDER", 2);
    say(&relay, &["drain"]);
    assert_eq!(relay.wait_for_end(), 0);
    following.wait_for_line("no relay answers");
    following.wait_for_end();
}

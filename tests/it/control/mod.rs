//! What operators ask of a running relay and tell it to do, each as the program's own command.

mod commands;
mod explain;
mod follow;
mod http;
mod notify;
mod record;
mod socket;
mod switches;
mod trouble;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::Relay;
use crate::wording::{assert_names_a_way_out, assert_plain};

/// Runs `beacon-relay` with these words, for the relay of a state folder.
fn run(state_dir: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    let output = command.args(words).arg("--state-dir").arg(state_dir).output().unwrap();
    assert_plain(&words.join(" "), &String::from_utf8_lossy(&output.stdout));
    assert_plain(&words.join(" "), &String::from_utf8_lossy(&output.stderr));
    output
}

/// What a command prints, which must succeed. `status` also ends with 3 or 4, by what it tells.
pub(crate) fn say(relay: &Relay, words: &[&str]) -> String {
    let output = run(relay.state_dir(), words);
    let errors = String::from_utf8_lossy(&output.stderr);
    let tells = words.first() == Some(&"status") && matches!(output.status.code(), Some(3 | 4));
    assert!(output.status.success() || tells, "{words:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The same with `--json`.
pub(crate) fn ask(relay: &Relay, words: &[&str]) -> Value {
    serde_json::from_str(&say(relay, &[words, &["--json"]].concat())).unwrap()
}

/// What a command says that fails: its exit code and stderr.
pub(crate) fn fail(state_dir: &Path, words: &[&str]) -> (i32, String) {
    let output = run(state_dir, words);
    assert!(output.stdout.is_empty(), "{words:?}");
    let line = String::from_utf8(output.stderr).unwrap();
    assert_names_a_way_out(&line);
    (output.status.code().unwrap(), line)
}

/// The lines of the audit log.
fn audit(relay: &Relay) -> Vec<Value> {
    let text = std::fs::read_to_string(relay.state_dir().join("audit.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

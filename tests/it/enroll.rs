//! `enroll`, `unenroll` and `enrolled`, next to a relay that runs.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::harness::{Node, Relay};
use crate::peer::Peer;

fn run(state_dir: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    command.env_remove("BEACON_RELAY_KEYS").args(words).arg("--state-dir").arg(state_dir);
    command.output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn public_key(node: &Node) -> String {
    STANDARD.encode(node.key.verifying_key().as_bytes())
}

#[test]
fn relay_has_a_node_once_the_wait_for_it_is_over() {
    let node = Node::new(11);
    let relay = Relay::start::<&str>([]);
    let folder = relay.state_dir();

    let enrolled = run(folder, &["enroll", "11", &public_key(&node), "--wait"]);
    assert_eq!(code(&enrolled), 0, "{}", stderr(&enrolled));
    assert!(stdout(&enrolled).ends_with("the running relay has taken it\n"));
    let mut peer = Peer::log_in(relay.wss, &node);

    let removed = run(folder, &["unenroll", "11", "--wait"]);
    assert_eq!(code(&removed), 0, "{}", stderr(&removed));
    assert_eq!(peer.read_close(), (1008, "key withdrawn".to_owned()));
    let again = run(folder, &["unenroll", "11"]);
    assert_eq!(code(&again), 1);
    assert!(stderr(&again).contains("node 11 is not enrolled in "), "{}", stderr(&again));
}

#[test]
fn enrolment_says_where_the_relay_has_its_keys_from_instead() {
    let (node, other) = (Node::new(11), Node::new(12));
    let relay = Relay::with_nodes(&[&node], &[]);
    let key = public_key(&other);

    let done = run(relay.state_dir(), &["enroll", "12", &key]);
    assert_eq!(code(&done), 0);
    assert!(stdout(&done).contains("node 12: added"), "{}", stdout(&done));
    assert!(stderr(&done).contains("the relay has its keys from /"), "{}", stderr(&done));
    let waited = run(relay.state_dir(), &["enroll", "12", &key, "--wait"]);
    assert_eq!(code(&waited), 1);
    assert!(stderr(&waited).contains("change the key there"), "{}", stderr(&waited));
}

#[test]
fn enrolment_without_a_relay_looks_at_its_settings() {
    let folder = tempfile::tempdir().unwrap();
    let state_dir = folder.path().join("state");
    let key = public_key(&Node::new(7));
    assert_eq!(code(&run(&state_dir, &["enroll", "7", &key, "--wait"])), 69, "nobody to wait for");

    let keys = folder.path().join("keys.json");
    fs::write(&keys, "{}").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    command.args(["enroll", "7", &key, "--state-dir"]).arg(&state_dir);
    let done = command.env("BEACON_RELAY_KEYS", &keys).output().unwrap();
    assert_eq!(code(&done), 0);
    assert!(stderr(&done).contains(keys.to_str().unwrap()), "{}", stderr(&done));
}

#[test]
fn private_key_is_refused_where_a_public_one_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.key");
    let mut keygen = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    let public = keygen.args(["keygen", "--out"]).arg(&file).output().unwrap();
    let private = fs::read_to_string(&file).unwrap();

    let refused = run(folder.path(), &["enroll", "7", private.trim()]);
    assert_eq!(code(&refused), 64);
    assert!(stderr(&refused).contains("that is a private key"), "{}", stderr(&refused));
    assert!(!stderr(&refused).contains(private.trim_start_matches("private-key:").trim()));
    assert!(!folder.path().join("keys.json").exists());
    let taken = run(folder.path(), &["enroll", "7", stdout(&public).trim()]);
    assert_eq!(code(&taken), 0, "{}", stderr(&taken));
}

#[test]
fn enrolled_nodes_are_listed_as_a_table_and_as_a_key_file() {
    let folder = tempfile::tempdir().unwrap();
    let keys = [9, 7].map(|number| (number.to_string(), public_key(&Node::new(number))));
    for (number, key) in &keys {
        run(folder.path(), &["enroll", number, key]);
    }
    let table = stdout(&run(folder.path(), &["enrolled"]));
    let rows: Vec<_> = table.lines().skip(1).collect();
    assert_eq!(rows.len(), 2, "{table}");
    assert!(rows[0].trim_start().starts_with("7  ") && rows[0].ends_with(&keys[1].1), "{table}");

    let json = stdout(&run(folder.path(), &["enrolled", "--json"]));
    let file = folder.path().join("again.json");
    fs::write(&file, &json).unwrap();
    let relay = Relay::start(["--keys", file.to_str().unwrap()]);
    assert_eq!(relay.metric("pilot_beacon_keys_entries"), 2.0, "{json}");
}

//! The audit log of a relay that runs, and what it leaves behind.

use std::process::{Command, Output};
use std::time::Instant;

use super::{Site, envelope};
use crate::harness::PATIENCE;

fn audit(site: &Site, order: &str, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    command.args(["audit", order, "--state-dir"]).arg(site.state.path()).args(more);
    command.output().unwrap()
}

/// What the command says, once it says this.
pub(super) fn wait_for(site: &Site, order: &str, expected: &str) -> String {
    let end = Instant::now() + PATIENCE;
    loop {
        let output = audit(site, order, &[]);
        let text = String::from_utf8(output.stdout).unwrap();
        if text.contains(expected) {
            return text;
        }
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(Instant::now() < end, "{expected} is not in: {text}{error}");
    }
}

#[test]
fn log_of_a_running_relay_is_checked_and_its_end_proven_by_the_checkpoint_of_its_stop() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = folder.path().join("checkpoints.jsonl");
    let checkpoints = checkpoints.to_str().unwrap();
    let mut site = Site::start(&["--audit-checkpoint-file", checkpoints]);
    let (mut alice, _) = site.register("alice");
    let (mut bob, _) = site.register("bob");
    for number in 0..3 {
        bob.say(&envelope(&format!("m{number}"), "bob", "alice", "hello"));
        let (key, _) = alice.delivery();
        alice.acknowledge(&key);
    }

    // A send, a delivery and an acknowledgement of each.
    let text = wait_for(&site, "verify", "audit chain OK: 9 entries");
    assert!(text.contains("tail not provable without a checkpoint"), "{text}");
    let log = wait_for(&site, "export", "\"seq\":8,");
    let last = r#"{\"event\":\"ack\",\"id\":\"m2\",\"from\":\"alice\",\"to\":\"\"}"#;
    assert!(log.trim_end().ends_with(&format!("\"event\":\"{last}\"}}")), "{log}");

    alice.leave();
    bob.leave();
    site.relay.signal("TERM");
    site.relay.wait_until_gone();
    let output = audit(&site, "verify", &["--checkpoint", checkpoints]);
    let text = String::from_utf8(output.stdout).unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("9 entries; tail proven up to entry 8"), "{text}{error}");
}

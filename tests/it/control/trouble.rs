//! An audit log that cannot be written, and a state folder that was deleted.

use std::fs;
use std::time::Instant;

use serde_json::Value;

use super::{ask, audit, fail, say};
use crate::harness::{Node, PATIENCE, Relay, http_get, look_until};
use crate::peer::Peer;

const REFUSED: &str = "pilot_beacon_audit_failures_total{reason=\"write_failed\"}";
const MADE_AGAIN: &str = "pilot_beacon_control_socket_made_again_total";

/// How a part is, as `/readyz` says; the relay is ready whatever that is.
fn condition(relay: &Relay, part: &str) -> String {
    let (status, body) = http_get(relay.admin, "/readyz?verbose");
    assert_eq!(status, 200, "{body}");
    let parts: Value = serde_json::from_str(&body).unwrap();
    parts["parts"][part]["condition"].as_str().unwrap().to_owned()
}

fn wait_for_condition(relay: &Relay, part: &str, wanted: &str) {
    let reached = || (condition(relay, part) == wanted).then_some(());
    look_until(Instant::now() + PATIENCE, reached)
        .unwrap_or_else(|| panic!("{part} is not {wanted}:\n{}", relay.log()));
}

#[test]
fn audit_line_was_lost_without_a_word() {
    let node = Node::new(11);
    let relay = Relay::with_nodes(&[&node], &[]);
    let mut peer = Peer::log_in(relay.wss, &node);
    let log = relay.state_dir().join("audit.jsonl");
    // In its place, as a full disk would be: nothing can be written.
    fs::create_dir(&log).unwrap();

    say(&relay, &["kick", "11"]);
    assert_eq!(peer.read_close().0, 1008);
    assert!((relay.metric(REFUSED) - 1.0).abs() < f64::EPSILON);
    assert_eq!(condition(&relay, "audit"), "degraded");
    relay.wait_for_line("cannot write the audit log");

    // Nobody has to act for it to be seen that the trouble is over.
    fs::remove_dir(&log).unwrap();
    wait_for_condition(&relay, "audit", "ok");
    let lines = audit(&relay);
    assert_eq!(
        (&lines[0]["action"], &lines[0]["argument"]["lines"]),
        (&"missing".into(), &1.into())
    );
}

#[test]
fn action_that_must_be_audited_is_refused_where_it_cannot_be() {
    let node = Node::new(11);
    let relay = Relay::with_nodes(&[&node], &["--audit", "required"]);
    let _peer = Peer::log_in(relay.wss, &node);
    say(&relay, &["log-level", "debug"]);
    let results: Vec<_> = audit(&relay).into_iter().map(|line| line["result"].clone()).collect();
    assert_eq!(results, ["begun", "ok"]);

    let log = relay.state_dir().join("audit.jsonl");
    fs::remove_file(&log).unwrap();
    fs::create_dir(&log).unwrap();
    for words in [&["kick", "11"] as &[_], &["drain"], &["reload"], &["log-level", "info"]] {
        let (code, error) = fail(relay.state_dir(), words);
        assert!(code == 1 && error.contains("--audit is required"), "{words:?}: {code} {error}");
    }
    // To look is no change.
    assert_eq!(ask(&relay, &["peer", "11"])["over"], "wss");
    assert_eq!(condition(&relay, "audit"), "degraded");
}

#[test]
fn deleted_state_folder_took_the_control_socket_for_good() {
    let relay = Relay::start::<&str>([]);
    fs::remove_dir_all(relay.state_dir()).unwrap();
    relay.wait_for_metric(MADE_AGAIN, 1.0);
    relay.wait_for_line("the control socket was made again");
    wait_for_condition(&relay, "control", "ok");
    relay.wait_for_metric("pilot_beacon_control_socket_up", 1.0);
    say(&relay, &["log-level", "debug"]);
    assert_eq!(audit(&relay).len(), 1);
    relay.signal("USR2");
    relay.wait_for_line("recorded the last events");
}

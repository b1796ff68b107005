//! The flight recorder: what it tells, and the files that it writes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::{ask, say};
use crate::harness::{Node, PATIENCE, Relay, look_until};
use crate::peer::Peer;

#[test]
fn connections_are_told_from_their_beginning_to_their_end() {
    let (known, unknown) = (Node::new(11), Node::new(12));
    let relay = Relay::with_nodes(&[&known], &[]);
    let mut peer = Peer::log_in(relay.wss, &known);
    let (opcode, _) = Peer::upgrade(relay.wss).try_to_authenticate(&unknown, 2);
    assert_eq!(opcode, 8);
    assert_eq!(Peer::request(relay.wss, "Origin: https://evil.example\r\n").1, 403);
    say(&relay, &["reload"]);
    say(&relay, &["kick", "11"]);
    peer.read_close();

    let wanted = [
        ("accepted", None, None),
        ("logged_in", Some(11), None),
        ("refused", Some(12), Some("unknown_node")),
        ("refused", None, Some("origin_refused")),
        ("action", None, Some("reload")),
        ("reloaded", None, Some("ok")),
        ("action", Some(11), Some("kick")),
        ("ended", Some(11), Some("kicked")),
    ];
    let told = || {
        let events = ask(&relay, &["record"]);
        let events = events.as_array().unwrap().clone();
        let mut rest = events.iter();
        let mut comes = |(what, node, reason): &(&str, Option<u64>, Option<&str>)| {
            rest.any(|event| {
                event["what"] == *what
                    && event["node"].as_u64() == *node
                    && event["reason"].as_str() == *reason
            })
        };
        wanted.iter().all(&mut comes).then_some(events)
    };
    let events = look_until(Instant::now() + PATIENCE, told);
    let events = events.unwrap_or_else(|| panic!("{}", say(&relay, &["record"])));
    assert!(events[0]["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{events:?}");
    let table = say(&relay, &["record"]);
    assert!(table.starts_with("TIME") && table.contains("kicked"), "{table}");
}

#[test]
fn sigusr2_writes_a_file_and_only_the_newest_stay() {
    let relay = Relay::start::<&str>([]);
    drop(Peer::connect(relay.wss));
    relay.wait_for_metric("pilot_beacon_wss_connections_total{outcome=\"gone\"}", 1.0);
    let files = || -> Vec<PathBuf> {
        let entries = fs::read_dir(relay.state_dir()).unwrap();
        let is_record = |path: &PathBuf| path.to_string_lossy().contains("flight-");
        let mut files: Vec<_> = entries.map(|e| e.unwrap().path()).filter(is_record).collect();
        files.sort();
        files
    };
    for count in 1..=10 {
        relay.signal("USR2");
        let written = || relay.log().matches("recorded the last events").count() == count;
        look_until(Instant::now() + PATIENCE, || written().then_some(())).expect("it is written");
        // A file is named by its millisecond, which has one file.
        let name = files().pop().unwrap();
        let ms = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let is_past = || !name.ends_with(format!("flight-{:013}.jsonl", ms()));
        look_until(Instant::now() + PATIENCE, || is_past().then_some(())).unwrap();
    }
    let files = files();
    assert_eq!(files.len(), 8);
    let newest = files.last().unwrap();
    assert_eq!(fs::metadata(newest).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(newest).unwrap();
    assert!(text.lines().next().unwrap().contains("\"what\":\"accepted\""), "{text}");
}

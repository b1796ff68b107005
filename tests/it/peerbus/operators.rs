//! What operators see of names and mailboxes, and change.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use super::{Adapter, Site, TOKENS, envelope, register};
use crate::control::{ask, fail, say};
use crate::harness::{PATIENCE, Relay, http_get, look_until};

/// The tokens of a team, and one without a label.
const LABELLED: &str = "team tok\nother tok-B\ntok-C\n";

/// A relay with these messages of bob for alice, who is away.
fn site_with_messages(ids: &[&str]) -> Site {
    let site = Site::with_tokens(LABELLED, &[]);
    drop(site.register("alice"));
    let (mut bob, _) = site.register_with("tok-C", "bob");
    for id in ids {
        bob.say(&envelope(id, "bob", "alice", *id));
    }
    bob.settle();
    site
}

/// Registers, or reads why not.
fn closed(site: &Site, token: &str, name: &str) -> Option<String> {
    let mut adapter = Adapter::connect(site.address);
    adapter.say(&register(token, name));
    match adapter.read() {
        Some((1, _)) => None,
        Some((8, payload)) => Some(String::from_utf8_lossy(&payload[2..]).into_owned()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_waits_is_listed_shown_and_removed() {
    let site = site_with_messages(&["m1", "m2", "m3"]);
    let relay = &site.relay;

    let names = ask(relay, &["names"]);
    assert_eq!(names["total"], 2, "{names}");
    let [alice, bob] = names["names"].as_array().unwrap().as_slice() else { panic!("{names}") };
    assert_eq!((&alice["name"], &alice["owner"]), (&"alice".into(), &"team".into()));
    assert_eq!((&alice["messages"], &alice["door"]), (&3.into(), &"peerbus".into()));
    assert!(bob["owner"].as_str().unwrap().starts_with("token "), "{bob}");
    assert!(say(relay, &["names", "--limit", "1"]).ends_with("1 of 2; more with --limit\n"));

    let queues = ask(relay, &["queues"]);
    assert_eq!((&queues["total"], &queues["queues"][0]["name"]), (&1.into(), &"alice".into()));
    let queue = ask(relay, &["queue", "peerbus:alice"]);
    assert_eq!((&queue["messages"], &queue["in_flight"]), (&3.into(), &0.into()), "{queue}");
    assert!(queue["bytes"].as_u64().unwrap() > 300, "{queue}");

    let peeked = ask(relay, &["queue", "alice", "--peek", "--limit", "2"]);
    let messages = peeked["messages"].as_array().unwrap();
    let keys: Vec<_> = messages.iter().map(|message| message["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["m1", "m2"]);
    let body: Value = serde_json::from_str(messages[0]["body"].as_str().unwrap()).unwrap();
    assert_eq!((&body["body"], &messages[0]["from"]), (&"m1".into(), &"bob".into()));
    assert!(say(relay, &["queue", "alice", "--peek"]).starts_with("m1  from bob  "));
    assert_eq!(say(relay, &["queue", "alice", "--dead"]), "no message\n");

    assert_eq!(say(relay, &["queue", "alice", "--purge"]), "3 messages for alice removed\n");
    relay.wait_for_metric("beacon_relay_bus_removed_total{reason=\"purged\"}", 3.0);
    assert_eq!(ask(relay, &["queues"])["total"], 0);
    let (mut alice, _) = site.register("alice");
    assert!(alice.is_silent());
}

#[test]
fn name_that_is_released_is_whose_comes_first_and_a_bound_one_its_labels() {
    let site = site_with_messages(&["m1"]);
    let relay = &site.relay;
    let claimed = Some("name claimed under a different token".to_owned());
    assert_eq!(closed(&site, "tok-B", "alice"), claimed);

    assert_eq!(say(relay, &["names", "bind", "alice", "other"]), "alice belongs to other\n");
    assert_eq!(closed(&site, "tok", "alice"), claimed);
    let (mut alice, _) = site.register_with("tok-B", "alice");
    assert_eq!(alice.delivery().0, "m1");
    drop(alice);

    assert_eq!(say(relay, &["names", "release", "alice"]), "alice belongs to nobody\n");
    assert_eq!(closed(&site, "tok-C", "alice"), None);
    assert_eq!(closed(&site, "tok-B", "alice"), claimed);
    let state = relay.state_dir();
    for (words, reason) in [
        (&["names", "bind", "alice", "nobody"][..], "no token in force has the label nobody"),
        (&["names", "release", "carol"], "nobody has the name carol"),
        (&["queue", "carol"], "nobody has the name carol"),
    ] {
        let (code, error) = fail(state, words);
        assert_eq!((code, error.contains(reason)), (1, true), "{error}");
    }
}

/// The line of the document that prints what a broker has.
fn documented_line() -> String {
    let document =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/PEERBUS.md"));
    let document = document.unwrap();
    let line = document.lines().map(str::trim).find(|line| line.starts_with("sqlite3 -json "));
    line.expect("a line with sqlite3").to_owned()
}

/// The database of a broker: alice has read m0, and neither m1 nor a broadcast.
const DATABASE: &str = "
CREATE TABLE peers(name TEXT PRIMARY KEY, registered INTEGER, ts INTEGER);
CREATE TABLE messages(id TEXT UNIQUE, sender TEXT, recipient TEXT, envelope BLOB, delivered INTEGER,
    acked INTEGER, attempts INTEGER, seq INTEGER, ts INTEGER);
INSERT INTO peers VALUES ('alice', 1, 1), ('bob', 1, 1);
INSERT INTO messages SELECT key, 'bob', 'alice', CAST(json_object('protocol_version', 'v1', 'id', id,
    'from', 'bob', 'to', 'alice', 'ts', 't', 'source', 's', 'kind', 'msg', 'body', id, 'hmac', '')
    AS BLOB), 1, acked, 1, 1, 1
    FROM (SELECT 'm0' AS key, 'm0' AS id, 1 AS acked UNION ALL SELECT 'm1', 'm1', 0
    UNION ALL SELECT 'b1|alice', 'b1', 0);
";

#[test]
fn messages_of_a_broker_are_taken_over_and_wait_until_their_name_is_bound() {
    let folder = tempfile::tempdir().unwrap();
    let shell = |line: &str| {
        let mut command = Command::new("bash");
        let output = command.args(["-ec", line]).current_dir(&folder).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    shell(&format!("sqlite3 peerbus.db \"{DATABASE}\""));
    shell(&documented_line());

    let mut site = Site::with_tokens(LABELLED, &[]);
    site.relay.signal("TERM");
    site.relay.wait_until_gone();
    let state = site.relay.state_dir().display().to_string();
    let program = env!("CARGO_BIN_EXE_beacon-relay");
    let migrate = format!("{program} migrate peerbus --messages pending.json --state-dir {state}");
    assert_eq!(shell(&migrate), "2 names reserved, 2 messages wait\n");

    site.start_again(&[]);
    let claimed = Some("name claimed under a different token".to_owned());
    assert_eq!(closed(&site, "tok", "alice"), claimed);
    let names = ask(&site.relay, &["names"]);
    assert_eq!(names["names"][0]["owner"], "reserved", "{names}");
    say(&site.relay, &["names", "bind", "alice", "team"]);
    let (mut alice, _) = site.register("alice");
    assert_eq!(alice.delivery(), ("m1".to_owned(), json!("m1")));
    assert_eq!(alice.delivery(), ("b1|alice".to_owned(), json!("b1")));
    assert!(alice.is_silent());
    let (code, error) = fail(
        Path::new(&state),
        &["migrate", "peerbus", "--messages", folder.path().join("pending.json").to_str().unwrap()],
    );
    assert_eq!((code, error.contains("does a relay run there?")), (1, true), "{error}");
}

/// The names of a relay's threads.
fn threads(relay: &Relay) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", relay.id())).unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.map(|name| name.trim_end().to_owned()).collect()
}

#[test]
fn bus_is_a_part_of_readiness_and_a_relay_without_one_says_so() {
    let site = Site::with_tokens(TOKENS, &[]);
    let (status, answer) = http_get(site.relay.admin, "/readyz?verbose");
    let readiness: Value = serde_json::from_str(&answer).unwrap();
    let bus = &readiness["parts"]["bus"];
    assert_eq!((status, &bus["condition"]), (200, &"ok".into()), "{answer}");

    // Its sessions have a thread of their own, which is watched.
    assert!(readiness["parts"]["messages"].is_object(), "{answer}");
    let lags = "beacon_relay_message_scheduler_lag_seconds_count";
    let looks =
        look_until(Instant::now() + PATIENCE, || (site.relay.metric(lags) > 0.0).then_some(()));
    assert!(looks.is_some() && threads(&site.relay).contains(&"messages".to_owned()));

    let without = Relay::start(["--udp-bind", "127.0.0.1:0"]);
    assert!(!threads(&without).contains(&"messages".to_owned()));
    let (code, error) = fail(without.state_dir(), &["queues"]);
    assert_eq!((code, error.contains("this relay has no message bus")), (1, true), "{error}");
}

//! What a host can call, and what it is told where that does not work.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::json;

use super::{Host, Pass, SECRET, bodies};
use crate::peerbus::Site;
use crate::ports::free_address;

const SOON: Duration = Duration::from_secs(30);

#[test]
fn host_calls_each_tool() {
    let site = Site::start(&[]);
    let pass = Pass::of(&site);
    let mut alice = Host::start(&pass, "alice");
    let mut bob = Host::start(&pass, "bob");
    let tools = ["bus.send", "bus.broadcast", "bus.peers", "bus.drain", "bus.wait"];
    assert_eq!(alice.greeting["tools"], json!(tools));
    assert!(alice.greeting["instructions"].as_str().unwrap().contains("not an instruction"));

    assert_eq!(bob.call("bus.peers", &json!({})), json!({"self": "bob", "peers": ["alice"]}));
    let sent = alice.send("bob", json!({"text": "hé <b>&"}));
    assert_eq!((&sent["sent"], &sent["to"]), (&json!(true), &json!("bob")));
    let got = bob.call("bus.wait", &json!({"timeout_ms": 30_000}));
    let message = &got["messages"][0];
    assert_eq!(message["body"], json!({"text": "hé <b>&"}));
    assert_eq!(message["id"], sent["id"]);
    assert_eq!((&message["from"], &message["kind"]), (&json!("alice"), &json!("msg")));
    assert_eq!(message["source"], "peer-bus");
    assert!(got["about"].as_str().unwrap().contains("not an instruction"), "{got}");

    assert_eq!(bob.call("bus.broadcast", &json!({"body": 7}))["broadcast"], true);
    assert_eq!(alice.wait(SOON), [json!(7)]);
    assert_eq!(alice.drain(), Vec::<serde_json::Value>::new());

    let nobody = alice.error("bus.send", &json!({"to": "nobody", "body": 1}));
    assert!(nobody.contains("no peer \"nobody\" has ever been"), "{nobody}");
    let late = alice.error("bus.wait", &json!({"timeout_ms": 60_001}));
    assert!(late.contains("from 0 to 60000"), "{late}");
    assert!(alice.error("bus.shout", &json!({})).contains("there are bus.send"));
    alice.leave();
    bob.leave();
}

#[test]
fn tools_have_another_separator_for_hosts_that_refuse_dots() {
    let site = Site::start(&[]);
    let mut host = Host::start_with(&Pass::of(&site), "alice", &["--tool-separator", "_"]);
    let tools = ["bus_send", "bus_broadcast", "bus_peers", "bus_drain", "bus_wait"];
    assert_eq!(host.greeting["tools"], json!(tools));
    assert_eq!(host.call("bus_peers", &json!({})), json!({"self": "alice", "peers": []}));
}

#[test]
fn long_results_are_cut_between_messages() {
    let site = Site::start(&[]);
    let pass = Pass::of(&site);
    let mut bob = Host::start(&pass, "bob");
    let long = "x".repeat(40_000);
    for _ in 0..3 {
        bob.send("bob", &*long);
    }
    let first = bob.call("bus.wait", &json!({"timeout_ms": 30_000}));
    assert_eq!(bodies(&first), [json!(long)]);
    assert_eq!(bob.gather(2), [json!(long), json!(long)]);
}

#[test]
fn host_that_gives_up_on_a_call_loses_no_message() {
    let site = Site::start(&[]);
    let pass = Pass::of(&site);
    let mut bob = Host::start(&pass, "bob");
    let arguments = json!({"timeout_ms": 60_000});
    bob.order(&json!({"tool": "bus.wait", "arguments": arguments, "seconds": 0.3}));
    let given_up = bob.answer();
    assert!(given_up["protocol_error"].is_string(), "{given_up}");
    bob.send("bob", "still there");
    assert_eq!(bob.wait(SOON), [json!("still there")]);
}

#[test]
fn channel_is_told_of_each_message_once() {
    let site = Site::start(&[]);
    let pass = Pass::of(&site);
    let mut alice = Host::start(&pass, "alice");
    let mut claude = Host::start_with(&pass, "claude", &["--adapter", "cc"]);
    assert_eq!(claude.greeting["tools"], json!(["bus.send", "bus.broadcast", "bus.peers"]));
    assert_eq!(claude.greeting["experimental"], json!({"claude/channel": {}}));
    claude.order(&json!({"told": 1}));
    let told = claude.answer();
    let hello = json!({
        "content": "\u{1f4e1} connected as claude",
        "meta": {"kind": "system", "self": "claude"},
    });
    assert_eq!(told["told"], json!([hello]));

    let sent = alice.send("claude", json!({"wake": 1}));
    claude.order(&json!({"told": 2}));
    let told = claude.answer()["told"][1].clone();
    let content = told["content"].as_str().unwrap();
    assert!(content.starts_with("\u{1f4e8} msg from alice: {\"wake\":1}"), "{content}");
    assert!(content.contains("not an instruction"), "{content}");
    let meta = json!({"from": "alice", "kind": "msg", "msg_id": sent["id"], "source": "peer-bus"});
    assert_eq!(told["meta"], meta);
    // It answers pings by itself, which acknowledges what was told before.
    let acknowledged = "beacon_relay_bus_removed_total{reason=\"acknowledged\"}";
    site.relay.wait_for_metric(acknowledged, 1.0);
    claude.kill();
    let mut again = Host::start(&pass, "claude");
    assert!(again.wait(Duration::from_millis(300)).is_empty());
}

#[test]
fn token_that_is_wrong_or_a_name_that_is_taken_is_told_to_the_host() {
    let site = Site::start(&[]);
    let pass = Pass::of(&site);
    let alice = Host::start(&pass, "alice");
    let folder = tempfile::tempdir().unwrap();
    for (token, part) in [("hunter2-wrong", "--token-file"), ("tok-B", "names release alice")] {
        let pass = Pass::at(site.address, folder.path(), token);
        let mut other = Host::start(&pass, "alice");
        for (tool, arguments) in [
            ("bus.peers", json!({})),
            ("bus.send", json!({"to": "bob", "body": 1})),
            ("bus.drain", json!({})),
        ] {
            let error = other.error(tool, &arguments);
            assert!(error.contains(part) && error.contains("restart"), "{error}");
        }
        for secret in [token, SECRET] {
            assert!(!other.log().contains(secret), "{}", other.log());
        }
        other.leave();
    }
    alice.leave();
}

#[test]
fn relay_that_is_away_is_told_to_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let pass = Pass::at(free_address(), folder.path(), "hunter2-token");
    fs::set_permissions(&pass.token, fs::Permissions::from_mode(0o644)).unwrap();
    let mut host = Host::start_with(&pass, "alice", &["--log-level", "trace"]);
    let peers = host.error("bus.peers", &json!({}));
    assert!(peers.contains("not connected") && peers.contains("refused"), "{peers}");
    let sent = host.send("bob", "later");
    assert_eq!((&sent["sent"], &sent["result"]), (&json!(false), &json!("queued")));
    let drained = host.call("bus.drain", &json!({}));
    assert!(drained["connection"].as_str().unwrap().contains("not connected"), "{drained}");
    let log = host.log();
    assert!(log.contains("others can read a secret: chmod 600"), "{log}");
    for secret in ["hunter2-token", SECRET, "later"] {
        assert!(!log.contains(secret), "{log}");
    }
    host.leave();
}

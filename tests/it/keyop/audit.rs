//! What is on record: the audit file as the original writes it, and the relay's own audit log.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use super::{Site, ids, record, record_by};
use crate::harness::{PATIENCE, look_until};

/// The lines of an audit file, once it has all of these parts.
fn lines_with(file: &Path, parts: &[&str]) -> Vec<Value> {
    let lines = look_until(Instant::now() + PATIENCE, || {
        let text = fs::read_to_string(file).unwrap_or_default();
        parts.iter().all(|part| text.contains(part)).then_some(text)
    });
    let lines = lines.unwrap_or_else(|| panic!("{parts:?} are not written"));
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The events of the relay's own log that are of this kind: id, sender, channel.
fn logged(site: &Site, kind: &str) -> Vec<[String; 3]> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    command.args(["audit", "export", "--state-dir"]).arg(site.relay.state_dir());
    let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let event = |line: &str| -> Value {
        let line: Value = serde_json::from_str(line).unwrap();
        serde_json::from_str(line["event"].as_str().unwrap()).unwrap()
    };
    let events = text.lines().map(event).filter(|event| event["event"] == kind);
    let texts =
        |event: Value| ["id", "from", "to"].map(|key| event[key].as_str().unwrap().to_owned());
    events.map(texts).collect()
}

#[test]
fn audit_file_has_the_lines_of_the_original() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    let site = Site::start(&[&format!("--keyop-audit-file={}", file.display())]);
    let mut alpha = site.ws("alpha");
    alpha.hello("alpha", &["orders"], false);
    site.wait_until_subscribed(1);
    let mut beta = site.ws("beta");
    beta.hello("beta", &[], false);
    assert_eq!(beta.publish(&[record("r1", "orders"), record("r2", "a/b")]), "r2");
    assert_eq!(ids(&alpha.records()), ["r1"]);
    alpha.acknowledge("r1");
    drop(beta);

    let lines = lines_with(&file, &["\"outbound\"", "peer_disconnected"]);
    let find = |event: &str, direction: &str| {
        let is = |line: &&Value| {
            line["event"] == event && (direction.is_empty() || line["direction"] == direction)
        };
        lines.iter().find(is).unwrap_or_else(|| panic!("no {event} in {lines:?}"))
    };
    let connected = find("client_connected", "");
    assert_eq!(connected["peer"], "alpha");
    assert!(connected["detail"].as_str().unwrap().contains("sub=[orders]"), "{connected}");
    let inbound = find("forward", "inbound");
    assert_eq!(
        [&inbound["message_id"], &inbound["channel"], &inbound["peer"]],
        ["r1", "orders", "beta"]
    );
    let outbound = find("forward", "outbound");
    assert_eq!(
        [&outbound["message_id"], &outbound["channel"], &outbound["peer"]],
        ["r1", "orders", "alpha"]
    );
    assert!(outbound["send_duration_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(find("policy_violation", "inbound")["message_id"], "r2");
    assert_eq!(find("peer_disconnected", "")["peer"], "beta");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peer_over_grpc_is_noted_once_whether_it_subscribes_or_only_publishes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    let site = Site::start(&[&format!("--keyop-audit-file={}", file.display())]);
    let mut alpha = site.rpc("alpha").await;
    let mut publisher_of_alpha = alpha.publisher().await;
    let _subscriber = alpha.subscriber(&["orders"], false).await;
    site.wait_until_subscribed(1);
    let mut beta = site.rpc("beta").await;
    let mut publisher = beta.publisher().await;
    for id in ["r1", "r2"] {
        assert_eq!(publisher.publish(&[record(id, "orders")]).await, id);
    }
    assert_eq!(publisher_of_alpha.publish(&[record("r3", "orders")]).await, "r3");

    let lines = lines_with(&file, &["r1", "r2", "r3"]);

    let connected = |peer: &str| -> Vec<String> {
        let of_peer = lines.iter().filter(|line| line["event"] == "client_connected");
        let of_peer = of_peer.filter(|line| line["peer"] == peer);
        of_peer.map(|line| line["detail"].as_str().unwrap().to_owned()).collect()
    };
    let [of_alpha] = &connected("alpha")[..] else { panic!("{lines:?}") };
    assert!(of_alpha.contains("sub=[orders]"), "{of_alpha}");
    let [of_beta] = &connected("beta")[..] else { panic!("{lines:?}") };
    assert!(of_beta.starts_with("addr=127.0.0.1:") && of_beta.contains("sub=[]"), "{of_beta}");
}

#[test]
fn record_that_is_dropped_is_in_the_audit_log_once_it_is_acknowledged() {
    let allowed = "[[keyop.peer]]\nname = \"alpha\"\npublish = [\"alerts\"]\n";
    let site = Site::with_config(allowed, &["--keyop-max-record=65536"]);
    let mut alpha = site.ws("alpha");
    alpha.hello("alpha", &[], false);
    let endless = "x/".repeat(20_000);
    let looped = record_by("l1", "alerts", "x", "\"localhost\"");

    let batch = [record("p1", "orders"), looped, record("b1", &endless), record("r1", "alerts")];
    assert_eq!(alpha.publish(&batch), "r1");

    let cut = &endless[..255];
    let expected = [["p1", "alpha", "orders"], ["b1", "alpha", cut]];
    assert_eq!(logged(&site, "policy_violation"), expected);
    assert_eq!(logged(&site, "loop_dropped"), [["l1", "alpha", "alerts"]]);
    assert_eq!(logged(&site, "send"), [["r1", "alpha", "alerts"]]);
}

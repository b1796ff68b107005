//! What operators see of channels and change, in commands, metrics and `/status`; and a hub's file and
//! folder taken over.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

use super::{HUB, Site, ids, record};
use crate::control::{ask, fail, say};

/// A site with beta two records behind, away, and alpha connected.
fn behind() -> Site {
    let site = Site::start(&[]);
    let mut publisher = site.ws("publisher");
    publisher.hello("publisher", &[], false);
    let mut beta = site.ws("beta");
    beta.hello("beta", &["orders"], false);
    site.wait_until_subscribed(1);
    drop(beta);
    site.wait_until_subscribed(0);
    assert_eq!(publisher.publish(&[record("r1", "orders"), record("r2", "orders")]), "r2");
    site
}

#[test]
fn channel_is_shown_with_how_far_its_peers_have_come() {
    let site = behind();
    let mut alpha = site.ws("alpha");
    alpha.hello("alpha", &["orders"], true);
    site.wait_until_subscribed(1);

    let channels = ask(&site.relay, &["channels"]);
    let row = &channels["channels"][0];
    assert_eq!(channels["total"], 1);
    let seen = |key: &str| row[key].as_u64().unwrap();
    assert_eq!(row["name"], "orders");
    assert_eq!([seen("records"), seen("cursors"), seen("connected"), seen("lag")], [2, 1, 1, 2]);
    let channel = ask(&site.relay, &["channel", "orders"]);
    let readers = channel["readers"].as_array().unwrap();
    let reader = |name: &str| readers.iter().find(|reader| reader["peer"] == name).unwrap();
    assert_eq!(reader("beta")["records"], 2);
    assert_eq!(reader("beta")["connected"], false);
    assert_eq!(reader("alpha")["ephemeral"], true);
    assert_eq!(reader("alpha")["records"], 0);
    let peeked = ask(&site.relay, &["channel", "orders", "--peek"]);
    let keys: Vec<_> =
        peeked["messages"].as_array().unwrap().iter().map(|of| of["key"].clone()).collect();
    assert_eq!(keys, ["r1", "r2"]);
    assert!(say(&site.relay, &["channel", "orders"]).starts_with("orders: 2 records, "));

    site.relay.wait_for_metric("beacon_relay_channel_records", 2.0);
    let lag = "beacon_relay_channel_lag_records{channel=\"orders\",peer=\"beta\",state=\"away\"}";
    site.relay.wait_for_metric(lag, 2.0);
    let status = ask(&site.relay, &["status"]);
    let first = &status["behind"][0];
    assert_eq!((&first["peer"], &first["records"]), (&"beta".into(), &2.into()));
}

#[test]
fn records_cursors_and_channels_are_removed_by_command() {
    let site = behind();
    let state = site.relay.state_dir();
    let (code, said) = fail(state, &["channel", "nothing", "--purge"]);
    assert!(code != 0 && said.contains("there is no channel nothing"), "{said}");
    let (_, said) = fail(state, &["channel", "orders", "--forget", "alpha"]);
    assert!(said.contains("alpha has no cursor in orders"), "{said}");

    assert_eq!(
        say(&site.relay, &["channel", "orders", "--purge"]),
        "2 records of orders removed\n"
    );
    assert_eq!(ask(&site.relay, &["channel", "orders"])["records"], 0);
    let forgotten = say(&site.relay, &["channel", "orders", "--forget", "beta"]);
    assert_eq!(forgotten, "beta begins at the end of orders, if it comes back\n");
    say(&site.relay, &["channel", "orders", "--remove"]);
    site.relay.wait_for_metric("beacon_relay_channel_cursors", 0.0);
}

fn migrate(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    command.args(["migrate", "keyop"]).args(arguments).output().unwrap()
}

#[test]
fn hub_is_taken_over_with_its_settings_records_and_the_places_of_its_peers() {
    let mut site = Site::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let lines = ["r1", "r2", "r3"].map(|id| [record(id, "orders"), b"\n".to_vec()].concat());
    fs::create_dir_all(path("data/channels/orders")).unwrap();
    fs::create_dir_all(path("data/subscribers/orders")).unwrap();
    fs::write(path("data/channels/orders/00000000000000000000.jsonl"), lines.concat()).unwrap();
    let place = format!("{}\n", lines[0].len());
    fs::write(path("data/subscribers/orders/fed-beta.offset"), place).unwrap();
    let files = site.folder.path().display();
    let config = format!(
        "storage: {{ data_dir: {}, sync_interval_ms: 0 }}\nhub:\n  enabled: true\n  listen_addr: 127.0.0.1:7740\n  \
         allowed_peers: [{{ name: beta, subscribe: [orders] }}]\n\
         tls: {{ cert: {files}/hub.crt, key: {files}/hub.key, ca: {files}/ca.crt }}\n",
        path("data").display()
    );
    fs::write(path("hub.yaml"), config).unwrap();
    let file = path("hub.yaml");
    let file = file.to_str().unwrap();

    let toml = String::from_utf8(migrate(&[file]).stdout).unwrap();
    fs::write(path("relay.toml"), &toml).unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    let checked =
        check.args(["check-config", "--config"]).arg(path("relay.toml")).output().unwrap();
    assert!(checked.status.success(), "{toml}{}", String::from_utf8_lossy(&checked.stderr));

    site.stop("TERM");
    let state = site.relay.state_dir().to_owned();
    let data = path("data");
    let data = ["--data", data.to_str().unwrap(), "--state-dir", state.to_str().unwrap()];
    let imported = migrate(&[&[file][..], &data].concat());
    let said = String::from_utf8(imported.stdout).unwrap();
    assert_eq!(said, "1 channels: 2 records wait for 1 cursors of peers\n");
    site.start_again();

    let mut beta = site.ws("beta");
    beta.hello("beta", &["orders"], false);
    let records = beta.take(2);
    assert_eq!(ids(&records), ["r2", "r3"]);
    let first: Value = serde_json::from_slice(&records[0]).unwrap();
    assert!(first["route"].is_null(), "a record is as the hub had it, without {HUB} in its route");
}

//! What operators see of topics.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::{Site, write_secret};
use crate::control::{ask, fail, say};
use crate::doctor::{Diagnosis, doctor};
use crate::harness::Relay;

impl Site {
    /// Examines this machine by the settings of the relay, or by others of the door.
    fn doctor(&self, more: &[&str]) -> Diagnosis {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let (bind, admin) = (self.address.to_string(), self.relay.admin.to_string());
        let state = self.relay.state_dir().display().to_string();
        let (services, clients) = (file("services"), file("clients"));
        let bind = if more.is_empty() { vec!["--middleman-bind", &bind] } else { more.to_vec() };
        let files = ["--middleman-service-keys-file", &services, "--middleman-client-keys-file"];
        let rest = [&clients, "--admin-bind", &admin, "--state-dir", &state];
        doctor([&bind[..], &files, &rest].concat())
    }
}

#[test]
fn topics_are_listed_with_who_has_what_of_them() {
    let site = Site::start(&[]);
    let mut service = site.service();
    service.tell(&["EPUB Chat", "ESUB Chat", "SUB Chat", "EREQ Svc", "EREQ Svc"]);
    let mut client = site.client();
    client.tell(&["SUB Chat"]);
    client.say("REQ Svc\r\nrid: 1\r\n\r\n.\r\n");
    client.settle();
    let answer = ask(&site.relay, &["topics"]);
    let topic = |name: &str, subscribers: usize, subscribe: bool, of_requests: [usize; 3]| {
        let [responders, workers, outstanding] = of_requests;
        json!({
            "name": name, "subscribers": subscribers, "clients_publish": true,
            "clients_subscribe": subscribe, "responders": responders, "workers": workers,
            "outstanding": outstanding,
        })
    };
    let topics = json!([topic("Chat", 2, true, [0, 0, 0]), topic("Svc", 0, false, [1, 2, 1])]);
    assert_eq!(answer, json!({"total": 2, "topics": topics}));
    let said = say(&site.relay, &["topics"]);
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<_> = said.lines().map(words).collect();
    assert_eq!(lines[1..], ["Chat 2 0 0 0 publish, subscribe", "Svc 0 1 2 1 publish"], "{said}");
    // Names are what peers have chosen.
    service.tell(&["EPUB A\u{1b}[2J\rB\u{202e}"]);
    let said = say(&site.relay, &["topics"]);
    assert!(said.contains("A\\u{1b}[2J\\u{d}B\\u{202e} ") && !said.contains('\u{1b}'), "{said}");
    let said = say(&site.relay, &["topics", "--limit", "1"]);
    assert!(said.ends_with("1 of 3; more with --limit\n"), "{said}");
}

#[test]
fn doctor_looks_at_the_keys_the_listener_and_the_relay() {
    let site = Site::start(&[]);
    let diagnosis = site.doctor(&[]);
    diagnosis.assert("settings", "ok", "valid");
    diagnosis.assert("listener", "ok", "middleman at 127.0.0.1");
    diagnosis.assert("middleman-keys", "ok", "1 of services, 1 of clients");
    diagnosis.assert("middleman", "ok", "of this relay alone");

    // The tests' keys are those that the original made public.
    let public = ["--middleman-bind", "0.0.0.0:8764", "--public-plaintext"];
    let diagnosis = site.doctor(&public);
    diagnosis.assert("middleman-keys", "warning", "bind the door to loopback alone");
    diagnosis.assert("listener", "warning", "does not answer");
    for (name, key) in [("services", "of our own"), ("clients", "ours as well")] {
        write_secret(&site.folder.path().join(name), key);
    }
    site.doctor(&public).assert("middleman-keys", "ok", "1 of services");
    let clients = site.folder.path().join("clients");
    std::fs::set_permissions(&clients, PermissionsExt::from_mode(0o644)).unwrap();
    site.doctor(&[]).assert("settings", "warning", "every user of this machine can read");
    std::fs::remove_file(clients).unwrap();
    site.doctor(&[]).assert("settings", "failed", "clients");

    let other = Relay::start(&[] as &[&str]);
    let elsewhere = Site { relay: other, ..Site::start(&[]) };
    elsewhere.doctor(&[]).assert("middleman", "warning", "has no middleman door");
}

#[test]
fn relay_without_the_door_says_so() {
    let relay = Relay::start(&[] as &[&str]);
    let (_, error) = fail(relay.state_dir(), &["topics"]);
    assert!(error.contains("no door with topics"), "{error}");
}

//! What operators see of topics.

use serde_json::json;

use super::Site;
use crate::control::{ask, fail, say};
use crate::harness::Relay;

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
    let said = say(&site.relay, &["topics", "--limit", "1"]);
    assert!(said.ends_with("1 of 2; more with --limit\n"), "{said}");
}

#[test]
fn relay_without_the_door_says_so() {
    let relay = Relay::start(&[] as &[&str]);
    let (_, error) = fail(relay.state_dir(), &["topics"]);
    assert!(error.contains("no door with topics"), "{error}");
}

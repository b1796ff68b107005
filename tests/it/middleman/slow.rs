//! Subscribers that do not read.

use std::time::Instant;

use serde_json::Value;

use super::{Site, Speaker};
use crate::cells::assert_balance;
use crate::harness::{PATIENCE, http_get, look_until};

/// So many publications of so many bytes are more than sockets and an outbox hold.
const COUNT: usize = 600;
const BYTES: usize = 60_000;

fn publish(service: &mut Speaker, number: usize) {
    let body = format!("{number:06} {}", "x".repeat(BYTES));
    service.say(&format!("PUB Chat\r\n\r\n{body}\r\n.\r\n"));
}

/// Waits until operators see one who reads slowly, and nobody else.
fn wait_until_slow(site: &Site, slow: &Speaker) {
    let readers = || {
        let (_, status) = http_get(site.relay.admin, "/status");
        let status: Value = serde_json::from_str(&status).unwrap();
        let readers = status["slow_readers"].as_array().unwrap().iter();
        readers.map(|reader| reader["node"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let name = format!("middleman:{}", slow.guid);
    let is_there = || (readers() == [name.clone()]).then_some(());
    look_until(Instant::now() + PATIENCE, is_there)
        .unwrap_or_else(|| panic!("{:?}, not {name}", readers()));
}

#[test]
fn stuck_subscriber_loses_its_oldest_publications_and_nobody_else_any() {
    // It stays longer than it takes to fill what is in front of it.
    let site = Site::start(&["--write-timeout", "60s", "--ping-interval", "60s"]);
    let mut service = site.service();
    service.tell(&["ESUB Chat", "EREQ Svc"]);
    let (mut stuck, mut reader) = (site.client(), site.client());
    stuck.tell(&["SUB Chat"]);
    reader.tell(&["SUB Chat"]);
    // Its answer has to come through what is lost before and behind it.
    stuck.say("REQ Svc\r\nrid: mine\r\n\r\n.\r\n");
    let rid = service.message().header("Rid").unwrap().to_owned();

    for number in 0..COUNT {
        publish(&mut service, number);
        let heard = reader.message();
        assert!(heard.body.starts_with(&format!("{number:06} ")), "nobody waits for the other");
        if number == COUNT / 2 {
            service.say(&format!("RES Svc\r\nrid: {rid}\r\n\r\nanswer\r\n.\r\n"));
            stuck.say("PUB Chat\r\n\r\n.\r\n");
            service.settle();
        }
    }
    assert!(site.relay.metric("beacon_relay_middleman_lost_total") > 0.0);
    wait_until_slow(&site, &stuck);

    let mut numbers = Vec::new();
    let (mut answers, mut errors) = (0, 0);
    while numbers.last() != Some(&(COUNT - 1)) {
        let heard = stuck.message();
        match &*heard.top {
            "PUB Chat" => numbers.push(heard.body[..6].parse::<usize>().unwrap()),
            "RES Svc" => answers += 1,
            "PUB ERROR" => errors += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!((answers, errors), (1, 1), "no answer and no error is lost");
    assert!(numbers.is_sorted(), "{numbers:?}");
    let gaps = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    assert_eq!(gaps, 1, "what is lost is the oldest that waits: {numbers:?}");
    #[allow(clippy::cast_precision_loss)] // a few
    let lost = (COUNT - numbers.len()) as f64;
    assert_eq!(site.relay.metric("beacon_relay_middleman_lost_total"), lost);
    assert_balance(&site.relay);
}

#[test]
fn responder_that_reads_nothing_ends_and_its_requests_fail() {
    let site = Site::start(&["--write-timeout", "1s"]);
    let mut stuck = site.service();
    stuck.tell(&["EREQ Svc"]);
    let mut client = site.client();
    let body = "x".repeat(BYTES);
    let mut sent = 0;
    let mut failed = 0;
    // Beyond what is in front of it each fails at once; the others when it is ended.
    while sent < 400 || failed < sent {
        if sent < 400 {
            client.say(&format!("REQ Svc\r\nrid: {sent}\r\n\r\n{body}\r\n.\r\n"));
            sent += 1;
            client.settle();
        }
        while sent == 400 && failed < sent || !client.waiting.is_empty() {
            let heard = client.message();
            failed += usize::from(heard.top == "RES Svc" && heard.header("Error").is_some());
        }
    }
    assert_eq!(failed, 400);
    site.relay.wait_for_metric("beacon_relay_middleman_peers", 1.0);
    site.relay.wait_for_metric("beacon_relay_middleman_requests", 0.0);
    assert_balance(&site.relay);
}

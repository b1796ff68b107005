//! Requests are answered or fail, each once, whatever becomes of those that answer them.

use std::collections::HashMap;
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Site, Speaker};
use crate::cells::assert_balance;
use crate::harness::PATIENCE;

const REQUESTS: usize = 10_000;

/// Requests that wait at a time: a requester has no more than an eighth of what there may be.
const AT_ONCE: usize = 256;

/// Answers requests until its connection ends, or cuts that after so many.
fn respond(mut responder: Speaker, cut_after: Option<usize>, answered: &AtomicUsize) {
    let mut asked = 0;
    while let Some((1, text)) = responder.read() {
        let text = String::from_utf8(text).unwrap();
        if !text.starts_with("REQ ") {
            // That a requester has gone is nobody's fault.
            continue;
        }
        asked += 1;
        if cut_after == Some(asked) {
            responder.peer.stream.shutdown(Shutdown::Both).unwrap();
            return;
        }
        let rid = text.split("Rid: ").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap();
        answered.fetch_add(1, Ordering::Relaxed);
        responder.say(&format!("RES Svc\r\nrid: {rid}\r\n\r\nanswer\r\n.\r\n"));
    }
}

#[test]
fn ten_thousand_requests_are_each_answered_or_fail_once_while_responders_are_killed() {
    let site = Site::start(&["--middleman-request-timeout", "10s"]);
    let answered = AtomicUsize::new(0);
    // Of eight, five are killed at different times, each with requests that it has not answered.
    let responders: Vec<_> = (0..8)
        .map(|number| {
            let mut responder = site.service();
            responder.tell(&["EREQ Svc"]);
            (responder, (number < 5).then_some(100 + 150 * number))
        })
        .collect();
    let mut client = site.client();
    let (mut good, mut failed, mut errors) = (0, 0, 0);
    thread::scope(|scope| {
        let handles: Vec<_> = responders
            .into_iter()
            .map(|(responder, cut)| {
                let stream = responder.peer.stream.try_clone().unwrap();
                let answered = &answered;
                scope.spawn(move || respond(responder, cut, answered));
                stream
            })
            .collect();
        let mut outcomes: HashMap<usize, usize> = HashMap::new();
        let mut sent = 0;
        while outcomes.len() < REQUESTS {
            while sent < REQUESTS && sent - outcomes.len() < AT_ONCE {
                client.say(&format!("REQ Svc\r\nrid: {sent}\r\n\r\nquestion\r\n.\r\n"));
                sent += 1;
            }
            let heard = client.message();
            if heard.top == "PUB ERROR" {
                assert_eq!(heard.body, "No responder for REQ Svc");
                errors += 1;
                continue;
            }
            assert_eq!(heard.top, "RES Svc", "{heard:?}");
            let rid = heard.header("rid").unwrap().parse().unwrap();
            *outcomes.entry(rid).or_default() += 1;
            match heard.header("Error") {
                None => good += 1,
                Some(_) => failed += 1,
            }
        }
        assert!(outcomes.values().all(|count| *count == 1), "each once");
        while errors < failed {
            assert_eq!(client.error(), "No responder for REQ Svc");
            errors += 1;
        }
        for stream in handles {
            // Some are gone.
            let _gone = stream.shutdown(Shutdown::Both);
        }
    });
    assert_eq!((good + failed, errors), (REQUESTS, failed));
    assert!(failed >= 5, "{failed} failed: each that was killed had one at least");
    assert!(good <= answered.load(Ordering::Relaxed));
    assert!(client.is_silent());
    assert_balance(&site.relay);
    site.relay.wait_for_metric("beacon_relay_middleman_requests", 0.0);
}

#[test]
fn request_without_an_answer_fails_at_its_deadline_and_a_late_answer_is_refused() {
    let site = Site::start(&["--middleman-request-timeout", "300ms"]);
    let mut service = site.service();
    service.tell(&["EREQ Svc"]);
    let mut client = site.client();
    let began = Instant::now();
    client.say("REQ Svc\r\nReqID: one\r\n\r\n.\r\n");
    let rid = service.message().header("Rid").unwrap().to_owned();
    let error = client.error();
    let one = client.message();
    let took = began.elapsed();
    assert!((Duration::from_millis(300)..PATIENCE).contains(&took), "{took:?}");
    assert_eq!((&*one.top, one.header("ReqID")), ("RES Svc", Some("one")), "{one:?}");
    assert_eq!(one.header("Error"), Some("Timed out"));
    assert_eq!(error, "No responder for REQ Svc");
    service.say(&format!("RES Svc\r\nrid: {rid}\r\n\r\n.\r\n"));
    assert_eq!(service.error(), "No client for request ID  RES Svc");
    assert!(client.is_silent());
    site.wait_for_dropped("no_request", 1.0);
    let timed_out = "beacon_relay_middleman_refused_total{reason=\"timed_out\"}";
    site.relay.wait_for_metric(timed_out, 1.0);
}

#[test]
fn requester_that_leaves_is_forgotten_with_its_requests() {
    let site = Site::start(&[]);
    let mut service = site.service();
    service.tell(&["EREQ Svc"]);
    let mut client = site.client();
    client.say("REQ Svc\r\nrid: 1\r\n\r\n.\r\n");
    let rid = service.message().header("Rid").unwrap().to_owned();
    drop(client);
    site.relay.wait_for_metric("beacon_relay_middleman_requests", 0.0);
    service.say(&format!("RES Svc\r\nrid: {rid}\r\n\r\n.\r\n"));
    assert_eq!(service.error(), "No client for request ID  RES Svc");
}

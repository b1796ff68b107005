//! A client that means harm has the key of clients, and nothing else.

use super::{CLIENT, Heard, Site, Speaker};
use crate::cells::assert_balance;

#[test]
fn client_can_neither_read_nor_write_nor_ask_nor_answer_what_was_not_granted() {
    let site = Site::start(&[]);
    let mut service = site.service();
    service.tell(&["SUB Secret", "EREQ Open", "ESUB News"]);
    let mut victim = site.client();
    let mut hostile = site.client();
    let of = victim.guid.clone();

    for (message, error) in [
        ("SUB Secret", "Not trusted: SUB Secret".to_owned()),
        (&*format!("SUB MSG:{of}"), format!("Not trusted: SUB MSG:{of}")),
        (&format!("PUB MSG:{of}"), format!("Not trusted PUB MSG:{of}")),
        ("PUB Secret", "Not trusted PUB Secret".to_owned()),
        ("PUB ERROR", "Not trusted PUB ERROR".to_owned()),
        ("REQ Secret", "Not trusted REQ Secret".to_owned()),
        ("RES Secret", "Not trusted RES Secret".to_owned()),
        ("EPUB Secret", "Not trusted EPUB Secret".to_owned()),
        ("ESUB Secret", "Not trusted ESUB Secret".to_owned()),
        ("EREQ Secret", "Not trusted EREQ Secret".to_owned()),
        ("EREQ Open", "Not trusted EREQ Open".to_owned()),
        ("PUB News", "Not trusted PUB News".to_owned()),
    ] {
        hostile.say(&format!("{message}\r\nrid: 1\r\n\r\nx\r\n.\r\n"));
        let heard: Vec<Heard> = hostile.settled();
        let errors: Vec<_> = heard.iter().filter(|heard| heard.top == "PUB ERROR").collect();
        assert!(errors.len() == 1 && errors[0].body == error, "{message}: {heard:?}");
        let rest = heard.iter().filter(|heard| heard.top != "PUB ERROR");
        let is_failure = |heard: &Heard| heard.header("Error").is_some();
        assert!(rest.into_iter().all(is_failure), "{message}: {heard:?}");
    }
    // What others say to each other it does not see.
    service.say("PUB Secret\r\n\r\nx\r\n.\r\n");
    assert_eq!(service.message().body, "x");
    service.say(&format!("PUB MSG:{of}\r\n\r\nto you\r\n.\r\n"));
    assert_eq!(victim.message().body, "to you");
    service.settle();
    // Whom a request is for, nobody else answers, and nobody's name is taken.
    victim.say("REQ Open\r\nrid: 7\r\n\r\n.\r\n");
    let rid = service.message().header("Rid").unwrap().to_owned();
    hostile.say(&format!("RES Open\r\nrid: {rid}\r\n\r\nstolen\r\n.\r\n"));
    assert_eq!(hostile.error(), "No client for request ID  RES Open");
    hostile.say(&format!("INT UID\r\nforcid: {of}\r\nsetuid: root\r\n\r\n.\r\n"));
    hostile.say(&format!("PUB Open\r\nCid: {of}\r\nUid: root\r\n\r\n.\r\n"));
    assert!(hostile.is_silent());
    service.tell(&["SUB Open"]);
    hostile.say(&format!("PUB Open\r\nCid: {of}\r\nUid: root\r\n\r\n.\r\n"));
    let heard = service.message();
    let own = [("Cid".to_owned(), hostile.guid.clone()), ("Uid".to_owned(), String::new())];
    assert_eq!(heard.headers, own);
    service.say(&format!("RES Open\r\nrid: {rid}\r\n\r\nanswer\r\n.\r\n"));
    assert_eq!(victim.message().body, "answer");
    assert!(victim.is_silent());
    assert_balance(&site.relay);
}

#[test]
fn client_that_floods_requests_leaves_others_room_to_ask() {
    let site = Site::start(&[]);
    let mut service = site.service();
    service.tell(&["EREQ Svc"]);
    let mut hostile = site.client();
    let batch = "REQ Svc\r\n\r\n.\r\n";
    for _ in 0..10_100 {
        hostile.say(batch);
    }
    let refused = hostile.settled();
    assert!(refused.iter().any(|heard| heard.body == "Too many requests REQ Svc"), "{refused:?}");
    let mut other = site.client();
    other.say("REQ Svc\r\nrid: 1\r\n\r\nmine\r\n.\r\n");
    loop {
        let asked = service.message();
        if asked.body == "mine" {
            let rid = asked.header("Rid").unwrap();
            service.say(&format!("RES Svc\r\nrid: {rid}\r\n\r\nyours\r\n.\r\n"));
            break;
        }
    }
    assert_eq!(other.message().body, "yours");
    site.relay.wait_for_metric("beacon_relay_middleman_peers", 3.0);
    drop(hostile);
    site.relay.wait_for_metric("beacon_relay_middleman_requests", 0.0);
    assert_balance(&site.relay);
}

#[test]
fn topics_and_subscriptions_of_a_connection_are_bounded() {
    let site = Site::start(&[]);
    let mut service = site.service();
    for number in 0..1_001 {
        service.say(&format!("SUB T{number}\r\n\r\n.\r\n"));
    }
    assert_eq!(service.error(), "Too many subscriptions SUB T1000");
    let long = "x".repeat(256);
    service.say(&format!("SUB {long}\r\n\r\n.\r\n"));
    assert_eq!(service.error(), format!("Topic too long SUB {}", &long[1..]));
    site.wait_for_dropped("too_many", 1.0);
    site.wait_for_dropped("too_long", 1.0);
    drop(service);
    site.relay.wait_for_metric("beacon_relay_middleman_topics", 0.0);
}

#[test]
fn message_that_would_be_too_long_to_deliver_is_refused_and_a_longer_one_ends_the_session() {
    let site = Site::start(&["--middleman-max-message", "8192"]);
    let mut service = site.service();
    service.tell(&["SUB Chat"]);
    let of = |length: usize| {
        let around = "PUB Chat\r\n\r\n\r\n.\r\n".len();
        format!("PUB Chat\r\n\r\n{}\r\n.\r\n", "x".repeat(length - around))
    };
    service.say(&of(8_192 - 2_048));
    assert!(service.message().body.starts_with("xx"));
    service.say(&of(8_192 - 2_047));
    assert_eq!(service.error(), "Too long PUB Chat");
    site.wait_for_dropped("too_large_to_deliver", 1.0);
    // A request is answered as well.
    let body = "x".repeat(7_000);
    service.say(&format!("REQ Svc\r\nReqID: js-1\r\n\r\n{body}\r\n.\r\n"));
    assert_eq!(service.error(), "Too long REQ Svc");
    let answer = service.message();
    assert_eq!((answer.header("ReqID"), answer.header("Error")), (Some("js-1"), Some("Too long")));
    service.say(&of(8_193));
    assert_eq!(service.peer.read_close().0, 1_009);
    assert_balance(&site.relay);
}

#[test]
fn frames_that_are_no_messages_end_their_session_and_no_other() {
    let site = Site::start(&[]);
    let mut other = site.service();
    other.tell(&["SUB Chat"]);
    for bytes in [&b"PUB Chat\r\n\r\n\xff\r\n.\r\n"[..], b"", b"\r\n", b"PUB Chat\r\n \r\n.\r\n"] {
        let mut hostile = site.client();
        hostile.peer.send(1, bytes);
        assert_eq!(hostile.peer.read_close().0, 1_002, "{bytes:?}");
    }
    let mut hostile = Speaker::log_in(site.address, CLIENT);
    hostile.peer.send(2, b"PUB Chat\r\n\r\n.\r\n");
    assert_eq!(hostile.peer.read_close().0, 1_002);
    site.wait_for_dropped("malformed", 4.0);
    site.wait_for_dropped("not_text", 1.0);
    assert!(other.is_silent());
    assert_balance(&site.relay);
}

//! What a connection and all of them may have at most.

use super::super::Bounds;
use super::*;

fn bounded(each: usize, all: usize) -> Scene {
    let bounds = |most| Bounds { subscriptions: most, grants: most, workers: most, requests: most };
    Scene::bounded(Limits { each: bounds(each), all: bounds(all), ..Limits::default() })
}

#[test]
fn shares_of_one_connection_are_bounded() {
    let mut scene = bounded(2, 100);
    let service = scene.service();

    for (command, refusal, text) in [
        ("SUB", Refusal::TooManySubscriptions, "Too many subscriptions SUB C"),
        ("EPUB", Refusal::TooManyGrants, "Too many grants EPUB C"),
        ("EREQ", Refusal::TooManyWorkers, "Too many workers EREQ C"),
    ] {
        scene.command(service, &format!("{command} A"));
        scene.command(service, &format!("{command} B"));
        let handled = scene.command(service, &format!("{command} C"));
        assert_eq!(handled, Handled::Refused(refusal));
        assert_eq!(scene.heard(), [(service, error(text))]);
    }
    let counts = Counts {
        connections: 1,
        topics: 2,
        subscriptions: 2,
        grants: 2,
        workers: 2,
        requests: 0,
        links: 0,
    };
    assert_eq!(scene.broker.counts(), counts);
    // What it has, it may ask for again.
    assert_eq!(scene.command(service, "SUB A"), Handled::Subscribed);
    assert_eq!(scene.command(service, "EPUB A"), Handled::Granted);
}

#[test]
fn shares_of_all_connections_are_bounded() {
    let mut scene = bounded(100, 2);
    let services = [scene.service(), scene.service(), scene.service()];

    for command in ["SUB A", "EPUB A", "EREQ A"] {
        let handled = services.map(|service| scene.command(service, command));
        assert!(!handled[..2].iter().any(|handled| matches!(handled, Handled::Refused(_))));
        assert!(matches!(handled[2], Handled::Refused(_)), "{command}");
    }
    scene.disconnect(services[0]);
    for command in ["SUB A", "EPUB A", "EREQ A"] {
        assert!(!matches!(scene.command(services[2], command), Handled::Refused(_)));
    }
}

#[test]
fn requests_of_one_connection_are_bounded() {
    let mut scene = bounded(3, 1_000);
    let service = scene.service();
    let client = scene.client();
    scene.command(service, "EREQ A");

    for _ in 0..3 {
        assert_eq!(scene.command(client, "REQ A"), Handled::Asked);
    }
    scene.heard();
    let handled = scene.say(client, "REQ A\r\nrid: 4\r\n\r\n\r\n.\r\n");
    assert_eq!(handled, Handled::Refused(Refusal::TooManyRequests));
    let answered = "RES A\r\nrid: 4\r\nError: Too many requests\r\n\r\n\r\n.\r\n".to_owned();
    let refused = error("Too many requests REQ A");
    assert_eq!(scene.heard(), [(client, refused), (client, answered)]);
    // Each answer makes room for one.
    scene.say(service, "RES A\r\nrid: 1\r\n\r\n\r\n.\r\n");
    assert_eq!(scene.command(client, "REQ A"), Handled::Asked);
}

#[test]
fn few_connections_cannot_keep_others_from_asking() {
    let mut scene = bounded(10_000, 1_000);
    let service = scene.service();
    scene.command(service, "EREQ A");
    for _ in 0..5 {
        let hog = scene.client();
        while scene.command(hog, "REQ A") == Handled::Asked {}
    }

    let client = scene.client();
    for _ in 0..50 {
        assert_eq!(scene.command(client, "REQ A"), Handled::Asked);
    }
    assert!(scene.broker.counts().requests <= 1_000);
}

#[test]
fn all_requests_are_bounded() {
    let mut scene = bounded(10_000, 20);
    let service = scene.service();
    scene.command(service, "EREQ A");

    for _ in 0..30 {
        let client = scene.client();
        scene.command(client, "REQ A");
    }

    assert_eq!(scene.broker.counts().requests, 20);
}

#[test]
fn topic_is_bounded_and_its_error_is_cut() {
    let mut scene = Scene::new();
    let service = scene.service();
    let longest = "€".repeat(85);
    assert_eq!(scene.command(service, &format!("SUB {longest}")), Handled::Subscribed);

    for command in ["SUB", "PUB", "EPUB", "ESUB", "EREQ", "REQ", "RES"] {
        let handled = scene.command(service, &format!("{command} {longest}€€€"));
        assert_eq!(handled, Handled::Refused(Refusal::TopicTooLong), "{command}");
        let expected = error(&format!("Topic too long {command} {longest}"));
        assert_eq!(scene.heard(), [(service, expected)]);
    }
}

#[test]
fn request_that_is_refused_for_its_length_is_answered() {
    let mut scene = Scene::new();
    let client = scene.client();
    let request = Message::parse(b"REQ Svc\nReqID: js-1\n\nlong\n.\n").unwrap();

    let refused = scene.broker.refuse(client, &request, Refusal::MessageTooLong, &mut scene.out);

    assert_eq!(refused, Handled::Refused(Refusal::MessageTooLong));
    let answered = "RES Svc\r\nReqID: js-1\r\nError: Too long\r\n\r\n\r\n.\r\n".to_owned();
    assert_eq!(scene.heard(), [(client, error("Too long REQ Svc")), (client, answered)]);

    let topic = "x".repeat(300);
    scene.say(client, &format!("REQ {topic}\r\nrid: 1\r\n\r\n\r\n.\r\n"));
    let answered =
        format!("RES {}\r\nrid: 1\r\nError: Topic too long\r\n\r\n\r\n.\r\n", &topic[..255]);
    assert_eq!(scene.heard()[1], (client, answered));
}

#[test]
fn ids_are_bounded() {
    let mut scene = Scene::new();
    let service = scene.service();
    let guid = scene.newest();
    scene.command(service, "EREQ Svc");
    let long = "x".repeat(256);

    for frame in [
        format!("REQ Svc\r\nrid: {long}\r\n\r\n\r\n.\r\n"),
        format!("REQ Svc\r\nreqid: {long}\r\n\r\n\r\n.\r\n"),
        format!("INT UID\r\nforcid: {guid}\r\nsetuid: {long}\r\n\r\n\r\n.\r\n"),
    ] {
        assert_eq!(scene.say(service, &frame), Handled::Refused(Refusal::IdTooLong));
        // What has such an id is not answered by it.
        assert_eq!(scene.heard().len(), 1);
    }
    assert_eq!(scene.broker.counts().requests, 0);
}

#[test]
fn every_refusal_has_a_word_of_its_own() {
    let words: std::collections::BTreeSet<_> = Refusal::ALL.map(Refusal::word).into();

    assert_eq!(words.len(), Refusal::ALL.len());
}

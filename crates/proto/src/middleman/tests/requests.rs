//! Requests, their answers, and who answers.

use super::*;

fn answer(rid: u64) -> String {
    format!("RES Svc\r\nrid: {rid}\r\n\r\nanswer\r\n.\r\n")
}

#[test]
fn request_and_answer_are_as_recorded() {
    let mut scene = Scene::new();
    let service = scene.service();
    let of_service = scene.newest();
    let client = scene.client();
    let of_client = scene.newest();
    scene.command(service, "EREQ Svc");

    let request = "REQ Svc\r\ncmd: Do\r\n\r\nquestion\r\n.\r\n";
    assert_eq!(scene.say(client, request), Handled::Asked);
    let asked = format!(
        "REQ Svc\r\nRid: 1\r\nCmd: Do\r\nCid: {of_client}\r\nUid: \r\n\r\nquestion\r\n.\r\n"
    );
    assert_eq!(scene.heard(), [(service, asked)]);

    scene.pass(Duration::from_secs(2));
    let response = "RES Svc\nrid:1\ncmd:Do\ncid:forged\nsalt:4\n\nanswer\r\n.\r\n";
    let waited = Duration::from_secs(2);
    assert_eq!(scene.say(service, response), Handled::Answered);
    assert_eq!(scene.out.ended(), [Ended::Answered { waited }]);
    let answered = format!(
        "RES Svc\r\nCmd: Do\r\nSalt: 4\r\nCid: {of_service}\r\nUid: \r\n\r\nanswer\r\n.\r\n"
    );
    assert_eq!(scene.heard(), [(client, answered)]);
    assert_eq!(scene.broker.next_deadline(), None);
}

#[test]
fn ids_of_a_request_are_not_repeated_by_the_answer() {
    let mut scene = Scene::new();
    let service = scene.service();
    scene.command(service, "EREQ Svc");
    let request = "REQ Svc\r\nrid: a\r\nReqID: b\r\nRid: c\r\nreqid: d\r\n\r\n\r\n.\r\n";

    scene.say(service, request);
    let (_, asked) = scene.heard().remove(0);
    assert!(asked.starts_with("REQ Svc\r\nRid: 1\r\nReqid: b\r\nReqid: d\r\nCid: "));
    scene.say(service, "RES Svc\r\nrid: 1\r\nReqid: b\r\nreqid: d\r\n\r\n\r\n.\r\n");
    let (_, answered) = scene.heard().remove(0);
    assert!(answered.starts_with("RES Svc\r\nrid: a\r\nReqID: b\r\nCid: "), "{answered}");
}

#[test]
fn id_that_only_the_answer_has_is_passed_on() {
    let mut scene = Scene::new();
    let service = scene.service();
    scene.command(service, "EREQ Svc");

    scene.command(service, "REQ Svc");
    scene.heard();
    scene.say(service, "RES Svc\r\nrid: 1\r\nreqid: x\r\n\r\n\r\n.\r\n");

    assert!(scene.heard()[0].1.starts_with("RES Svc\r\nReqid: x\r\nCid: "));
}

#[test]
fn answer_without_a_number_is_ignored() {
    let mut scene = Scene::new();
    let service = scene.service();
    scene.command(service, "EREQ Svc");
    scene.command(service, "REQ Svc");
    scene.heard();

    assert_eq!(scene.command(service, "RES Svc"), Handled::Ignored);
    for rid in ["abc", "", "+1", "-1", "1 1", "18446744073709551616"] {
        let frame = format!("RES Svc\r\nrid: {rid}\r\n\r\nx\r\n.\r\n");
        assert_eq!(scene.say(service, &frame), Handled::Ignored, "{rid}");
    }
    assert_eq!(scene.heard(), []);
}

#[test]
fn request_is_answered_once() {
    let mut scene = Scene::new();
    let service = scene.service();
    scene.command(service, "EREQ Svc");
    scene.command(service, "REQ Svc");
    scene.say(service, &answer(1));
    scene.heard();

    let again = scene.say(service, &answer(1));

    assert_eq!(again, Handled::Refused(Refusal::NoRequest));
    assert_eq!(scene.heard(), [(service, error("No client for request ID  RES Svc"))]);
}

#[test]
fn equal_responders_take_turns() {
    let mut scene = Scene::new();
    let services = [scene.service(), scene.service(), scene.service()];
    for service in services {
        scene.command(service, "EREQ Svc");
    }
    let client = scene.client();

    // With requests outstanding, and with none.
    for _ in 0..6 {
        scene.command(client, "REQ Svc");
    }
    let asked: Vec<_> = scene.heard().into_iter().map(|(to, _)| to).collect();
    assert_eq!(asked[..3], services);
    assert_eq!(asked[3..], services);
    for rid in 1..=6 {
        let index = usize::try_from(rid - 1).unwrap() % 3;
        assert_eq!(scene.say(services[index], &answer(rid)), Handled::Answered);
    }
    scene.heard();
    for (rid, service) in (7..).zip(services) {
        scene.command(client, "REQ Svc");
        assert_eq!(scene.heard()[0].0, service);
        scene.say(service, &answer(rid));
        scene.heard();
    }
}

#[test]
fn responder_with_the_fewest_requests_for_each_worker_is_asked() {
    let mut scene = Scene::new();
    let one = scene.service();
    let three = scene.service();
    scene.command(one, "EREQ Svc");
    for _ in 0..3 {
        scene.command(three, "EREQ Svc");
    }

    for _ in 0..8 {
        scene.command(one, "REQ Svc");
    }

    let heard = scene.heard();
    let of_three = heard.iter().filter(|(to, _)| *to == three).count();
    assert_eq!(of_three, 6);
}

#[test]
fn slow_responder_is_asked_less() {
    let mut scene = Scene::new();
    let slow = scene.service();
    let quick = scene.service();
    scene.command(slow, "EREQ Svc");
    scene.command(quick, "EREQ Svc");

    let mut of_slow = 0;
    for _ in 0..10 {
        scene.command(quick, "REQ Svc");
        let rid = only_rid(&scene);
        let (to, _) = scene.heard().remove(0);
        if to == quick {
            scene.say(quick, &answer(rid));
            scene.heard();
        } else {
            of_slow += 1;
        }
    }

    assert_eq!(of_slow, 1);
}

#[test]
fn request_fails_at_its_deadline_and_not_before() {
    let mut scene = Scene::new();
    let service = scene.service();
    let client = scene.client();
    scene.command(service, "EREQ Svc");
    scene.say(client, "REQ Svc\r\nReqID: js-1\r\n\r\n\r\n.\r\n");
    scene.heard();
    let deadline = scene.now + TIMEOUT;
    assert_eq!(scene.broker.next_deadline(), Some(deadline));

    scene.pass(TIMEOUT - Duration::from_millis(1));
    assert_eq!(scene.heard(), []);
    scene.pass(Duration::from_millis(1));
    assert_eq!(scene.out.ended(), [Ended::Failed(Refusal::TimedOut)]);
    let answered = "RES Svc\r\nReqID: js-1\r\nError: Timed out\r\n\r\n\r\n.\r\n".to_owned();
    let refused = error("No responder for REQ Svc");
    assert_eq!(scene.heard(), [(client, refused), (client, answered)]);

    let late = scene.say(service, &answer(1));
    assert_eq!(late, Handled::Refused(Refusal::NoRequest));
    assert_eq!(scene.heard(), [(service, error("No client for request ID  RES Svc"))]);
}

#[test]
fn request_that_the_responder_has_no_room_for_fails_at_once() {
    let mut scene = Scene::new();
    let service = scene.service();
    let client = scene.client();
    scene.command(service, "EREQ Svc");
    scene.say(client, "REQ Svc\r\nrid: 9\r\n\r\n\r\n.\r\n");
    let rid = only_rid(&scene);
    scene.heard();

    scene.broker.undelivered(rid, &mut scene.out);

    let answered = "RES Svc\r\nrid: 9\r\nError: Responder busy\r\n\r\n\r\n.\r\n".to_owned();
    let refused = error("No responder for REQ Svc");
    assert_eq!(scene.heard(), [(client, refused), (client, answered)]);
    assert_eq!(scene.broker.counts().requests, 0);
}

#[test]
fn answer_for_a_requester_that_is_gone_has_no_client() {
    let mut scene = Scene::new();
    let service = scene.service();
    let client = scene.client();
    scene.command(service, "EREQ Svc");
    scene.command(client, "REQ Svc");
    scene.heard();

    scene.disconnect(client);
    assert_eq!(scene.out.ended(), [Ended::Abandoned]);
    assert!(!scene.out.is_empty());
    assert_eq!(scene.broker.counts().requests, 0);
    scene.say(service, &answer(1));

    assert_eq!(scene.heard(), [(service, error("No client for request ID  RES Svc"))]);
}

#[test]
fn service_that_asks_itself_and_goes_leaves_nothing() {
    let mut scene = Scene::new();
    let service = scene.service();
    scene.command(service, "EREQ Svc");
    scene.command(service, "REQ Svc");
    scene.heard();

    scene.disconnect(service);

    assert_eq!(scene.heard(), []);
    assert_eq!(scene.broker.counts(), Counts::default());
}

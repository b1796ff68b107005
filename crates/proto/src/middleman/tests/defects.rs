//! What the original did worse, defect by defect.

use super::*;

#[test]
fn denied_subscription_is_none() {
    let mut scene = Scene::new();
    let service = scene.service();
    let client = scene.client();

    scene.command(client, "SUB Room");
    assert_eq!(scene.heard(), [(client, error("Not trusted: SUB Room"))]);
    scene.command(service, "ESUB Room");
    scene.publish(service, "Room", "x");

    assert_eq!(scene.heard(), []);
}

#[test]
fn denied_publication_reaches_nobody() {
    let mut scene = Scene::new();
    let service = scene.service();
    let client = scene.client();
    scene.command(service, "SUB Room");

    scene.publish(client, "Room", "leak");

    assert_eq!(scene.heard(), [(client, error("Not trusted PUB Room"))]);
}

#[test]
fn denied_request_is_not_asked() {
    let mut scene = Scene::new();
    let client = scene.client();

    scene.say(client, "REQ X\r\nrid: mine\r\n\r\n\r\n.\r\n");

    let answered = "RES X\r\nrid: mine\r\nError: Not trusted\r\n\r\n\r\n.\r\n".to_owned();
    assert_eq!(scene.heard(), [(client, error("Not trusted REQ X")), (client, answered)]);
}

#[test]
fn denied_answer_is_only_denied() {
    let mut scene = Scene::new();
    let client = scene.client();

    scene.say(client, "RES X\r\nrid: 999\r\n\r\n\r\n.\r\n");

    assert_eq!(scene.heard(), [(client, error("Not trusted RES X"))]);
}

#[test]
fn user_of_an_unknown_connection_is_an_error_and_no_more() {
    let mut scene = Scene::new();
    let service = scene.service();

    for forcid in ["nobody", "", "dc5g1j9ksduaqcg5lrsg"] {
        let frame = format!("INT UID\r\nforcid: {forcid}\r\nsetuid: x\r\n\r\n\r\n.\r\n");
        let handled = scene.say(service, &frame);
        assert_eq!(handled, Handled::Refused(Refusal::NoConnection));
        assert_eq!(scene.heard(), [(service, error("No client for INT UID"))]);
    }
    assert_eq!(scene.command(service, "INT UID"), Handled::Refused(Refusal::NoConnection));
}

#[test]
fn publications_of_one_sender_arrive_in_order() {
    let mut scene = Scene::new();
    let service = scene.service();
    let subscribers = [scene.service(), scene.service()];
    for subscriber in subscribers {
        scene.command(subscriber, "SUB Chat");
    }

    for number in 0..200 {
        scene.publish(service, "Chat", &number.to_string());
    }

    let bodies = scene.bodies();
    for subscriber in subscribers {
        let heard = bodies.iter().filter(|(to, _)| *to == subscriber);
        let numbers: Vec<u32> = heard.map(|(_, body)| body.parse().unwrap()).collect();
        assert!(numbers.iter().copied().eq(0..200));
    }
}

#[test]
fn publication_behind_a_subscription_is_not_missed() {
    let mut scene = Scene::new();
    let service = scene.service();

    scene.command(service, "SUB Room");
    scene.publish(service, "Room", "own");

    assert_eq!(scene.bodies(), [(service, "own".to_owned())]);
}

#[test]
fn only_the_asked_responder_answers() {
    let mut scene = Scene::new();
    let service = scene.service();
    let client = scene.client();
    scene.command(service, "EREQ Svc");
    scene.command(client, "REQ Svc");
    scene.heard();
    let thief = scene.service();
    let thieving_client = scene.client();
    scene.command(thief, "EREQ Svc");

    let stolen = "RES Svc\r\nrid: 1\r\n\r\nstolen\r\n.\r\n";
    for thief in [thief, thieving_client] {
        assert_eq!(scene.say(thief, stolen), Handled::Refused(Refusal::NoRequest));
        assert_eq!(scene.heard(), [(thief, error("No client for request ID  RES Svc"))]);
    }
    let mine = "RES Svc\r\nrid: 1\r\n\r\nmine\r\n.\r\n";
    assert_eq!(scene.say(service, mine), Handled::Answered);
    assert_eq!(scene.bodies(), [(client, "mine".to_owned())]);
}

#[test]
fn request_fails_at_once_when_its_responder_goes() {
    let mut scene = Scene::new();
    let service = scene.service();
    let client = scene.client();
    scene.command(service, "EREQ Svc");
    scene.say(client, "REQ Svc\r\nrid: client-1\r\nReqID: js-1\r\n\r\n\r\n.\r\n");
    scene.command(client, "REQ Svc");
    scene.heard();

    scene.disconnect(service);

    assert_eq!(scene.out.ended(), [Ended::Failed(Refusal::ResponderGone); 2]);
    let head = "RES Svc\r\nrid: client-1\r\nReqID: js-1\r\n";
    let answered = format!("{head}Error: Responder disconnected\r\n\r\n\r\n.\r\n");
    let refused = error("No responder for REQ Svc");
    // Nobody would know what an answer to the second one answers.
    let expected = [(client, refused.clone()), (client, answered), (client, refused)];
    assert_eq!(scene.heard(), expected);
    assert_eq!(scene.broker.counts().requests, 0);
}

#[test]
fn request_without_a_responder_fails_at_once() {
    let mut scene = Scene::new();
    let service = scene.service();
    let client = scene.client();
    scene.command(service, "EPUB Svc");

    let refused = error("No responder for REQ Svc");
    for requester in [service, client] {
        let handled = scene.command(requester, "REQ Svc");
        assert_eq!(handled, Handled::Refused(Refusal::NoResponder));
        assert_eq!(scene.heard(), [(requester, refused.clone())]);
    }
    // Another that comes later gets none of them.
    scene.command(service, "EREQ Svc");
    assert_eq!(scene.heard(), []);
}

#[test]
fn nothing_is_left_of_connections_that_are_gone() {
    let mut scene = Scene::new();
    let connections: Vec<_> =
        (0..8).map(|index| if index % 2 == 0 { scene.service() } else { scene.client() }).collect();
    for connection in &connections {
        for command in ["EPUB A", "ESUB A", "EREQ B", "SUB A", "SUB B", "REQ B", "PUB A"] {
            scene.command(*connection, command);
        }
    }
    assert!(scene.broker.counts().requests > 0);

    for connection in connections {
        scene.disconnect(connection);
    }

    assert_eq!(scene.broker.counts(), Counts::default());
    assert_eq!(scene.broker.topics().count(), 0);
    assert_eq!(scene.broker.next_deadline(), None);
}

#[test]
fn publications_may_be_dropped_and_answers_may_not() {
    let mut scene = Scene::new();
    let service = scene.service();
    scene.command(service, "SUB Svc");
    scene.command(service, "EREQ Svc");

    scene.publish(service, "Svc", "x");
    scene.command(service, "REQ Svc");
    scene.say(service, "RES Svc\r\nrid: 1\r\n\r\n\r\n.\r\n");
    scene.command(service, "REQ Nobody");

    let classes: Vec<_> = scene.out.deliveries().map(|(_, class, _)| class).collect();
    let expected = [Class::Publication, Class::Request { rid: 1 }, Class::Answer, Class::Error];
    assert_eq!(classes, expected);
}

#[test]
fn body_that_passes_a_service_does_not_grow() {
    let mut scene = Scene::new();
    let service = scene.service();
    scene.command(service, "SUB Chat");

    let mut frame = "PUB Chat\r\n\r\nhello\r\n.\r\n".to_owned();
    for _ in 0..3 {
        scene.say(service, &frame);
        frame = scene.heard().remove(0).1;
        assert!(frame.ends_with("\r\n\r\nhello\r\n.\r\n"), "{frame}");
    }
}

#[test]
fn line_that_is_a_dot_does_not_cut_a_message() {
    let mut scene = Scene::new();
    let service = scene.service();
    scene.command(service, "SUB Chat");

    scene.publish(service, "Chat", "a\n..\n...b");

    let (_, frame) = scene.heard().remove(0);
    assert!(frame.ends_with("\r\n\r\na\n..\n...b\r\n.\r\n"), "{frame}");
}

#[test]
fn ids_of_requests_come_back_in_the_spelling_of_real_clients() {
    let mut scene = Scene::new();
    let service = scene.service();
    let client = scene.client();
    scene.command(service, "EREQ Svc");

    for (given, echoed) in [
        // Python: the service gives back all headers in lower case.
        ("ReqID:8c0d\r\nrid:7", "rid: 7\r\nReqID: 8c0d"),
        // JavaScript sends one header only.
        ("ReqID: 8c0d", "ReqID: 8c0d"),
        ("rid: client-1", "rid: client-1"),
    ] {
        scene.say(client, &format!("REQ Svc\r\n{given}\r\n\r\nq\r\n.\r\n"));
        let rid = only_rid(&scene);
        scene.heard();
        let answer = format!("RES Svc\nrid:{rid}\nreqid:8c0d\n\na\r\n.\r\n");
        scene.say(service, &answer);
        let (to, answered) = scene.heard().remove(0);
        assert_eq!(to, client);
        let head = format!("RES Svc\r\n{echoed}\r\n");
        assert!(answered.starts_with(&head), "{answered}");
    }
}

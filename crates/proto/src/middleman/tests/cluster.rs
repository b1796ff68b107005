//! Two and three relays that are one broker.

use super::super::relays::{Heard, Relays, Who};
use super::*;

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

fn linked(count: usize) -> Relays {
    let mut relays = Relays::new(count, Limits { timeout: TIMEOUT, ..Limits::default() });
    relays.link_all();
    relays.settle();
    relays
}

/// Says a command, and brings all that comes of it.
fn command(relays: &mut Relays, who: Who, command: &str) -> (Handled, Vec<Heard>) {
    say(relays, who, &format!("{command}\r\n\r\n\r\n.\r\n"))
}

fn say(relays: &mut Relays, who: Who, frame: &str) -> (Handled, Vec<Heard>) {
    let (handled, mut heard) = relays.say(who, frame);
    heard.extend(relays.settle());
    (handled, heard)
}

fn frames(heard: &[Heard]) -> Vec<(Who, &str)> {
    heard.iter().map(|heard| (heard.who, heard.frame.as_str())).collect()
}

fn rid_of(heard: &[Heard]) -> u64 {
    let [Heard { class: Class::Request { rid }, .. }] = heard else { panic!("{heard:?}") };
    *rid
}

fn is_nothing_left(relays: &Relays) -> bool {
    let linked = Counts { links: relays.count() - 1, ..Counts::default() };
    (0..relays.count()).all(|relay| relays.broker(relay).counts() == linked)
}

#[test]
fn publication_crosses_once_to_each_relay_with_a_subscriber() {
    let mut relays = linked(3);
    let publisher = relays.connect(A, Role::Service);
    let subscribers = [(); 2].map(|()| relays.connect(B, Role::Service));
    for subscriber in subscribers {
        command(&mut relays, subscriber, "SUB Chat");
    }

    let (handled, heard) = relays.say(publisher, "PUB Chat\r\n\r\nx\r\n.\r\n");

    assert_eq!(handled, Handled::Published { copies: 0, relays: 1 });
    assert_eq!(heard, []);
    assert_eq!(relays.busy(), [(A, B)]);
    let frame = format!("PUB Chat\r\nCid: {}\r\nUid: \r\n\r\nx\r\n.\r\n", publisher.guid());
    let expected = subscribers.map(|subscriber| (subscriber, frame.as_str()));
    assert_eq!(frames(&relays.settle()), expected);
}

#[test]
fn grant_at_one_relay_is_one_at_all() {
    let mut relays = linked(2);
    let service = relays.connect(A, Role::Service);
    let clients = [relays.connect(A, Role::Client), relays.connect(B, Role::Client)];
    let refused = Handled::Refused(Refusal::NotTrusted);
    for client in clients {
        assert_eq!(command(&mut relays, client, "SUB Room").0, refused);
    }

    command(&mut relays, service, "ESUB Room");
    command(&mut relays, service, "EPUB Room");
    for client in clients {
        assert_eq!(command(&mut relays, client, "SUB Room").0, Handled::Subscribed);
    }
    let (_, heard) = say(&mut relays, clients[1], "PUB Room\r\n\r\nx\r\n.\r\n");
    assert_eq!(heard.len(), 2);

    relays.disconnect(service);
    relays.settle();
    assert_eq!(command(&mut relays, clients[1], "PUB Room").0, refused);
    for client in clients {
        relays.disconnect(client);
    }
    relays.settle();
    assert!(is_nothing_left(&relays));
}

#[test]
fn responder_of_another_relay_answers() {
    let mut relays = linked(2);
    let service = relays.connect(B, Role::Service);
    let client = relays.connect(A, Role::Client);
    command(&mut relays, service, "EREQ Svc");
    let request = "REQ Svc\r\nrid: client-1\r\nReqID: js-1\r\ncmd: Do\r\n\r\nquestion\r\n.\r\n";

    let (handled, heard) = say(&mut relays, client, request);
    assert_eq!(handled, Handled::Asked);
    let rid = rid_of(&heard);
    let asked = format!(
        "REQ Svc\r\nRid: {rid}\r\nReqid: js-1\r\nCmd: Do\r\nCid: {}\r\nUid: \r\n\r\nquestion\r\n.\r\n",
        client.guid()
    );
    assert_eq!(frames(&heard), [(service, asked.as_str())]);

    let answer = format!("RES Svc\nrid:{rid}\nreqid:js-1\ncmd:Do\n\nanswer\r\n.\r\n");
    let (handled, heard) = say(&mut relays, service, &answer);
    assert_eq!(handled, Handled::Answered);
    let answered = format!(
        "RES Svc\r\nrid: client-1\r\nReqID: js-1\r\nCmd: Do\r\nCid: {}\r\nUid: \r\n\r\nanswer\r\n.\r\n",
        service.guid()
    );
    assert_eq!(frames(&heard), [(client, answered.as_str())]);
    assert_eq!(relays.broker(A).counts().requests, 0);
    assert_eq!(relays.broker(B).counts().requests, 0);
}

#[test]
fn free_responder_here_goes_before_one_elsewhere() {
    let mut relays = linked(2);
    let here = relays.connect(A, Role::Service);
    let there = relays.connect(B, Role::Service);
    command(&mut relays, here, "EREQ Svc");
    command(&mut relays, there, "EREQ Svc");

    let asked: Vec<_> =
        (0..4).map(|_| command(&mut relays, here, "REQ Svc").1.remove(0).who).collect();

    // The second finds none free here; the third is a tie.
    assert_eq!(asked, [here, there, here, there]);
}

#[test]
fn requests_go_to_the_relay_with_the_fewest_for_each_worker() {
    let mut relays = linked(3);
    let one = relays.connect(B, Role::Service);
    let three = relays.connect(C, Role::Service);
    command(&mut relays, one, "EREQ Svc");
    for _ in 0..3 {
        command(&mut relays, three, "EREQ Svc");
    }
    let client = relays.connect(A, Role::Client);

    let asked: Vec<_> =
        (0..8).map(|_| command(&mut relays, client, "REQ Svc").1.remove(0).who).collect();

    assert_eq!(asked.iter().filter(|who| **who == three).count(), 6);
}

#[test]
fn relay_learns_that_another_is_busy_with_requests_of_others() {
    let mut relays = linked(3);
    let busy = relays.connect(B, Role::Service);
    let idle = relays.connect(C, Role::Service);
    command(&mut relays, busy, "EREQ Svc");
    for _ in 0..8 {
        command(&mut relays, busy, "REQ Svc");
    }
    command(&mut relays, idle, "EREQ Svc");
    let client = relays.connect(A, Role::Client);

    for _ in 0..4 {
        let (_, heard) = command(&mut relays, client, "REQ Svc");
        assert_eq!(heard[0].who, idle);
    }
}

#[test]
fn few_requests_are_no_news_for_other_relays() {
    let mut relays = linked(2);
    let service = relays.connect(A, Role::Service);
    for _ in 0..4 {
        command(&mut relays, service, "EREQ Svc");
    }

    let mut told = 0;
    for _ in 0..64 {
        relays.say(service, "REQ Svc\r\n\r\n.\r\n");
        told += relays.on_the_way();
        relays.settle();
    }
    // At 8, 16, 32 and 64.
    assert_eq!(told, 4);
    relays.disconnect(service);
    relays.settle();
    assert!(is_nothing_left(&relays));
}

#[test]
fn request_fails_at_once_when_the_link_ends() {
    let mut relays = linked(2);
    let service = relays.connect(B, Role::Service);
    let client = relays.connect(A, Role::Client);
    command(&mut relays, service, "EREQ Svc");
    let (_, heard) = say(&mut relays, client, "REQ Svc\r\nrid: 1\r\n\r\n\r\n.\r\n");
    let rid = rid_of(&heard);

    let heard = relays.cut(A, B);

    let refused = error("No responder for REQ Svc");
    let answered = "RES Svc\r\nrid: 1\r\nError: Relay lost\r\n\r\n\r\n.\r\n";
    assert_eq!(frames(&heard), [(client, refused.as_str()), (client, answered)]);
    assert_eq!(relays.broker(A).counts(), Counts { connections: 1, ..Counts::default() });
    assert_eq!(relays.broker(B).counts().requests, 0);
    let (handled, _) = say(&mut relays, service, &format!("RES Svc\nrid:{rid}\n\n.\n"));
    assert_eq!(handled, Handled::Refused(Refusal::NoRequest));
    // Nobody grants it any more.
    let (handled, _) = command(&mut relays, client, "REQ Svc");
    assert_eq!(handled, Handled::Refused(Refusal::NotTrusted));

    relays.link(A, B);
    relays.settle();
    assert_eq!(command(&mut relays, client, "REQ Svc").0, Handled::Asked);
}

#[test]
fn request_fails_at_once_when_the_responder_of_another_relay_goes() {
    let mut relays = linked(2);
    let service = relays.connect(B, Role::Service);
    let client = relays.connect(A, Role::Client);
    command(&mut relays, service, "EREQ Svc");
    say(&mut relays, client, "REQ Svc\r\nrid: 1\r\n\r\n\r\n.\r\n");

    let mut heard = relays.disconnect(service);
    heard.extend(relays.settle());

    let refused = error("No responder for REQ Svc");
    let answered = "RES Svc\r\nrid: 1\r\nError: Responder disconnected\r\n\r\n\r\n.\r\n";
    assert_eq!(frames(&heard), [(client, refused.as_str()), (client, answered)]);
    relays.disconnect(client);
    relays.settle();
    assert!(is_nothing_left(&relays));
}

#[test]
fn request_that_crosses_the_end_of_its_responder_has_failed() {
    let mut relays = linked(2);
    let service = relays.connect(B, Role::Service);
    let client = relays.connect(A, Role::Client);
    command(&mut relays, service, "EREQ Svc");

    let (handled, _) = relays.say(client, "REQ Svc\r\nrid: 1\r\n\r\n\r\n.\r\n");
    relays.disconnect(service);
    let heard = relays.settle();

    assert_eq!(handled, Handled::Asked);
    assert!(heard[1].frame.contains("\r\nError: No responder\r\n"), "{heard:?}");
    relays.disconnect(client);
    relays.settle();
    assert!(is_nothing_left(&relays));
}

#[test]
fn request_that_crosses_the_end_of_its_responder_is_tried_at_a_third_relay() {
    let mut relays = linked(3);
    let service = relays.connect(B, Role::Service);
    let client = relays.connect(A, Role::Client);
    command(&mut relays, service, "EREQ Svc");
    let question = "REQ Svc\r\nrid: 1\r\nReqID: js-1\r\ncmd: Do\r\n\r\n..a\r\n.\r\n";
    relays.say(client, question);
    let other = relays.connect(C, Role::Service);
    relays.say(other, "EREQ Svc\r\n\r\n.\r\n");
    relays.bring(C, A);
    relays.disconnect(service);

    relays.now += TIMEOUT / 2;
    let heard = relays.settle();

    let rid = rid_of(&heard);
    let asked = format!(
        "REQ Svc\r\nRid: {rid}\r\nReqid: js-1\r\nCmd: Do\r\nCid: {}\r\nUid: \r\n\r\n.a\r\n.\r\n",
        client.guid()
    );
    assert_eq!(frames(&heard), [(other, asked.as_str())]);
    assert_eq!(relays.broker(B).counts().requests, 0);
    // What is left of its time, and no more.
    assert_eq!(relays.broker(C).next_deadline(), Some(relays.now + TIMEOUT / 2));
    let (_, heard) = say(&mut relays, other, &format!("RES Svc\nrid:{rid}\n\nanswer\n.\n"));
    assert!(heard[0].frame.starts_with("RES Svc\r\nrid: 1\r\nReqID: js-1\r\n"), "{heard:?}");
    for who in [client, other] {
        relays.disconnect(who);
    }
    relays.settle();
    assert!(is_nothing_left(&relays));
}

#[test]
fn request_that_crosses_the_end_of_its_responder_is_answered_by_one_that_has_come_here() {
    let mut relays = linked(2);
    let service = relays.connect(B, Role::Service);
    let client = relays.connect(A, Role::Client);
    command(&mut relays, service, "EREQ Svc");
    relays.say(client, "REQ Svc\r\nrid: 1\r\n\r\n\r\n.\r\n");
    relays.disconnect(service);
    let here = relays.connect(A, Role::Service);
    relays.say(here, "EREQ Svc\r\n\r\n.\r\n");

    let heard = relays.settle();

    assert_eq!((heard[0].who, heard.len()), (here, 1));
    let rid = rid_of(&heard);
    let (handled, _) = say(&mut relays, here, &format!("RES Svc\nrid:{rid}\n\n.\n"));
    assert_eq!(handled, Handled::Answered);
    for who in [client, here] {
        relays.disconnect(who);
    }
    relays.settle();
    assert!(is_nothing_left(&relays));
}

#[test]
fn request_that_a_responder_may_have_begun_is_not_tried_elsewhere() {
    let mut relays = linked(3);
    let service = relays.connect(B, Role::Service);
    let client = relays.connect(A, Role::Client);
    command(&mut relays, service, "EREQ Svc");
    say(&mut relays, client, "REQ Svc\r\nrid: 1\r\n\r\n\r\n.\r\n");
    let other = relays.connect(C, Role::Service);
    command(&mut relays, other, "EREQ Svc");

    relays.disconnect(service);
    let heard = relays.settle();

    assert!(heard.iter().all(|heard| heard.who == client), "{heard:?}");
    assert!(heard[1].frame.contains("\r\nError: Responder disconnected\r\n"), "{heard:?}");
}

#[test]
fn deadline_of_the_requester_frees_the_responder() {
    let mut relays = linked(2);
    let service = relays.connect(B, Role::Service);
    let client = relays.connect(A, Role::Client);
    command(&mut relays, service, "EREQ Svc");
    command(&mut relays, client, "REQ Svc");

    relays.now += TIMEOUT;
    assert_eq!(frames(&relays.expire(A)), [(client, error("No responder for REQ Svc").as_str())]);
    assert_eq!(relays.broker(B).counts().requests, 1);
    relays.settle();

    assert_eq!(relays.broker(B).counts().requests, 0);
    assert_eq!(relays.broker(B).topics().next().unwrap().outstanding, 0);
    assert_eq!(relays.expire(B), []);
}

#[test]
fn requester_that_goes_frees_the_responder() {
    let mut relays = linked(2);
    let service = relays.connect(B, Role::Service);
    let client = relays.connect(A, Role::Client);
    command(&mut relays, service, "EREQ Svc");
    command(&mut relays, client, "REQ Svc");

    relays.disconnect(client);
    relays.settle();

    assert_eq!(relays.broker(B).counts().requests, 0);
}

#[test]
fn own_channel_and_user_are_reached_from_another_relay() {
    let mut relays = linked(3);
    let service = relays.connect(A, Role::Service);
    let client = relays.connect(C, Role::Client);
    let guid = client.guid();

    let (handled, _) = relays.say(service, &format!("PUB MSG:{guid}\r\n\r\nx\r\n.\r\n"));
    assert_eq!(handled, Handled::Published { copies: 0, relays: 1 });
    assert_eq!(relays.busy(), [(A, C)]);
    let heard = relays.settle();
    assert_eq!(heard[0].who, client);
    let set = format!("INT UID\r\nforcid: {guid}\r\nsetuid: u-42\r\n\r\n\r\n.\r\n");
    assert_eq!(say(&mut relays, service, &set).0, Handled::UserSet);

    command(&mut relays, service, "EPUB Chat");
    command(&mut relays, service, "SUB Chat");
    let (_, heard) = command(&mut relays, client, "PUB Chat");
    assert!(heard[0].frame.contains("\r\nUid: u-42\r\n"));
    let (handled, heard) = command(&mut relays, client, &format!("PUB MSG:{}", service.guid()));
    assert_eq!(handled, Handled::Refused(Refusal::NotTrusted));
    assert_eq!(heard[0].who, client);
}

#[test]
fn relay_that_comes_later_learns_all() {
    let mut relays = Relays::new(2, Limits::default());
    let service = relays.connect(A, Role::Service);
    let client = relays.connect(B, Role::Client);
    for text in ["ESUB Room", "EREQ Svc", "SUB Chat"] {
        command(&mut relays, service, text);
    }

    relays.link(A, B);
    relays.settle();

    assert_eq!(command(&mut relays, client, "SUB Room").0, Handled::Subscribed);
    assert_eq!(command(&mut relays, client, "REQ Svc").0, Handled::Asked);
    let topics: Vec<_> = relays.broker(B).topics().map(|topic| topic.name).collect();
    assert_eq!(topics, ["Room", "Svc", "Chat"]);
}

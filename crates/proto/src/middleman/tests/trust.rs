//! What services grant, and what clients may do.

use super::*;

#[test]
fn service_needs_no_grant() {
    let mut scene = Scene::new();
    let service = scene.service();
    let other = scene.service();

    assert_eq!(scene.command(other, "SUB Room"), Handled::Subscribed);
    assert_eq!(scene.publish(service, "Room", "x"), Handled::Published { copies: 1, relays: 0 });

    assert_eq!(scene.bodies(), [(other, "x".to_owned())]);
}

#[test]
fn grant_of_publications_is_none_of_subscriptions() {
    let mut scene = Scene::new();
    let service = scene.service();
    let client = scene.client();

    scene.command(service, "EPUB Room");

    assert_eq!(scene.publish(client, "Room", "x"), Handled::Published { copies: 0, relays: 0 });
    assert_eq!(scene.command(client, "SUB Room"), Handled::Refused(Refusal::NotTrusted));
    assert_eq!(scene.heard(), [(client, error("Not trusted: SUB Room"))]);
}

#[test]
fn grant_of_subscriptions_is_none_of_publications() {
    let mut scene = Scene::new();
    let service = scene.service();
    let client = scene.client();

    scene.command(service, "ESUB Room");

    assert_eq!(scene.command(client, "SUB Room"), Handled::Subscribed);
    let refused = Handled::Refused(Refusal::NotTrusted);
    assert_eq!(scene.publish(client, "Room", "x"), refused);
    assert_eq!(scene.command(client, "REQ Room"), refused);
    assert_eq!(scene.command(client, "RES Room"), refused);
    let expected = ["Not trusted PUB Room", "Not trusted REQ Room", "Not trusted RES Room"];
    assert_eq!(scene.heard(), expected.map(|text| (client, error(text))));
}

#[test]
fn responder_lets_clients_publish_to_its_topic() {
    let mut scene = Scene::new();
    let service = scene.service();
    let client = scene.client();

    scene.command(service, "EREQ Svc");

    assert_eq!(scene.publish(client, "Svc", "x"), Handled::Published { copies: 0, relays: 0 });
    assert_eq!(scene.command(client, "SUB Svc"), Handled::Refused(Refusal::NotTrusted));
}

#[test]
fn client_grants_nothing() {
    let mut scene = Scene::new();
    let client = scene.client();

    for command in ["EPUB X", "ESUB X", "EREQ X"] {
        let handled = scene.command(client, command);
        assert_eq!(handled, Handled::Refused(Refusal::NotTrusted));
        assert_eq!(scene.heard(), [(client, error(&format!("Not trusted {command}")))]);
    }
    assert_eq!(scene.broker.counts(), Counts { connections: 1, ..Counts::default() });
}

#[test]
fn grants_of_two_services_end_with_the_second() {
    let mut scene = Scene::new();
    let services = [scene.service(), scene.service()];
    let client = scene.client();
    for service in services {
        scene.command(service, "EPUB Room");
        // Granting twice is granting once.
        scene.command(service, "EPUB Room");
    }

    scene.disconnect(services[0]);
    assert_eq!(scene.publish(client, "Room", "x"), Handled::Published { copies: 0, relays: 0 });
    scene.disconnect(services[1]);
    assert_eq!(scene.publish(client, "Room", "x"), Handled::Refused(Refusal::NotTrusted));
}

#[test]
fn client_hears_nothing_while_nobody_grants_its_subscription() {
    let mut scene = Scene::new();
    let granting = scene.service();
    let publisher = scene.service();
    let client = scene.client();
    scene.command(granting, "ESUB Room");
    scene.command(client, "SUB Room");

    scene.disconnect(granting);
    assert_eq!(
        scene.publish(publisher, "Room", "unseen"),
        Handled::Published { copies: 0, relays: 0 }
    );
    scene.command(publisher, "ESUB Room");
    assert_eq!(
        scene.publish(publisher, "Room", "seen"),
        Handled::Published { copies: 1, relays: 0 }
    );

    assert_eq!(scene.bodies(), [(client, "seen".to_owned())]);
}

#[test]
fn repeated_subscription_gives_one_copy_to_the_sender_too() {
    let mut scene = Scene::new();
    let service = scene.service();
    scene.command(service, "SUB Chat");
    scene.command(service, "SUB Chat");

    assert_eq!(scene.publish(service, "Chat", "own"), Handled::Published { copies: 1, relays: 0 });

    assert_eq!(scene.bodies(), [(service, "own".to_owned())]);
}

#[test]
fn message_says_who_it_is_from() {
    let mut scene = Scene::new();
    let service = scene.service();
    let client = scene.client();
    let guid = scene.newest();
    scene.command(service, "EPUB Chat");
    scene.command(service, "SUB Chat");
    let frame = "PUB Chat\nroom:a\nx-MY-header:  v  \nCid: forged\nuid: root\n\nhello\r\n.\r\n";

    scene.say(client, frame);

    let delivered = format!(
        "PUB Chat\r\nRoom: a\r\nX-My-Header: v\r\nCid: {guid}\r\nUid: \r\n\r\nhello\r\n.\r\n"
    );
    assert_eq!(scene.heard(), [(service, delivered)]);
}

#[test]
fn service_sets_the_user_of_a_connection() {
    let mut scene = Scene::new();
    let service = scene.service();
    let client = scene.client();
    let guid = scene.newest();
    scene.command(service, "EPUB Chat");
    scene.command(service, "SUB Chat");
    let set = format!("INT UID\r\nforcid: {guid}\r\nsetuid: u-42\r\n\r\n\r\n.\r\n");

    assert_eq!(scene.say(client, &set), Handled::Ignored);
    scene.publish(client, "Chat", "x");
    assert!(scene.heard()[0].1.contains("\r\nUid: \r\n"));
    assert_eq!(scene.say(service, &set), Handled::UserSet);
    scene.publish(client, "Chat", "x");
    assert!(scene.heard()[0].1.contains("\r\nUid: u-42\r\n"));
}

#[test]
fn own_channel_is_for_services_and_for_clients_with_a_grant() {
    let mut scene = Scene::new();
    let service = scene.service();
    let owner = scene.client();
    let channel = format!("MSG:{}", scene.newest());
    let other = scene.client();

    assert_eq!(
        scene.publish(service, &channel, "to you"),
        Handled::Published { copies: 1, relays: 0 }
    );
    let refused = Handled::Refused(Refusal::NotTrusted);
    assert_eq!(scene.publish(other, &channel, "spoof"), refused);
    let denied = error(&format!("Not trusted PUB {channel}"));
    let heard = scene.heard();
    assert!(heard[0].1.contains("to you"));
    assert_eq!(heard[1..], [(other, denied)]);

    scene.command(service, &format!("EPUB {channel}"));
    assert_eq!(
        scene.publish(other, &channel, "granted"),
        Handled::Published { copies: 1, relays: 0 }
    );
    assert_eq!(scene.bodies(), [(owner, "granted".to_owned())]);
}

#[test]
fn nobody_subscribes_to_the_channel_of_another() {
    let mut scene = Scene::new();
    let owner = scene.client();
    let channel = format!("MSG:{}", scene.newest());
    let service = scene.service();
    let client = scene.client();
    scene.command(service, &format!("ESUB {channel}"));

    let refused = Handled::Refused(Refusal::NotTrusted);
    assert_eq!(scene.command(service, &format!("SUB {channel}")), refused);
    assert_eq!(scene.command(client, &format!("SUB {channel}")), refused);
    assert_eq!(scene.command(service, "SUB MSG:x"), refused);
    scene.heard();
    assert_eq!(scene.command(owner, &format!("SUB {channel}")), Handled::Subscribed);
    assert_eq!(scene.publish(service, &channel, "x"), Handled::Published { copies: 1, relays: 0 });
    assert_eq!(scene.bodies(), [(owner, "x".to_owned())]);
}

#[test]
fn message_to_a_channel_that_is_gone_reaches_nobody() {
    let mut scene = Scene::new();
    let service = scene.service();
    let client = scene.client();
    let channel = format!("MSG:{}", scene.newest());
    scene.disconnect(client);

    assert_eq!(scene.publish(service, &channel, "x"), Handled::Published { copies: 0, relays: 0 });
    assert_eq!(
        scene.publish(service, "MSG:nobody", "x"),
        Handled::Published { copies: 0, relays: 0 }
    );
}

#[test]
fn unknown_commands_are_ignored() {
    let mut scene = Scene::new();
    let service = scene.service();

    for command in ["UNS Room", "pub Room", " Room", "INT X"] {
        assert_eq!(scene.command(service, command), Handled::Ignored);
    }
    assert_eq!(scene.heard(), []);
}

#[test]
fn guid_is_of_one_connection() {
    let mut scene = Scene::new();
    let first = scene.service();

    assert_eq!(scene.broker.connect(1, Role::Client, guid(1)), None);
    assert_eq!(scene.broker.peer(first), Some(&0));
    scene.disconnect(first);
    let second = scene.broker.connect(2, Role::Client, guid(1)).unwrap();
    assert_eq!(scene.broker.peer(second), Some(&2));
    assert_eq!(scene.broker.peer(first), None);
    assert_eq!(scene.publish(first, "Room", "x"), Handled::Ignored);
}

//! Sessions from their key to their end.

use std::net::TcpListener;
use std::os::fd::AsFd as _;

use super::{CLIENT, SERVICE, Site, Speaker, write_secret};
use crate::activation::hand_over;
use crate::cells::assert_balance;
use crate::peer::Peer;

#[test]
fn wrong_keys_are_refused_without_a_hint() {
    let site = Site::start(&[]);
    for key in ["", "nope", "xyzzy\n", " xyzzy", "XYZZY", "xyzzy\nplugh", "#"] {
        let mut speaker = Speaker::connect(site.address);
        speaker.say(key);
        let refused = speaker.peer.read_close();
        assert_eq!(refused, (1_008, "auth failed".to_owned()), "{key:?}");
        assert_eq!(speaker.peer.read(), None);
    }
    let mut speaker = Speaker::connect(site.address);
    speaker.peer.send(2, SERVICE.as_bytes());
    assert_eq!(speaker.peer.read_close().0, 1_008);
    let mut speaker = Speaker::connect(site.address);
    speaker.say(&"x".repeat(4_097));
    assert_eq!(speaker.peer.read_close().0, 1_009);
    assert!(!site.relay.log().contains("xyzzy"), "keys are not logged");
}

#[test]
fn guid_is_told_unless_it_is_switched_off() {
    let site = Site::start(&["--middleman-guid=false"]);
    let mut speaker = Speaker::connect(site.address);
    speaker.say(SERVICE);
    assert_eq!(speaker.text(), "MM OK");
    speaker.tell(&["SUB Chat", "PUB Chat"]);
    assert_eq!(speaker.message().header("Cid").unwrap().len(), 20);
}

#[test]
fn removed_keys_end_their_sessions_and_new_ones_let_in() {
    let site = Site::start(&[]);
    let file = |name: &str| site.folder.path().join(name);
    let (mut service, mut client) = (site.service(), site.client());
    service.tell(&["EPUB Chat"]);
    write_secret(&file("clients"), "another");
    site.relay.signal("HUP");
    assert_eq!(client.peer.read_close().0, 1_008);
    assert!(service.is_silent(), "its key is still there");
    let mut refused = Speaker::connect(site.address);
    refused.say(CLIENT);
    assert_eq!(refused.peer.read_close().0, 1_008);
    Speaker::log_in(site.address, "another").tell(&["PUB Chat"]);

    // A key of both files is no change at all.
    write_secret(&file("services"), "another");
    site.relay.signal("HUP");
    site.relay.wait_for_line("not reloaded: everything stays as it was");
    service.tell(&["PUB Chat"]);
    // Who is a service by its key is one no more once it is a client's.
    write_secret(&file("clients"), SERVICE);
    site.relay.signal("HUP");
    assert_eq!(service.peer.read_close().0, 1_008);
    let mut demoted = Speaker::log_in(site.address, SERVICE);
    demoted.say("EPUB Chat\r\n\r\n.\r\n");
    assert_eq!(demoted.error(), "Not trusted EPUB Chat");
    assert_balance(&site.relay);
}

#[test]
fn subscriptions_and_grants_end_with_their_session() {
    let site = Site::start(&[]);
    let mut service = site.service();
    service.tell(&["EPUB Chat", "ESUB Chat"]);
    let mut client = site.client();
    client.tell(&["SUB Chat", "PUB Chat"]);
    assert_eq!(client.message().top, "PUB Chat");
    let mut other = site.service();
    other.tell(&["EPUB Chat"]);
    drop(service);
    site.relay.wait_for_metric("beacon_relay_middleman_grants", 1.0);
    client.tell(&["PUB Chat"]);
    assert!(client.is_silent(), "another service still lets it publish, and none lets it hear");
    drop(other);
    site.relay.wait_for_metric("beacon_relay_middleman_grants", 0.0);
    client.say("PUB Chat\r\n\r\n.\r\n");
    assert_eq!(client.error(), "Not trusted PUB Chat");
    drop(client);
    site.relay.wait_for_metric("beacon_relay_middleman_topics", 0.0);
    assert_balance(&site.relay);
}

#[test]
fn stopping_relay_says_goodbye_and_fails_no_request_silently() {
    let mut site = Site::start(&[]);
    let mut service = site.service();
    service.tell(&["EREQ Svc"]);
    let mut client = site.client();
    client.say("REQ Svc\r\nrid: 1\r\n\r\n.\r\n");
    service.message();
    site.relay.signal("TERM");
    assert_eq!(client.peer.read_close().0, 1_001);
    assert_eq!(service.peer.read_close().0, 1_001);
    site.start_again();
    site.client();
}

#[test]
fn socket_that_systemd_has_opened_takes_the_place_of_the_bind() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (command, _kept) = hand_over(&[("middleman", listener.as_fd())]);
    // Before the relay: it waits in the socket.
    let mut early = Speaker::connecting(address);

    let site = Site::start_by(command, &[]);

    early.upgrade();
    early.say(SERVICE);
    assert_eq!(early.text(), "MM OK");
    let mut client = Speaker::log_in(address, CLIENT);
    client.say("SUB Chat\r\n\r\n.\r\n");
    assert_eq!(client.error(), "Not trusted: SUB Chat");
    assert!(site.relay.wait_for_line("took over sockets").contains("listeners=1"));
}

#[test]
fn clients_do_not_keep_services_out() {
    let site = Site::start(&["--max-peers", "8"]);
    let clients: Vec<_> = (0..7).map(|_| site.client()).collect();
    let mut one_more = Speaker::connect(site.address);
    one_more.say(CLIENT);
    assert_eq!(one_more.peer.read_close(), (1_013, "at capacity".to_owned()));
    let _service = site.service();
    drop(clients);
    site.relay.wait_for_metric("beacon_relay_middleman_peers", 1.0);
    site.client();
}

#[test]
fn connections_that_say_nothing_are_closed_in_time() {
    let site = Site::start(&["--auth-timeout", "300ms"]);
    let mut speaker = Speaker::connect(site.address);
    assert_eq!(speaker.peer.read_close(), (1_008, "auth timeout".to_owned()));
    let mut plain = Peer::connect(site.address);
    let (status, _) = plain.ask("GET /debug/metrics HTTP/1.1\r\nHost: relay\r\n\r\n");
    assert_eq!(status, 426);
}

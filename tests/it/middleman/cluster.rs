//! Several relays as one broker, over both fabrics.

use std::net::SocketAddr;

use tempfile::TempDir;

use super::{CLIENT, SERVICE, Speaker, write_secret};
use crate::cells::assert_balance;
use crate::cluster::{Cluster, Fabric, host, on_both_fabrics, wait_until};
use crate::doctor::doctor;
use crate::harness::{Node, Relay};

on_both_fabrics!(
    publications_cross_relays_in_order_and_grants_count_everywhere,
    requests_cross_relays_and_their_answers_come_back,
    requests_at_a_relay_that_is_killed_fail_and_it_comes_back_with_its_topics,
);

/// Requests of a megabyte that are more than the 16 MiB that may wait for a relay, and the buffers
/// in front of it.
const OVERFLOW: usize = 40;

/// Relays of one cluster, each with the door.
struct Sites {
    cluster: Cluster,
    folder: TempDir,
}

impl Sites {
    fn start(fabric: Fabric, count: usize) -> Self {
        Self::start_with(fabric, count, &["--cluster-keepalive", "500ms"])
    }

    fn start_with(fabric: Fabric, count: usize, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (services, clients) = (file("services"), file("clients"));
        write_secret(services.as_ref(), SERVICE);
        write_secret(clients.as_ref(), CLIENT);
        let binds: Vec<_> = (0..count).map(|index| format!("{}:0", host(index))).collect();
        let nodes = [Node::new(1)];
        let cluster = Cluster::start(fabric, count, &nodes.each_ref(), |index| {
            let door = [
                "--middleman-bind",
                &binds[index],
                "--middleman-service-keys-file",
                &services,
                "--middleman-client-keys-file",
                &clients,
            ];
            [&door[..], more].concat()
        });
        let sites = Self { cluster, folder };
        sites.wait_for_links(count - 1);
        sites
    }

    fn wait_for_links(&self, count: usize) {
        #[allow(clippy::cast_precision_loss)] // a few
        let count = count as f64;
        for relay in &self.cluster.relays {
            relay.wait_for_metric("beacon_relay_middleman_links", count);
        }
    }

    fn service(&self, at: usize) -> Speaker {
        Speaker::log_in(address(&self.cluster.relays[at]), SERVICE)
    }

    fn client(&self, at: usize) -> Speaker {
        Speaker::log_in(address(&self.cluster.relays[at]), CLIENT)
    }
}

fn address(relay: &Relay) -> SocketAddr {
    let line = relay.wait_for_line("also listening");
    line.split_once("bind=").unwrap().1.split(' ').next().unwrap().parse().unwrap()
}

/// Says something until it is not refused: what another relay has told may be on its way.
fn say_until_granted(speaker: &mut Speaker, message: &str) {
    wait_until("another relay's grant counts", || {
        speaker.say(message);
        let heard = speaker.settled();
        heard.iter().all(|heard| heard.top != "PUB ERROR")
    });
}

/// A relay that reads nothing for a while, though its link is up: what is for it is more than may
/// wait, so that the channel of the doors ends, and another begins.
#[test]
fn channel_that_overflows_fails_its_requests_and_begins_anew() {
    let sites = Sites::start_with(Fabric::Mesh, 2, &["--cluster-keepalive", "10s"]);
    let [here, there] = &sites.cluster.relays[..] else { panic!("two relays") };
    let mut service = sites.service(1);
    service.tell(&["EREQ Svc", "EPUB Chat", "SUB Chat"]);
    let mut client = sites.client(0);
    say_until_granted(&mut client, "PUB Svc\r\n\r\n.\r\n");
    say_until_granted(&mut client, "PUB Chat\r\n\r\nbefore\r\n.\r\n");
    assert_eq!(service.message().body, "before");

    there.signal("STOP");
    let body = "x".repeat(1_000_000);
    for number in 0..OVERFLOW {
        client.say(&format!("REQ Svc\r\nrid: {number}\r\n\r\n{body}\r\n.\r\n"));
    }
    let mut failed: Vec<usize> = Vec::new();
    while failed.len() < OVERFLOW {
        let heard = client.message();
        if heard.top == "PUB ERROR" {
            continue;
        }
        let reason = heard.header("Error").unwrap();
        assert!(["Relay lost", "No responder", "Not trusted"].contains(&reason), "{reason}");
        failed.push(heard.header("rid").unwrap().parse().unwrap());
    }
    failed.sort_unstable();
    assert_eq!(failed, (0..OVERFLOW).collect::<Vec<_>>(), "each fails once");
    here.wait_for_metric("beacon_relay_middleman_requests", 0.0);
    there.signal("CONT");

    // The relay has not left: the doors begin anew on the same link.
    here.wait_for_line("a channel to another relay begins anew");
    sites.wait_for_links(1);
    say_until_granted(&mut client, "PUB Svc\r\n\r\n.\r\n");
    say_until_granted(&mut client, "PUB Chat\r\n\r\nafter\r\n.\r\n");
    client.say("REQ Svc\r\nrid: last\r\n\r\nlast\r\n.\r\n");
    let mut heard_after = false;
    let rid = loop {
        let heard = service.message();
        heard_after |= heard.body == "after";
        if heard.body == "last" {
            break heard.header("Rid").unwrap().to_owned();
        }
    };
    assert!(heard_after, "the subscription counts again");
    service.say(&format!("RES Svc\r\nrid: {rid}\r\n\r\nanswer\r\n.\r\n"));
    while client.message().body != "answer" {}
    there.wait_for_metric("beacon_relay_middleman_requests", 0.0);
    assert!(!here.log().contains("a relay has left the cluster"), "its link has ended");
    sites.cluster.relays.iter().for_each(assert_balance);
}

#[test]
fn doctor_says_with_how_many_relays_topics_are_shared() {
    let sites = Sites::start(Fabric::Mesh, 2);
    let file = |name: &str| sites.folder.path().join(name).display().to_string();
    let admin = sites.cluster.relays[0].admin.to_string();
    let (bind, services) = ("127.0.0.1:8764", file("services"));
    let door = ["--middleman-bind", bind, "--middleman-service-keys-file", &services];
    let examine = || doctor([&door[..], &["--admin-bind", &admin]].concat());
    examine().assert("middleman", "ok", "with those of 1 of 1 other relays");
}

fn publications_cross_relays_in_order_and_grants_count_everywhere(fabric: Fabric) {
    let sites = Sites::start(fabric, 3);
    let mut service = sites.service(0);
    service.tell(&["EPUB Chat", "ESUB Chat"]);
    let mut subscriber = sites.client(1);
    say_until_granted(&mut subscriber, "SUB Chat\r\n\r\n.\r\n");
    let mut publisher = sites.client(2);
    say_until_granted(&mut publisher, "PUB Chat\r\n\r\nfirst\r\n.\r\n");
    // The subscription may be on its way as well.
    wait_until("the subscriber is heard of", || {
        publisher.say("PUB Chat\r\n\r\nfirst\r\n.\r\n");
        publisher.settle();
        !subscriber.is_silent()
    });
    publisher.say("PUB Chat\r\n\r\nbegin\r\n.\r\n");
    while subscriber.message().body != "begin" {}
    for number in 0..200 {
        publisher.say(&format!("PUB Chat\r\n\r\n{number}\r\n.\r\n"));
    }
    for number in 0..200 {
        let heard = subscriber.message();
        assert_eq!(heard.body, number.to_string());
        assert_eq!(heard.header("Cid"), Some(&*publisher.guid));
    }
    // A large one goes in parts.
    let large = "x".repeat(900_000);
    publisher.say(&format!("PUB Chat\r\n\r\n{large}\r\n.\r\n"));
    assert!(subscriber.message().body == large);

    let to = format!("PUB MSG:{}\r\n\r\nto you\r\n.\r\n", subscriber.guid);
    service.say(&to);
    assert_eq!(subscriber.message().body, "to you");
    publisher.say(&to);
    assert_eq!(publisher.error(), format!("Not trusted PUB MSG:{}", subscriber.guid));
    drop(service);
    wait_until("the grant has ended", || {
        publisher.say("PUB Chat\r\n\r\n.\r\n");
        publisher.settled().iter().any(|heard| heard.body == "Not trusted PUB Chat")
    });
    sites.cluster.relays.iter().for_each(assert_balance);
}

fn requests_cross_relays_and_their_answers_come_back(fabric: Fabric) {
    let sites = Sites::start(fabric, 2);
    let mut service = sites.service(0);
    service.tell(&["EREQ Svc"]);
    let mut client = sites.client(1);
    say_until_granted(&mut client, "PUB Svc\r\n\r\n.\r\n");
    for number in 0..50 {
        client.say(&format!("REQ Svc\r\nrid: {number}\r\nReqID: js\r\n\r\nquestion\r\n.\r\n"));
        let asked = service.message();
        assert_eq!((&*asked.top, &*asked.body), ("REQ Svc", "question"));
        assert_eq!(asked.header("Cid"), Some(&*client.guid));
        let rid = asked.header("Rid").unwrap();
        service.say(&format!("RES Svc\r\nrid: {rid}\r\n\r\nanswer\r\n.\r\n"));
        let answer = client.message();
        assert_eq!((&*answer.top, &*answer.body), ("RES Svc", "answer"));
        let ids = (answer.header("rid").unwrap(), answer.header("ReqID").unwrap());
        assert_eq!(ids, (&*number.to_string(), "js"));
    }
    // A responder that goes is told of across relays.
    client.say("REQ Svc\r\nrid: last\r\n\r\nquestion\r\n.\r\n");
    service.message();
    drop(service);
    assert_eq!(client.error(), "No responder for REQ Svc");
    assert!(client.message().header("Error").is_some());
    sites.cluster.relays.iter().for_each(assert_balance);
}

fn requests_at_a_relay_that_is_killed_fail_and_it_comes_back_with_its_topics(fabric: Fabric) {
    let mut sites = Sites::start(fabric, 2);
    let mut service = sites.service(0);
    service.tell(&["EREQ Svc"]);
    let mut client = sites.client(1);
    say_until_granted(&mut client, "PUB Svc\r\n\r\n.\r\n");
    client.say("REQ Svc\r\nrid: 1\r\n\r\nquestion\r\n.\r\n");
    service.message();
    sites.cluster.relays[0].signal("KILL");
    assert_eq!(client.error(), "No responder for REQ Svc");
    assert_eq!(client.message().header("Error"), Some("Relay lost"));
    sites.cluster.relays[0].wait_until_gone();
    sites.cluster.restart(0);
    sites.wait_for_links(1);
    let mut service = sites.service(0);
    service.tell(&["EREQ Svc"]);
    say_until_granted(&mut client, "PUB Svc\r\n\r\n.\r\n");
    client.say("REQ Svc\r\nrid: 2\r\n\r\nquestion\r\n.\r\n");
    assert_eq!(service.message().body, "question");
}

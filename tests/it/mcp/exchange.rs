//! That no message is lost or comes twice, whoever ends in between.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Host, Pass};
use crate::peerbus::Site;

fn numbers(count: usize) -> Vec<Value> {
    (0..count).map(Value::from).collect()
}

/// Sends so many numbers to a friend, and takes what comes meanwhile and until there are as many.
fn exchange(host: &mut Host, friend: &str, count: usize) -> Vec<Value> {
    let mut got = Vec::new();
    for number in 0..count {
        host.send(friend, number);
        if number % 10 == 0 {
            got.extend(host.drain());
        }
    }
    let rest = count.saturating_sub(got.len());
    got.extend(host.gather(rest));
    got
}

#[test]
fn two_hosts_exchange_a_thousand_messages_while_the_relay_is_killed() {
    const EACH: usize = 500;
    let mut site = Site::start(&[]);
    let pass = Pass::of(&site);
    let mut alice = Host::start(&pass, "alice");
    let mut bob = Host::start(&pass, "bob");
    // Who was never there cannot be written to.
    for host in [&mut alice, &mut bob] {
        host.call("bus.peers", &json!({}));
    }
    thread::scope(|scope| {
        let alices = scope.spawn(|| exchange(&mut alice, "bob", EACH));
        let bobs = scope.spawn(|| exchange(&mut bob, "alice", EACH));
        for _ in 0..2 {
            thread::sleep(Duration::from_millis(400));
            site.relay.signal("KILL");
            site.start_again_here();
        }
        for hosts in [alices, bobs] {
            assert_eq!(hosts.join().unwrap(), numbers(EACH));
        }
    });
    // What the last results held is acknowledged by this call, and nothing else was left.
    for mut host in [alice, bob] {
        assert!(host.wait(Duration::from_millis(300)).is_empty());
        host.leave();
    }
    for name in ["alice", "bob"] {
        assert!(Host::start(&pass, name).wait(Duration::from_millis(300)).is_empty());
    }
}

#[test]
fn message_comes_again_where_the_host_was_killed_before_its_next_call() {
    let site = Site::start(&[]);
    let pass = Pass::of(&site);
    let mut bob = Host::start(&pass, "bob");
    bob.send("bob", "important");
    assert_eq!(bob.gather(1), ["important"]);
    bob.kill();

    let mut bob = Host::start(&pass, "bob");
    assert_eq!(bob.gather(1), ["important"]);
    // This shows that the result has arrived.
    bob.call("bus.peers", &json!({}));
    bob.kill();

    let mut bob = Host::start(&pass, "bob");
    assert!(bob.wait(Duration::from_millis(300)).is_empty());
}

#[test]
fn thousand_messages_are_queued_without_a_relay_and_one_more_is_refused() {
    let mut site = Site::start(&[]);
    let pass = Pass::of(&site);
    Host::start(&pass, "bob").call("bus.peers", &json!({}));
    site.relay.signal("KILL");
    site.relay.wait_until_gone();

    let mut alice = Host::start(&pass, "alice");
    // Until it knows that there is nobody, it waits for an answer.
    alice.error("bus.peers", &json!({}));
    for number in 0..1_000 {
        let sent = alice.send("bob", number);
        assert_eq!((&sent["result"], &sent["queued"]), (&json!("queued"), &json!(number + 1)));
    }
    let refused = alice.error("bus.send", &json!({"to": "bob", "body": 1_000}));
    assert!(refused.contains("1000 messages"), "{refused}");

    site.start_again_here();
    let mut bob = Host::start(&pass, "bob");
    assert_eq!(bob.gather(1_000), numbers(1_000));
    assert_eq!(alice.send("bob", "room again")["result"], "stored");
    assert_eq!(bob.gather(1), ["room again"]);
}

#[test]
fn message_that_fails_after_its_call_is_told_with_the_next() {
    let mut site = Site::start(&[]);
    let pass = Pass::of(&site);
    site.relay.signal("KILL");
    site.relay.wait_until_gone();
    let mut alice = Host::start(&pass, "alice");
    alice.error("bus.peers", &json!({}));
    let queued = alice.send("nobody", "lost?");
    site.start_again_here();
    let mut told = alice.call("bus.peers", &json!({}));
    // The refusal may come after the names.
    while told["failed_earlier"].is_null() {
        told = alice.call("bus.wait", &json!({"timeout_ms": 100}));
    }
    let failed = &told["failed_earlier"][0];
    assert_eq!((&failed["id"], &failed["to"]), (&queued["id"], &json!("nobody")));
    assert!(failed["reason"].as_str().unwrap().contains("has ever been"), "{told}");
}

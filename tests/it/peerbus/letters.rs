//! Dead letters that an operator puts back.

use beacon_relay::proto::bus::{Cause, Change, Digest, Level, MailboxId, Millis, Seq, Stored};
use beacon_relay::store::{Commit, Embedded, Handover, Most, Store as _, bus_folder};

use super::{Site, audit, envelope};
use crate::control::{ask, fail, say};

const ALL: Most = Most { messages: 100, bytes: usize::MAX };

/// Makes the first messages of alice dead letters, as hours of deliveries would that nobody
/// acknowledges, and starts the relay again with these settings.
fn bury(site: &mut Site, letters: usize, more: &[&str]) {
    site.relay.signal("TERM");
    site.relay.wait_until_gone();
    let store = Embedded::open(&bus_folder(site.state.path()), Handover::Kernel).unwrap();
    let names = store.recover().unwrap().names;
    let (named, level) = names.iter().find(|(named, _)| &*named.name == "alice").unwrap();
    let mailbox: MailboxId = named.mailbox;
    let waiting = store.read(mailbox, Seq(1), ALL).unwrap().stored;
    let (dead, left) = waiting.split_at(letters);
    let bury = |(at, stored): (u64, &Stored)| Change::Bury {
        mailbox,
        seq: stored.seq,
        key: Digest::of_key(&stored.message.key),
        cause: Cause::Attempts,
        at: Millis(named.seen.0 + at),
    };
    let mut changes: Vec<_> = (0..).zip(dead).map(bury).collect();
    let messages = left.len() as u64;
    let bytes = left.iter().map(|stored| stored.message.cost() as u64).sum();
    let head = left.first().map_or(level.next, |first| first.seq);
    let level = Level { head, messages, bytes, ..*level };
    changes.push(Change::Level { mailbox, level });
    store.commit(&Commit { changes, audit: Vec::new() }).unwrap();
    drop(store);
    site.start_again(more);
}

/// A relay with messages for alice, of whom these are dead letters.
fn site_with_letters(messages: usize, letters: usize, more: &[&str]) -> Site {
    let mut site = Site::start(&[]);
    drop(site.register("alice"));
    let (mut bob, _) = site.register("bob");
    for number in 0..messages {
        bob.say(&envelope(&format!("m{number}"), "bob", "alice", number));
    }
    bob.settle();
    drop(bob);
    bury(&mut site, letters, more);
    site
}

#[test]
fn dead_letters_are_delivered_behind_what_waits_once_they_are_put_back() {
    let site = site_with_letters(4, 3, &[]);
    let relay = &site.relay;
    assert_eq!(ask(relay, &["queue", "alice", "--dead"])["messages"].as_array().unwrap().len(), 3);
    assert_eq!(ask(relay, &["queue", "alice"])["messages"], 1);

    let said = say(relay, &["queue", "alice", "--requeue"]);

    assert_eq!(said, "3 dead letters of alice put back\n");
    assert_eq!(say(relay, &["queue", "alice", "--dead"]), "no message\n");
    assert_eq!(say(relay, &["queue", "alice", "--requeue"]), "0 dead letters of alice put back\n");
    let (mut alice, _) = site.register("alice");
    let bodies: Vec<_> = (0..4)
        .map(|_| {
            let (key, body) = alice.delivery();
            alice.acknowledge(&key);
            body.as_u64().unwrap()
        })
        .collect();
    assert_eq!(bodies, [3, 0, 1, 2]);
    relay.wait_for_metric("beacon_relay_bus_requeued_total", 3.0);
    relay.wait_for_metric("beacon_relay_bus_removed_total{reason=\"acknowledged\"}", 4.0);
    relay.wait_for_metric("beacon_relay_bus_messages", 0.0);
    let log = audit::wait_for(&site, "export", "requeue");
    let of = |event: &str| log.matches(&format!("{{\\\"event\\\":\\\"{event}\\\"")).count();
    assert_eq!((of("requeue"), of("send")), (3, 4 + 3), "{log}");
    audit::wait_for(&site, "verify", "audit chain OK");
}

#[test]
fn dead_letters_without_room_stay_what_they_are() {
    let site = site_with_letters(3, 3, &["--bus-quota-messages=2"]);
    let (mut bob, _) = site.register("bob");
    bob.say(&envelope("other", "bob", "alice", 7));
    bob.settle();

    let said = say(&site.relay, &["queue", "alice", "--requeue"]);

    assert_eq!(said, "1 dead letter of alice put back\nthe others stay: quota\n");
    let dead = ask(&site.relay, &["queue", "alice", "--dead"]);
    let keys: Vec<_> = dead["messages"].as_array().unwrap().iter().map(|m| &m["key"]).collect();
    assert_eq!(keys, ["m1", "m2"]);
    let (code, error) = fail(site.relay.state_dir(), &["queue", "carol", "--requeue"]);
    assert_eq!((code, error.contains("nobody has the name carol")), (1, true), "{error}");
}

//! NATS JetStream without room: bounded by the relay's settings, and on a file system that is full.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::disk::{Disk, fill_but, receipt};
use super::jetstream::Engine;
use super::{Adapter, Site, envelope};
use crate::deploy::tool;
use crate::harness::look_until;

/// How long a message without room is without an answer.
const SILENCE: Duration = Duration::from_secs(3);

impl Site {
    /// Whether messages are taken within a few looks at what is free.
    fn has_room_soon(&self) -> bool {
        let is_full = || self.relay.metric("beacon_relay_bus_store_full") > 0.0;
        look_until(Instant::now() + SILENCE, || (!is_full()).then_some(())).is_some()
    }
}

/// Takes messages of this number and those behind it, in order.
fn take(recipient: &mut Adapter, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let (key, _) = recipient.delivery();
        assert_eq!(key, format!("m{number}"));
        recipient.acknowledge(&key);
    }
}

#[test]
fn bounded_log_that_is_full_refuses_and_goes_on_when_what_waits_is_taken() {
    let engine = Engine::start();
    let site = Site::start(&[&engine.flag(), "--bus-nats-max-bytes=67108864"]);
    drop(site.register("recipient"));
    let mut sender = site.register_for_receipts("sender");
    let body = "x".repeat(200_000);
    let mut stored = 0;
    loop {
        let id = format!("m{stored}");
        sender.say(&envelope(&id, "sender", "recipient", &*body));
        let outcome = receipt(&mut sender, &id);
        if outcome.0 == "stored" {
            stored += 1;
        } else {
            assert_eq!(outcome, ("refused".to_owned(), "store_full".to_owned()));
            // Of what comes fast a part is refused until the relay has looked what is free.
            if !site.has_room_soon() {
                break;
            }
        }
        assert!(stored < 400, "it has more than it may");
    }
    // A half of it is for what waits, and some for acknowledgements.
    assert!(stored > 100, "{stored}");
    site.wait_for_bus("new messages wait or are refused");

    let (mut recipient, _) = site.register("recipient");
    take(&mut recipient, 0..stored);
    site.wait_for_bus("takes messages");
    sender.say(&envelope(&format!("m{stored}"), "sender", "recipient", &*body));
    assert_eq!(receipt(&mut sender, &format!("m{stored}")).0, "stored");
    take(&mut recipient, stored..stored + 1);
    site.relay.wait_for_metric("beacon_relay_bus_messages", 0.0);
}

#[test]
fn server_on_a_full_file_system_loses_nothing_that_had_a_receipt() {
    let mut disk = None;
    let mut engine = Engine::of("max_payload: 2MB", "max_file_store: 1GB", |folder| {
        let mounted = Arc::new(Disk::in_memory(folder, 48 << 20));
        disk = Some(Arc::clone(&mounted));
        Box::new(move || mounted.command_of(tool("nats-server")))
    });
    let disk = disk.expect("the server is on it");
    let site = Site::start(&[&engine.flag()]);
    drop(site.register("recipient"));
    let mut sender = site.register_for_receipts("sender");
    fill_but(&disk, 8 << 20);
    let body = "x".repeat(100_000);
    let mut stored = 0;
    loop {
        sender.say(&envelope(&format!("m{stored}"), "sender", "recipient", &*body));
        if sender.peer.is_silent(SILENCE) {
            break;
        }
        assert_eq!(receipt(&mut sender, &format!("m{stored}")).0, "stored");
        stored += 1;
        assert!(stored < 100, "it has more than the disk");
    }
    assert!(stored > 10, "{stored}");
    site.wait_for_bus("messages cannot be stored");

    // nats-server writes to a stream that failed no more, until it is started again.
    fs::remove_file(disk.file("ballast")).unwrap();
    engine.server.kill();
    engine.server.start_again();
    assert_eq!(receipt(&mut sender, &format!("m{stored}")).0, "stored");
    let (mut recipient, _) = site.register("recipient");
    take(&mut recipient, 0..stored + 1);
    site.wait_for_bus("takes messages");
    site.relay.wait_for_metric("beacon_relay_bus_messages", 0.0);
}

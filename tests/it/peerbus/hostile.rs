//! Peers that mean harm: what they do costs others nothing, and the relay a bounded memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::{Adapter, Site, envelope, register};
use crate::control::ask;
use crate::stopping::Stopping;

/// What a relay of a few dozen peers may have in memory, in bytes, whatever they do: in the debug
/// build 50 MB before anybody comes.
const MEMORY: u64 = 400_000_000;

/// What clients take, and send.
const LONGEST: usize = 1_048_576;

/// Two peers that send each other messages, of a credential of their own.
struct Pair {
    carol: Adapter,
    dave: Adapter,
    sent: usize,
}

impl Pair {
    fn of(site: &Site) -> Self {
        let (carol, _) = site.register_with("tok-B", "carol");
        let (dave, _) = site.register_with("tok-B", "dave");
        Self { carol, dave, sent: 0 }
    }

    /// Sends so many, and waits for each: none is missing, in order.
    fn exchange(&mut self, count: usize) {
        for _ in 0..count {
            let id = format!("d{}", self.sent);
            self.sent += 1;
            self.carol.say(&envelope(&id, "carol", "dave", self.sent));
            loop {
                let (key, body) = self.dave.delivery();
                self.dave.acknowledge(&key);
                // What others sent to everybody is not what we count.
                if key == id {
                    assert_eq!(body, self.sent);
                    break;
                }
            }
        }
    }
}

/// Has a peer do something again and again, while two others send each other messages.
fn beside(site: &Site, hostile: impl FnMut(usize) + Send) {
    beside_so_many(site, 200, hostile);
}

fn beside_so_many(site: &Site, messages: usize, mut hostile: impl FnMut(usize) + Send) {
    let mut pair = Pair::of(site);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stopping = Stopping(&stop);
        scope.spawn(|| {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                hostile(number);
            }
        });
        pair.exchange(messages);
    });
    assert_harmless(site);
    pair.exchange(10);
}

fn assert_harmless(site: &Site) {
    let memory = site.relay.anonymous_memory();
    assert!(memory < MEMORY, "{memory} bytes");
    assert!(site.relay.metric("beacon_relay_bus_store_unavailable") < 1.0);
}

/// Sends as fast as the relay takes it; false once the connection is over.
fn send(adapter: &mut Adapter, message: &serde_json::Value) -> bool {
    use std::io::Write as _;

    let frame = crate::peer::frame(0x81, message.to_string().as_bytes());
    (&adapter.peer.stream).write_all(&frame).is_ok()
}

#[test]
fn storm_of_broadcasts_beside_fifty_peers_that_read_nothing() {
    let site = Site::start(&[]);
    let _stuck: Vec<_> = (0..50).map(|n| site.register(&format!("stuck-{n}")).0).collect();
    let (mut bob, _) = site.register("bob");

    // Of each broadcast there are 52 copies, and one of them waits before what carol sends.
    beside_so_many(&site, 50, |number| {
        if number < 200 {
            bob.say(&envelope(&format!("b{number}"), "bob", "*", "x"));
        } else {
            thread::sleep(Duration::from_millis(5));
        }
    });

    // A window of each.
    assert!(site.relay.metric("beacon_relay_bus_unacknowledged") <= 256.0 * 54.0);
}

#[test]
fn flood_of_acknowledgements_of_what_never_was() {
    const HOARD: usize = 400;
    let site = Site::start(&[]);
    let (mut bob, _) = site.register("bob");
    // More than a window: each key that is not in it is looked for in the store.
    for number in 0..HOARD {
        bob.say(&envelope(&format!("m{number}"), "bob", "bob", number));
    }
    bob.settle();

    beside(&site, |number| {
        let key = if number % 100 == 0 { "k".repeat(100_000) } else { format!("k{number}") };
        bob.acknowledge(&key);
    });

    assert!(site.relay.metric("beacon_relay_bus_unknown_acks_total") > 0.0);
    let dropped = "beacon_relay_packets_dropped_total{door=\"peerbus\",reason=\"long_id\"}";
    assert!(site.relay.metric(dropped) >= 1.0);
    assert_eq!(ask(&site.relay, &["queue", "bob"])["messages"], HOARD, "nothing of it is gone");
}

#[test]
fn flood_of_questions_who_is_connected_by_peers_that_read_nothing() {
    let site = Site::start(&[]);
    let connect = || site.register("bob").0;
    let mut bob = connect();

    beside(&site, |_| {
        // The answers fill its outbox, which ends it: it comes back.
        if !send(&mut bob, &json!({"type": "peers"})) {
            bob = Adapter::connect(site.address);
            send(&mut bob, &register("tok", "bob"));
        }
    });
}

#[test]
fn longest_messages_to_eight_peers_that_read_nothing() {
    let site = Site::start(&["--write-timeout=10m", "--bus-quota-bytes=4194304"]);
    let _stuck: Vec<_> = (0..8).map(|n| site.register(&format!("stuck-{n}")).0).collect();
    let body = "x".repeat(LONGEST - 1_000);
    let mut bob = Adapter::connect(site.address);
    let mut asks = register("tok", "bob");
    asks["receipts"] = true.into();
    bob.say(&asks);
    bob.names();
    let mut sent = 0;
    let mut refused = 0;
    let mut send = || {
        let to = format!("stuck-{}", sent % 8);
        bob.say(&envelope(&format!("m{sent}"), "bob", &to, &*body));
        sent += 1;
        refused += usize::from(bob.message()["reason"] == "quota");
    };

    beside(&site, |_| send());

    // Each mailbox has room for less than five of them.
    (0..8 * 5).for_each(|_| send());
    assert!(refused > 0);
    assert!(site.relay.metric("beacon_relay_bus_bytes") <= 8.0 * 4_194_304.0);
}

#[test]
fn names_and_bodies_of_control_characters_arrive_as_long_as_clients_take_them() {
    let site = Site::start(&[]);
    // Each is six bytes in JSON.
    let names =
        [1, 2].map(|last| "\u{1}".repeat(1_023) + if last == 1 { "\u{1}" } else { "\u{2}" });
    let [from, to] = &names;
    let (mut alice, _) = site.register(to);
    let (mut bob, told) = site.register(from);
    assert_eq!(told, names, "each is told whole");
    let beyond = envelope("m1", from, to, "").to_string().len() + 72 + 2 + 17;
    let longest = "\u{1f}".repeat((LONGEST - beyond) / 6);

    bob.say(&envelope("m0", from, to, format!("{longest}\u{1f}")));
    site.wait_for_dropped("too_large_to_deliver", 1);
    bob.say(&envelope("m1", from, to, &*longest));

    assert_eq!(alice.delivery(), ("m1".to_owned(), longest.into()));
    alice.acknowledge("m1");
    let refused = site.refused("tok", &"\u{1}".repeat(1_025));
    assert_eq!(refused, (1008, "peer name too long".to_owned()));
    bob.say(&envelope("b1", from, "*", 1));
    assert_eq!(alice.delivery().0, format!("b1|{to}"));
}

#[test]
fn credential_that_registers_a_thousand_names_keeps_nobody_out() {
    const NAMES: usize = 1_000;
    let site = Site::start(&[]);
    let mut last = None;
    let (mut carol, _) = site.register_with("tok-B", "carol");
    for number in 0..NAMES {
        let (adapter, _) = site.register(&format!("name-{number}"));
        // A few of them stay.
        last = Some(adapter).filter(|_| number % 100 == 0).or(last);
    }

    let (mut dave, _) = site.register_with("tok-B", "dave");
    carol.say(&envelope("m1", "carol", "dave", 1));

    assert_eq!(dave.delivery().0, "m1");
    assert_eq!(ask(&site.relay, &["names"])["total"], NAMES + 2);
    assert_harmless(&site);
}

#[test]
fn storm_of_logins_under_one_name() {
    let site = Site::start(&[]);
    let mut storm = Vec::new();

    beside(&site, |number| {
        let mut adapter = Adapter::connect(site.address);
        adapter.say(&register("tok", "twin"));
        storm.push(adapter);
        if number % 50 == 49 {
            storm.clear();
        }
    });
}

//! What the original does wrong, and this does not: each test is of a defect that was measured.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{Adapter, Site, envelope, register, write_secret};
use crate::harness::{PATIENCE, look_until};
use crate::stopping::Stopping;

/// What its clients take, and send.
const LONGEST: usize = 1_048_576;

/// The original: 32 to 43 inversions in 800 messages.
#[test]
fn order_holds_while_a_recipient_comes_back_again_and_again_under_load() {
    const MESSAGES: usize = 800;
    let site = Site::start(&[]);
    let (mut alice, _) = site.register("alice");
    let (mut bob, _) = site.register("bob");
    let sending = thread::spawn(move || {
        for number in 0..MESSAGES {
            bob.say(&envelope(&format!("m{number}"), "bob", "alice", number));
            if number % 20 == 0 {
                thread::yield_now();
            }
        }
        bob
    });
    let mut seen = Vec::new();
    let mut ids = HashSet::new();
    while seen.len() < MESSAGES {
        for _ in 0..37 {
            let (key, body) = alice.delivery();
            if ids.insert(key.clone()) {
                seen.push(usize::try_from(body.as_u64().unwrap()).unwrap());
            }
            alice.acknowledge(&key);
            if seen.len() == MESSAGES {
                break;
            }
        }
        // It leaves in the midst of what is delivered.
        alice.leave();
        alice = site.register("alice").0;
    }
    assert!(seen.iter().copied().eq(0..MESSAGES), "{seen:?}");
    sending.join().unwrap();
}

/// The original: a delivery came before `peers` in 2 of 60 registrations.
#[test]
fn peers_is_the_first_frame_however_much_is_on_its_way() {
    /// More than come in that time, and fewer than may wait.
    const MESSAGES: usize = 90_000;
    let site = Site::start(&[]);
    let (busy, _) = site.register("busy");
    drop(busy);
    let (mut bob, _) = site.register("bob");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stopping = Stopping(&stop);
        scope.spawn(|| {
            for number in 0..MESSAGES {
                bob.say(&envelope(&format!("m{number}"), "bob", "busy", number));
                if number % 20 == 0 {
                    bob.settle();
                }
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        for _ in 0..60 {
            let (mut busy, names) = site.register("busy");
            assert!(names.contains(&"busy".to_owned()), "{names:?}");
            let (key, _) = busy.delivery();
            busy.acknowledge(&key);
            busy.leave();
        }
    });
}

/// The original: any peer can delete what another has not got.
#[test]
fn nobody_acknowledges_what_is_anothers() {
    let site = Site::start(&[]);
    let (alice, _) = site.register("alice");
    drop(alice);
    let (mut bob, _) = site.register("bob");
    bob.say(&envelope("m1", "bob", "alice", 1));
    bob.acknowledge("m1");
    bob.settle();
    let (mut alice, _) = site.register("alice");
    assert_eq!(alice.delivery().0, "m1");
    bob.acknowledge("m1");
    bob.settle();
    drop(alice);

    let (mut alice, _) = site.register("alice");
    assert_eq!(alice.delivery().0, "m1", "another's acknowledgement counted");
    alice.acknowledge("m1");
    alice.settle();
    drop(alice);
    let (mut alice, _) = site.register("alice");
    assert!(alice.is_silent());
}

/// The original: whoever comes first after it left has the name, and its messages.
#[test]
fn name_is_its_owners_while_that_is_away_and_after_a_restart() {
    let claimed = (1008, "name claimed under a different token".to_owned());
    let mut site = Site::with_tokens("ops tok\nops tok-C\ntok-B\nbound=agent-* tok-D\n", &[]);
    let (alice, _) = site.register("alice");
    assert_eq!(site.refused("tok-B", "alice"), claimed, "its owner is here");
    drop(alice);
    let (mut bob, _) = site.register_with("tok-B", "bob");
    bob.say(&envelope("m1", "bob", "alice", 1));
    bob.settle();
    assert_eq!(site.refused("tok-B", "alice"), claimed, "its owner is away");
    assert_eq!(site.refused("tok-D", "eve"), claimed, "its token is for other names");
    site.register_with("tok-D", "agent-7");

    site.restart("TERM", &[]);
    assert_eq!(site.refused("tok-B", "alice"), claimed, "its owner has not come back yet");
    let (mut alice, _) = site.register_with("tok-C", "alice");
    assert_eq!(alice.delivery().0, "m1", "another token of its label is its own");
}

/// The original: 730 connections a second of two programs with one name and token.
#[test]
fn programs_that_take_over_from_each_other_wait() {
    let site = Site::start(&[]);
    let logins = AtomicUsize::new(0);
    let end = Instant::now() + Duration::from_secs(3);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while Instant::now() < end {
                    let mut adapter = Adapter::connect(site.address);
                    adapter.say(&register("tok", "twin"));
                    adapter.peer.stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                    // One that waits is closed when a newer one comes.
                    match adapter.peer.stream.peek(&mut [std::mem::MaybeUninit::uninit()]) {
                        Ok(1) => {}
                        Ok(_) | Err(_) => continue,
                    }
                    if adapter.read().is_some_and(|(opcode, _)| opcode == 1) {
                        logins.fetch_add(1, Ordering::Relaxed);
                        // Until the other has it.
                        while adapter
                            .peer
                            .stream
                            .peek(&mut [std::mem::MaybeUninit::uninit()])
                            .is_ok_and(|read| read > 0)
                        {
                            if adapter.read().is_none_or(|(opcode, _)| opcode == 8) {
                                break;
                            }
                        }
                    }
                }
            });
        }
    });
    let logins = logins.into_inner();
    assert!((2..30).contains(&logins), "{logins} logins in 3 s");
}

/// The original: its sender is not read any more, whomever it sends to.
#[test]
fn recipient_that_reads_nothing_costs_itself_alone() {
    let site = Site::start(&["--write-timeout=10m"]);
    let (mut stuck, _) = site.register("stuck");
    let (mut carol, _) = site.register("carol");
    let (mut bob, _) = site.register("bob");
    let long = "x".repeat(100_000);
    for number in 0..100 {
        bob.say(&envelope(&format!("s{number}"), "bob", "stuck", &*long));
    }
    for number in 0..50 {
        let id = format!("c{number}");
        bob.say(&envelope(&id, "bob", "carol", number));
        assert_eq!(carol.delivery(), (id.clone(), number.into()));
        carol.acknowledge(&id);
    }
    // What it has not read is there when it reads.
    for number in 0..100 {
        let (key, _) = stuck.delivery();
        assert_eq!(key, format!("s{number}"));
        stuck.acknowledge(&key);
    }
}

/// A message whose delivery has so many bytes, where its id is its key.
fn of_length(id: &str, to: &str, bytes: usize) -> Value {
    let beyond = envelope(id, "bob", to, "").to_string().len() + 72 + id.len();
    envelope(id, "bob", to, "y".repeat(bytes - beyond))
}

/// The original: its recipient ends the connection at it, 300 times in 4 s, for ever.
#[test]
fn message_that_no_client_takes_is_dropped_and_the_longest_that_one_takes_arrives() {
    let site = Site::start(&[]);
    let (mut alice, _) = site.register("alice");
    let (mut bob, _) = site.register("bob");
    bob.say(&of_length("m1", "alice", LONGEST));
    bob.say(&envelope("m2", "bob", "alice", "<".repeat(175_000)));
    // Of a broadcast, the key has the recipient's name as well.
    bob.say(&of_length("m3", "*", LONGEST - 17));
    site.wait_for_dropped("too_large_to_deliver", 3);
    // 17 bytes are kept for the case that another message has its key.
    bob.say(&of_length("m4", "alice", LONGEST - 17));
    let (opcode, text) = alice.read().unwrap();
    assert_eq!((opcode, text.len()), (1, LONGEST - 17));
    assert!(text.starts_with(br#"{"protocol_version":"v1","type":"deliver","delivery_key":"m4""#));
    alice.acknowledge("m4");
    bob.say(&envelope("m5", "bob", "alice", 5));
    assert_eq!(alice.delivery().0, "m5");
}

/// Each id is kept in the audit log three times, for months.
#[test]
fn message_with_an_id_that_no_client_makes_is_dropped_and_so_is_its_acknowledgement() {
    let site = Site::start(&[]);
    let (mut alice, _) = site.register("alice");
    let (mut bob, _) = site.register("bob");
    bob.say(&envelope(&"i".repeat(1_025), "bob", "alice", 1));
    bob.acknowledge(&"k".repeat(1 << 16));
    site.wait_for_dropped("long_id", 2);

    let longest = "i".repeat(1_024);
    bob.say(&envelope(&longest, "bob", "alice", 2));
    assert_eq!(alice.delivery().0, longest);
}

/// The original does not look; each recipient drops it, and gets it again for ever.
#[test]
fn forgeries_are_dropped_where_the_relay_knows_the_secret() {
    const SECRET: &str = "peerbus-test-peerbus-test-peerbu";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    write_secret(&file, SECRET);
    let site = Site::start(&["--peerbus-hmac-secret-file", file.to_str().unwrap()]);
    let (mut alice, _) = site.register("alice");
    let (mut bob, _) = site.register("bob");
    bob.say(&envelope("m1", "bob", "alice", "unsigned"));
    let canonical = |id: &str| {
        format!(
            "{{\"protocol_version\":\"v1\",\"id\":\"{id}\",\"from\":\"bob\",\"to\":\"alice\",\
             \"ts\":\"t\",\"source\":\"test\",\"kind\":\"msg\",\"body\":\"signed\"}}"
        )
    };
    let sign = |secret: &str, text: &str| {
        let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        let code = mac.chain_update(text).finalize().into_bytes();
        code.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let mut forged = envelope("m2", "bob", "alice", "signed");
    forged["hmac"] = sign("another-another-another-another-", &canonical("m2")).into();
    bob.say(&forged);
    site.wait_for_dropped("forged", 2);
    let mut good = envelope("m3", "bob", "alice", "signed");
    good["hmac"] = sign(SECRET, &canonical("m3")).into();
    bob.say(&good);
    assert_eq!(alice.delivery(), ("m3".to_owned(), "signed".into()));
}

#[test]
fn nobody_sends_in_anothers_name() {
    let site = Site::start(&[]);
    let (mut alice, _) = site.register("alice");
    let (mut bob, _) = site.register("bob");
    bob.say(&envelope("m1", "mallory", "alice", 1));
    bob.say(&envelope("m2", "alice", "alice", 2));
    site.wait_for_dropped("not_the_sender", 2);
    bob.say(&envelope("m3", "bob", "alice", 3));
    assert_eq!(alice.delivery().0, "m3");
}

/// The original never says what became of a message.
#[test]
fn peer_that_asks_for_receipts_hears_of_each_message_once_it_is_safe() {
    let site = Site::start(&[]);
    let (alice, _) = site.register("alice");
    drop(alice);
    let mut bob = Adapter::connect(site.address);
    let mut asks = register("tok", "bob");
    asks["receipts"] = true.into();
    bob.say(&asks);
    assert!(bob.names().contains(&"bob".to_owned()));
    let mut hear = |message: &Value| {
        bob.say(message);
        let receipt = bob.message();
        assert_eq!(receipt["type"], "receipt", "{receipt}");
        assert_eq!(receipt["id"], message["id"]);
        let text = |member: &str| receipt[member].as_str().unwrap().to_owned();
        (text("result"), text("reason"))
    };
    let told = |result: &str, reason: &str| (result.to_owned(), reason.to_owned());
    assert_eq!(hear(&envelope("m1", "bob", "alice", 1)), told("stored", ""));
    assert_eq!(hear(&envelope("m1", "bob", "alice", 1)), told("duplicate", ""));
    assert_eq!(
        hear(&envelope("m2", "bob", "nobody-ever", 1)),
        told("refused", "unknown_recipient")
    );
    assert_eq!(hear(&envelope("m3", "eve", "alice", 1)), told("refused", "not_the_sender"));
    assert_eq!(
        hear(&json!({"id": "m4", "from": "bob", "to": "*", "kind": "msg"})),
        told("refused", "contradiction")
    );
}

/// One that would not be known without the file, which is read again.
#[test]
fn name_of_the_file_can_be_sent_to_before_it_has_registered() {
    let site = Site::with_tokens("tok\n", &[]);
    let (mut bob, _) = site.register("bob");
    bob.say(&envelope("m1", "bob", "later", 1));
    bob.settle();
    let tokens = site.folder.path().join("tokens");
    write_secret(&tokens, "tok\nteam=later tok-L\n");
    site.relay.signal("HUP");
    site.relay.wait_for_line("reloaded");
    bob.say(&envelope("m2", "bob", "later", 2));
    bob.settle();
    let mut later = None;
    let registered = || {
        let (adapter, _) = site.register_with("tok-L", "later");
        Some(adapter)
    };
    look_until(Instant::now() + PATIENCE, registered).map(|adapter| later.insert(adapter));
    let mut later = later.unwrap();
    assert_eq!(later.delivery().0, "m2", "m1 was for nobody");
    assert_eq!(site.refused("nonsense", "later").1, "invalid bearer token");
}

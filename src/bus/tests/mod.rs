//! The bus on the embedded store: what peers get, and what is there after a restart.

mod channels;
mod faults;
mod soak;
mod turns;

use std::collections::BTreeMap;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::proto::bus::{Limits, Refused};
use crate::store::{Embedded, Handover};

const REALM: Realm = Realm(201);
const ALICE: Owner = Owner([1; 32]);
const BOB: Owner = Owner([2; 32]);
const PATIENCE: Duration = Duration::from_secs(20);

/// A peer that notes what it is told.
struct Peer {
    generation: u64,
    heard: tokio::sync::mpsc::UnboundedSender<Heard>,
}

#[derive(Debug, PartialEq)]
enum Heard {
    Message(String),
    Records(u64, Vec<String>),
    Receipt(String, Outcome),
    Held(bool),
    Withdrawn,
    Replaced,
}

type Ears = tokio::sync::mpsc::UnboundedReceiver<Heard>;

impl Peer {
    fn connect(generation: u64) -> (Arc<dyn Party>, Ears) {
        let (heard, ears) = tokio::sync::mpsc::unbounded_channel();
        (Arc::new(Self { generation, heard }), ears)
    }
}

impl Party for Peer {
    fn generation(&self) -> u64 {
        self.generation
    }

    fn deliver(&self, messages: &[Outgoing], _: Instant) -> usize {
        for message in messages {
            let _ = self.heard.send(Heard::Message(message.key.to_string()));
        }
        messages.len()
    }

    fn records(&self, batch: &Batch, _: Instant) {
        let ids = batch.records.iter().map(|record| record.key.to_string()).collect();
        let _ = self.heard.send(Heard::Records(batch.number, ids));
    }

    fn receipts(&self, receipts: &[Receipt], _: Instant) {
        for Receipt { id, outcome } in receipts {
            let _ = self.heard.send(Heard::Receipt(id.to_string(), *outcome));
        }
    }

    fn hold(&self, held: bool) {
        let _ = self.heard.send(Heard::Held(held));
    }

    fn replace(&self) {
        let _ = self.heard.send(Heard::Replaced);
    }

    fn withdraw(&self) {
        let _ = self.heard.send(Heard::Withdrawn);
    }
}

async fn next(ears: &mut Ears) -> Heard {
    timeout(PATIENCE, ears.recv()).await.expect("it is told in time").unwrap()
}

fn start(folder: &TempDir, settings: Settings) -> Arc<Bus> {
    let store = Embedded::open(&folder.path().join("bus"), Handover::Kernel).unwrap();
    let key = SigningKey::from_bytes(&[7; 32]);
    Bus::start(Parts { store: Arc::new(store), settings, key, checkpoint_file: None }).unwrap()
}

fn submission(from: MailboxId, to: &str, id: &str) -> Submission {
    Submission { from, to: To::Name(to.into()), id: id.into(), body: Arc::from(&b"body"[..]) }
}

#[tokio::test]
async fn message_is_delivered_with_a_receipt_and_gone_once_it_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let bus = start(&folder, Settings::default());
    let alice = bus.claim(REALM, "alice", ALICE).await.unwrap();
    let bob = bus.claim(REALM, "bob", BOB).await.unwrap();
    let (to_alice, mut at_alice) = Peer::connect(1);
    let (to_bob, mut at_bob) = Peer::connect(2);
    bus.open(alice, ALICE, Arc::clone(&to_alice));
    bus.open(bob, BOB, Arc::clone(&to_bob));

    bus.submit(&to_bob, submission(bob, "alice", "m1"), true);
    bus.submit(&to_bob, submission(bob, "nobody", "m2"), true);

    assert_eq!(next(&mut at_alice).await, Heard::Message("m1".to_owned()));
    assert_eq!(next(&mut at_bob).await, Heard::Receipt("m1".to_owned(), Outcome::Stored));
    let refused = Outcome::Refused(Refused::UnknownRecipient);
    assert_eq!(next(&mut at_bob).await, Heard::Receipt("m2".to_owned(), refused));
    bus.acknowledge(&to_alice, alice, "m1");
    let waiting = bus.ask(|desk| desk.bus.totals().waiting).await;
    assert_eq!(waiting, Ok(0));
    bus.stop().await;
}

#[tokio::test]
async fn what_is_not_acknowledged_comes_in_order_after_a_restart_and_names_keep_their_owners() {
    let folder = tempfile::tempdir().unwrap();
    let bus = start(&folder, Settings::default());
    let bob = bus.claim(REALM, "bob", BOB).await.unwrap();
    bus.claim(REALM, "alice", ALICE).await.unwrap();
    let (to_bob, mut at_bob) = Peer::connect(1);
    for number in 0..300 {
        bus.submit(&to_bob, submission(bob, "alice", &format!("m{number}")), true);
    }
    for number in 0..300 {
        let receipt = Heard::Receipt(format!("m{number}"), Outcome::Stored);
        assert_eq!(next(&mut at_bob).await, receipt);
    }
    bus.stop().await;
    drop(bus);

    let bus = start(&folder, Settings::default());
    let thief = bus.claim(REALM, "alice", BOB).await;
    assert_eq!(thief, Err(ClaimError::NotClaimed(NotClaimed::Taken)));
    let alice = bus.claim(REALM, "alice", ALICE).await.unwrap();
    let (to_alice, mut at_alice) = Peer::connect(1);
    bus.open(alice, ALICE, Arc::clone(&to_alice));
    for number in 0..300 {
        let key = format!("m{number}");
        assert_eq!(next(&mut at_alice).await, Heard::Message(key.clone()));
        bus.acknowledge(&to_alice, alice, &key);
    }
    assert_eq!(bus.ask(|desk| desk.bus.totals().waiting).await, Ok(0));
    bus.stop().await;
}

#[tokio::test]
async fn peer_that_wants_no_receipts_waits_for_room_and_goes_on_when_there_is_some() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { quota_messages: 1, ..Limits::default() };
    let bus = start(&folder, Settings { limits, ..Settings::default() });
    let alice = bus.claim(REALM, "alice", ALICE).await.unwrap();
    let bob = bus.claim(REALM, "bob", BOB).await.unwrap();
    let (to_alice, mut at_alice) = Peer::connect(1);
    let (to_bob, mut at_bob) = Peer::connect(2);
    bus.open(alice, ALICE, Arc::clone(&to_alice));

    bus.submit(&to_bob, submission(bob, "alice", "m1"), false);
    bus.submit(&to_bob, submission(bob, "alice", "m2"), false);

    assert_eq!(next(&mut at_alice).await, Heard::Message("m1".to_owned()));
    assert_eq!(next(&mut at_bob).await, Heard::Held(true));
    bus.acknowledge(&to_alice, alice, "m1");
    assert_eq!(next(&mut at_alice).await, Heard::Message("m2".to_owned()));
    assert_eq!(next(&mut at_bob).await, Heard::Held(false));
    bus.stop().await;
}

#[tokio::test]
async fn peer_whose_messages_find_no_room_for_long_goes_on_without_them() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { quota_messages: 1, ..Limits::default() };
    let patience = Duration::from_millis(100);
    let bus = start(&folder, Settings { limits, patience, ..Settings::default() });
    bus.claim(REALM, "alice", ALICE).await.unwrap();
    let bob = bus.claim(REALM, "bob", BOB).await.unwrap();
    let (to_bob, mut at_bob) = Peer::connect(2);

    bus.submit(&to_bob, submission(bob, "alice", "m1"), false);
    bus.submit(&to_bob, submission(bob, "alice", "m2"), false);

    assert_eq!(next(&mut at_bob).await, Heard::Held(true));
    assert_eq!(next(&mut at_bob).await, Heard::Held(false));
    assert_eq!(bus.ask(|desk| desk.bus.totals().accepted).await, Ok(1));
    bus.stop().await;
}

#[tokio::test]
async fn peer_that_sends_faster_than_is_committed_is_held_until_its_messages_are() {
    let folder = tempfile::tempdir().unwrap();
    let bus = start(&folder, Settings::default());
    let bob = bus.claim(REALM, "bob", BOB).await.unwrap();
    let (to_bob, mut at_bob) = Peer::connect(1);
    // The bus's thread waits until all has been sent.
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let asked = bus.ask(move |_| wait.recv().unwrap());
    let sent = async {
        let body: Arc<[u8]> = vec![b'x'; 200_000].into();
        for number in 0..3 {
            let id = format!("m{number}").into();
            let to = To::Name("bob".into());
            let submission = Submission { from: bob, to, id, body: Arc::clone(&body) };
            bus.submit(&to_bob, submission, true);
        }
        // With the second, which is too much, and with the third.
        assert_eq!(next(&mut at_bob).await, Heard::Held(true));
        assert_eq!(next(&mut at_bob).await, Heard::Held(true));
        go.send(()).unwrap();
    };
    let (asked, ()) = tokio::join!(asked, sent);
    asked.unwrap();

    assert_eq!(next(&mut at_bob).await, Heard::Held(false));
    for number in 0..3 {
        let receipt = Heard::Receipt(format!("m{number}"), Outcome::Stored);
        assert_eq!(next(&mut at_bob).await, receipt);
    }
    bus.stop().await;
}

#[tokio::test]
async fn bus_that_has_stopped_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let bus = start(&folder, Settings::default());
    bus.stop().await;

    assert_eq!(bus.claim(REALM, "alice", ALICE).await, Err(Unanswered::Stopped.into()));
    timeout(PATIENCE, bus.ended()).await.unwrap();
}

#[tokio::test]
async fn session_whose_name_was_given_to_another_before_it_was_open_ends() {
    let folder = tempfile::tempdir().unwrap();
    let bus = start(&folder, Settings::default());
    let alice = bus.claim(REALM, "alice", ALICE).await.unwrap();
    let (to_alice, mut at_alice) = Peer::connect(1);
    let bind = |owner| {
        bus.ask(move |desk| desk.bus.bind(REALM.0, "alice", owner, desk.now, desk.turn).unwrap())
    };

    bind(BOB).await.unwrap();
    bus.open(alice, ALICE, Arc::clone(&to_alice));
    assert_eq!(next(&mut at_alice).await, Heard::Withdrawn);

    bus.open(alice, BOB, to_alice);
    bind(Owner::NOBODY).await.unwrap();
    assert_eq!(next(&mut at_alice).await, Heard::Withdrawn);
}

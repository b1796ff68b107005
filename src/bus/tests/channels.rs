//! Channels on the embedded store: what subscribers get, also after a restart.

use super::*;
use crate::proto::bus::{ChannelLimits, CursorPeer};

fn record(from: MailboxId, channel: &str, id: &str) -> Submission {
    let to = To::Channel(channel.into());
    Submission { from, to, id: id.into(), body: Arc::from(&b"body"[..]) }
}

fn to(channels: &[&str]) -> Subscription {
    let channels = channels.iter().map(|name| Arc::from(*name)).collect();
    Subscription { channels, is_ephemeral: false }
}

/// Waits for a batch, which has these records; returns its number.
async fn batch(ears: &mut Ears, expected: &[&str]) -> u64 {
    let heard = next(ears).await;
    let Heard::Records(number, ids) = heard else { panic!("{heard:?} instead of {expected:?}") };
    assert_eq!(ids, expected);
    number
}

#[tokio::test]
async fn record_comes_to_subscribers_after_its_commit_and_is_gone_when_all_have_it() {
    let folder = tempfile::tempdir().unwrap();
    let bus = start(&folder, Settings::default());
    let alice = bus.claim(REALM, "alice", ALICE).await.unwrap();
    let bob = bus.claim(REALM, "bob", BOB).await.unwrap();
    let (to_alice, mut at_alice) = Peer::connect(1);
    let (to_bob, mut at_bob) = Peer::connect(2);
    bus.open(alice, ALICE, Arc::clone(&to_alice));
    bus.open(bob, BOB, Arc::clone(&to_bob));
    bus.subscribe(alice, 1, to(&["news", "sport"]));

    bus.submit(&to_bob, record(bob, "news", "r1"), true);
    let first = batch(&mut at_alice, &["r1"]).await;
    bus.submit(&to_bob, record(bob, "news", "r2"), true);
    bus.submit(&to_bob, record(bob, "sport", "r3"), true);
    bus.submit(&to_bob, record(bob, "nobody", "r4"), true);
    bus.submit(&to_alice, record(alice, "news", "r1"), true);

    for id in ["r1", "r2", "r3", "r4"] {
        assert_eq!(next(&mut at_bob).await, Heard::Receipt(id.to_owned(), Outcome::Stored));
    }
    let again = Heard::Receipt("r1".to_owned(), Outcome::Duplicate);
    assert_eq!(next(&mut at_alice).await, again, "whoever sends it");
    bus.acknowledge_records(&to_alice, alice, first + 7);
    bus.acknowledge_records(&to_alice, alice, first);
    let second = batch(&mut at_alice, &["r2", "r3"]).await;
    bus.acknowledge_records(&to_alice, alice, second);
    // Records go at the end of a turn.
    bus.ask(|_| ()).await.unwrap();
    let totals = bus.ask(|desk| desk.bus.channel_totals()).await.unwrap();
    assert_eq!((totals.stored, totals.unread, totals.kept, totals.consumed), (3, 1, 0, 3));
    bus.stop().await;
}

#[tokio::test]
async fn subscriber_goes_on_at_its_cursor_after_a_restart_and_without_one_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let bus = start(&folder, Settings::default());
    let alice = bus.claim(REALM, "alice", ALICE).await.unwrap();
    let bob = bus.claim(REALM, "bob", BOB).await.unwrap();
    let (to_alice, mut at_alice) = Peer::connect(1);
    let (to_bob, mut at_bob) = Peer::connect(2);
    bus.open(alice, ALICE, Arc::clone(&to_alice));
    bus.subscribe(alice, 1, to(&["news"]));
    bus.submit(&to_bob, record(bob, "news", "r0"), true);
    let first = batch(&mut at_alice, &["r0"]).await;
    bus.acknowledge_records(&to_alice, alice, first);
    bus.close(alice, 1);
    assert_eq!(next(&mut at_bob).await, Heard::Receipt("r0".to_owned(), Outcome::Stored));
    for number in 1..=3_000 {
        bus.submit(&to_bob, record(bob, "news", &format!("r{number}")), true);
        let receipt = Heard::Receipt(format!("r{number}"), Outcome::Stored);
        assert_eq!(next(&mut at_bob).await, receipt);
    }
    bus.stop().await;
    drop(bus);

    let bus = start(&folder, Settings::default());
    let views = bus.ask(|desk| desk.bus.cursors(REALM.0, "news", desk.now)).await.unwrap().unwrap();
    let [view] = &views[..] else { panic!("{views:?}") };
    assert_eq!((&*view.name, view.records), ("alice", 3_000));
    assert!(matches!(view.state, CursorPeer::AwaySince(_)), "{view:?}");
    let (to_alice, mut at_alice) = Peer::connect(1);
    let (to_bob, mut at_bob) = Peer::connect(2);
    bus.open(alice, ALICE, Arc::clone(&to_alice));
    bus.open(bob, BOB, Arc::clone(&to_bob));
    bus.subscribe(alice, 1, to(&["news"]));
    bus.subscribe(bob, 2, to(&["news"]));
    let mut expected = 1;
    while expected <= 3_000 {
        let Heard::Records(number, ids) = next(&mut at_alice).await else { panic!() };
        for id in ids {
            assert_eq!(id, format!("r{expected}"));
            expected += 1;
        }
        bus.acknowledge_records(&to_alice, alice, number);
    }
    let (to, id, body) = (To::Channel("news".into()), "last".into(), b"body"[..].into());
    bus.publish(&to_bob, bob, vec![Published { to, id, body }]);
    // Recipients are told before senders.
    batch(&mut at_alice, &["last"]).await;
    batch(&mut at_bob, &["last"]).await;
    assert_eq!(next(&mut at_bob).await, Heard::Receipt("last".to_owned(), Outcome::Stored));
    bus.stop().await;
}

#[tokio::test]
async fn subscriber_of_more_channels_than_there_may_be_ends() {
    let folder = tempfile::tempdir().unwrap();
    let channels = ChannelLimits { channels: 1, ..ChannelLimits::default() };
    let limits = Limits { channels, ..Limits::default() };
    let bus = start(&folder, Settings { limits, ..Settings::default() });
    let alice = bus.claim(REALM, "alice", ALICE).await.unwrap();
    let (to_alice, mut at_alice) = Peer::connect(1);
    bus.open(alice, ALICE, Arc::clone(&to_alice));

    bus.subscribe(alice, 1, to(&["news", "sport"]));

    assert_eq!(next(&mut at_alice).await, Heard::Withdrawn);
    bus.stop().await;
}

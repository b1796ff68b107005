//! Channels of a bus that several relays serve.

use super::*;
use crate::bus::{Published, Subscription};

fn published(id: &str) -> Published {
    Published { to: To::Channel("news".into()), id: id.into(), body: b"body"[..].into() }
}

impl Session {
    fn subscribe(&self) {
        let subscription = Subscription { channels: vec!["news".into()], is_ephemeral: false };
        self.bus.subscribe(&self.address, &self.party, subscription);
    }

    fn publish(&self, ids: &[&str]) {
        let records = ids.iter().map(|id| published(id)).collect();
        self.bus.publish(&self.address, &self.party, records);
    }

    async fn receipts(&mut self, ids: &[&str]) {
        for id in ids {
            assert_eq!(self.next().await, stored(id));
        }
    }

    /// Waits for records, in this order, and acknowledges each batch.
    async fn records(&mut self, expected: &[&str]) {
        let mut left = expected;
        while !left.is_empty() {
            let heard = self.next().await;
            let Heard::Records(number, ids) = heard else { panic!("{heard:?} before {left:?}") };
            let (first, rest) = left.split_at(ids.len().min(left.len()));
            assert_eq!(ids, first);
            left = rest;
            self.bus.acknowledge_records(&self.address, &self.party, number);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriber_goes_on_at_its_cursor_whatever_relay_it_is_at_and_whoever_leads() {
    let world = World::new(2);
    world.lead(0);
    let mut alice = world.session(1, "alice", ALICE).await;
    let mut bob = world.session(0, "bob", BOB).await;
    alice.subscribe();
    // The cursor is there once something is delivered.
    let mut probes = 0;
    let first = loop {
        probes += 1;
        bob.publish(&[&format!("probe{probes}")]);
        bob.receipts(&[&format!("probe{probes}")]).await;
        if let Ok(heard) = timeout(Duration::from_millis(200), alice.ears.recv()).await {
            break heard.unwrap();
        }
    };
    let Heard::Records(number, ids) = first else { panic!("{first:?}") };
    assert_eq!(ids, [format!("probe{probes}")]);
    alice.bus.acknowledge_records(&alice.address, &alice.party, number);

    bob.publish(&["r1", "r2"]);
    bob.receipts(&["r1", "r2"]).await;
    alice.records(&["r1", "r2"]).await;

    // It has this one, and cannot say so: the next leader delivers it again.
    bob.publish(&["r3"]);
    bob.receipts(&["r3"]).await;
    let heard = alice.next().await;
    let Heard::Records(stale, ids) = heard else { panic!("{heard:?}") };
    assert_eq!(ids, ["r3"]);
    world.lead(1);
    alice.records(&["r3"]).await;
    alice.bus.acknowledge_records(&alice.address, &alice.party, stale);
    alice.close();

    bob.publish(&["r4", "r5"]);
    bob.receipts(&["r4", "r5"]).await;
    let mut alice = world.session(0, "alice", ALICE).await;
    alice.subscribe();
    alice.records(&["r4", "r5"]).await;
    let leading = world.fronts[1].leading().unwrap();
    let cursors = leading.ask(|desk| desk.bus.cursors(REALM.0, "news", desk.now)).await.unwrap();
    assert_eq!(cursors.map(|cursors| cursors.len()), Some(1));
}

//! What a bus does with one message, one name, one recipient at a time.

mod backlog;
mod channels;
mod delivery;
mod names;
mod removal;
mod sending;

use std::convert::Infallible;
use std::sync::Arc;

use super::*;

const REALM: u8 = 9;
const ALICE: Owner = Owner([1; 32]);
const BOB: Owner = Owner([2; 32]);
const T0: Millis = Millis(1_000_000);

/// A bus with a few names, and what it has said last.
struct Fixture {
    bus: Bus,
    turn: Turn,
    now: Millis,
}

impl Fixture {
    fn new(limits: Limits) -> Self {
        Self { bus: Bus::new(limits, Recovered::default()), turn: Turn::default(), now: T0 }
    }

    fn claim(&mut self, name: &str, owner: Owner) -> MailboxId {
        self.bus.claim(REALM, name, owner, self.now, &mut self.turn).unwrap()
    }

    fn open(&mut self, mailbox: MailboxId, generation: u64) {
        self.bus.open(mailbox, generation, self.now, &mut self.turn);
    }

    fn send(&mut self, from: MailboxId, to: To, id: &str) -> Submitted {
        let submission = Submission { from, to, id: id.into(), body: Arc::from(&b"body"[..]) };
        let find = |_, _| Ok::<_, Infallible>(None);
        let Ok(submitted) = self.bus.submit(&submission, self.now, &mut self.turn, find);
        submitted
    }

    fn acknowledge(&mut self, mailbox: MailboxId, generation: u64, key: &str) -> bool {
        let find = |_, _| Ok::<_, Infallible>(None);
        let Ok(known) =
            self.bus.acknowledge(mailbox, generation, key, self.now, &mut self.turn, find);
        known
    }

    /// Ends the turn.
    fn finish(&mut self) -> Turn {
        self.bus.finish(self.now, &mut self.turn);
        std::mem::take(&mut self.turn)
    }

    /// Ends the turn, and returns the keys that were delivered to a mailbox.
    fn delivered(&mut self, to: MailboxId) -> Vec<String> {
        let delivered = self.finish().effects.into_iter().filter_map(|effect| match effect {
            Effect::Deliver { mailbox, message, .. } if mailbox == to => {
                Some(message.key.to_string())
            }
            Effect::Deliver { .. }
            | Effect::Records { .. }
            | Effect::Load(_)
            | Effect::Withdraw { .. } => None,
        });
        delivered.collect()
    }

    /// Ends the turn, and returns what it wants to read.
    fn load(&mut self) -> Load {
        let loads = self.finish().effects.into_iter().filter_map(|effect| match effect {
            Effect::Load(load) => Some(load),
            Effect::Deliver { .. } | Effect::Records { .. } | Effect::Withdraw { .. } => None,
        });
        let loads: Vec<_> = loads.collect();
        let [load] = loads[..] else { panic!("one reading, not {loads:?}") };
        load
    }
}

fn to(name: &str) -> To {
    To::Name(name.into())
}

fn stored(seq: u64, from: &str, key: &str, accepted: Millis) -> Stored {
    let origin = Digest::of_origin(from, key);
    let body = Arc::from(&b"body"[..]);
    let message = Message { from: from.into(), key: key.into(), origin, accepted, body };
    Stored { seq: Seq(seq), attempts: 0, message: Arc::new(message) }
}

/// What a bus begins with whose one mailbox has so many messages.
fn waiting(messages: u64) -> Recovered {
    let named =
        Named { mailbox: MailboxId(3), realm: REALM, name: "alice".into(), owner: ALICE, seen: T0 };
    let level =
        Level { head: Seq(1), next: Seq(messages + 1), messages, bytes: messages * 80, oldest: T0 };
    Recovered { names: vec![(named, level)], next_mailbox: 4, ..Recovered::default() }
}

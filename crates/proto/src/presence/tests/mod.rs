//! The rules of presence one by one: one relay at work, the others played by the test.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use beacon_wire::cluster::{Claim, Refusal};
use beacon_wire::ids::{NodeId, PublicKey};

use super::*;

mod home;
mod lookups;
mod owner;
mod room;
mod takeovers;
mod watches;

/// The clock of the relay at the start, in milliseconds.
const CLOCK: u64 = 1_700_000_000_000;

/// The relay at work.
const ME: u8 = 1;

/// The nonce of every claim that a test looks at; of an answer, that of the latest claim.
const ANY: u32 = 0;

const SESSION: Ownership = Ownership::Session;
const ENDPOINT: Ownership = Ownership::Endpoint;
const GATEWAY: Ownership = Ownership::Gateway;

fn relay(byte: u8) -> RelayId {
    RelayId(PublicKey([byte; 32]))
}

fn node(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

fn here(serial: u64, ownership: Ownership) -> Here {
    Here { serial, ownership, takeover: Takeover::Always, credential: 0, since: None }
}

fn claim(id: NodeId, epoch: u64, serial: u64, ownership: Ownership) -> Claim<NodeId> {
    let (takeover, credential) = (Takeover::Always, 0);
    Claim { id, epoch, serial, nonce: ANY, ownership, takeover, credential, age_ms: 0 }
}

fn location(owner: u8, epoch: u64, ownership: Ownership) -> Location {
    Location { owner: relay(owner), epoch, ownership }
}

/// A relay, its time, and what it has said and decided.
struct Relay {
    presence: Presence<NodeId>,
    start: Instant,
    millis: u64,
    /// The nonce of its latest claim of each peer at each relay.
    nonces: BTreeMap<(RelayId, NodeId), u32>,
}

impl Relay {
    /// Relay [`ME`] with these members beside it.
    fn with(members: &[u8]) -> Self {
        Self::of_room(members, 1_000)
    }

    fn of_room(members: &[u8], room: usize) -> Self {
        let start = Instant::now();
        let (presence, nonces) = (Presence::new(relay(ME), room, start), BTreeMap::new());
        let mut new = Self { presence, start, millis: 0, nonces };
        for member in members {
            new.presence.joined(relay(*member), new.now());
        }
        new
    }

    fn now(&self) -> Now {
        let at = self.start + Duration::from_millis(self.millis);
        Now { at, unix_ms: CLOCK + self.millis }
    }

    /// An id whose home and spare are these.
    fn id(&self, home: u8, spare: u8) -> NodeId {
        let homes = [home, spare].map(|byte| self.presence.members.slot(relay(byte)).unwrap());
        let mut ids = (1..10_000).map(node);
        ids.find(|id| self.presence.members.homes(id) == homes).unwrap()
    }

    /// Lets time pass, with all that is due in it.
    fn wait(&mut self, millis: u64) -> Vec<(RelayId, Frame<'static, NodeId>)> {
        let end = self.start + Duration::from_millis(self.millis + millis);
        let until = self.millis + millis;
        while let Some(due) = self.presence.poll_timeout().filter(|due| *due <= end) {
            let due = due.saturating_duration_since(self.start).as_millis();
            self.millis = u64::try_from(due).unwrap().max(self.millis);
            self.presence.timeout(self.now());
        }
        self.millis = until;
        self.sent()
    }

    fn sent(&mut self) -> Vec<(RelayId, Frame<'static, NodeId>)> {
        self.note_nonces();
        let mut sent: Vec<_> = std::iter::from_fn(|| self.presence.poll_transmit()).collect();
        for (_, frame) in &mut sent {
            if let Frame::Claim(claim) = frame {
                claim.nonce = ANY;
            }
        }
        sent
    }

    /// The nonce of its latest claim at a relay.
    fn nonce(&self, at: u8, id: NodeId) -> u32 {
        self.nonces[&(relay(at), id)]
    }

    fn note_nonces(&mut self) {
        for (to, frame) in &self.presence.outbox {
            if let (Frame::Claim(claim), Some(to)) = (frame, self.presence.members.relay(*to)) {
                self.nonces.insert((to, claim.id), claim.nonce);
            }
        }
    }

    fn events(&mut self) -> Vec<Event<NodeId>> {
        std::iter::from_fn(|| self.presence.poll_event()).collect()
    }

    /// Hears a frame, and answers.
    fn hear(
        &mut self,
        from: u8,
        mut frame: Frame<'_, NodeId>,
    ) -> Vec<(RelayId, Frame<'static, NodeId>)> {
        self.note_nonces();
        if let Frame::Granted { id, nonce: nonce @ ANY, .. }
        | Frame::Refused { id, nonce: nonce @ ANY, .. } = &mut frame
        {
            *nonce = self.nonces.get(&(relay(from), *id)).copied().unwrap_or(ANY);
        }
        self.presence.receive(relay(from), &frame, self.now());
        self.sent()
    }

    /// Hears a claim; what the claimant is told.
    fn claim(&mut self, from: u8, claim: Claim<NodeId>) -> Frame<'static, NodeId> {
        let sent = self.hear(from, Frame::Claim(claim));
        let to_it = sent.into_iter().filter(|(to, _)| *to == relay(from));
        let answers = to_it.map(|(_, frame)| frame).filter(|frame| {
            matches!(
                frame,
                Frame::Granted { .. }
                    | Frame::Refused { .. }
                    | Frame::Moved { .. }
                    | Frame::Left { .. }
            )
        });
        let answers: Vec<_> = answers.collect();
        let [answer] = answers[..] else { panic!("{answers:?}") };
        answer
    }

    fn denied(&self, reason: Denied) -> u64 {
        let at = Denied::ALL.iter().position(|other| *other == reason).unwrap();
        self.presence.stats().denied[at]
    }
}

fn granted(id: NodeId, epoch: u64, serial: u64) -> Frame<'static, NodeId> {
    Frame::Granted { id, epoch, serial, nonce: ANY }
}

fn refused(id: NodeId, refusal: Refusal) -> Frame<'static, NodeId> {
    Frame::Refused { id, nonce: ANY, refusal }
}

#[test]
fn stranger_is_not_heard() {
    let mut relay = Relay::with(&[2]);
    let id = relay.id(ME, 2);
    assert_eq!(relay.hear(3, Frame::Claim(claim(id, 0, 1, SESSION))), []);
    assert_eq!((relay.denied(Denied::Stranger), relay.presence.stats().entries), (1, 0));
}

#[test]
fn relay_that_is_alone_is_its_own_home() {
    let mut relay = Relay::with(&[]);
    relay.presence.arrived(node(1), here(1, SESSION), relay.now());
    assert_eq!(relay.presence.epoch(node(1)), Some(CLOCK));
    let Stats { entries, locals, outstanding, .. } = relay.presence.stats();
    assert_eq!((entries, locals, outstanding), (1, 1, 0));
    relay.presence.departed(node(1), 1, relay.now());
    assert_eq!((relay.presence.stats().entries, relay.presence.stats().tombstones), (0, 1));
    relay.wait(91_000);
    let quiet = Stats { denied: [0; Denied::ALL.len()], ..Stats::default() };
    assert_eq!((relay.presence.stats(), relay.presence.poll_timeout()), (quiet, None));
}

#[test]
fn change_of_the_members_claims_what_has_another_home_within_a_second() {
    let mut relay = Relay::with(&[]);
    for number in 1..=1_000 {
        relay.presence.arrived(node(number), here(1, SESSION), relay.now());
    }
    relay.presence.joined(RelayId(PublicKey([2; 32])), relay.now());
    let claims = relay.sent().len() + relay.wait(100).len();
    assert!((50..200).contains(&claims), "{claims} at once");
    relay.wait(900);
    assert_eq!(relay.presence.stats().outstanding, 1_000, "the other is home or spare of all");
}

#[test]
fn million_entries_and_locals_take_at_most_100_bytes_each() {
    let count = 1_000_000;
    let start = Instant::now();
    let mut presence = Presence::new(relay(ME), MAX_ENTRIES, start);
    let now = Now { at: start, unix_ms: CLOCK };
    for number in 1..=count {
        presence.arrived(node(number), here(1, SESSION), now);
    }
    let stats = presence.stats();
    assert_eq!((stats.entries, stats.locals, stats.outstanding), (1_000_000, 1_000_000, 0));
    let locals = presence.locals.bytes();
    let entries = presence.registry.records().bytes();
    assert!(locals <= 100_000_000, "locals: {locals}");
    assert!(entries <= 100_000_000, "entries: {entries}");
    println!(
        "of a million, a local takes {} bytes and an entry {}",
        locals / 1_000_000,
        entries / 1_000_000
    );
}

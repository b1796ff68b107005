//! One recipient that never acknowledges some messages, or only slowly: what it gets, and when.

use std::collections::VecDeque;
use std::convert::Infallible;

use super::super::{Bus, Effect, Limits, MailboxId, Millis, Recovered, Submission, To, Turn};
use super::store::Store;
use super::{REALM, owner};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const WINDOW: usize = 8;

struct Scene {
    bus: Bus,
    store: Store,
    now: Millis,
    alice: MailboxId,
    bob: MailboxId,
    sent: usize,
    /// What alice got and has not looked at.
    got: VecDeque<String>,
}

impl Scene {
    fn new(limits: Limits) -> Self {
        let mut bus = Bus::new(limits, Recovered::default());
        let now = Millis(1_000_000);
        let mut turn = Turn::default();
        let alice = bus.claim(REALM, "alice", owner(0), now, &mut turn).unwrap();
        let bob = bus.claim(REALM, "bob", owner(1), now, &mut turn).unwrap();
        let mut scene =
            Self { bus, store: Store::default(), now, alice, bob, sent: 0, got: VecDeque::new() };
        scene.bus.open(alice, 1, now, &mut turn);
        scene.commit(turn);
        scene
    }

    /// Bob sends a message whose id begins with this.
    fn send(&mut self, kind: &str, bytes: usize) {
        self.sent += 1;
        let id = format!("{kind}{}", self.sent).into();
        let body = vec![0; bytes].into();
        let submission = Submission { from: self.bob, to: To::Name("alice".into()), id, body };
        let mut turn = Turn::default();
        let find = |mailbox, key| Ok::<_, Infallible>(self.store.find(mailbox, key));
        let Ok(_) = self.bus.submit(&submission, self.now, &mut turn, find);
        self.commit(turn);
    }

    fn acknowledge(&mut self, key: &str) {
        self.acknowledge_of(1, key);
    }

    fn acknowledge_of(&mut self, generation: u64, key: &str) {
        let mut turn = Turn::default();
        let find = |mailbox, key| Ok::<_, Infallible>(self.store.find(mailbox, key));
        let Ok(_) = self.bus.acknowledge(self.alice, generation, key, self.now, &mut turn, find);
        self.commit(turn);
    }

    fn pass(&mut self, millis: u64) {
        for _ in 0..millis / SECOND {
            self.now.0 += SECOND;
            let mut turn = Turn::default();
            self.bus.tick(self.now, &mut turn);
            self.commit(turn);
        }
    }

    /// Commits, and reads all that is wanted.
    fn commit(&mut self, mut turn: Turn) {
        loop {
            self.bus.finish(self.now, &mut turn);
            self.store.commit(&turn.changes, false);
            self.store.check_levels();
            let effects = std::mem::take(&mut turn.effects);
            turn = Turn::default();
            let mut has_read = false;
            for effect in effects {
                match effect {
                    Effect::Records { .. } | Effect::Withdraw { .. } => {}
                    Effect::Deliver { message, .. } => self.got.push_back(message.key.to_string()),
                    Effect::Load(load) => {
                        has_read = true;
                        let reading = self.store.read(&load);
                        self.bus.loaded(&load, reading, self.now, &mut turn);
                    }
                }
            }
            if !has_read {
                return;
            }
        }
    }

    /// Alice acknowledges what she got, but for poison; returns how many those were.
    fn acknowledge_good(&mut self) -> usize {
        let mut good = 0;
        while let Some(key) = self.got.pop_front() {
            if key.starts_with("good") {
                good += 1;
                self.acknowledge(&key);
            }
        }
        good
    }

    fn in_flight(&self) -> usize {
        let mut names = self.bus.names();
        let of_alice = names.find(|(named, ..)| named.mailbox == self.alice);
        of_alice.unwrap().2.unacknowledged.unwrap()
    }
}

fn limits() -> Limits {
    Limits { window: WINDOW, ..Limits::default() }
}

#[test]
fn window_full_of_what_is_never_acknowledged_stops_nobody_for_longer_than_a_minute() {
    let mut scene = Scene::new(limits());
    (0..WINDOW).for_each(|_| scene.send("poison", 10));
    (0..100).for_each(|_| scene.send("good", 10));
    assert_eq!(scene.acknowledge_good(), 0);

    scene.pass(MINUTE + SECOND);

    assert_eq!(scene.acknowledge_good(), 100);
    assert_eq!(scene.bus.totals().waiting, WINDOW as u64, "nothing of it is lost");
    assert_eq!(scene.bus.totals().redelivered, WINDOW as u64, "and nothing else comes twice");
}

#[test]
fn late_messages_that_others_pass_by_become_dead_letters_when_they_are_too_many() {
    let mut scene = Scene::new(limits());
    for _ in 0..10 * WINDOW {
        scene.send("poison", 10);
        scene.send("good", 10);
    }

    let mut good = scene.acknowledge_good();
    for _ in 0..60 {
        scene.pass(MINUTE);
        good += scene.acknowledge_good();
        assert!(scene.in_flight() <= 2 * WINDOW, "{}", scene.in_flight());
    }

    assert_eq!(good, 10 * WINDOW);
    let totals = scene.bus.totals();
    assert_eq!(totals.dead + totals.waiting, 10 * WINDOW as u64, "{totals:?}");
    assert!(totals.waiting >= WINDOW as u64, "no more than has to: {totals:?}");
}

#[test]
fn recipient_that_acknowledges_slowly_gets_nothing_twice() {
    let mut scene = Scene::new(limits());
    (0..100).for_each(|_| scene.send("good", 10));

    for _ in 0..100 {
        scene.pass(50 * SECOND);
        let key = scene.got.pop_front().unwrap();
        scene.acknowledge(&key);
    }

    let totals = scene.bus.totals();
    assert_eq!((totals.acknowledged, totals.redelivered, totals.dead), (100, 0, 0));
}

#[test]
fn recipient_that_acknowledges_nothing_has_an_hour_and_two_windows() {
    let mut scene = Scene::new(limits());
    (0..100).for_each(|_| scene.send("good", 10));

    scene.pass(62 * MINUTE);

    assert_eq!((scene.in_flight(), scene.bus.totals().dead), (2 * WINDOW, 0));
    scene.pass(10 * MINUTE);
    assert!(scene.bus.totals().dead > 0);
    scene.acknowledge_good();
    let totals = scene.bus.totals();
    assert_eq!((totals.waiting, totals.acknowledged + totals.dead), (0, 100), "{totals:?}");
}

#[test]
fn messages_larger_than_the_window_come_one_by_one() {
    let mut scene = Scene::new(Limits { window_bytes: 1_000, ..limits() });
    scene.send("poison", 5_000);
    (0..3).for_each(|_| scene.send("good", 5_000));
    assert_eq!(scene.acknowledge_good(), 0);

    scene.pass(MINUTE);

    assert_eq!(scene.got.len(), 2, "the poison again, and one more");
    assert_eq!(scene.acknowledge_good(), 3);
}

#[test]
fn message_that_was_late_once_holds_up_no_later_session() {
    let mut scene = Scene::new(limits());
    (0..WINDOW).for_each(|_| scene.send("poison", 10));
    scene.pass(MINUTE);
    let mut turn = Turn::default();
    scene.bus.close(scene.alice, 1, scene.now, &mut turn);
    scene.commit(turn);
    (0..WINDOW).for_each(|_| scene.send("good", 10));
    scene.got.clear();

    let mut turn = Turn::default();
    scene.bus.open(scene.alice, 2, scene.now, &mut turn);
    scene.commit(turn);

    assert_eq!(scene.got.len(), 2 * WINDOW);
}

#[test]
fn message_that_ends_each_session_is_a_dead_letter_after_an_hour() {
    let mut scene = Scene::new(limits());
    scene.send("good", 10);
    scene.send("poison", 10);
    scene.send("good", 10);
    let mut good = 0;
    let mut minutes = 0;
    for generation in 2.. {
        // Its client acknowledges what it gets before the message, and ends with that.
        while let Some(key) = scene.got.pop_front().filter(|key| key.starts_with("good")) {
            good += 1;
            scene.acknowledge_of(generation - 1, &key);
        }
        if good == 2 {
            break;
        }
        scene.pass(5 * SECOND);
        minutes = scene.now.since(Millis(1_000_000)) / MINUTE;
        assert!(minutes < 90, "it gets nothing else");
        let mut turn = Turn::default();
        scene.bus.close(scene.alice, generation - 1, scene.now, &mut turn);
        scene.commit(turn);
        scene.got.clear();
        let mut turn = Turn::default();
        scene.bus.open(scene.alice, generation, scene.now, &mut turn);
        scene.commit(turn);
    }

    assert!(minutes > 50, "{minutes} minutes");
    assert_eq!(scene.bus.totals().dead, 1);
}

#[test]
fn what_others_have_passed_by_once_stays_first_to_go() {
    let mut scene = Scene::new(limits());
    for _ in 0..=WINDOW / 2 {
        scene.send("poison", 10);
        scene.send("good", 10);
    }
    // More than a window that nobody passes by until the first has gone.
    (0..WINDOW + 2).for_each(|_| scene.send("poison", 10));
    (0..20).for_each(|_| scene.send("good", 10));

    let mut good = scene.acknowledge_good();
    for _ in 0..8 {
        scene.pass(MINUTE);
        good += scene.acknowledge_good();
    }

    assert_eq!(good, WINDOW / 2 + 1 + 20);
}

#[test]
fn late_messages_behind_which_nothing_waits_have_all_their_deliveries() {
    let mut scene = Scene::new(limits());
    (0..WINDOW).for_each(|_| scene.send("poison", 10));
    scene.pass(MINUTE);
    (0..WINDOW).for_each(|_| scene.send("poison", 10));

    scene.pass(90 * MINUTE);

    assert_eq!((scene.in_flight(), scene.bus.totals().dead), (2 * WINDOW, 0));
}

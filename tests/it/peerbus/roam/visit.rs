//! One visit of a name at a relay, and what the name remembers of those before.

use std::collections::{HashMap, HashSet, VecDeque};
use std::mem;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::super::envelope;
use super::session::Session;
use super::{RELAYS, Stage};
use crate::random::Random;

/// Messages that a name sends others in a visit.
const SENT: usize = 2;

/// After that nothing more comes.
const SILENCE: Duration = Duration::from_millis(100);

/// A message: its sender, and which of those it is.
type Id = (usize, u64);

/// What a name does in its visit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// It is there for the first time.
    Register,
    /// It sends others something, moves, leaves messages and receipts behind.
    Talk,
    /// It sends others nothing new, and takes all that it gets.
    Finish,
}

/// What a name remembers from one visit to the next.
#[derive(Debug, Default)]
pub(super) struct Name {
    sent: u64,
    /// What it has sent and has no receipt for, in order.
    pending: VecDeque<Sent>,
    got: HashSet<Id>,
    /// What it got and left without an acknowledgement: it comes again.
    left: HashSet<Id>,
    /// What came in this session.
    came: HashSet<Id>,
    /// The newest message that it got of each sender.
    newest: HashMap<usize, u64>,
    /// What it acknowledged in this session, since its last message.
    acknowledged: Vec<Id>,
    /// What the bus must have its acknowledgement of: what was sent behind that has a receipt.
    settled: HashSet<Id>,
}

/// A message that has no receipt.
#[derive(Debug)]
struct Sent {
    number: u64,
    to: usize,
    /// How many there were before it, of all names.
    stamp: u64,
    /// What was acknowledged before it, in its session.
    behind: Vec<Id>,
}

impl Name {
    /// Checks that all of this came.
    pub(super) fn assert_has(&self, promised: &[Id]) {
        let lost: Vec<_> = promised.iter().filter(|id| !self.got.contains(id)).collect();
        assert!(lost.is_empty(), "these had a receipt and never came: {lost:?}");
    }

    /// Its session is over: what it acknowledged there may be lost.
    fn forget_session(&mut self) {
        self.acknowledged.clear();
        self.came.clear();
        self.pending.iter_mut().for_each(|sent| sent.behind.clear());
    }

    /// Takes a delivery; whether it has come before.
    fn take(&mut self, (sender, number): Id) -> bool {
        assert!(!self.settled.contains(&(sender, number)), "{number} of {sender} comes again");
        let is_repeated = !self.got.insert((sender, number));
        if !is_repeated {
            let before = self.newest.insert(sender, number);
            assert!(before < Some(number), "{number} of {sender} comes behind {before:?}");
        }
        is_repeated
    }
}

/// A visit.
pub(super) struct Visit<'a> {
    pub(super) stage: &'a Stage,
    /// Who comes in which order, of whom this is one.
    pub(super) order: &'a [usize],
    pub(super) position: usize,
    /// Who is so near in the order is probably connected as well.
    pub(super) nearby: usize,
    pub(super) purpose: Purpose,
}

impl Visit<'_> {
    pub(super) async fn make(&self, mut random: Random) {
        self.stage.counts.visits.fetch_add(1, Relaxed);
        let index = self.index();
        let mut name = mem::take(&mut *self.stage.names[index].lock());
        let relay = random.below(RELAYS);
        let mut session = self.open(relay).await;
        self.catch_up(&mut session, &mut name, &mut random).await;
        if self.purpose == Purpose::Talk && random.below(3) == 0 {
            let other = (relay + 1 + random.below(RELAYS - 1)) % RELAYS;
            session = self.move_to(other, session, &mut name, &mut random).await;
        }
        if self.purpose == Purpose::Talk {
            for _ in 0..SENT {
                let to = self.recipient(&mut random);
                self.send_new(&mut session, &mut name, to).await;
            }
        }
        // It may not wait for the receipts, and ask for them at another relay.
        if self.purpose != Purpose::Talk || random.below(4) > 0 {
            self.settle(&mut session, &mut name, &mut random).await;
        }
        if self.purpose == Purpose::Finish {
            // What it had acknowledged in a session that broke off may come again.
            while let Ok(message) = timeout(SILENCE, session.hear()).await {
                let message = message.expect("the session goes on");
                self.take(&message, &mut session, &mut name, &mut random).await;
            }
        }
        if self.purpose != Purpose::Talk || random.below(2) > 0 {
            session.leave().await;
        }
        name.forget_session();
        *self.stage.names[index].lock() = name;
    }

    fn index(&self) -> usize {
        self.order[self.position]
    }

    async fn open(&self, relay: usize) -> Session {
        Session::open(self.stage.addresses[relay], &called(self.index())).await
    }

    /// Somebody who is connected, if that goes well, or anybody.
    fn recipient(&self, random: &mut Random) -> usize {
        let count = self.order.len();
        let at = if random.below(2) == 0 {
            random.below(count)
        } else {
            (self.position + count + random.below(2 * self.nearby) - self.nearby) % count
        };
        self.order[at]
    }

    /// Sends again what has no receipt, and itself something; takes that, all that was promised until
    /// then, and what it left before.
    async fn catch_up(&self, session: &mut Session, name: &mut Name, random: &mut Random) {
        for sent in &name.pending {
            self.say(session, sent).await;
        }
        let mut due = self.stage.promised[self.index()].lock().clone();
        due.push(self.send_new(session, name, self.index()).await);
        let left = name.left.clone();
        while !due.iter().all(|id| name.got.contains(id)) || !left.is_subset(&name.came) {
            self.hear(session, name, random).await;
        }
    }

    /// Opens a session at another relay while this one is open.
    async fn move_to(
        &self,
        relay: usize,
        mut older: Session,
        name: &mut Name,
        random: &mut Random,
    ) -> Session {
        self.stage.counts.moves.fetch_add(1, Relaxed);
        name.forget_session();
        let mut newer = self.open(relay).await;
        self.catch_up(&mut newer, name, random).await;
        // It has got something: nothing that is sent from here on may go to the older session.
        let moved = self.stage.clock.load(Relaxed);
        for _ in 0..SENT {
            self.send_new(&mut newer, name, self.index()).await;
        }
        while let Some(message) = older.hear().await {
            if message["type"] == "deliver" {
                let stamp = message["envelope"]["body"]["stamp"].as_u64().unwrap();
                let name = called(self.index());
                assert!(stamp < moved, "{name} is served at two relays: {message}");
            }
        }
        newer
    }

    /// Waits for all receipts.
    async fn settle(&self, session: &mut Session, name: &mut Name, random: &mut Random) {
        while !name.pending.is_empty() {
            self.hear(session, name, random).await;
        }
    }

    async fn send_new(&self, session: &mut Session, name: &mut Name, to: usize) -> Id {
        let number = name.sent;
        name.sent += 1;
        let stamp = self.stage.clock.fetch_add(1, Relaxed);
        let behind = mem::take(&mut name.acknowledged);
        let sent = Sent { number, to, stamp, behind };
        self.say(session, &sent).await;
        name.pending.push_back(sent);
        (self.index(), number)
    }

    async fn say(&self, session: &mut Session, sent: &Sent) {
        let Sent { number, to, stamp, .. } = sent;
        let from = self.index();
        let body = json!({"sender": from, "number": number, "stamp": stamp});
        session.say(&envelope(&id(from, *number), &called(from), &called(*to), body)).await;
    }

    /// Takes the next message.
    async fn hear(&self, session: &mut Session, name: &mut Name, random: &mut Random) {
        let message = session.hear().await.expect("the session goes on");
        self.take(&message, session, name, random).await;
    }

    async fn take(
        &self,
        message: &Value,
        session: &mut Session,
        name: &mut Name,
        random: &mut Random,
    ) {
        match message["type"].as_str().unwrap() {
            "receipt" => self.receipted(message, name),
            "deliver" => self.delivered(message, session, name, random).await,
            _ => {}
        }
    }

    fn receipted(&self, receipt: &Value, name: &mut Name) {
        let Sent { number, to, behind, .. } =
            name.pending.pop_front().expect("a receipt is of a message");
        assert_eq!(receipt["id"], id(self.index(), number), "receipts come in order");
        assert_ne!(receipt["result"], "refused", "{receipt}");
        name.settled.extend(behind);
        self.stage.promised[to].lock().push((self.index(), number));
        self.stage.counts.receipts.fetch_add(1, Relaxed);
    }

    async fn delivered(
        &self,
        message: &Value,
        session: &mut Session,
        name: &mut Name,
        random: &mut Random,
    ) {
        let body = &message["envelope"]["body"];
        let sender = usize::try_from(body["sender"].as_u64().unwrap()).unwrap();
        let id = (sender, body["number"].as_u64().unwrap());
        let is_repeated = name.take(id);
        name.came.insert(id);
        self.stage.counts.deliveries.fetch_add(1, Relaxed);
        self.stage.counts.repeated.fetch_add(is_repeated.into(), Relaxed);
        // Some are left behind, for the next visit.
        if self.purpose != Purpose::Talk || random.below(8) > 0 {
            session.say(&json!({"type": "ack", "id": message["delivery_key"]})).await;
            name.acknowledged.push(id);
            name.left.remove(&id);
        } else {
            name.left.insert(id);
        }
    }
}

fn called(index: usize) -> String {
    format!("name-{index}")
}

fn id(sender: usize, number: u64) -> String {
    format!("{sender}-{number}")
}

//! Relays that serve one bus, with their threads and channels: a test says who leads, and cuts links.

mod channels;
mod log;

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::*;
use crate::bus::{Address, Batch, Handle, Health, Outcome, Outgoing, Receipt};
use crate::cluster::ChannelOwner;
use crate::cluster::testing::{Web, relay_id};
use crate::store::Outage;

const REALM: Realm = Realm(201);
const ALICE: Owner = Owner([1; 32]);
const BOB: Owner = Owner([2; 32]);
const WAIT: Duration = Duration::from_secs(20);

#[derive(Debug, PartialEq)]
enum Heard {
    Message(String),
    Records(u64, Vec<String>),
    Receipt(String, Outcome),
    Withdrawn,
    Replaced,
}

struct Peer {
    generation: u64,
    heard: UnboundedSender<Heard>,
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

    fn hold(&self, _: bool) {}

    fn withdraw(&self) {
        let _ = self.heard.send(Heard::Withdrawn);
    }

    fn replace(&self) {
        let _ = self.heard.send(Heard::Replaced);
    }
}

/// The names that a relay was told of.
#[derive(Default)]
struct Told(Mutex<BTreeSet<String>>);

impl Names for Told {
    fn came(&self, name: &Arc<str>) {
        assert!(self.0.lock().insert(name.to_string()), "{name} comes twice");
    }

    fn went(&self, name: &Arc<str>) {
        assert!(self.0.lock().remove(&**name), "{name} goes twice");
    }
}

/// A session at a relay.
struct Session {
    bus: Handle,
    address: Address,
    party: Arc<dyn Party>,
    ears: UnboundedReceiver<Heard>,
}

impl Session {
    fn send(&self, to: &str, id: &str) {
        let message = (To::Name(to.into()), id.into(), Arc::from(&b"body"[..]));
        self.bus.submit(&self.address, &self.party, message, true);
    }

    fn acknowledge(&self, key: &str) {
        self.bus.acknowledge(&self.address, &self.party, key);
    }

    async fn next(&mut self) -> Heard {
        timeout(WAIT, self.ears.recv()).await.expect("it is told in time").unwrap()
    }

    fn close(self) {
        self.bus.close(&self.address, self.party.generation());
    }
}

/// Relays, their links and their log.
struct World {
    web: Arc<Mutex<Web>>,
    shared: Arc<log::Shared>,
    logs: Vec<Arc<log::Relay>>,
    fronts: Vec<Arc<Front>>,
    told: Vec<Arc<Told>>,
    _tasks: JoinSet<()>,
    is_over: Arc<AtomicBool>,
    carrier: Option<JoinHandle<()>>,
    generation: AtomicU64,
}

impl World {
    fn new(relays: u8) -> Self {
        let shared = log::Shared::new();
        let web = Web::new(relays);
        let mut tasks = JoinSet::new();
        let (mut logs, mut fronts, mut told) = (Vec::new(), Vec::new(), Vec::new());
        for relay in 0..usize::from(relays) {
            let log = shared.relay();
            let store = Arc::new(log::Tenure { shared: Arc::clone(&shared), epoch: u64::MAX });
            let id = relay_id(u8::try_from(relay).unwrap());
            let front = Front::new(id, store, Arc::clone(&log) as Arc<dyn Log>);
            front.answer_by(Box::new(|question, answered| {
                answered([b"answer to ", &*question].concat());
            }));
            let names = Arc::<Told>::default();
            let weak: Weak<dyn Names> = Arc::<Told>::downgrade(&names);
            front.watch_names(REALM, weak);
            let owner: Weak<dyn ChannelOwner> = Arc::<Front>::downgrade(&front);
            web.relays[relay].own_channels(CHANNELS, owner);
            tasks.spawn(Arc::clone(&front).run());
            tasks.spawn(follow(Arc::clone(&front)));
            logs.push(log);
            fronts.push(front);
            told.push(names);
        }
        let web = Arc::new(Mutex::new(web));
        let is_over = Arc::new(AtomicBool::new(false));
        let carrier = {
            let (web, is_over) = (Arc::clone(&web), Arc::clone(&is_over));
            std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    if !web.lock().carry() {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            })
        };
        let world = Self {
            web,
            shared,
            logs,
            fronts,
            told,
            _tasks: tasks,
            is_over,
            carrier: Some(carrier),
            generation: AtomicU64::new(1),
        };
        world.join();
        world
    }

    /// All relays that have no link get one.
    fn join(&self) {
        let mut web = self.web.lock();
        for one in 0..self.fronts.len() {
            (one + 1..self.fronts.len()).for_each(|other| web.join(one, other));
        }
    }

    /// A relay leads, and all relays hear of it.
    fn lead(&self, leader: usize) {
        let epoch = self.shared.begin();
        for (relay, log) in self.logs.iter().enumerate() {
            log.hears(epoch, leader, relay);
        }
    }

    async fn session(&self, relay: usize, name: &str, owner: Owner) -> Session {
        let bus = Handle::Cluster(Arc::clone(&self.fronts[relay]));
        let address = bus.claim(REALM, name.into(), owner).await.unwrap();
        let generation = self.generation.fetch_add(1, Ordering::Relaxed);
        let (heard, ears) = unbounded_channel();
        let party: Arc<dyn Party> = Arc::new(Peer { generation, heard });
        bus.open(&address, &party);
        Session { bus, address, party, ears }
    }

    async fn names_are(&self, expected: &[&str]) {
        let known = || self.told.iter().all(|told| told.0.lock().iter().eq(expected));
        let end = Instant::now() + WAIT;
        while !known() {
            assert!(
                Instant::now() < end,
                "{:?}",
                self.told.iter().map(|t| t.0.lock().clone()).collect::<Vec<_>>()
            );
            sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(carrier) = self.carrier.take() {
            let _ = carrier.join();
        }
    }
}

fn stored(id: &str) -> Heard {
    Heard::Receipt(id.to_owned(), Outcome::Stored)
}

fn message(key: &str) -> Heard {
    Heard::Message(key.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_all_relays_are_on_one_bus_and_know_each_others_names() {
    let world = World::new(3);
    world.lead(2);
    let mut alice = world.session(0, "alice", ALICE).await;
    let mut bob = world.session(1, "bob", BOB).await;
    let stolen = alice.bus.claim(REALM, "bob".into(), ALICE).await;
    assert_eq!(stolen.unwrap_err(), ClaimError::NotClaimed(NotClaimed::Taken));
    world.names_are(&["alice", "bob"]).await;

    bob.send("alice", "m1");
    assert_eq!(alice.next().await, message("m1"));
    assert_eq!(bob.next().await, stored("m1"));
    alice.acknowledge("m1");
    let broadcast = (To::Everybody, "all".into(), Arc::from(&b"body"[..]));
    bob.bus.submit(&bob.address, &bob.party, broadcast, true);
    assert_eq!(alice.next().await, message("all|alice"));
    assert_eq!(bob.next().await, stored("all"));
    alice.acknowledge("all|alice");
    assert_eq!(world.fronts[0].ask(b"who?").await.unwrap(), b"answer to who?");

    alice.close();
    world.names_are(&["bob"]).await;
    let bus = world.fronts[2].leading().unwrap();
    assert_eq!(bus.ask(|desk| desk.bus.totals().waiting).await, Ok(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_relay_says_who_leads_and_why_that_is_not_reached() {
    let world = World::new(2);
    let [front, leading] = [&world.fronts[0], &world.fronts[1]];
    let reason = async || front.ask(b"").await.unwrap_err().to_string();
    assert!(reason().await.contains("no relay leads"));
    assert_eq!((front.status().role, front.status().leader), (Role::Waits, None));

    world.lead(1);
    until(|| front.status().role == Role::Follows).await;
    let seen = front.status();
    assert_eq!((seen.leader, seen.epoch), (Some(relay_id(1).to_string()), Some(1)));
    let seen = leading.status();
    assert_eq!((seen.role, seen.leader), (Role::Leads, Some(relay_id(1).to_string())));
    assert_eq!((seen.trouble, leading.health()), (None, Health::Serving));

    // What leads has nothing to commit, and the log takes nothing.
    let long_ago = Instant::now().checked_sub(Duration::from_secs(9)).unwrap();
    let outage = || Some(Outage { reason: "no NATS".to_owned(), since: long_ago });
    *world.logs[0].outage.lock() = outage();
    *world.logs[1].outage.lock() = outage();
    assert!(
        matches!(leading.health(), Health::Unavailable(trouble) if trouble.reason == "no NATS")
    );
    assert!(matches!(front.health(), Health::Limited(_)), "its peers are served");
    assert!(front.status().trouble.unwrap().contains("no NATS"));

    world.logs[0].hears(2, 7, 0);
    until(|| front.status().role == Role::Waits).await;
    assert_eq!(front.status().leader, Some(relay_id(7).to_string()));
    assert!(reason().await.contains("no NATS"));
    *world.logs[0].outage.lock() = None;
    let expected = format!("no link to relay {}, which leads", relay_id(7));
    assert!(reason().await.contains(&expected));
}

/// Waits until something holds.
async fn until(mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + WAIT;
    while !holds() {
        assert!(Instant::now() < end);
        sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_change_under_load_and_no_session_notices() {
    const COUNT: usize = 600;
    let world = World::new(3);
    world.lead(0);
    let mut alice = world.session(1, "alice", ALICE).await;
    let mut bob = world.session(2, "bob", BOB).await;
    let sending = async {
        for number in 0..COUNT {
            bob.send("alice", &format!("m{number}"));
            if number % 4 == 0 {
                sleep(Duration::from_millis(1)).await;
            }
        }
        for number in 0..COUNT {
            assert_eq!(bob.next().await, stored(&format!("m{number}")));
        }
    };
    let receiving = async {
        let mut seen = BTreeSet::new();
        while seen.len() < COUNT {
            let Heard::Message(key) = alice.next().await else { panic!("alice is told to go") };
            alice.acknowledge(&key);
            let number: usize = key[1..].parse().unwrap();
            let is_new = seen.insert(number);
            assert!(!is_new || number + 1 == seen.len(), "{number} came behind {}", seen.len());
        }
    };
    let changing = async {
        for leader in [1, 2, 0, 1, 0] {
            sleep(Duration::from_millis(40)).await;
            world.lead(leader);
        }
    };
    tokio::join!(sending, receiving, changing);

    world.names_are(&["alice", "bob"]).await;
    assert_eq!(world.fronts[1].state.lock().front.bytes(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_that_was_replaced_and_does_not_know_tells_nobody_anything() {
    let world = World::new(2);
    world.lead(0);
    let mut alice = world.session(0, "alice", ALICE).await;
    let mut bob = world.session(0, "bob", BOB).await;

    let epoch = world.shared.begin();
    bob.send("alice", "m1");
    let nothing = Duration::from_millis(100);
    assert!(timeout(nothing, alice.ears.recv()).await.is_err());
    assert!(bob.ears.is_empty());

    for (relay, log) in world.logs.iter().enumerate() {
        log.hears(epoch, 1, relay);
    }
    assert_eq!(bob.next().await, stored("m1"));
    assert_eq!(alice.next().await, message("m1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn name_that_comes_back_at_another_relay_goes_on_there() {
    let world = World::new(3);
    world.lead(2);
    let mut before = world.session(0, "alice", ALICE).await;
    let bob = world.session(2, "bob", BOB).await;
    bob.send("alice", "m1");
    bob.send("alice", "m2");
    assert_eq!(before.next().await, message("m1"));
    assert_eq!(before.next().await, message("m2"));
    before.acknowledge("m1");

    let mut alice = world.session(1, "alice", ALICE).await;
    assert_eq!(before.next().await, Heard::Replaced);
    before.close();
    bob.send("alice", "m3");
    loop {
        let heard = alice.next().await;
        if heard == message("m2") {
            break;
        }
        assert_eq!(heard, message("m1"), "its acknowledgement was on its way");
    }
    assert_eq!(alice.next().await, message("m3"));
    world.names_are(&["alice", "bob"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn link_that_breaks_costs_nothing_that_was_said() {
    let world = World::new(2);
    world.lead(1);
    let mut alice = world.session(1, "alice", ALICE).await;
    let mut bob = world.session(0, "bob", BOB).await;
    for number in 0..100 {
        bob.send("alice", &format!("m{number}"));
        if number % 20 == 10 {
            world.web.lock().cut(0, 1);
        }
        if number % 20 == 19 {
            world.join();
            sleep(Duration::from_millis(5)).await;
        }
    }
    for number in 0..100 {
        assert_eq!(bob.next().await, stored(&format!("m{number}")));
        assert_eq!(alice.next().await, message(&format!("m{number}")));
    }
    world.names_are(&["alice", "bob"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claim_without_a_leader_waits_for_one() {
    let world = World::new(2);
    let bus = Handle::Cluster(Arc::clone(&world.fronts[0]));
    let asked = world.fronts[0].ask(b"who?").await;
    assert!(matches!(asked, Err(Unanswered::Unavailable(_))), "{asked:?}");
    let claiming = bus.claim(REALM, "alice".into(), ALICE);
    let leading = async {
        sleep(Duration::from_millis(50)).await;
        world.lead(1);
    };
    let (claimed, ()) = tokio::join!(claiming, leading);
    assert_eq!(&**claimed.unwrap().name(), "alice");
}

//! Turns on the thread of sessions.

use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::faults::{Faulty, Pair};
use super::*;
use crate::bus::meters::Thread;

const NAME: &str = "sessions";

/// A thread of sessions that takes turns of a bus.
struct Sessions {
    runtime: Handle,
    stopping: CancellationToken,
    thread: JoinHandle<()>,
}

impl Sessions {
    fn start(bus: &Bus) -> Self {
        let (turns, stopping) = (bus.turns(), CancellationToken::new());
        let resting = bus.turns();
        let mut runtime = Builder::new_current_thread();
        runtime.enable_all().on_thread_park(move || resting.rest());
        let runtime = runtime.build().unwrap();
        let handle = runtime.handle().clone();
        let stopped = stopping.clone();
        let thread = std::thread::Builder::new().name(NAME.to_owned());
        let thread = thread.spawn(move || drop(turns.serve(runtime, &stopped))).unwrap();
        Self { runtime: handle, stopping, thread }
    }

    /// A session that answers whenever it is asked.
    fn answer(&self) -> mpsc::UnboundedSender<oneshot::Sender<()>> {
        let (ask, mut asked) = mpsc::unbounded_channel::<oneshot::Sender<()>>();
        self.runtime.spawn(async move {
            while let Some(answer) = asked.recv().await {
                answer.send(()).unwrap();
            }
        });
        ask
    }

    async fn stop(self) {
        self.stopping.cancel();
        let joined = tokio::task::spawn_blocking(|| self.thread.join());
        timeout(PATIENCE, joined).await.expect("it ends in time").unwrap().unwrap();
    }
}

/// Sends one message after the other, each when the one before was stored and delivered, until that
/// is over; returns the peers and how many there were.
async fn talk(mut pair: Pair, is_over: Arc<AtomicBool>) -> (Pair, usize) {
    let mut number = 0;
    while !is_over.load(Ordering::SeqCst) {
        pair.send(number, 10);
        pair.stored(number).await;
        pair.delivered(number).await;
        number += 1;
    }
    (pair, number)
}

async fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits for more turns on the thread of sessions.
async fn wait_for_turns(bus: &Bus) {
    let turns = || bus.shared.meters.taken_by(Thread::Sessions);
    let before = turns();
    wait_until("no turn on the thread of sessions", || turns() > before + 20).await;
}

/// Has a commit hang on the thread of sessions.
async fn hang_on_sessions(bus: &Bus, store: &Faulty) {
    for _ in 0..100 {
        wait_for_turns(bus).await;
        store.is_hung.store(true, Ordering::SeqCst);
        wait_until("nothing is committed", || store.hangs_on.lock().is_some()).await;
        if store.hangs_on.lock().as_deref() == Some(NAME) {
            return;
        }
        // It was for the bus's thread to commit at this moment.
        store.is_hung.store(false, Ordering::SeqCst);
    }
    panic!("it is always the bus's thread");
}

#[tokio::test]
async fn commit_that_hangs_on_the_thread_of_sessions_stops_none_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = Faulty::open(&folder);
    let pair = Pair::connect(store.start(Settings::default())).await;
    let bus = Arc::clone(&pair.bus);
    let sessions = Sessions::start(&bus);
    let answering = sessions.answer();
    let is_over = Arc::new(AtomicBool::new(false));
    let talking = sessions.runtime.spawn(talk(pair, Arc::clone(&is_over)));

    hang_on_sessions(&bus, &store).await;
    for _ in 0..20 {
        let (answer, answered) = oneshot::channel();
        answering.send(answer).unwrap();
        timeout(PATIENCE, answered).await.expect("a session is served").unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(store.hangs_on.lock().as_deref(), Some(NAME));
    assert!(!talking.is_finished());

    store.is_hung.store(false, Ordering::SeqCst);
    wait_for_turns(&bus).await;
    is_over.store(true, Ordering::SeqCst);
    let (mut pair, next) = timeout(PATIENCE, talking).await.unwrap().unwrap();
    sessions.stop().await;

    // Without it, the bus's thread takes all turns.
    pair.send(next, 10);
    pair.stored(next).await;
    pair.delivered(next).await;
    bus.stop().await;
}

#[tokio::test]
async fn shutdown_waits_for_a_commit_that_hangs_on_the_thread_of_sessions() {
    let folder = tempfile::tempdir().unwrap();
    let store = Faulty::open(&folder);
    let pair = Pair::connect(store.start(Settings::default())).await;
    let bus = Arc::clone(&pair.bus);
    let sessions = Sessions::start(&bus);
    drop(sessions.runtime.spawn(talk(pair, Arc::default())));
    hang_on_sessions(&bus, &store).await;
    sessions.stopping.cancel();
    let stopping = tokio::spawn({
        let bus = Arc::clone(&bus);
        async move { bus.stop().await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!stopping.is_finished(), "a bus ends with its last commit");

    store.is_hung.store(false, Ordering::SeqCst);
    timeout(PATIENCE, stopping).await.unwrap().unwrap();
    sessions.stop().await;
    // The last message may lack its acknowledgement; all others have theirs.
    let again = store.start(Settings::default());
    assert!(again.ask(|desk| desk.bus.totals().waiting).await.is_ok_and(|waiting| waiting <= 1));
    again.stop().await;
}

#[tokio::test]
async fn each_sender_keeps_its_order_whichever_thread_takes_a_turn() {
    let folder = tempfile::tempdir().unwrap();
    let bus = start(&folder, Settings::default());
    let alice = bus.claim(REALM, "alice", ALICE).await.unwrap();
    let (to_alice, mut at_alice) = Peer::connect(1);
    bus.open(alice, ALICE, Arc::clone(&to_alice));
    let sessions = Sessions::start(&bus);
    let is_over = Arc::new(AtomicBool::new(false));
    let mut senders = Vec::new();
    for sender in 0..4_u64 {
        let mailbox = bus.claim(REALM, &format!("sender{sender}"), BOB).await.unwrap();
        let (party, ears) = Peer::connect(2 + sender);
        bus.open(mailbox, BOB, Arc::clone(&party));
        let sending = send_in_pairs(Arc::clone(&bus), mailbox, party, ears, Arc::clone(&is_over));
        // Half of them are of other threads, which call for a turn while another goes on: sessions are
        // served in between.
        let at = if sender % 2 == 0 { &sessions.runtime } else { &Handle::current() };
        senders.push(AbortOnDropHandle::new(at.spawn(sending)));
    }
    let mut expected = BTreeMap::new();
    let taken = |by| bus.shared.meters.taken_by(by);
    let began = Instant::now();
    let mut sent = None;
    while sent.is_none_or(|sent| expected.values().sum::<usize>() < sent) {
        let Heard::Message(key) = next(&mut at_alice).await else { continue };
        let (sender, number) = key.split_once('-').unwrap();
        let of_sender = expected.entry(sender.to_owned()).or_default();
        assert_eq!(number.parse::<usize>().unwrap(), *of_sender, "of sender {sender}");
        *of_sender += 1;
        bus.acknowledge(&to_alice, alice, &key);
        if *of_sender % 500 == 0 {
            // A turn of the bus's thread in between.
            bus.ask(|_| ()).await.unwrap();
        }
        if sent.is_none() && [Thread::Bus, Thread::Sessions].iter().all(|by| taken(*by) > 200) {
            is_over.store(true, Ordering::SeqCst);
            let mut all = 0;
            for sender in senders.drain(..) {
                all += sender.await.unwrap();
            }
            sent = Some(all);
        }
        assert!(began.elapsed() < PATIENCE, "one of the threads has no turns");
    }
    assert_eq!(bus.ask(|desk| desk.bus.totals().waiting).await, Ok(0));
    sessions.stop().await;
    bus.stop().await;
}

/// Sends two messages to alice whenever two were stored; returns how many there were.
async fn send_in_pairs(
    bus: Arc<Bus>,
    mailbox: MailboxId,
    party: Arc<dyn Party>,
    mut ears: Ears,
    is_over: Arc<AtomicBool>,
) -> usize {
    let mut number = 0;
    while !is_over.load(Ordering::SeqCst) {
        let ids = [number, number + 1].map(|number| format!("{mailbox:?}-{number}"));
        for id in &ids {
            bus.submit(&party, submission(mailbox, "alice", id), true);
        }
        for id in ids {
            assert_eq!(next(&mut ears).await, Heard::Receipt(id, Outcome::Stored));
        }
        number += 2;
    }
    number
}

#[tokio::test]
async fn panic_in_a_turn_on_the_thread_of_sessions_ends_the_bus() {
    let folder = tempfile::tempdir().unwrap();
    let store = Faulty::open(&folder);
    let pair = Pair::connect(store.start(Settings::default())).await;
    let bus = Arc::clone(&pair.bus);
    let sessions = Sessions::start(&bus);
    drop(sessions.runtime.spawn(talk(pair, Arc::default())));
    wait_for_turns(&bus).await;
    store.panics.store(true, Ordering::SeqCst);
    timeout(PATIENCE, bus.ended()).await.expect("the bus is none without its worker");
    sessions.stopping.cancel();
}

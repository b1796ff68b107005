//! The bus on a store that fails: nobody is told what is not so, and all goes on without an operator.

use std::sync::atomic::{AtomicBool, AtomicU32};

use super::*;
use crate::proto::bus::{Digest, Found, Reading, Recovered, Seq};
use crate::store::{AuditEntry, Commit, DeadLetter, Most, Space};

/// Until further notice.
const ALWAYS: usize = usize::MAX;

/// How often the next calls of a kind fail.
#[derive(Default)]
pub(super) struct Failures {
    left: AtomicUsize,
    /// As damaged, and not as unavailable.
    damaged: AtomicBool,
}

impl Failures {
    fn begin(&self, count: usize) {
        self.left.store(count, Ordering::SeqCst);
    }

    fn fail(&self) -> Result<(), StoreError> {
        let take = |left: usize| match left {
            0 => None,
            ALWAYS => Some(ALWAYS),
            left => Some(left - 1),
        };
        let reason = || "broken on purpose".to_owned();
        match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take) {
            Err(_) => Ok(()),
            Ok(_) if self.damaged.load(Ordering::SeqCst) => Err(StoreError::Damaged(reason())),
            Ok(_) => Err(StoreError::Unavailable(reason())),
        }
    }
}

/// A store that fails as it is told.
pub(super) struct Faulty {
    inner: Embedded,
    commits: Failures,
    syncs: Failures,
    reads: Failures,
    finds: Failures,
    /// Whether commits hang,
    pub(super) is_hung: AtomicBool,
    /// and the thread of the one that does.
    pub(super) hangs_on: Mutex<Option<String>>,
    /// Whether commits panic.
    pub(super) panics: AtomicBool,
    /// Whether syncs do.
    syncs_hang: AtomicBool,
}

impl Faulty {
    pub(super) fn open(folder: &TempDir) -> Arc<Self> {
        Arc::new(Self {
            inner: Embedded::open(&folder.path().join("bus"), Handover::Kernel).unwrap(),
            commits: Failures::default(),
            syncs: Failures::default(),
            reads: Failures::default(),
            finds: Failures::default(),
            is_hung: AtomicBool::new(false),
            hangs_on: Mutex::default(),
            panics: AtomicBool::new(false),
            syncs_hang: AtomicBool::new(false),
        })
    }

    pub(super) fn start(self: &Arc<Self>, settings: Settings) -> Arc<Bus> {
        let store = Arc::clone(self) as Arc<dyn Store>;
        let key = SigningKey::from_bytes(&[7; 32]);
        Bus::start(Parts { store, settings, key, checkpoint_file: None }).unwrap()
    }
}

impl Store for Faulty {
    fn recover(&self) -> Result<Recovered, StoreError> {
        self.inner.recover()
    }

    fn commit(&self, commit: &Commit) -> Result<(), StoreError> {
        while self.is_hung.load(Ordering::SeqCst) {
            let name = std::thread::current().name().map(ToOwned::to_owned);
            *self.hangs_on.lock() = name;
            std::thread::sleep(Duration::from_millis(5));
        }
        *self.hangs_on.lock() = None;
        assert!(!self.panics.load(Ordering::SeqCst), "broken on purpose");
        self.commits.fail()?;
        self.inner.commit(commit)
    }

    fn sync(&self) -> Result<(), StoreError> {
        while self.syncs_hang.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.syncs.fail()?;
        self.inner.sync()
    }

    fn read(&self, mailbox: MailboxId, from: Seq, most: Most) -> Result<Reading, StoreError> {
        self.reads.fail()?;
        self.inner.read(mailbox, from, most)
    }

    fn find(&self, mailbox: MailboxId, key: Digest) -> Result<Option<Found>, StoreError> {
        self.finds.fail()?;
        self.inner.find(mailbox, key)
    }

    fn dead_letters(&self, mailbox: MailboxId, most: Most) -> Result<Vec<DeadLetter>, StoreError> {
        self.inner.dead_letters(mailbox, most)
    }

    fn drop_dead_letters(&self, before: Millis) -> Result<u64, StoreError> {
        self.inner.drop_dead_letters(before)
    }

    fn trim_dead_letters(&self, most: Most) -> Result<u64, StoreError> {
        self.inner.trim_dead_letters(most)
    }

    fn audit(&self, from: u64, most: usize) -> Result<Vec<AuditEntry>, StoreError> {
        self.inner.audit(from, most)
    }

    fn last_audit(&self) -> Result<Option<AuditEntry>, StoreError> {
        self.inner.last_audit()
    }

    fn audit_bytes(&self) -> Result<u64, StoreError> {
        self.inner.audit_bytes()
    }

    fn cut_audit(&self, before: u64, head: &[u8]) -> Result<(), StoreError> {
        self.inner.cut_audit(before, head)
    }

    fn audit_head(&self) -> Result<Option<Box<[u8]>>, StoreError> {
        self.inner.audit_head()
    }

    fn space(&self) -> Result<Space, StoreError> {
        self.inner.space()
    }
}

/// Waits until the bus says this of itself.
async fn wait_for(bus: &Bus, is_expected: impl Fn(&Health) -> bool) -> Health {
    let end = Instant::now() + PATIENCE;
    loop {
        let health = bus.health();
        if is_expected(&health) {
            return health;
        }
        assert!(Instant::now() < end, "{health}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What a peer was told but for being held.
async fn told(ears: &mut Ears) -> Heard {
    loop {
        let heard = next(ears).await;
        if !matches!(heard, Heard::Held(_)) {
            return heard;
        }
    }
}

fn is_unavailable(health: &Health) -> bool {
    matches!(health, Health::Unavailable(_))
}

/// A bus with two peers that are connected.
pub(super) struct Pair {
    pub(super) bus: Arc<Bus>,
    alice: MailboxId,
    bob: MailboxId,
    to_alice: Arc<dyn Party>,
    to_bob: Arc<dyn Party>,
    at_alice: Ears,
    at_bob: Ears,
}

impl Pair {
    pub(super) async fn connect(bus: Arc<Bus>) -> Self {
        let alice = bus.claim(REALM, "alice", ALICE).await.unwrap();
        let bob = bus.claim(REALM, "bob", BOB).await.unwrap();
        let (to_alice, at_alice) = Peer::connect(1);
        let (to_bob, at_bob) = Peer::connect(2);
        bus.open(alice, ALICE, Arc::clone(&to_alice));
        bus.open(bob, BOB, Arc::clone(&to_bob));
        Self { bus, alice, bob, to_alice, to_bob, at_alice, at_bob }
    }

    pub(super) fn send(&self, number: usize, length: usize) {
        let body: Arc<[u8]> = vec![b'x'; length].into();
        let id = format!("m{number}").into();
        let submission = Submission { from: self.bob, to: To::Name("alice".into()), id, body };
        self.bus.submit(&self.to_bob, submission, true);
    }

    pub(super) async fn stored(&mut self, number: usize) {
        let receipt = Heard::Receipt(format!("m{number}"), Outcome::Stored);
        assert_eq!(told(&mut self.at_bob).await, receipt);
    }

    pub(super) async fn delivered(&mut self, number: usize) {
        let key = format!("m{number}");
        assert_eq!(told(&mut self.at_alice).await, Heard::Message(key.clone()));
        self.bus.acknowledge(&self.to_alice, self.alice, &key);
    }
}

#[tokio::test]
async fn nobody_is_told_of_what_the_store_has_not_taken_and_who_sends_it_is_held() {
    let folder = tempfile::tempdir().unwrap();
    let store = Faulty::open(&folder);
    let mut pair = Pair::connect(store.start(Settings::default())).await;
    store.commits.begin(ALWAYS);

    let mut sent = 0;
    while pair.at_bob.is_empty() {
        assert!(sent < 4_000, "4 MB wait in memory");
        pair.send(sent, 1_000);
        sent += 1;
    }
    assert_eq!(next(&mut pair.at_bob).await, Heard::Held(true));
    let Health::Unavailable(first) = wait_for(&pair.bus, is_unavailable).await else { panic!() };
    tokio::time::sleep(Duration::from_millis(400)).await;
    let Health::Unavailable(trouble) = pair.bus.health() else { panic!("it fails") };
    assert_eq!(trouble.since, first.since);
    assert!(trouble.reason.contains("broken on purpose"), "{trouble}");
    assert!(pair.at_alice.is_empty() && pair.at_bob.is_empty());

    store.commits.begin(0);
    for number in 0..sent {
        pair.stored(number).await;
        pair.delivered(number).await;
    }
    wait_for(&pair.bus, |health| *health == Health::Serving).await;
    assert_eq!(pair.bus.ask(|desk| desk.bus.totals().accepted).await, Ok(sent as u64));
    pair.bus.stop().await;
}

#[tokio::test]
async fn each_commit_that_fails_some_times_is_taken_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let store = Faulty::open(&folder);
    let mut pair = Pair::connect(store.start(Settings::default())).await;
    for number in 0..20 {
        store.commits.begin(number % 3);
        pair.send(number, 10);
        pair.stored(number).await;
        pair.delivered(number).await;
    }
    let totals = pair.bus.ask(|desk| desk.bus.totals()).await.unwrap();
    assert_eq!((totals.accepted, totals.waiting), (20, 0));
    pair.bus.stop().await;
    drop(pair);

    let bus = store.start(Settings::default());
    assert_eq!(bus.ask(|desk| desk.bus.totals().waiting).await, Ok(0));
    bus.stop().await;
}

#[tokio::test]
async fn sync_that_fails_is_trouble_until_one_succeeds_whatever_is_committed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Faulty::open(&folder);
    let durable = Durable::Every(Duration::from_millis(10));
    let mut pair = Pair::connect(store.start(Settings { durable, ..Settings::default() })).await;
    store.syncs.begin(ALWAYS);
    pair.send(0, 10);
    let Health::Unavailable(first) = wait_for(&pair.bus, is_unavailable).await else { panic!() };

    for number in 1..50 {
        pair.send(number, 10);
        pair.stored(number - 1).await;
        let Health::Unavailable(trouble) = pair.bus.health() else { panic!("{number}: it flaps") };
        assert_eq!(trouble.since, first.since);
    }
    store.syncs.begin(0);
    wait_for(&pair.bus, |health| *health == Health::Serving).await;
    pair.bus.stop().await;
}

/// All entries of the audit log, each once.
fn assert_audit(store: &Faulty) {
    let entries = store.audit(0, usize::MAX).unwrap();
    let numbers: Vec<_> = entries.iter().map(|entry| entry.seq).collect();
    assert_eq!(numbers, (0..entries.len() as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn nobody_is_told_of_what_the_disk_has_not_taken_where_each_commit_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = Faulty::open(&folder);
    let settings = Settings { durable: Durable::Each, ..Settings::default() };
    let mut pair = Pair::connect(store.start(settings)).await;
    let begun = store.last_audit().unwrap().map_or(0, |last| last.seq + 1);
    store.syncs_hang.store(true, Ordering::SeqCst);
    for number in 0..30 {
        pair.send(number, 10);
    }
    // A send and a delivery of each are committed, while the disk hangs.
    let end = Instant::now() + PATIENCE;
    while store.last_audit().unwrap().map_or(0, |last| last.seq + 1) < begun + 60 {
        assert!(Instant::now() < end, "commits wait for the disk");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(pair.at_alice.is_empty() && pair.at_bob.is_empty());
    wait_for(&pair.bus, is_unavailable).await;

    store.syncs_hang.store(false, Ordering::SeqCst);
    for number in 0..30 {
        pair.stored(number).await;
        pair.delivered(number).await;
    }
    wait_for(&pair.bus, |health| *health == Health::Serving).await;
    pair.bus.stop().await;
    assert_audit(&store);
}

#[tokio::test]
async fn what_a_failed_disk_may_have_lost_is_committed_again_before_anybody_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let store = Faulty::open(&folder);
    let settings = Settings { durable: Durable::Each, ..Settings::default() };
    let mut pair = Pair::connect(store.start(settings)).await;
    for number in 0..40 {
        store.syncs.begin(number % 3);
        pair.send(number, 10);
        pair.stored(number).await;
        pair.delivered(number).await;
    }
    store.syncs.begin(ALWAYS);
    for number in 40..60 {
        pair.send(number, 10);
    }
    wait_for(&pair.bus, is_unavailable).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(pair.at_alice.is_empty() && pair.at_bob.is_empty());

    store.syncs.begin(0);
    for number in 40..60 {
        pair.stored(number).await;
        pair.delivered(number).await;
    }
    let totals = pair.bus.ask(|desk| desk.bus.totals()).await.unwrap();
    assert_eq!((totals.accepted, totals.waiting), (60, 0));
    pair.bus.stop().await;
    assert_audit(&store);
}

#[tokio::test]
async fn backlog_that_cannot_be_read_for_a_while_comes_in_order_and_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let store = Faulty::open(&folder);
    let bus = store.start(Settings::default());
    let pair = Pair::connect(bus).await;
    pair.bus.close(pair.alice, 1);
    let mut pair = Pair { at_alice: Peer::connect(9).1, ..pair };
    for number in 0..300 {
        pair.send(number, 10);
        pair.stored(number).await;
    }
    store.reads.begin(ALWAYS);
    let (to_alice, at_alice) = Peer::connect(3);
    pair.bus.open(pair.alice, ALICE, Arc::clone(&to_alice));
    let mut pair = Pair { to_alice, at_alice, ..pair };
    wait_for(&pair.bus, is_unavailable).await;

    // Of an earlier session, say; it is looked up until that succeeds.
    store.finds.begin(3);
    pair.bus.acknowledge(&pair.to_alice, pair.alice, "m7");
    let end = Instant::now() + PATIENCE;
    while pair.bus.ask(|desk| desk.bus.totals().acknowledged).await != Ok(1) {
        assert!(Instant::now() < end, "the acknowledgement is lost");
    }
    assert!(pair.at_alice.is_empty());

    store.reads.begin(0);
    for number in (0..300).filter(|number| *number != 7) {
        pair.delivered(number).await;
    }
    wait_for(&pair.bus, |health| *health == Health::Serving).await;
    pair.bus.stop().await;
}

#[tokio::test]
async fn message_that_cannot_be_looked_up_is_told_and_costs_nobody_else_anything() {
    let folder = tempfile::tempdir().unwrap();
    let store = Faulty::open(&folder);
    let pair = Pair::connect(store.start(Settings::default())).await;
    pair.bus.close(pair.alice, 1);
    let mut pair = Pair { at_alice: Peer::connect(9).1, ..pair };
    pair.send(0, 10);
    pair.stored(0).await;
    store.reads.begin(ALWAYS);
    let (to_alice, at_alice) = Peer::connect(3);
    pair.bus.open(pair.alice, ALICE, Arc::clone(&to_alice));
    let mut pair = Pair { to_alice, at_alice, ..pair };

    store.finds.damaged.store(true, Ordering::SeqCst);
    store.finds.begin(2);
    pair.bus.acknowledge(&pair.to_alice, pair.alice, "m0");
    pair.bus.acknowledge(&pair.to_alice, pair.alice, "m0");
    while store.finds.left.load(Ordering::SeqCst) > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    store.reads.begin(0);
    pair.delivered(0).await;

    let damaged = "the store is damaged: broken on purpose".to_owned();
    wait_for(&pair.bus, |health| *health == Health::Damaged(damaged.clone())).await;
    pair.send(1, 10);
    pair.stored(1).await;
    pair.delivered(1).await;
    pair.bus.stop().await;
}

#[tokio::test]
async fn who_asks_a_bus_whose_disk_hangs_is_told_in_time_and_what_had_not_begun_is_not_done() {
    let folder = tempfile::tempdir().unwrap();
    let store = Faulty::open(&folder);
    let bus = store.start(Settings::default());
    bus.claim(REALM, "alice", ALICE).await.unwrap();
    let done = Arc::new(AtomicU32::new(0));
    let ask = || {
        let done = Arc::clone(&done);
        bus.ask(move |_| done.fetch_add(1, Ordering::SeqCst))
    };

    store.is_hung.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let claim = tokio::spawn({
        let bus = Arc::clone(&bus);
        async move { bus.claim(REALM, "bob", BOB).await }
    });
    wait_for(&bus, is_unavailable).await;
    let (claimed, asked) = tokio::join!(claim, ask());
    let claimed = claimed.unwrap();
    assert!(
        matches!(claimed, Err(ClaimError::Unanswered(Unanswered::Unavailable(_)))),
        "{claimed:?}"
    );
    assert!(matches!(asked, Err(Unanswered::Unavailable(_))), "{asked:?}");
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());

    store.is_hung.store(false, Ordering::SeqCst);
    wait_for(&bus, |health| *health == Health::Serving).await;
    assert_eq!(ask().await, Ok(0), "it is done after all");
    let bob = bus.claim(REALM, "bob", BOB).await;
    assert!(bob.is_ok(), "{bob:?}");
    bus.stop().await;
}

#[tokio::test]
async fn bus_whose_store_takes_nothing_ends_without_what_nobody_was_told() {
    let folder = tempfile::tempdir().unwrap();
    let store = Faulty::open(&folder);
    let mut pair = Pair::connect(store.start(Settings::default())).await;
    pair.send(0, 10);
    pair.stored(0).await;
    store.commits.begin(ALWAYS);
    pair.send(1, 10);
    wait_for(&pair.bus, is_unavailable).await;

    timeout(PATIENCE, pair.bus.stop()).await.unwrap();
    while let Ok(heard) = pair.at_bob.try_recv() {
        assert!(matches!(heard, Heard::Held(_)), "{heard:?}");
    }
    store.commits.begin(0);
    let bus = store.start(Settings::default());
    assert_eq!(bus.ask(|desk| desk.bus.totals().waiting).await, Ok(1));
    bus.stop().await;
}

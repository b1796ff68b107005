//! A thousand subscribers of many channels, live and a million records behind, with figures.

use std::sync::OnceLock;

use super::*;
use crate::proto::bus::ChannelTotals;

const PEERS: u64 = 1_000;
/// Channels that each subscribes to; each channel has as many subscribers.
const EACH: u64 = 20;
const BACKLOG: u64 = 1_000_000;
/// Records of one push, as a peer's batch has them.
const PIECE: u64 = 500;
const LIVE: Duration = Duration::from_secs(20);

/// A subscriber that acknowledges at once, and notes how long records took.
struct Reader {
    generation: u64,
    me: OnceLock<(Arc<Bus>, MailboxId, std::sync::Weak<Self>)>,
    delays: Arc<Mutex<Vec<Duration>>>,
    begun: Instant,
    /// Records that have come, each of which has to be the next of its channel.
    came: Mutex<BTreeMap<Vec<u8>, u64>>,
}

impl Reader {
    fn party(&self) -> Arc<dyn Party> {
        self.me.get().unwrap().2.upgrade().unwrap()
    }
}

impl Party for Reader {
    fn generation(&self) -> u64 {
        self.generation
    }

    fn deliver(&self, _: &[Outgoing], _: Instant) -> usize {
        0
    }

    fn records(&self, batch: &Batch, now: Instant) {
        let mut came = self.came.lock();
        let mut delays = self.delays.lock();
        for record in &batch.records {
            let (channel, number) = record.key.split_once(' ').unwrap();
            let number: u64 = number.parse().unwrap();
            let last = came.insert(channel.as_bytes().to_vec(), number).unwrap_or(0);
            assert_eq!(number, last + 1, "of {channel}");
            let micros = u64::from_be_bytes(*record.body.first_chunk().unwrap());
            // What waits in a backlog is old, and not slow.
            if channel != "big" {
                delays.push(
                    now.saturating_duration_since(self.begun + Duration::from_micros(micros)),
                );
            }
        }
        let (bus, mailbox, _) = self.me.get().unwrap();
        bus.acknowledge_records(&self.party(), *mailbox, batch.number);
    }

    fn receipts(&self, _: &[Receipt], _: Instant) {}

    fn hold(&self, _: bool) {}

    fn withdraw(&self) {
        panic!("there are not too many");
    }

    fn replace(&self) {}
}

struct World {
    bus: Arc<Bus>,
    begun: Instant,
    delays: Arc<Mutex<Vec<Duration>>>,
    generation: u64,
    published: BTreeMap<String, u64>,
}

impl World {
    async fn subscriber(
        &mut self,
        name: &str,
        channels: Vec<Arc<str>>,
    ) -> (Arc<Reader>, MailboxId) {
        let mailbox = self.bus.claim(REALM, name, ALICE).await.unwrap();
        self.generation += 1;
        let reader = Arc::new(Reader {
            generation: self.generation,
            me: OnceLock::new(),
            delays: Arc::clone(&self.delays),
            begun: self.begun,
            came: Mutex::default(),
        });
        reader.me.set((Arc::clone(&self.bus), mailbox, Arc::downgrade(&reader))).ok().unwrap();
        self.bus.open(mailbox, ALICE, reader.party());
        let subscription = Subscription { channels, is_ephemeral: false };
        self.bus.subscribe(mailbox, self.generation, subscription);
        (reader, mailbox)
    }

    fn record(&mut self, channel: &str) -> Published {
        let number = self.published.entry(channel.to_owned()).or_insert(0);
        *number += 1;
        let mut body = vec![b'x'; 256];
        let micros = u64::try_from(self.begun.elapsed().as_micros()).unwrap();
        body[..8].copy_from_slice(&micros.to_be_bytes());
        let id = format!("{channel} {number}").into();
        Published { to: To::Channel(channel.into()), id, body: body.into() }
    }

    async fn totals(&self) -> ChannelTotals {
        self.bus.ask(|desk| desk.bus.channel_totals()).await.unwrap()
    }

    /// Publishes 200 records a second for a while, or until something is over; says how long they took.
    async fn live(
        &mut self,
        publisher: &Arc<Reader>,
        what: &str,
        is_over: impl Fn() -> bool,
    ) -> Duration {
        self.delays.lock().clear();
        let end = Instant::now() + LIVE;
        let mut next = 0;
        while Instant::now() < end && !is_over() {
            let record = self.record(&format!("c{}", next % PEERS));
            next += 7;
            let mailbox = publisher.me.get().unwrap().1;
            self.bus.publish(&publisher.party(), mailbox, vec![record]);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if !is_over() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let mut delays = std::mem::take(&mut *self.delays.lock());
        delays.sort_unstable();
        let at = |percent: usize| delays[(delays.len() - 1) * percent / 100];
        println!(
            "{what}: {} deliveries, 50 %: {:?}, 99 %: {:?}, longest {:?}",
            delays.len(),
            at(50),
            at(99),
            at(100)
        );
        at(50)
    }
}

/// What the process has in memory, in MiB.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4 / 1_024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes, and prints figures"]
async fn soak_thousand_subscribers_beside_one_that_is_a_million_records_behind() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { audit_max_bytes: 64 << 20, ..Settings::default() };
    let bus = start(&folder, settings);
    let begun = Instant::now();
    let mut world = World {
        bus: Arc::clone(&bus),
        begun,
        delays: Arc::default(),
        generation: 0,
        published: BTreeMap::new(),
    };
    let mut readers = Vec::new();
    for peer in 0..PEERS {
        let channels = (0..EACH).map(|next| format!("c{}", (peer + next) % PEERS).into());
        let name = format!("peer{peer}");
        readers.push(world.subscriber(&name, channels.collect()).await.0);
    }
    let publisher = world.subscriber("publisher", Vec::new()).await.0;
    let (slow, slow_mailbox) = world.subscriber("slow", vec!["big".into()]).await;
    bus.ask(|_| ()).await.unwrap();
    bus.close(slow_mailbox, slow.generation);
    let totals = world.totals().await;
    println!("{} cursors, {} MiB in memory", totals.cursors, resident());

    let alone = world.live(&publisher, "live", || false).await;

    let filled = Instant::now();
    while world.published.get("big").is_none_or(|published| *published < BACKLOG) {
        let records = (0..PIECE).map(|_| world.record("big")).collect();
        bus.publish(&publisher.party(), publisher.me.get().unwrap().1, records);
        while world.totals().await.stored + 20 * PIECE < world.published.values().sum::<u64>() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    world.totals().await;
    let full = bus.store().space().unwrap().used;
    let rate = BACKLOG * 1_000 / u64::try_from(filled.elapsed().as_millis()).unwrap();
    println!(
        "published {BACKLOG} records, {rate}/s; {} MiB of disk, {} MiB in memory",
        full >> 20,
        resident()
    );

    let behind = world.live(&publisher, "beside one that is away", || false).await;
    let drained = Instant::now();
    let (slow, _) = world.subscriber("slow", vec!["big".into()]).await;
    let has_all = || slow.came.lock().get(&b"big"[..]).is_some_and(|came| *came == BACKLOG);
    let beside = world.live(&publisher, "beside one that reads its backlog", has_all).await;
    while !has_all() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("it has all after {:?}; {} MiB in memory", drained.elapsed(), resident());

    while world.totals().await.kept > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let end = Instant::now() + Duration::from_secs(180);
    while bus.store().space().unwrap().used > full / 4 {
        assert!(Instant::now() < end, "the disk is not given back");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let left = bus.store().space().unwrap().used;
    println!("{} MiB of disk after {:?}", left >> 20, drained.elapsed());
    println!("half of the live records took {alone:?}, {behind:?}, {beside:?}");
    assert!(beside <= alone + alone / 5, "{beside:?} instead of {alone:?}");
    assert!(resident() <= 300, "{} MiB in memory", resident());
    let totals = world.totals().await;
    assert_eq!(totals.stored, totals.consumed);
    assert_eq!(totals.lost + totals.skipped + totals.dead, 0);
    drop(readers);
    bus.stop().await;
}

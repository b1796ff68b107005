//! The relay, and its peers, are killed again and again under load: nothing that was acknowledged is
//! lost on any subscriber, the order in each channel stays, and what comes twice has the same id.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::grpc::{PUBLISH, Rpc, SUBSCRIBE, fields, last_id, repeated, request};
use super::pki::{Authority, Identity};
use super::{Site, ids, record};

const CHANNELS: [&str; 2] = ["orders", "alerts"];
const SUBSCRIBERS: usize = 3;

/// Where the relay is, and who is to be believed.
#[derive(Clone)]
struct Way {
    address: SocketAddr,
    authority: Arc<Authority>,
}

/// Publishes to one channel.
struct Publisher {
    identity: Identity,
    channel: usize,
    /// Records before this one are acknowledged.
    acknowledged: AtomicUsize,
    stops: AtomicBool,
}

/// Takes the records of all channels.
struct Subscriber {
    identity: Identity,
    /// What came, of each channel.
    taken: [Mutex<Vec<usize>>; CHANNELS.len()],
}

fn id(channel: usize, number: usize) -> String {
    format!("{}-{number}", CHANNELS[channel])
}

impl Publisher {
    /// Publishes over one connection until that ends.
    async fn connection(&self, way: &Way) -> Option<()> {
        let mut rpc = Rpc::connect(way.address, &way.authority, &self.identity).await.ok()?;
        let mut call = rpc.try_call(PUBLISH).await?;
        while !self.stops.load(Ordering::Relaxed) {
            let first = self.acknowledged.load(Ordering::Relaxed);
            let behind = first + 1 + first % 3;
            let batch: Vec<_> = (first..behind)
                .map(|number| record(&id(self.channel, number), CHANNELS[self.channel]))
                .collect();
            call.say(&repeated(1, &batch)).await;
            let answer = last_id(&call.next().await?);
            // All of it was stored before where the acknowledgement of that was lost.
            assert!(answer.is_empty() || answer == id(self.channel, behind - 1), "{answer}");
            self.acknowledged.store(behind, Ordering::Relaxed);
        }
        Some(())
    }
}

impl Subscriber {
    async fn connection(&self, way: &Way) -> Option<()> {
        let mut rpc = Rpc::connect(way.address, &way.authority, &self.identity).await.ok()?;
        let mut call = rpc.try_call(SUBSCRIBE).await?;
        call.say(&request(&CHANNELS, false)).await;
        loop {
            let message = call.next_or_end().await?;
            let [(1, batch)] = &fields(&message)[..] else { panic!("{message:?}") };
            let records: Vec<_> = fields(batch).into_iter().map(|(_, record)| record).collect();
            let all = ids(&records);
            for id in &all {
                let (channel, number) = id.split_once('-').unwrap();
                let channel = CHANNELS.iter().position(|known| *known == channel).unwrap();
                self.taken[channel].lock().push(number.parse().unwrap());
            }
            call.acknowledge(all.last().unwrap()).await;
        }
    }

    /// Whether so many records of each channel came: all, in order, and again only what came before.
    fn has(&self, published: &[usize]) -> bool {
        published.iter().zip(&self.taken).all(|(count, taken)| {
            let taken = taken.lock();
            let mut seen = HashSet::new();
            let first: Vec<_> = taken.iter().filter(|number| seen.insert(**number)).collect();
            assert!(first.is_sorted(), "out of order: {first:?}");
            first.len() >= *count
        })
    }
}

/// Runs a client until it is killed: it comes back after each end of its connection.
fn start<C: Send + Sync + 'static, F: Future<Output = Option<()>> + Send>(
    client: &Arc<C>,
    way: &Way,
    connection: impl Fn(Arc<C>, Way) -> F + Send + 'static,
) -> JoinHandle<()> {
    let (client, way) = (Arc::clone(client), way.clone());
    tokio::spawn(async move {
        while connection(Arc::clone(&client), way.clone()).await.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
}

/// Kills so many times.
async fn kill(kills: usize) {
    let mut site = Site::start(&[]);
    let authority = Arc::clone(&site.authority);
    let way = Way { address: site.address, authority: Arc::clone(&authority) };
    let publishers: Vec<_> = (0..CHANNELS.len())
        .map(|channel| {
            let identity = authority.issue(&format!("publisher-{channel}"));
            let (acknowledged, stops) = (AtomicUsize::new(0), AtomicBool::new(false));
            Arc::new(Publisher { identity, channel, acknowledged, stops })
        })
        .collect();
    let subscribers: Vec<_> = (0..SUBSCRIBERS)
        .map(|number| {
            let identity = authority.issue(&format!("subscriber-{number}"));
            Arc::new(Subscriber { identity, taken: Default::default() })
        })
        .collect();
    let publish = |client: Arc<Publisher>, way: Way| async move { client.connection(&way).await };
    let subscribe =
        |client: Arc<Subscriber>, way: Way| async move { client.connection(&way).await };
    let mut subscribing: Vec<_> =
        subscribers.iter().map(|client| start(client, &way, subscribe)).collect();
    site.wait_until_subscribed(SUBSCRIBERS);
    let mut publishing: Vec<_> =
        publishers.iter().map(|client| start(client, &way, publish)).collect();

    for number in 0..kills {
        tokio::time::sleep(Duration::from_millis(100 + 37 * (number as u64 % 7))).await;
        match number % 3 {
            0 => site.restart("KILL"),
            1 => {
                let at = number / 3 % SUBSCRIBERS;
                subscribing[at].abort();
                subscribing[at] = start(&subscribers[at], &way, subscribe);
            }
            _ => {
                let at = number / 3 % CHANNELS.len();
                publishing[at].abort();
                publishing[at] = start(&publishers[at], &way, publish);
            }
        }
    }
    for publisher in &publishers {
        publisher.stops.store(true, Ordering::Relaxed);
    }
    for publishing in publishing {
        publishing.await.unwrap();
    }
    let published: Vec<_> =
        publishers.iter().map(|publisher| publisher.acknowledged.load(Ordering::Relaxed)).collect();
    let end = Instant::now() + Duration::from_secs(40);
    for subscriber in &subscribers {
        while !subscriber.has(&published) {
            let came: Vec<_> = subscriber.taken.iter().map(|taken| taken.lock().len()).collect();
            assert!(Instant::now() < end, "{came:?} came of {published:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    eprintln!(
        "{kills} kills: {published:?} records acknowledged, none lost on {SUBSCRIBERS} subscribers"
    );
    assert!(published.iter().all(|count| *count > 0));
    subscribing.iter().for_each(JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_relay_and_its_peers_are_killed() {
    kill(10).await;
}

/// `KILLS=200 cargo test … soak_kills_of_a_relay_with_channels -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn soak_kills_of_a_relay_with_channels() {
    let kills = std::env::var("KILLS").map_or(200, |kills| kills.parse().unwrap());
    kill(kills).await;
}

//! A registry that throttles as the real one does, in memory and on a paused clock.

use std::collections::VecDeque;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::*;
use crate::doors::pilot::directory::registry::dial::Target;

/// How a registry throttles a connection, as measured: from its age on, what it asks for in a
/// second on average.
const GRACE: Duration = Duration::from_secs(5);
const SLEEPS_ABOVE: f64 = 100.0;
const CLOSES_ABOVE: f64 = 500.0;
const SLEEP: Duration = Duration::from_millis(10);

/// What it saw.
#[derive(Debug, Default)]
struct Seen {
    connections: usize,
    lookups: usize,
    /// Most requests of one connection within one second.
    most_in_a_second: usize,
    throttled: usize,
    closed: usize,
    /// Connections that did not begin in binary mode.
    in_json: usize,
}

#[derive(Clone)]
struct Throttling {
    seen: Arc<Mutex<Seen>>,
    /// One after the other: how long each look-up takes.
    takes: Duration,
    /// How many connections it takes; it closes others.
    most: usize,
}

impl Throttling {
    async fn serve(self, mut stream: DuplexStream) {
        {
            let mut seen = self.seen.lock();
            seen.connections += 1;
            if seen.connections > self.most {
                return;
            }
        }
        let began = Instant::now();
        let mut count = 0_u32;
        let mut last_second = VecDeque::new();
        let mut preamble = [0; 5];
        if stream.read_exact(&mut preamble).await.is_err() {
            return;
        }
        if &preamble != b"PILT\x01" {
            self.seen.lock().in_json += 1;
            return;
        }
        let mut request = [0; 9];
        while stream.read_exact(&mut request).await.is_ok() {
            let now = Instant::now();
            count += 1;
            last_second.push_back(now);
            while last_second.front().is_some_and(|at| now >= *at + SECOND) {
                last_second.pop_front();
            }
            let throttles = {
                let mut seen = self.seen.lock();
                seen.lookups += 1;
                seen.most_in_a_second = seen.most_in_a_second.max(last_second.len());
                let average = f64::from(count) / (now - began).as_secs_f64();
                let counts = now - began >= GRACE;
                if counts && average > CLOSES_ABOVE {
                    seen.closed += 1;
                    return;
                }
                let throttles = counts && average > SLEEPS_ABOVE;
                seen.throttled += usize::from(throttles);
                throttles
            };
            if throttles {
                sleep(SLEEP).await;
            }
            if !self.takes.is_zero() {
                sleep(self.takes).await;
            }
            let mut answer = BytesMut::from(&[0, 0, 0, 45, 0x82][..]);
            answer.extend_from_slice(&request[5..]);
            answer.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 32]);
            answer.extend_from_slice(&[1; 32]);
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
    }
}

struct InMemory {
    registry: Arc<Registry>,
    seen: Arc<Mutex<Seen>>,
    _running: JoinSet<()>,
}

fn in_memory(connections: usize, takes: Duration) -> InMemory {
    limited(connections, takes, usize::MAX)
}

fn limited(connections: usize, takes: Duration, most: usize) -> InMemory {
    let settings =
        RegistrySettings { connections, ..RegistrySettings::new("registry.test:9000".to_owned()) };
    let mut target = Target::new(&settings.address, None).unwrap();
    let (dialled, mut listening) = mpsc::unbounded_channel();
    target.memory = Some(dialled);
    let (registry, connections) = Registry::at(target, settings, Arc::default());
    let throttling = Throttling { seen: Arc::default(), takes, most };
    let seen = Arc::clone(&throttling.seen);
    let mut running = JoinSet::new();
    running.spawn(connections.run());
    running.spawn(async move {
        let mut serving = JoinSet::new();
        while let Some(stream) = listening.recv().await {
            serving.spawn(throttling.clone().serve(stream));
        }
    });
    InMemory { registry, seen, _running: running }
}

/// Logs `nodes` in at once; how long the slowest takes.
async fn storm(registry: &Arc<Registry>, nodes: std::ops::Range<u32>) -> Duration {
    let began = Instant::now();
    let mut logins = JoinSet::new();
    for number in nodes {
        let registry = Arc::clone(registry);
        logins.spawn(async move { registry.lookup(node(number)).await.0 });
    }
    let answers = logins.join_all().await;
    assert!(answers.iter().all(|answer| *answer == key(1)), "{answers:?}");
    began.elapsed()
}

/// Looks connected nodes up once more, as many at a time as the server does.
async fn recheck(registry: Arc<Registry>, nodes: u32, in_time: Duration) {
    let mut asked = JoinSet::new();
    let pause = in_time / nodes;
    let began = Instant::now();
    for number in 1..=nodes {
        tokio::time::sleep_until(began + pause * number).await;
        if asked.len() >= 64 {
            asked.join_next().await;
        }
        let registry = Arc::clone(&registry);
        asked.spawn(async move { registry.recheck(node(number), PublicKey([1; 32])).await });
        while asked.try_join_next().is_some() {}
    }
    asked.join_all().await;
}

#[tokio::test(start_paused = true)]
async fn storm_of_1000_unknown_logins_is_let_in_at_the_pace_of_the_registry() {
    let InMemory { registry, seen, _running } = in_memory(4, Duration::ZERO);
    let took = storm(&registry, 1..1_001).await;
    assert!(took < SECOND * 5, "{took:?}");
    let seen = seen.lock();
    assert!(seen.most_in_a_second < 80, "{seen:?}");
    assert_eq!((seen.connections, seen.lookups), (4, 1_000));
}

#[tokio::test(start_paused = true)]
async fn look_ups_of_30000_sessions_keep_the_pace_and_logins_go_before_them() {
    let InMemory { registry, seen, _running } = in_memory(4, Duration::ZERO);
    let checking = tokio::spawn(recheck(Arc::clone(&registry), 30_000, MINUTE * 5));
    sleep(MINUTE).await;
    let one = storm(&registry, 100_000..100_001).await;
    assert!(one < SECOND / 10, "{one:?} for a login beside the look-ups");
    let took = storm(&registry, 200_000..201_000).await;
    assert!(took < SECOND * 5, "{took:?} for a storm beside the look-ups");
    let began = Instant::now();
    checking.await.unwrap();
    let rest = began.elapsed();
    assert!(rest < MINUTE * 4 + SECOND * 10, "{rest:?} for the rest of the look-ups");
    let seen = seen.lock();
    assert!(seen.most_in_a_second < 80, "{seen:?}");
    assert_eq!((seen.throttled, seen.closed), (0, 0), "{seen:?}");
    assert_eq!(seen.lookups, 31_001, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn storm_of_known_nodes_asks_nothing_that_anybody_waits_for() {
    let InMemory { registry, seen, _running } = in_memory(4, Duration::ZERO);
    let stale = now();
    for number in 1..=30_000 {
        registry.cache.replace(node(number), Some(PublicKey([1; 32])), stale);
    }
    sleep(MINUTE * 10).await;
    assert_eq!(storm(&registry, 1..30_001).await, Duration::ZERO);
    // What finds no room is left to the clock.
    let postponed = registry.health.failures.of(Failure::Postponed).value();
    assert!(postponed >= 27_000, "{postponed}");
    assert!(storm(&registry, 50_000..50_100).await < SECOND * 2, "and cold ones go first");
    assert!(seen.lock().most_in_a_second < 80);
}

#[tokio::test(start_paused = true)]
async fn registry_that_takes_2_seconds_for_each_look_up_is_no_registry_without_binary_mode() {
    let InMemory { registry, seen, _running } = in_memory(4, SECOND * 2);
    let took = storm(&registry, 1..2).await;
    assert!(took < SECOND * 3, "{took:?}");
    // One after the other on each connection, so that four are better than one.
    let took = storm(&registry, 2..14).await;
    assert!(took <= SECOND * 9, "{took:?} for 12");
    assert_eq!(registry.health.failures.total(), 0);
    assert!(seen.lock().connections >= 3, "{:?}", seen.lock());
}

#[tokio::test(start_paused = true)]
async fn registry_that_takes_one_connection_only_is_asked_on_that_one() {
    let InMemory { registry, seen, _running } = limited(4, SECOND / 20, 1);
    let took = storm(&registry, 1..101).await;
    assert!(took < SECOND * 8, "{took:?}");
    sleep(MINUTE).await;
    storm(&registry, 101..102).await;
    assert!(registry.is_up() && seen.lock().in_json == 0, "{:?}", seen.lock());
}

#[tokio::test(start_paused = true)]
async fn silence_is_no_reason_to_fall_back_to_json() {
    let InMemory { registry, seen, _running } = in_memory(4, MINUTE * 60);
    for number in 1..=5 {
        let began = Instant::now();
        assert_eq!(registry.lookup(node(number)).await.0, Lookup::Unavailable);
        assert!(began.elapsed() <= SECOND * 9);
        sleep(MINUTE).await;
    }
    assert!(registry.health.failures.of(Failure::Timeout).value() >= 2);
    let seen = seen.lock();
    assert!(seen.connections >= 2 && seen.in_json == 0, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn single_connection_carries_logins_and_look_ups() {
    let InMemory { registry, seen, _running } = in_memory(1, Duration::ZERO);
    let checking = tokio::spawn(recheck(Arc::clone(&registry), 3_000, MINUTE));
    sleep(SECOND * 10).await;
    let took = storm(&registry, 100_000..100_100).await;
    assert!(took < SECOND * 3, "{took:?}");
    checking.await.unwrap();
    let seen = seen.lock();
    assert!(seen.most_in_a_second < 80 && seen.connections == 1, "{seen:?}");
}

//! Names that roam over three relays of one bus: each visits some relay, gets what waits for it,
//! sends, leaves, and comes back at another one, or moves there while its session is open.
//!
//! What has a receipt arrives when its recipient comes back, in the order of its sender, and not
//! again once the bus must have its acknowledgement. Nothing that was sent after a session had got
//! something goes to an older session of the name. In the end nothing waits, once those have come
//! again whose acknowledgements were lost with a link between relays.

mod session;
mod visit;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::visit::{Name, Purpose, Visit};
use super::cluster::Sites;
use crate::control::ask;
use crate::harness::look_until;
use crate::random::Random;

const RELAYS: usize = 3;

/// How long the acknowledgements of a round may take.
const SETTLED: Duration = Duration::from_secs(5);

/// How often names come again whose acknowledgements were lost.
const VISITS: usize = 3;

/// What all visitors share.
struct Stage {
    addresses: Vec<SocketAddr>,
    /// What each has met; its visitor has it.
    names: Vec<Mutex<Name>>,
    /// What was promised to each by receipts: sender and number.
    promised: Vec<Mutex<Vec<(usize, u64)>>>,
    /// Counts the messages that were sent, of all.
    clock: AtomicU64,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    visits: AtomicU64,
    moves: AtomicU64,
    receipts: AtomicU64,
    deliveries: AtomicU64,
    /// Deliveries of what was delivered before.
    repeated: AtomicU64,
}

/// So many names, a part of them connected at a time, visit relays so often.
struct Plan {
    names: usize,
    connected: usize,
    rounds: u64,
}

/// Has them do so; what it came to.
fn roam(plan: &Plan) -> String {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    eprintln!("seed {seed}");
    let (sites, began) = (Sites::start(RELAYS), Instant::now());
    let stage = Arc::new(Stage {
        addresses: (0..RELAYS).map(|at| sites.address(at)).collect(),
        names: (0..plan.names).map(|_| Mutex::default()).collect(),
        promised: (0..plan.names).map(|_| Mutex::default()).collect(),
        clock: AtomicU64::new(0),
        counts: Counts::default(),
    });
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut random = Random(seed);
    // Who was never there cannot be sent to.
    runtime.block_on(round(&stage, plan, Purpose::Register, &mut random));
    for _ in 0..plan.rounds {
        runtime.block_on(round(&stage, plan, Purpose::Talk, &mut random));
    }
    // What has no receipt gets one, then all of it arrives.
    for purpose in [Purpose::Finish, Purpose::Finish] {
        runtime.block_on(round(&stage, plan, purpose, &mut random));
    }

    for (index, promised) in stage.promised.iter().enumerate() {
        stage.names[index].lock().assert_has(&promised.lock());
    }
    let lost = runtime.block_on(come_again(&stage, &sites, &mut random));
    let Counts { visits, moves, receipts, deliveries, repeated } = &stage.counts;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert!(count(moves) > 0 && count(receipts) > plan.names as u64);
    format!(
        "{} names, {} connected at a time: {} visits of {RELAYS} relays, {} moves, {} receipts, \
         {} deliveries, {} of them again, {lost} acknowledgements lost, in {:.1} s",
        plan.names,
        plan.connected,
        count(visits),
        count(moves),
        count(receipts),
        count(deliveries),
        count(repeated),
        began.elapsed().as_secs_f64(),
    )
}

/// Has those come again for whom something waits, until that is nobody; how many that were.
async fn come_again(stage: &Arc<Stage>, sites: &Sites, random: &mut Random) -> usize {
    let leader = sites.relay(sites.leader());
    let mut came = 0;
    for _ in 0..VISITS {
        let is_empty = || (leader.metric("beacon_relay_bus_messages") <= 0.0).then_some(());
        if look_until(Instant::now() + SETTLED, is_empty).is_some() {
            return came;
        }
        let queues = ask(leader, &["queues"]);
        for queue in queues["queues"].as_array().unwrap() {
            let name = queue["name"].as_str().unwrap();
            eprintln!("{name}: {}", ask(leader, &["queue", name, "--peek"]));
            let index: usize = name.trim_start_matches("name-").parse().unwrap();
            let visit =
                Visit { stage, order: &[index], position: 0, nearby: 1, purpose: Purpose::Finish };
            visit.make(Random(random.next())).await;
            came += 1;
        }
    }
    panic!("something waits for ever:\n{}", leader.metrics());
}

/// Has all names visit some relay once, in any order.
async fn round(stage: &Arc<Stage>, plan: &Plan, purpose: Purpose, random: &mut Random) {
    let mut order: Vec<usize> = (0..plan.names).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, random.below(at + 1));
    }
    let order = Arc::new(order);
    let places = Arc::new(Semaphore::new(plan.connected));
    let mut visits = JoinSet::new();
    for position in 0..plan.names {
        let place = Arc::clone(&places).acquire_owned().await.unwrap();
        let (stage, order, seed) = (Arc::clone(stage), Arc::clone(&order), random.next());
        let nearby = plan.connected / 2;
        visits.spawn(async move {
            let visit = Visit { stage: &stage, order: &order, position, nearby, purpose };
            visit.make(Random(seed)).await;
            drop(place);
        });
        while let Some(made) = visits.try_join_next() {
            made.unwrap();
        }
    }
    while let Some(made) = visits.join_next().await {
        made.unwrap();
    }
}

#[test]
fn three_hundred_names_roam_over_three_relays() {
    println!("{}", roam(&Plan { names: 300, connected: 60, rounds: 2 }));
}

#[test]
#[ignore = "long: ROUNDS=3"]
fn soak_ten_thousand_names_roam_over_three_relays() {
    let rounds = std::env::var("ROUNDS").map_or(3, |rounds| rounds.parse().unwrap());
    println!("{}", roam(&Plan { names: 10_000, connected: 300, rounds }));
}

//! Three relays of one bus under load, whose relays and NATS are killed, frozen and cut off: what
//! has a receipt arrives, in order, and once at a recipient that remembers ids.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;

use super::cluster::Sites;
use super::gate::Gate;
use super::jetstream::Engine;
use super::traffic::{self, Ends};
use crate::cluster::wait_until;
use crate::random::Random;

const RELAYS: usize = 3;

/// What happens to the cluster.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// NATS crashes, and starts again.
    NatsKilled,
    /// NATS answers nobody for a while.
    NatsFrozen,
    /// A relay crashes that does not lead, and starts again.
    FollowerKilled,
    /// The relay that leads crashes, and starts again.
    LeaderKilled,
    /// The relay that leads does not reach NATS, until another leads; what it had written meanwhile
    /// comes late.
    LeaderCut,
    /// The relay that leads does nothing, until another leads.
    LeaderFrozen,
}

const ALL: [Fault; 6] = [
    Fault::NatsKilled,
    Fault::NatsFrozen,
    Fault::FollowerKilled,
    Fault::LeaderKilled,
    Fault::LeaderCut,
    Fault::LeaderFrozen,
];

/// Three relays, each with a route of its own to NATS.
struct Stage {
    sites: Sites,
    gates: Vec<Gate>,
}

impl Stage {
    fn start() -> Self {
        let engine = Engine::start();
        let gates: Vec<_> = (0..RELAYS).map(|_| Gate::to(engine.server.address())).collect();
        let flags = gates.iter().map(|gate| format!("--bus-nats=nats://{}", gate.address));
        let flags: Vec<_> = flags.collect();
        Self { sites: Sites::over(engine, &flags), gates }
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        (0..RELAYS).map(|at| self.sites.address(at)).collect()
    }

    fn have(&mut self, fault: Fault, random: &mut Random) {
        let leader = self.sites.leader();
        match fault {
            Fault::NatsKilled => {
                self.sites.engine.server.kill();
                thread::sleep(below(Duration::from_millis(300), random));
                self.sites.engine.server.start_again();
            }
            Fault::NatsFrozen => {
                // From less than a lease to more than an election.
                let frozen = Duration::from_secs(1) + below(Duration::from_secs(5), random);
                self.sites.engine.server.signal("STOP");
                thread::sleep(frozen);
                self.sites.engine.server.signal("CONT");
            }
            Fault::FollowerKilled => {
                let other = (leader + 1 + random.below(RELAYS - 1)) % RELAYS;
                self.sites.kill(other);
            }
            Fault::LeaderKilled => self.sites.kill(leader),
            Fault::LeaderCut => {
                self.gates[leader].cut();
                self.wait_for_another(leader);
                self.gates[leader].heal();
            }
            Fault::LeaderFrozen => {
                self.sites.relay(leader).signal("STOP");
                self.wait_for_another(leader);
                self.sites.relay(leader).signal("CONT");
            }
        }
        // All of it heals without anybody's help.
        self.sites.leader();
    }

    fn wait_for_another(&self, than: usize) {
        let others: Vec<_> = (0..RELAYS).filter(|at| *at != than).collect();
        wait_until("another relay leads", || others.iter().any(|at| self.sites.leads(*at)));
    }
}

/// Less than this, at random.
fn below(bound: Duration, random: &mut Random) -> Duration {
    let bound = usize::try_from(bound.as_millis()).unwrap();
    Duration::from_millis(random.below(bound) as u64)
}

/// Has these faults happen, one after another, each behind some traffic. How many receipts
/// there were.
fn survive(faults: &[Fault]) -> usize {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    eprintln!("seed {seed}");
    let mut random = Random(seed);
    let mut stage = Stage::start();
    let addresses = RwLock::new(stage.addresses());
    traffic::under(&addresses, 20..420, seed, |number| {
        stage.have(faults[number], &mut random);
        // A relay that has started again listens elsewhere.
        *addresses.write() = stage.addresses();
        if number + 1 < faults.len() { Ends::No } else { Ends::Now }
    })
}

#[test]
fn what_has_a_receipt_survives_faults_of_three_relays_and_nats_in_order_and_once() {
    let receipts = survive(&[Fault::NatsKilled, Fault::FollowerKilled, Fault::LeaderCut]);
    println!("{receipts} receipts");
}

#[test]
#[ignore = "long: KILLS=200"]
fn soak_what_has_a_receipt_survives_two_hundred_faults_of_three_relays_and_nats() {
    let count = std::env::var("KILLS").map_or(200, |kills| kills.parse().unwrap());
    let faults: Vec<_> = ALL.into_iter().cycle().take(count).collect();
    let receipts = survive(&faults);
    println!("{receipts} receipts through {count} faults of three relays and NATS");
}

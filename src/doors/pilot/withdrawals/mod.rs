//! Keys that are removed or changed while their nodes are connected: asks for them by the clock,
//! decides whether the registry is to be believed, and ends the sessions.
//!
//! One bad answer never disconnects a fleet: what would end more than half of the sessions is
//! held back.

use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

use crate::doors::pilot::directory::{Change, Directory, Lookup, Recheck};
use crate::ids::{NodeId, PublicKey};
use crate::peers::{Credential, End, Table};

/// In this time each connected node's key is looked up once more, so that one that the
/// registry has withdrawn ends its session: the time for which a cached key is fresh.
const RECHECK_INTERVAL: Duration = Duration::from_secs(300);

/// Most nodes whose keys are being looked up once more.
const AT_ONCE: usize = 64;

/// From the first contradiction to the judgement, so that those that come together are judged
/// together.
const GATHER: Duration = Duration::from_secs(1);

/// Until the next judgement where the registry did not say enough.
const POSTPONED: Duration = Duration::from_secs(10);

/// Until the next judgement of what is held back.
const HELD: Duration = Duration::from_secs(60);

/// Most connected nodes that the registry is asked about for a judgement.
const SAMPLE: usize = 32;

/// Fewest contradicted nodes that are held back; fewer are no fleet.
const FLEET: usize = 4;

/// Ends the sessions of nodes whose key was removed or changed.
pub(super) async fn end_sessions(table: Arc<Table>, directory: Directory) {
    loop {
        let nodes = match directory.next_change().await {
            Change::Node(node) => vec![node],
            Change::Any => connected(&table),
        };
        for node in nodes {
            end_if_withdrawn(&table, node, &directory).await;
        }
    }
}

async fn end_if_withdrawn(table: &Table, node: NodeId, directory: &Directory) {
    let Some(session) = table.session(node.into()) else { return };
    let withdrawn = match directory.lookup(node).await {
        Lookup::Key(key) => Credential::from(key) != session.principal.credential,
        Lookup::Unknown => true,
        // A registry that is down disconnects nobody.
        Lookup::Unavailable => false,
    };
    if withdrawn && session.is_open() {
        info!(node = %session.id(), "ended a session: the node's key was removed or changed");
        session.end(End::KeyWithdrawn);
    }
}

/// Asks the registry for the key of each connected node once more in each interval.
///
/// A node has its second in the interval, which nobody can choose: the hash is seeded. A
/// registry that does not keep up makes the interval longer.
pub(super) async fn recheck(table: Arc<Table>, directory: Directory) {
    let hasher = RandomState::default();
    let seconds = RECHECK_INTERVAL.as_secs();
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked = JoinSet::new();
    for second in (0..seconds).cycle() {
        ticks.tick().await;
        let is_due = |node: &NodeId| hasher.hash_one(node) % seconds == second;
        for node in connected(&table).into_iter().filter(is_due) {
            if asked.len() >= AT_ONCE {
                let _answered = asked.join_next().await;
            }
            let (table, directory) = (Arc::clone(&table), directory.clone());
            asked.spawn(async move { ask_again(&table, &directory, node).await });
        }
        while asked.try_join_next().is_some() {}
    }
}

/// What the registry says of a node; `None` of one that is not connected any more.
async fn ask_again(table: &Table, directory: &Directory, node: NodeId) -> Option<Recheck> {
    // The session itself would keep its socket while the registry is asked.
    let Credential(key) = table.session(node.into())?.principal.credential;
    Some(directory.recheck(node, PublicKey(key)).await)
}

/// The connected nodes; not their sessions, since whoever keeps those for minutes keeps the
/// sockets of all that end meanwhile.
fn connected(table: &Table) -> Vec<NodeId> {
    table.all_sessions().iter().filter_map(|session| session.id().node_id()).collect()
}

/// Decides whether what the registry says against remembered keys is believed.
pub(super) async fn judge(table: Arc<Table>, directory: Directory) {
    // When how many connected nodes' withdrawals were believed, within the last interval.
    let mut believed = VecDeque::<(Instant, usize)>::new();
    loop {
        directory.contradicted().await;
        sleep(GATHER).await;
        let sample = Sample::take(&table, &directory).await;
        let (claimed, sessions) = claimed(&table, &directory);
        let now = Instant::now();
        believed.retain(|(at, _)| now < *at + RECHECK_INTERVAL);
        let ended = believed.iter().map(|(_, ended)| ended).sum();
        match (Case { sample, sessions, claimed, ended }).verdict() {
            Verdict::Believe => {
                believed.push_back((now, claimed));
                directory.believe();
            }
            Verdict::Hold => {
                if directory.hold() {
                    let Sample { contradicted, confirmed, .. } = sample;
                    warn!(
                        contradicted,
                        confirmed,
                        claimed,
                        ended,
                        sessions,
                        "the registry says that most nodes have no key or another one: held back; \
                         `beacon-relay reload --force` takes it as it is"
                    );
                }
                // Over before its time where nothing is held any more.
                let _waited = timeout(HELD, released(&directory)).await;
            }
            Verdict::Postpone => sleep(POSTPONED).await,
        }
    }
}

async fn released(directory: &Directory) {
    while directory.held() > 0 {
        sleep(GATHER).await;
    }
}

/// How many connected nodes' keys the registry contradicts, and how many are connected.
fn claimed(table: &Table, directory: &Directory) -> (usize, usize) {
    let contradicted: HashSet<_> = directory.contradictions().into_iter().collect();
    let nodes = connected(table);
    let claimed = nodes.iter().filter(|node| contradicted.contains(node)).count();
    (claimed, nodes.len())
}

/// What the registry says of some connected nodes, chosen at random, at one time.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Sample {
    confirmed: usize,
    contradicted: usize,
    unavailable: usize,
}

impl Sample {
    async fn take(table: &Arc<Table>, directory: &Directory) -> Self {
        let mut nodes = connected(table);
        let mut asked = JoinSet::new();
        while asked.len() < SAMPLE && !nodes.is_empty() {
            // Without randomness the last ones are asked about, which nobody chooses either.
            let random = getrandom::u32().map_or(usize::MAX, |random| random as usize);
            let node = nodes.swap_remove(random % nodes.len());
            let (table, directory) = (Arc::clone(table), directory.clone());
            asked.spawn(async move { ask_again(&table, &directory, node).await });
        }
        let mut sample = Self::default();
        for answer in asked.join_all().await.into_iter().flatten() {
            match answer {
                Recheck::Confirmed => sample.confirmed += 1,
                Recheck::Contradicted => sample.contradicted += 1,
                Recheck::Unavailable => sample.unavailable += 1,
                Recheck::NotAsked => {}
            }
        }
        sample
    }
}

#[derive(Clone, Copy, Debug)]
struct Case {
    sample: Sample,
    /// How many nodes are connected.
    sessions: usize,
    /// Of how many of them the registry says that their key is gone or another.
    claimed: usize,
    /// Of how many such was believed within the last interval.
    ended: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Believe,
    Hold,
    /// The registry does not answer at the moment.
    Postpone,
}

impl Case {
    /// Holds back where most of the sample is contradicted, before any of it is believed, or
    /// where most of the sessions would have ended within one interval.
    const fn verdict(&self) -> Verdict {
        let Sample { confirmed, contradicted, unavailable } = self.sample;
        let (all, ended) = (self.sessions + self.ended, self.claimed + self.ended);
        if contradicted >= FLEET && contradicted > confirmed || ended >= FLEET && ended > all / 2 {
            Verdict::Hold
        } else if unavailable > confirmed + contradicted {
            Verdict::Postpone
        } else {
            Verdict::Believe
        }
    }
}

#[cfg(test)]
mod tests;

//! What the door does by the clock, next to the packets: gossip, the list of beacons, the keys
//! that are withdrawn, and the machine's own addresses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::beacon_list::BeaconList;
use super::directory::Directory;
use super::{GrantQueue, Overlay, own_addresses, withdrawals};
use crate::config::Config;
use crate::peers::Table;
use crate::proto::gossip::SYNC_INTERVAL;
use crate::session::Task;

/// How often silent gossip sources are looked for: several times in their 90 s.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(10);

/// The tasks, of which none ends.
#[must_use]
pub fn tasks(
    overlay: &Arc<Overlay>,
    directory: &Directory,
    table: &Arc<Table>,
    config: watch::Receiver<Arc<Config>>,
    grants: GrantQueue,
) -> Vec<Task> {
    let has_registry = config.borrow().registry.is_some();
    let mut beacons = BeaconList::new(Arc::clone(overlay), directory.clone(), config);
    let withdrawn = withdrawals::end_sessions(Arc::clone(table), directory.clone());
    let mut tasks = vec![
        Task::new("grants", Arc::clone(overlay).verify_grants(grants)),
        Task::new("gossip", publish(Arc::clone(overlay))),
        Task::new("gossip sources", expire(Arc::clone(overlay))),
        Task::new("own addresses", own_addresses::keep(Arc::clone(overlay))),
        Task::new("beacon list", async move { beacons.keep().await }),
        Task::new("withdrawn keys", withdrawn),
    ];
    if has_registry {
        let recheck = withdrawals::recheck(Arc::clone(table), directory.clone());
        tasks.push(Task::new("recheck of keys", recheck));
        let judge = withdrawals::judge(Arc::clone(table), directory.clone());
        tasks.push(Task::new("withdrawals", judge));
    }
    tasks
}

async fn expire(overlay: Arc<Overlay>) {
    let mut ticks = interval(EXPIRE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        overlay.expire_beacons(Instant::now());
    }
}

async fn publish(overlay: Arc<Overlay>) {
    let mut ticks = interval(SYNC_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        overlay.publish();
    }
}

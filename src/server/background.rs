//! What happens by the clock, beside the packets: sweeps, gossip, and the start of what keeps
//! the list of beacons and watches keys.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::beacons::BeaconList;
use super::core::Core;
use super::tasks::Tasks;
use super::{own_addresses, withdrawals};
use crate::config::Config;
use crate::doors::pilot::{GrantQueue, Overlay};
use crate::proto::endpoint::SWEEP_INTERVAL;
use crate::proto::gossip::SYNC_INTERVAL;
use crate::relay::Router;

/// How often silent gossip sources are looked for: several times in their 90 s.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(10);

pub(super) fn start(
    tasks: &mut Tasks,
    stopping: &CancellationToken,
    config: watch::Receiver<Arc<Config>>,
    core: &Core,
    grants: GrantQueue,
) {
    let Core { table, directory, router, overlay, .. } = core;
    tasks.spawn("directory", directory.clone().run(stopping.clone()));
    let mut spawn = |name, task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
        let stopping = stopping.clone();
        tasks.spawn(name, async move {
            let _stopped = stopping.run_until_cancelled(task).await;
        });
    };
    spawn("grants", Box::pin(Arc::clone(overlay).verify_grants(grants)));
    spawn("sweep", Box::pin(sweep(Arc::clone(router), Arc::clone(overlay))));
    spawn("gossip", Box::pin(publish(Arc::clone(overlay))));
    spawn("own addresses", Box::pin(own_addresses::keep(Arc::clone(overlay))));
    let has_registry = config.borrow().registry.is_some();
    let mut beacons = BeaconList::new(Arc::clone(overlay), directory.clone(), config);
    spawn("beacon list", Box::pin(async move { beacons.keep().await }));
    spawn(
        "withdrawn keys",
        Box::pin(withdrawals::end_sessions(Arc::clone(table), directory.clone())),
    );
    if has_registry {
        spawn(
            "recheck of keys",
            Box::pin(withdrawals::recheck(Arc::clone(table), directory.clone())),
        );
        spawn("withdrawals", Box::pin(withdrawals::judge(Arc::clone(table), directory.clone())));
    }
}

async fn sweep(router: Arc<Router>, overlay: Arc<Overlay>) {
    let mut ticks = interval(EXPIRE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut swept = Instant::now();
    loop {
        ticks.tick().await;
        let now = Instant::now();
        overlay.expire_beacons(now);
        if now >= swept + SWEEP_INTERVAL {
            router.sweep(now);
            swept = now;
        }
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

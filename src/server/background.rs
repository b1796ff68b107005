//! What happens by the clock, next to the packets: sweeps of the table, and what each door does.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::core::Core;
use super::doors::Doors;
use super::tasks::Tasks;
use crate::config::Config;
use crate::doors::pilot::{self, GrantQueue};
use crate::proto::endpoint::SWEEP_INTERVAL;
use crate::relay::Router;
use crate::session::Task;

pub(super) fn start(
    tasks: &mut Tasks,
    stopping: &CancellationToken,
    config: watch::Receiver<Arc<Config>>,
    core: &Core,
    doors: &Doors,
    grants: GrantQueue,
) {
    let Core { table, directory, router, overlay, .. } = core;
    tasks.spawn("directory", directory.clone().run(stopping.clone()));
    let own = [
        Task::new("sweep", sweep(Arc::clone(router))),
        Task::new("certificates", Arc::clone(&doors.certificates).watch(Arc::clone(table))),
        Task::new("acme", Arc::clone(doors.certificates.acme()).run()),
    ];
    let of_pilot = pilot::tasks(overlay, directory, table, config, grants);
    let of_doors = doors.all.iter().flat_map(|door| door.tasks());
    for Task { name, work } in own.into_iter().chain(of_pilot).chain(of_doors) {
        let stopping = stopping.clone();
        tasks.spawn(name, async move {
            let _stopped = stopping.run_until_cancelled(work).await;
        });
    }
}

async fn sweep(router: Arc<Router>) {
    let mut ticks = interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        router.sweep(Instant::now());
    }
}

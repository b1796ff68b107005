//! Tells the service manager how the relay fares, where one waits for that.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::core::Core;
use super::readiness::Vitals;
use crate::net::notify::ServiceManager;

/// How often people are told the numbers.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// What the end takes besides the drain time.
const END_TIME: Duration = Duration::from_secs(5);

/// The service manager, and what it is told of.
pub(super) struct Service {
    manager: Option<ServiceManager>,
    vitals: Arc<Vitals>,
    core: Arc<Core>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("manager", &self.manager).finish_non_exhaustive()
    }
}

impl Service {
    pub(super) const fn new(
        manager: Option<ServiceManager>,
        vitals: Arc<Vitals>,
        core: Arc<Core>,
    ) -> Self {
        Self { manager, vitals, core }
    }

    /// The service manager, while it was not told of the end, after which nothing is news.
    fn manager_until_the_end(&self) -> Option<&ServiceManager> {
        self.manager.as_ref().filter(|_| !self.vitals.is_draining())
    }

    /// Everything is in place, at the start or after a reload.
    pub(super) fn ready(&self) {
        if let Some(manager) = self.manager_until_the_end() {
            manager.ready(&self.status());
        }
    }

    /// A reload begins.
    pub(super) fn reloading(&self) {
        if let Some(manager) = self.manager_until_the_end() {
            manager.reloading();
        }
    }

    /// A drain of this length begins, and then the end.
    pub(super) fn stopping(&self, drain_time: Duration) {
        if let Some(manager) = &self.manager {
            manager.stopping(drain_time + END_TIME);
        }
    }

    /// Shows that the relay is alive, as long as it is, and the numbers, for ever.
    pub(super) async fn keep_telling(self: Arc<Self>) {
        let Some(manager) = &self.manager else { return std::future::pending().await };
        // Twice in its time, as sd_watchdog_enabled(3) asks.
        let often = manager.watchdog.map_or(STATUS_INTERVAL, |time| time / 2);
        let mut ticks = interval(often.min(STATUS_INTERVAL));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = String::new();
        loop {
            ticks.tick().await;
            if manager.watchdog.is_some() && self.vitals.is_alive() {
                manager.alive();
            }
            let status = self.status();
            if status != told {
                manager.status(&status);
                told = status;
            }
        }
    }

    fn status(&self) -> String {
        let readiness = self.vitals.readiness();
        let table = &self.core.table;
        let (peers, nodes) = (table.session_count(), table.endpoint_count());
        format!("{readiness}; {peers} peers over WebSocket, {nodes} nodes over UDP")
    }
}

//! The bus of messages: opened where a listener has a door with some, and ended behind all doors.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::StartError;
use crate::bus::{Bus, Durable, Parts, Settings};
use crate::cluster::load_or_create;
use crate::config::{BusDurability, Config};
use crate::proto::bus::Limits;
use crate::store::{Embedded, Handover, bus_folder};

/// Time within which what is committed is on the disk, where a commit does not wait for that.
const SYNC: Duration = Duration::from_millis(200);

/// Time for the last commit, and for the disk to take it: beyond that the disk hangs.
const STOP_TIME: Duration = Duration::from_secs(10);

/// Opens the store in the state folder and starts the bus over it, where a door has messages.
pub(super) async fn open(config: &Config) -> Result<Option<Arc<Bus>>, StartError> {
    if config.peerbus.is_none() {
        return Ok(None);
    }
    let config = config.clone();
    let open = move || {
        let handover = match config.bus.bus_durability {
            BusDurability::Always | BusDurability::Interval => Handover::Kernel,
            BusDurability::None => Handover::Process,
        };
        let store = Embedded::open(&bus_folder(&config.state_dir), handover);
        let parts = Parts {
            store: Arc::new(store.map_err(|error| StartError::Bus(error.into()))?),
            settings: settings(&config),
            key: load_or_create(&config.state_dir)?,
            checkpoint_file: config.bus.audit_checkpoint_file.clone(),
        };
        Bus::start(parts).map_err(StartError::Bus)
    };
    let opened = spawn_blocking(open).await;
    opened.expect("opening does not panic").map(Some)
}

/// What the bus is told.
pub(super) fn settings(config: &Config) -> Settings {
    let said = &config.bus;
    let retention = u64::try_from(said.bus_retention.as_millis());
    Settings {
        limits: Limits {
            window: said.bus_window,
            quota_messages: said.bus_quota_messages,
            quota_bytes: said.bus_quota_bytes,
            retention: retention.expect("ten years of milliseconds at most"),
            ..Limits::default()
        },
        durable: match said.bus_durability {
            BusDurability::Always => Durable::Each,
            BusDurability::Interval => Durable::Every(SYNC),
            BusDurability::None => Durable::Never,
        },
        audit_retention: said.audit_retention,
        audit_max_bytes: said.audit_max_bytes,
        ..Settings::default()
    }
}

/// Ends the bus once no peer is left: what has come is committed, and on the disk.
pub(super) async fn stop(bus: &Bus) {
    let end = Instant::now() + STOP_TIME;
    if timeout_at(end, bus.stop()).await.is_err() {
        tracing::error!(
            seconds = STOP_TIME.as_secs(),
            "the message bus does not end: its disk takes nothing; what had no receipt is lost"
        );
        return;
    }
    let store = bus.store();
    if timeout_at(end, spawn_blocking(move || store.close())).await.is_err() {
        // All is committed, and merges are made again.
        tracing::info!(
            "the store of messages is left open: it merges what it has, or its disk does not answer"
        );
    }
}

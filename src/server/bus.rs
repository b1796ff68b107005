//! The bus of messages: opened where a listener has a door with some, and ended behind all doors.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::StartError;
use crate::bus::{Bus, Durable, Handle, Parts, Settings};
use crate::cluster::load_or_create;
use crate::config::{BusDurability, BusNats, Config};
use crate::ids::{PublicKey, RelayId};
use crate::net::nats;
use crate::proto::bus::Limits;
use crate::store::{
    Embedded, Handover, JetStream, JetStreamSettings, Leadership, OpenError, Store, bus_folder,
    replica_folder,
};
use crate::wire::peerbus::MAX_MESSAGE;

/// How long a relay that starts waits to lead the log of messages: longer than others that were
/// killed are waited for.
const LEAD: Duration = Duration::from_secs(30);

/// Time within which what is committed is on the disk, where a commit does not wait for that.
const SYNC: Duration = Duration::from_millis(200);

/// Time for the last commit, and for the disk to take it: beyond that the disk hangs.
const STOP_TIME: Duration = Duration::from_secs(10);

/// Opens the store and starts the bus over it, where a door has messages.
pub(super) async fn open(config: &Config) -> Result<Option<Handle>, StartError> {
    if config.peerbus.is_none() {
        return Ok(None);
    }
    let store = match &config.bus_nats {
        Some(nats) => Some(lead(config, nats).await?),
        None => None,
    };
    let config = config.clone();
    let open = move || {
        let store = match store {
            Some(store) => store,
            None => embedded(&config)?,
        };
        let parts = Parts {
            store,
            settings: settings(&config),
            key: load_or_create(&config.state_dir)?,
            checkpoint_file: config.bus.audit_checkpoint_file.clone(),
        };
        Bus::start(parts).map_err(StartError::Bus)
    };
    let opened = spawn_blocking(open).await;
    let bus = opened.expect("opening does not panic")?;
    Ok(Some(Handle::Local(bus)))
}

/// Opens the store in the state folder.
fn embedded(config: &Config) -> Result<Arc<dyn Store>, StartError> {
    let handover = match config.bus.bus_durability {
        BusDurability::Always | BusDurability::Interval => Handover::Kernel,
        BusDurability::None => Handover::Process,
    };
    let store = Embedded::open(&bus_folder(&config.state_dir), handover);
    Ok(Arc::new(store.map_err(|error| StartError::Bus(error.into()))?))
}

/// What a store on JetStream is told.
pub(crate) fn jetstream_settings(nats: &BusNats) -> JetStreamSettings {
    JetStreamSettings {
        nats: nats::Settings {
            url: nats.servers.expose().collect::<Vec<_>>().join(","),
            credentials: nats.credentials.clone(),
        },
        name: nats.name.as_str().to_owned(),
        replicas: nats.replicas,
        max_bytes: nats.max_bytes,
        longest: MAX_MESSAGE,
    }
}

/// Opens the store on JetStream, and waits until this relay leads its log.
async fn lead(config: &Config, nats: &BusNats) -> Result<Arc<dyn Store>, StartError> {
    let (settings, state_dir) = (jetstream_settings(nats), config.state_dir.clone());
    let open = move || {
        let key = load_or_create(&state_dir)?;
        let relay = RelayId(PublicKey(key.verifying_key().to_bytes()));
        let log = JetStream::open(&settings, &replica_folder(&state_dir), relay);
        log.map(Arc::new).map_err(StartError::BusNats)
    };
    let log = spawn_blocking(open).await.expect("opening does not panic")?;
    let mut leadership = log.leadership();
    let leads = leadership.wait_for(|known| matches!(known, Leadership::Here { .. }));
    if let Ok(Ok(known)) = timeout_at(Instant::now() + LEAD, leads).await
        && let Leadership::Here { epoch } = *known
    {
        return Ok(log.tenure(epoch));
    }
    let known = *log.leadership().borrow();
    let reason = match known {
        Leadership::There { relay, .. } => format!("another relay, {relay}, has the messages"),
        Leadership::Nobody | Leadership::Here { .. } => {
            log.trouble().unwrap_or_else(|| "the log of messages cannot be followed".to_owned())
        }
    };
    Err(StartError::BusNats(OpenError::Unreachable(reason)))
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
            // A commit ends when JetStream has acknowledged it.
            _ if config.bus_nats.is_some() => Durable::Never,
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
pub(super) async fn stop(bus: &Handle) {
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

//! The bus of messages: opened where a listener has a door with some, and ended behind all doors.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::StartError;
use super::tasks::Tasks;
use crate::bus::front::{self, CHANNELS, Front, Log};
use crate::bus::{self, Alone, Bus, Durable, Handle, Parts, Settings};
use crate::cluster::{ChannelOwner, Cluster, load_or_create, relay_id};
use crate::config::{BusDurability, BusNats, Config, Keyop};
use crate::net::nats;
use crate::proto::bus::{ChannelLimits, Limits};
use crate::store::{
    Embedded, Handover, JetStream, JetStreamSettings, Leadership, Outage, Store, bus_folder,
    replica_folder,
};
use crate::wire::peerbus::MAX_MESSAGE;

/// Time within which what is committed is on the disk, where a commit does not wait for that.
const SYNC: Duration = Duration::from_millis(200);

/// Time for the last commit, and for the disk to take it: beyond that the disk hangs.
const STOP_TIME: Duration = Duration::from_secs(10);

/// Follows who leads the bus, where its messages are in NATS, and has the relays of a cluster talk.
pub(super) fn follow(bus: &Handle, tasks: &mut Tasks, cluster: Option<&Arc<Cluster>>) {
    match bus {
        Handle::Local(_) => {}
        Handle::Alone(alone) => tasks.spawn("message bus", Arc::clone(alone).run()),
        Handle::Cluster(front) => {
            if let Some(cluster) = cluster {
                let owner: Weak<dyn ChannelOwner> = Arc::<Front>::downgrade(front);
                cluster.own_channels(CHANNELS, owner);
            }
            tasks.spawn("message bus of the cluster", Arc::clone(front).run());
            tasks.spawn("leadership of the message bus", front::follow(Arc::clone(front)));
        }
    }
}

/// The log of messages in NATS.
struct ClusterLog {
    log: Arc<JetStream>,
    settings: Settings,
    key: SigningKey,
    checkpoint_file: Option<PathBuf>,
}

impl Log for ClusterLog {
    fn may_serve(&self) -> bool {
        self.log.may_serve()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.log.leadership()
    }

    fn outage(&self) -> Option<Outage> {
        self.log.outage()
    }

    fn start(&self, epoch: u64) -> Result<Arc<Bus>, bus::StartError> {
        Bus::start(Parts {
            store: self.log.tenure(epoch),
            settings: self.settings.clone(),
            key: self.key.clone(),
            checkpoint_file: self.checkpoint_file.clone(),
        })
    }
}

/// Opens the store and starts the bus over it, where a door has messages. With messages in NATS the
/// bus is started where and when this relay leads their log.
pub(super) async fn open(config: &Config) -> Result<Option<Handle>, StartError> {
    if config.peerbus.is_none() && config.keyop.is_none() {
        return Ok(None);
    }
    if let Some(nats) = &config.bus_nats {
        return open_in_nats(config, nats).await.map(Some);
    }
    let config = config.clone();
    let open = move || {
        let parts = Parts {
            store: embedded(&config)?,
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

async fn open_in_nats(config: &Config, nats: &BusNats) -> Result<Handle, StartError> {
    let key = load_or_create(&config.state_dir)?;
    let relay = relay_id(&key);
    let (settings, folder) = (jetstream_settings(nats), replica_folder(&config.state_dir));
    let opened = spawn_blocking(move || JetStream::open(&settings, &folder, relay)).await;
    let log = opened.expect("opening does not panic").map_err(StartError::BusNats)?;
    let log = Arc::new(log);
    let store = log.reader();
    let checkpoint_file = config.bus.audit_checkpoint_file.clone();
    let log = ClusterLog { log, settings: self::settings(config), key, checkpoint_file };
    Ok(if config.cluster.is_some() {
        Handle::Cluster(Front::new(relay, store, Arc::new(log)))
    } else {
        Handle::Alone(Alone::new(relay, store, Arc::new(log)))
    })
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
            channels: config.keyop.as_ref().map(channels).unwrap_or_default(),
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

/// What channels are bounded by.
fn channels(keyop: &Keyop) -> ChannelLimits {
    let millis = |time: Duration| {
        u64::try_from(time.as_millis()).expect("ten years of milliseconds at most")
    };
    ChannelLimits {
        retention: millis(keyop.retention),
        bytes: keyop.channel_bytes,
        records: keyop.channel_records,
        dead_letter_retention: millis(keyop.dead_letter_retention),
        cursor_expiry: millis(keyop.cursor_expiry),
        ack_timeout: millis(keyop.ack_timeout),
        attempts: keyop.ack_attempts,
        ..ChannelLimits::default()
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

//! The settings of a bus whose messages are in NATS JetStream.

use std::path::PathBuf;

use super::small_file::contents;
use super::table::settings;
use super::{ClusterName, Config, Error, Layers, NatsServers};

/// Fewest and most bytes of the log: 64 MiB, a few of the longest commits, and 1 TB.
const LEAST_BYTES: u64 = 67_108_864;
const MOST_BYTES: u64 = 1_000_000_000_000;

settings! {
    /// What the flags say, each for itself.
    #[derive(Debug)]
    pub(super) struct BusNatsFlags {
        "Bus" {
            /// Keep messages in NATS JetStream, not in --state-dir: nats:// or tls://, several with commas
            bus_nats: Option<NatsServers> ["URL"];
            /// Credentials file for it, with a JWT and its seed
            bus_nats_credentials: Option<PathBuf> ["FILE"];
            /// Name of this log on its NATS: letters, digits, - and _
            bus_nats_name: ClusterName ["NAME"] or "beacon";
            /// Servers of NATS that have a copy of each stream
            bus_nats_replicas: usize ["N"] or "1" in 1..=5;
            /// Most bytes of the log, and of its snapshots, 64 MiB or more; 0 leaves it to the server
            bus_nats_max_bytes: u64 ["BYTES"] or "0";
        }
    }
}

/// The NATS system that has the messages.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BusNats {
    /// Its servers.
    pub servers: NatsServers,
    /// A file with a JWT and the seed of its key.
    pub credentials: Option<PathBuf>,
    /// What tells its streams from others.
    pub name: ClusterName,
    /// Servers that have a copy of each stream.
    pub replicas: usize,
    /// Most bytes of the log, and of its snapshots.
    pub max_bytes: Option<u64>,
}

impl BusNats {
    /// Reads the settings, and looks whether the file that they name is there.
    pub(super) fn read(layers: &Layers) -> Result<Option<Self>, Error> {
        let flags = BusNatsFlags::read(layers)?;
        let BusNatsFlags {
            bus_nats,
            bus_nats_credentials,
            bus_nats_name,
            bus_nats_replicas,
            bus_nats_max_bytes,
        } = flags;
        let max_bytes = Some(bus_nats_max_bytes).filter(|bytes| *bytes > 0);
        if let Some(bytes) = max_bytes {
            layers.check_range("bus_nats_max_bytes", &bytes, &(LEAST_BYTES..=MOST_BYTES))?;
        }
        let Some(servers) = bus_nats else {
            let idle = [
                ("bus_nats_credentials", bus_nats_credentials.is_some()),
                ("bus_nats_replicas", bus_nats_replicas != 1),
                ("bus_nats_max_bytes", max_bytes.is_some()),
                ("bus_nats_name", bus_nats_name.as_str() != "beacon"),
            ];
            return match idle.into_iter().find(|(_, is_set)| *is_set) {
                Some((key, _)) => Err(layers.refuse(key, "needs --bus-nats as well")),
                None => Ok(None),
            };
        };
        if let Some(path) = &bus_nats_credentials {
            contents(path)
                .map_err(|reason| layers.refuse_file("bus_nats_credentials", path, reason))?;
        }
        Ok(Some(Self {
            servers,
            credentials: bus_nats_credentials,
            name: bus_nats_name,
            replicas: bus_nats_replicas,
            max_bytes,
        }))
    }
}

impl Layers {
    /// The NATS system that has the messages, where it is set; no other setting is looked at.
    ///
    /// # Errors
    /// One of its settings is wrong.
    pub fn bus_nats(&self) -> Result<Option<BusNats>, Error> {
        BusNats::read(self)
    }
}

impl Config {
    /// What does not go together with messages in NATS, and why.
    pub(super) fn bus_nats_contradiction(&self) -> Option<(&'static str, String)> {
        let has_messages = self.peerbus.is_some() || self.keyop.is_some();
        (self.bus_nats.is_some() && !has_messages).then(|| {
            (
                "bus_nats",
                "no door has messages; add --peerbus-tokens-file and --peerbus-bind, or --keyop-bind"
                    .to_owned(),
            )
        })
    }
}

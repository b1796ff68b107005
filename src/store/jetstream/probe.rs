//! A look at the NATS of the messages, for who checks an installation.

use std::fmt;

use async_nats::jetstream::stream::Info;

use super::connection::Connection;
use super::log::{Streams, unavailable};
use super::{MARGIN, OPEN, OpenError, Settings};
use crate::net::nats;

/// What was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Probe {
    /// The version of the server.
    pub version: String,
    /// The longest message that it takes, in bytes.
    pub max_payload: usize,
    /// The log, where it is there.
    pub log: Option<ProbedLog>,
}

/// What was found of a log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ProbedLog {
    /// What it takes, in bytes.
    pub bytes: u64,
    /// Servers that have a copy of it and of its snapshots.
    pub replicas: usize,
    /// Of those, servers that are away or behind.
    pub behind: usize,
}

impl ProbedLog {
    fn of(stream: &Info) -> Self {
        let followers = stream.cluster.iter().flat_map(|cluster| &cluster.replicas);
        Self {
            bytes: stream.state.bytes,
            replicas: stream.config.num_replicas,
            behind: followers.filter(|server| !server.current || server.offline).count(),
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, max_payload, log } = self;
        write!(f, "nats-server {version} takes messages of {max_payload} bytes; ")?;
        match log {
            None => f.write_str("there is no log yet"),
            Some(ProbedLog { bytes, replicas, .. }) => {
                write!(f, "the log has {} MB, on {replicas} servers", bytes / 1_000_000)
            }
        }
    }
}

impl Settings {
    /// Connects, and looks at the log; makes nothing.
    ///
    /// # Errors
    /// As opening a store with these settings, or JetStream is off.
    pub async fn probe(&self) -> Result<Probe, OpenError> {
        let servers = nats::servers(&self.nats)?;
        let name = "beacon-relay doctor".to_owned();
        let connection = Connection::keep(servers, name, self.longest + MARGIN);
        let context = connection.first(OPEN).await?;
        context.query_account().await.map_err(unavailable)?;
        let server = context.client().server_info();
        let streams = Streams::of(&self.name);
        let mut log = None;
        for name in [&streams.log, &streams.snapshots] {
            let Ok(stream) = context.get_stream(name).await else { continue };
            let found = ProbedLog::of(stream.cached_info());
            // Both are needed: what counts is the one that is off worse.
            let ProbedLog { bytes, replicas, behind } = log.unwrap_or(found);
            let replicas = replicas.min(found.replicas);
            log = Some(ProbedLog { bytes, replicas, behind: behind.max(found.behind) });
        }
        Ok(Probe { version: server.version, max_payload: server.max_payload, log })
    }
}

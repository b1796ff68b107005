//! A look at the NATS of the messages, for who checks an installation.

use std::fmt;
use std::time::Duration;

use async_nats::jetstream::account::Account;
use async_nats::jetstream::stream::Info;

use super::connection::Connection;
use super::log::Streams;
use super::{MARGIN, OpenError, Settings};
use crate::net::nats;

/// How long a server has to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Probe {
    /// The version of the server.
    pub version: String,
    /// The longest message that it takes, in bytes.
    pub max_payload: usize,
    /// What the account of the messages may have.
    pub account: ProbedAccount,
    /// The log, where it is there.
    pub log: Option<ProbedLog>,
}

/// What an account has of JetStream, and may have.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ProbedAccount {
    /// What its streams take on disks, in bytes.
    pub bytes: u64,
    /// What they may take, where that is bounded.
    pub max_bytes: Option<u64>,
    /// How many it has.
    pub streams: usize,
    /// How many it may have, where that is bounded.
    pub max_streams: Option<u64>,
    /// A stream has to say how long it may be.
    pub is_max_bytes_required: bool,
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
    /// How many of its two streams are there.
    pub streams: usize,
    /// A stream that may not be longer than it is, but for a tenth.
    pub is_nearly_full: bool,
}

impl ProbedLog {
    fn of(stream: &Info) -> Self {
        let followers = stream.cluster.iter().flat_map(|cluster| &cluster.replicas);
        let bytes = stream.state.bytes;
        let max_bytes = u64::try_from(stream.config.max_bytes).ok().filter(|max| *max > 0);
        Self {
            bytes,
            replicas: stream.config.num_replicas,
            behind: followers.filter(|server| !server.current || server.offline).count(),
            streams: 1,
            is_nearly_full: max_bytes.is_some_and(|max| bytes > max - max / 10),
        }
    }

    /// The log of both streams: what counts is the one that is off worse.
    const fn with(self, snapshots: Self) -> Self {
        let is_less = snapshots.replicas < self.replicas;
        let is_worse = snapshots.behind > self.behind;
        Self {
            bytes: self.bytes,
            replicas: if is_less { snapshots.replicas } else { self.replicas },
            behind: if is_worse { snapshots.behind } else { self.behind },
            streams: self.streams + snapshots.streams,
            is_nearly_full: self.is_nearly_full || snapshots.is_nearly_full,
        }
    }
}

impl From<Account> for ProbedAccount {
    fn from(account: Account) -> Self {
        let Account { storage, streams, limits, .. } = account;
        let bound = |limit: Option<i64>| limit.and_then(|limit| u64::try_from(limit).ok());
        Self {
            bytes: storage,
            max_bytes: bound(limits.max_storage),
            streams,
            max_streams: bound(limits.max_streams),
            is_max_bytes_required: limits.max_bytes_required,
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, max_payload, log, .. } = self;
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
    /// As opening a store with these settings; no server takes it in, or JetStream is off.
    pub async fn probe(&self) -> Result<Probe, OpenError> {
        let servers = nats::servers(&self.nats)?;
        let name = "beacon-relay doctor".to_owned();
        let connection = Connection::keep(servers, name, self.longest + MARGIN);
        let context = connection.first(PATIENCE).await?;
        let account = context.query_account().await;
        let account = account.map_err(|error| OpenError::NoJetStream(error.to_string()))?;
        let server = context.client().server_info();
        let streams = Streams::of(&self.name);
        let mut log: Option<ProbedLog> = None;
        for name in [&streams.log, &streams.snapshots] {
            let Ok(stream) = context.get_stream(name).await else { continue };
            let found = ProbedLog::of(stream.cached_info());
            log = Some(log.map_or(found, |log| log.with(found)));
        }
        let (version, max_payload) = (server.version, server.max_payload);
        Ok(Probe { version, max_payload, account: account.into(), log })
    }
}

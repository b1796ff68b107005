//! The NATS fabric: relays that reach each other through an engine which is there anyway.
//!
//! A relay takes part with one connection and two subscriptions, whatever the number of
//! peers. It beats on a subject that all relays hear, and whoever beats is a member; batches
//! go to a subject of their sender and receiver. The server authenticates: by its permissions
//! a relay publishes under its own id only, so the subject says who sent a message.
//!
//! NATS delivers once or never, and may be gone for a while: members stay until they have
//! been silent for too long, nothing is handed to a connection that is down, and what is lost
//! is repeated above.

mod deliveries;
mod members;
mod message;
mod refusals;
mod session;
mod subjects;
mod terms;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time;
use tokio_util::sync::CancellationToken;

use super::{Cluster, Fabric};
use crate::net::nats::{Server, servers};
pub use crate::net::nats::{Settings, SettingsError};
use crate::proto::backoff::{between, doubled};
use crate::wire::cluster::MAX_BATCH;
use members::Members;
use session::Session;

/// Shortest wait before NATS is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Longest wait before NATS is tried again, without the jitter.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A fabric that is not running yet.
#[derive(Debug)]
pub struct Nats {
    servers: Vec<Server>,
}

impl Nats {
    /// Checks the settings and reads the credentials, without the network. Blocks for the
    /// files.
    ///
    /// # Errors
    /// An address that is none, a credentials file that is none, or TLS without authorities.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        Ok(Self { servers: servers(settings)? })
    }
}

impl Fabric for Nats {
    async fn run(self, cluster: Arc<Cluster>, stopping: CancellationToken) {
        let running = Running(Arc::new(Members::new(cluster)));
        let members = Arc::clone(&running.0);
        members.cluster.counters().dialling.set(1);
        keep_connected(&self.servers, &members, &stopping).await;
        members.cluster.counters().dialling.set(0);
        drop(running);
        members.ended().await;
    }
}

/// Ends all memberships, and with them their tasks, when the fabric's future goes.
struct Running(Arc<Members>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.end_all();
    }
}

/// Connects to one server after the other, for as long as it takes, until `stopping`.
async fn keep_connected(servers: &[Server], members: &Arc<Members>, stopping: &CancellationToken) {
    let mut failures: u32 = 0;
    let mut is_known = false;
    for server in servers.iter().cycle() {
        match stopping.run_until_cancelled(Session::open(server, members)).await {
            None => return,
            Some(Ok(session)) => {
                let since = Instant::now();
                is_known = false;
                members.cluster.counters().dialling.set(0);
                greet(server, &session);
                session.run(members, stopping).await;
                if stopping.is_cancelled() {
                    return;
                }
                members.cluster.counters().dialling.set(1);
                tracing::info!(server = server.name(), "the connection to NATS has ended");
                failures =
                    if since.elapsed() < LONGEST_PAUSE { failures.saturating_add(1) } else { 0 };
            }
            Some(Err(error)) => {
                failures = failures.saturating_add(1);
                if is_known || (failures as usize) < servers.len() {
                    tracing::debug!(server = server.name(), %error, "NATS cannot be reached");
                } else {
                    tracing::warn!(server = server.name(), %error, "NATS cannot be reached");
                    is_known = true;
                }
            }
        }
        let random = getrandom::u32().unwrap_or(u32::MAX / 2);
        if stopping.run_until_cancelled(time::sleep(pause(failures, random))).await.is_none() {
            return;
        }
    }
}

fn greet(server: &Server, session: &Session) {
    let info = session.client.server_info();
    tracing::info!(server = server.name(), version = info.version, "connected to NATS");
    let needed = 1 + MAX_BATCH;
    if info.max_payload < needed {
        let max_payload = info.max_payload;
        tracing::warn!(max_payload, needed, "NATS takes no full batch: larger ones are dropped");
    }
}

/// The wait after so many failures in a row: doubling, and spread by `random` between half
/// and one and a half of it, so that the relays do not come back all at once.
fn pause(failures: u32, random: u32) -> Duration {
    let pause = doubled(FIRST_PAUSE, failures, LONGEST_PAUSE);
    between(pause / 2, pause * 3 / 2, random)
}

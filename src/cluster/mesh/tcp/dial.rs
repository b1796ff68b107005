//! Dials the lanes of a link that we have dialled, one for each direction, as long as it is up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Failure};
use super::hello::{HelloError, TAKEN, Way, encode};
use super::{Configs, Lane, Lanes};
use crate::cluster::mesh::hub::HELLO_WITHIN;
use crate::ids::RelayId;
use crate::proto::backoff::{between, doubled};

/// Shortest pause between two attempts, before its jitter.
const FLOOR: Duration = Duration::from_millis(250);

/// Longest pause between two attempts, before its jitter: what a firewall lets through now is
/// used soon, and one that never will costs two packets in so long.
const CEILING: Duration = Duration::from_secs(15);

/// After a lane that was up so long, the next pause is the shortest again.
const SETTLED: Duration = Duration::from_secs(10);

/// Keeps the lane that goes this way to the relay behind an address; for ever.
pub(in crate::cluster::mesh) async fn keep(
    way: Way,
    address: SocketAddr,
    relay: RelayId,
    configs: Configs,
    lanes: Arc<Lanes>,
) {
    let mut failures = 0;
    loop {
        let dialled = timeout(HELLO_WITHIN, dial(way, address, relay, &configs, &lanes));
        match dialled.await.unwrap_or(Err(Failure::Timeout)) {
            Ok(connection) => {
                tracing::debug!(%relay, ?way, "a lane over TCP is up");
                let (since, over) = (Instant::now(), CancellationToken::new());
                let guard = Some(over.clone().drop_guard());
                lanes.attach(way, Lane { connection, over: guard });
                over.cancelled().await;
                if since.elapsed() >= SETTLED {
                    failures = 0;
                }
            }
            Err(failure) => {
                tracing::debug!(%relay, remote_addr = %address, ?way, error = %failure,
                    "no lane over TCP");
            }
        }
        let pause = doubled(FLOOR, failures, CEILING);
        failures = failures.saturating_add(1);
        let random = getrandom::u32().unwrap_or(u32::MAX);
        sleep(between(pause / 2, pause * 3 / 2, random)).await;
    }
}

async fn dial(
    way: Way,
    address: SocketAddr,
    relay: RelayId,
    configs: &Configs,
    lanes: &Lanes,
) -> Result<Connection, Failure> {
    let stream = TcpStream::connect(address).await?;
    let tls = configs.client()?;
    let mut connection = Connection::handshake(stream, tls).await?;
    if connection.proven() != Some(relay) {
        return Err(Failure::OtherRelay);
    }
    connection.say(&encode(way, &lanes.secret)).await?;
    match connection.hear().await? {
        [TAKEN] => Ok(connection),
        _ => Err(HelloError::Malformed.into()),
    }
}

//! The connection to NATS, kept up: one server after the other, for as long as it takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Event;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::ContextBuilder;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::net::nats::Server;
use crate::proto::backoff::doubled;

/// Shortest and longest wait before NATS is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Between two looks at why there is no connection.
const LOOK: Duration = Duration::from_millis(100);

/// How long a server has to take us in.
const CONNECT: Duration = Duration::from_secs(3);

/// How often a server that says nothing is asked; at the third time without an answer it is given
/// up.
const PING: Duration = Duration::from_secs(1);

/// How long an append waits for its acknowledgement. Less than what counts as a store that hangs.
const ACKNOWLEDGEMENT: Duration = Duration::from_millis(1_200);

/// How long other requests to JetStream wait.
const REQUEST: Duration = Duration::from_secs(3);

/// Appends that may wait for their acknowledgement: pages of a snapshot.
pub(super) const UNACKNOWLEDGED: usize = 16;

/// Messages of a consumer that wait to be taken.
const UNREAD: usize = 1_024;

/// Why there is no connection.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{0}")]
    Unreachable(String),
    /// It takes no message that is as long as ours.
    #[error(
        "{server} takes messages of {offered} bytes at most (max_payload), {needed} are needed"
    )]
    Payload { server: String, offered: usize, needed: usize },
}

/// A connection that is kept up.
pub(super) struct Connection {
    current: watch::Receiver<Option<Context>>,
    refusal: Arc<Mutex<Option<Refusal>>>,
    down_since: Arc<Mutex<Option<Instant>>>,
    _task: AbortOnDropHandle<()>,
}

impl Connection {
    /// Begins to connect, as `name`, to servers which take messages of so many bytes.
    pub(super) fn keep(servers: Vec<Server>, name: String, payload: usize) -> Self {
        let (sender, current) = watch::channel(None);
        let refusal = Arc::default();
        let down_since = Arc::new(Mutex::new(Some(Instant::now())));
        let told = Told {
            current: sender,
            refusal: Arc::clone(&refusal),
            down_since: Arc::clone(&down_since),
        };
        let _task = AbortOnDropHandle::new(tokio::spawn(keep(servers, name, payload, told)));
        Self { current, refusal, down_since, _task }
    }

    /// The connection, once there is one.
    pub(super) async fn wait(&self) -> Context {
        let mut current = self.current.clone();
        loop {
            if let Some(context) = &*current.borrow_and_update() {
                return context.clone();
            }
            if current.changed().await.is_err() {
                // The task ends with the process alone.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The connection, if there is one within this time.
    pub(super) async fn within(&self, patience: Duration) -> Result<Context, Refusal> {
        time::timeout(patience, self.wait()).await.map_err(|_| self.refusal())
    }

    /// The first connection, within this time: a server whose messages are too short will take no
    /// longer ones.
    pub(super) async fn first(&self, patience: Duration) -> Result<Context, Refusal> {
        let end = Instant::now() + patience;
        loop {
            match self.within(LOOK).await {
                Err(refusal @ Refusal::Payload { .. }) => return Err(refusal),
                Err(refusal) if Instant::now() >= end => return Err(refusal),
                Err(_) => {}
                Ok(context) => return Ok(context),
            }
        }
    }

    /// Why there is none.
    pub(super) fn refusal(&self) -> Refusal {
        let refusal = self.refusal.lock().clone();
        refusal.unwrap_or_else(|| Refusal::Unreachable("NATS does not answer".to_owned()))
    }

    pub(super) fn is_up(&self) -> bool {
        self.current.borrow().is_some()
    }

    /// Since when there is none.
    pub(super) fn down_since(&self) -> Option<Instant> {
        *self.down_since.lock()
    }
}

/// What the task of a connection tells of it.
struct Told {
    current: watch::Sender<Option<Context>>,
    refusal: Arc<Mutex<Option<Refusal>>>,
    down_since: Arc<Mutex<Option<Instant>>>,
}

async fn keep(servers: Vec<Server>, name: String, payload: usize, told: Told) {
    let Told { current, refusal, down_since } = told;
    let mut failures: u32 = 0;
    for server in servers.iter().cycle() {
        let ended = CancellationToken::new();
        match connect(server, &name, payload, &ended).await {
            Ok(context) => {
                let since = Instant::now();
                tracing::info!(server = server.name(), "connected to NATS for messages");
                *refusal.lock() = None;
                *down_since.lock() = None;
                current.send_replace(Some(context));
                ended.cancelled().await;
                current.send_replace(None);
                *down_since.lock() = Some(Instant::now());
                tracing::warn!(server = server.name(), "the connection to NATS has ended");
                failures = if since.elapsed() < LONGEST_PAUSE { failures + 1 } else { 0 };
            }
            Err(error) => {
                let is_new = refusal.lock().replace(error.clone()) != Some(error.clone());
                if is_new {
                    tracing::warn!(server = server.name(), %error, "NATS cannot be used");
                }
                failures = failures.saturating_add(1);
            }
        }
        // The other servers of a system are tried at once.
        let rounds = failures / u32::try_from(servers.len()).unwrap_or(u32::MAX);
        time::sleep(doubled(FIRST_PAUSE, rounds, LONGEST_PAUSE)).await;
    }
}

async fn connect(
    server: &Server,
    name: &str,
    payload: usize,
    ended: &CancellationToken,
) -> Result<Context, Refusal> {
    let unreachable =
        |error: String| Refusal::Unreachable(format!("NATS at {}: {error}", server.name()));
    let events = ended.clone();
    let options = server
        .options
        .clone()
        .name(name)
        .ping_interval(PING)
        .connection_timeout(CONNECT)
        .subscription_capacity(UNREAD)
        .event_callback(move |event| {
            if matches!(event, Event::Disconnected | Event::Closed) {
                events.cancel();
            }
            std::future::ready(())
        });
    let connecting = async {
        server.resolve().await?;
        options.connect(server.address.clone()).await
    };
    let client = match time::timeout(2 * CONNECT, connecting).await {
        Ok(connected) => connected.map_err(|error| unreachable(error.to_string()))?,
        Err(_) => return Err(unreachable("it does not answer".to_owned())),
    };
    let offered = client.server_info().max_payload;
    if offered < payload {
        return Err(Refusal::Payload { server: server.name(), offered, needed: payload });
    }
    Ok(ContextBuilder::new()
        .timeout(REQUEST)
        .ack_timeout(ACKNOWLEDGEMENT)
        .max_ack_inflight(UNACKNOWLEDGED)
        .backpressure_on_inflight(true)
        .build(client))
}

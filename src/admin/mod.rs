//! HTTP for operators: the status page, metrics, health and a status in JSON, on an address of
//! its own.
//!
//! Everything here is read from snapshots; nothing else knows that this exists.

mod connections;
mod counters;
mod feed;
mod hosts;
mod page;
mod readiness;
mod snapshot;

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::metrics::Registry;
use counters::Counters;
use feed::Feed;

pub use readiness::{Condition, Part, Readiness};
pub use snapshot::{Event, MOST_ROWS, SlowReader, Snapshot, Status, Tables, Talker};

pub use hosts::Hosts;

/// How far the relay has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Not everything is bound yet.
    Starting,
    /// Serving.
    Running,
    /// Taking nobody new, sending the peers away.
    Draining,
    /// Everything has ended.
    Stopped,
}

/// What the pages are made of.
pub struct Sources {
    /// The families of a scrape.
    pub registry: Registry,
    /// How far the relay has come.
    pub phase: watch::Receiver<Phase>,
    /// The main numbers.
    pub status: Box<dyn Fn() -> Status + Send + Sync>,
    /// The tables of the page.
    pub tables: Box<dyn Fn() -> Tables + Send + Sync>,
    /// The parts of `/readyz`.
    pub readiness: Box<dyn Fn() -> Readiness + Send + Sync>,
    /// When the relay started.
    pub since: Instant,
    /// Connections at once; half of them may watch.
    pub max_connections: usize,
    /// The names that the listener is asked by.
    pub hosts: Arc<Hosts>,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl Sources {
    /// The relay at this moment. It reads files of /proc and may look at each session: not for
    /// a thread that others wait for.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let Readiness { ready, parts, .. } = (self.readiness)();
        let failed = parts.into_iter().filter(|(_, part)| part.condition == Condition::Failed);
        Snapshot {
            version: env!("CARGO_PKG_VERSION"),
            phase: *self.phase.borrow(),
            ready,
            failed: failed.map(|(name, part)| (name, part.reason)).collect(),
            uptime_seconds: (self.since.elapsed().as_secs_f64() * 1e3).round() / 1e3,
            status: (self.status)(),
            tables: (self.tables)(),
            metrics: self.registry.samples(),
        }
    }
}

/// Serves the pages and the routes of `actions` until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    sources: Arc<Sources>,
    actions: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let max_connections = sources.max_connections;
    // The other half is for scrapes, probes and commands.
    let (feed, counters) = (Arc::new(Feed::new(max_connections / 2)), Arc::<Counters>::default());
    let (watched, counted) = (Arc::clone(&feed), Arc::clone(&counters));
    sources.registry.add(move |families| counted.families(&watched, families));
    let (watched, counted) = (Arc::clone(&feed), Arc::clone(&counters));
    let events = get(async move || watched.watch(&counted));
    let hosts = Arc::clone(&sources.hosts);
    let router = Router::new()
        .merge(page::routes())
        .route("/events", events)
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .route("/cluster", get(cluster_members))
        .with_state(Arc::clone(&sources))
        .merge(actions)
        .layer(from_fn_with_state(hosts, hosts::check))
        .layer(map_response(page::guard));
    tokio::select! {
        () = connections::serve(listener, router, max_connections, Arc::clone(&counters), shutdown) => {}
        () = feed.run(sources, &counters) => {}
    }
}

type Pages = State<Arc<Sources>>;

async fn metrics(State(sources): Pages) -> Response {
    match sources.registry.encode() {
        Ok(text) => {
            let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
            (kind, text).into_response()
        }
        Err(error) => {
            tracing::warn!(%error, "cannot encode the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(sources): Pages, uri: Uri, headers: HeaderMap) -> Response {
    (sources.readiness)().response(&uri, &headers)
}

/// The members as a table for people; `/status` has the same for programs.
async fn cluster_members(State(sources): Pages) -> Response {
    use std::fmt::Write as _;
    let Some(cluster) = (sources.status)().cluster else {
        return (StatusCode::NOT_FOUND, "this relay is not part of a cluster\n").into_response();
    };
    let mut text =
        format!("{:<64}  {:<9}{:>8}{:>10}  ADDRESS\n", "RELAY", "STATE", "AGE", "WAITING");
    let mut row = |relay: &str, state: &str, seconds: u64, bytes: usize, address: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{relay:<64}  {state:<9}{seconds:>7}s{bytes:>9}B  {address}");
    };
    row(&cluster.relay, "self", sources.since.elapsed().as_secs(), 0, "");
    for member in &cluster.members {
        row(&member.relay, member.state, member.seconds, member.waiting_bytes, &member.address);
    }
    text.into_response()
}

async fn status(State(sources): Pages) -> Response {
    match spawn_blocking(move || sources.snapshot()).await {
        Ok(snapshot) => axum::Json(snapshot).into_response(),
        Err(_panicked) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

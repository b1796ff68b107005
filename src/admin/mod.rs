//! HTTP for operators: metrics, health and a status in JSON, on an address of its own.
//!
//! Everything here is read from snapshots; nothing else knows that this exists.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::cluster;
use crate::metrics::Registry;

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

/// The numbers of `/status`.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Nodes that are connected over WebSocket.
    pub wss_peers: usize,
    /// Nodes with a UDP endpoint.
    pub udp_nodes: usize,
    /// Nodes that other beacons serve.
    pub learnt_nodes: usize,
    /// Beacons that have published nodes.
    pub beacons: usize,
    /// Relayed packets that wait in outboxes.
    pub packets_queued: u64,
    /// The cluster, where the relay is part of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<cluster::Status>,
}

/// What the pages are made of.
pub struct Sources {
    /// The families of a scrape.
    pub registry: Registry,
    /// How far the relay has come.
    pub phase: watch::Receiver<Phase>,
    /// The numbers of `/status`.
    pub status: Box<dyn Fn() -> Status + Send + Sync>,
    /// When the relay started.
    pub since: Instant,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("registry", &self.registry).finish_non_exhaustive()
    }
}

/// Serves the pages until `shutdown`.
///
/// # Errors
/// What the system says of the listener.
pub async fn serve(
    listener: TcpListener,
    sources: Sources,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .route("/cluster", get(cluster_members))
        .with_state(Arc::new(sources));
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}

type Pages = State<Arc<Sources>>;

async fn index() -> &'static str {
    concat!(
        "beacon-relay ",
        env!("CARGO_PKG_VERSION"),
        "\n\n/metrics  for Prometheus\n/healthz  200 while the process answers\n\
         /readyz   200 while it takes new peers\n/status   the main numbers, as JSON\n\
         /cluster  the relays of the cluster, as a table\n"
    )
}

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

async fn readyz(State(sources): Pages) -> Response {
    let phase = *sources.phase.borrow();
    let (code, text) = match phase {
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Phase::Running => (StatusCode::OK, "ready\n"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        Phase::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "stopped\n"),
    };
    (code, text).into_response()
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
    #[derive(Serialize)]
    struct Page {
        version: &'static str,
        phase: Phase,
        uptime_seconds: u64,
        #[serde(flatten)]
        status: Status,
    }
    let page = Page {
        version: env!("CARGO_PKG_VERSION"),
        phase: *sources.phase.borrow(),
        uptime_seconds: sources.since.elapsed().as_secs(),
        status: (sources.status)(),
    };
    axum::Json(page).into_response()
}

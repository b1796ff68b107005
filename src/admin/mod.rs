//! HTTP for operators: the status page, metrics, health and a status in JSON, on an address of
//! its own.
//!
//! Everything here is read from snapshots; nothing else knows that this exists.

mod connections;
mod counters;
mod feed;
mod health;
mod history;
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
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;

use crate::build;
use crate::cluster::MemberStatus;
use crate::metrics::Registry;
use counters::Counters;
use feed::Feed;
use history::History;

pub use health::{HealthReport, Report, serve_health};
pub use readiness::{Condition, Part, Readiness, Reason, Verdict};
pub use snapshot::{
    AcmeCertificate, Event, MOST_EVENTS, MOST_ROWS, ReloadStatus, SlowReader, Snapshot, Status,
    Tables, Talker,
};

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
        let readiness = (self.readiness)();
        let reasons = readiness.reasons();
        let Readiness { ready, verdict, parts, .. } = readiness;
        let failed = parts.into_iter().filter(|(_, part)| part.condition == Condition::Failed);
        Snapshot {
            version: build::VERSION,
            build: build::BUILD,
            phase: *self.phase.borrow(),
            ready,
            verdict,
            reasons,
            failed: failed.map(|(name, part)| (name, part.reason)).collect(),
            uptime_seconds: self.uptime_seconds(),
            status: (self.status)(),
            tables: (self.tables)(),
            metrics: self.registry.samples(|_| true),
        }
    }

    /// Age of the relay, to the millisecond.
    fn uptime_seconds(&self) -> f64 {
        (self.since.elapsed().as_secs_f64() * 1e3).round() / 1e3
    }
}

/// What is served beside the pages: changes, of which this port knows nothing.
pub struct Actions {
    /// Their routes.
    pub routes: Router,
    /// Ends one connection that need not last, where no place is free.
    pub give_way: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Actions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Actions").field("routes", &self.routes).finish_non_exhaustive()
    }
}

/// Serves the pages and the routes of `actions` until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    sources: Arc<Sources>,
    actions: Actions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let max_connections = sources.max_connections;
    // The other half is for scrapes, probes and commands.
    let (feed, counters) = (Arc::new(Feed::new(max_connections / 2)), Arc::<Counters>::default());
    let (watched, counted) = (Arc::clone(&feed), Arc::clone(&counters));
    sources.registry.add(move |families| counted.families(watched.watchers(), families));
    let (watched, counted) = (Arc::clone(&feed), Arc::clone(&counters));
    let events = get(async move || watched.watch(&counted));
    let history = Arc::<History>::default();
    let hosts = Arc::clone(&sources.hosts);
    let router = Router::new()
        .merge(page::routes())
        .route("/events", events)
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .route("/cluster", get(cluster_members))
        .route("/history", get(points))
        .with_state(Pages::new(Arc::clone(&sources), Arc::clone(&history)))
        .merge(actions.routes)
        .layer(from_fn_with_state(hosts, hosts::check))
        .layer(from_fn(connections::end_after_body))
        .layer(map_response(page::guard));
    tokio::select! {
        () = connections::serve(
            listener,
            router,
            max_connections,
            Arc::clone(&counters),
            actions.give_way,
            shutdown,
        ) => {}
        () = feed.run(sources, &counters, &history) => {}
    }
}

/// Large pages that are made at a time: they take turns at the registry anyway, and so many
/// threads are all that clients can keep busy, however fast they ask.
const AT_ONCE: usize = 2;

/// The sources, and the places of those who make a large page of them.
#[derive(Clone)]
struct Pages {
    sources: Arc<Sources>,
    history: Arc<History>,
    places: Arc<Semaphore>,
}

impl Pages {
    fn new(sources: Arc<Sources>, history: Arc<History>) -> Self {
        Self { sources, history, places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Makes something large of the sources, apart from the threads of the packets; `None`
    /// where that panics.
    async fn make<T: Send + 'static>(
        self,
        page: impl FnOnce(&Sources) -> T + Send + 'static,
    ) -> Option<T> {
        let Self { sources, places, .. } = self;
        let place = places.acquire_owned().await;
        let made = spawn_blocking(move || {
            let made = page(&sources);
            // Held until here: who asked may be gone, and asks again.
            drop(place);
            made
        });
        made.await.ok()
    }
}

async fn metrics(State(pages): State<Pages>) -> Response {
    match pages.make(|sources| sources.registry.encode()).await {
        Some(Ok(text)) => {
            let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
            (kind, text).into_response()
        }
        Some(Err(error)) => {
            tracing::warn!(%error, "cannot encode the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(pages): State<Pages>, uri: Uri, headers: HeaderMap) -> Response {
    (pages.sources.readiness)().response(&uri, &headers)
}

/// The members as a table for people; `/status` has the same for programs.
async fn cluster_members(State(Pages { sources, .. }): State<Pages>) -> Response {
    use std::fmt::Write as _;
    let Some(cluster) = (sources.status)().cluster else {
        return (StatusCode::NOT_FOUND, "this relay is not part of a cluster\n").into_response();
    };
    let mut text = format!(
        "{:<64}  {:<9}{:>8}{:>10}{:>12}  ADDRESS\n",
        "RELAY", "STATE", "AGE", "WAITING", "CLOCK"
    );
    let mut row =
        |relay: &str, state: &str, seconds: u64, bytes: usize, ahead_ms, address: &str| {
            let clock = Option::<i64>::map_or(ahead_ms, "-".to_owned(), |ms| format!("{ms:+}ms"));
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "{relay:<64}  {state:<9}{seconds:>7}s{bytes:>9}B{clock:>12}  {address}"
            );
        };
    let age = sources.since.elapsed().as_secs();
    row(&cluster.relay, "self", age, 0, cluster.clock_ahead_ms, "");
    for member in &cluster.members {
        let &MemberStatus { state, seconds, waiting_bytes, clock_ahead_ms, .. } = member;
        row(&member.relay, state, seconds, waiting_bytes, clock_ahead_ms, &member.address);
    }
    text.into_response()
}

/// The last five minutes of what the charts show.
async fn points(State(pages): State<Pages>) -> Response {
    let history = Arc::clone(&pages.history);
    match pages.make(move |_| history.points()).await {
        Some(points) => ([(header::CACHE_CONTROL, "no-store")], axum::Json(points)).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn status(State(pages): State<Pages>) -> Response {
    match pages.make(Sources::snapshot).await {
        Some(snapshot) => axum::Json(snapshot).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use parking_lot::Mutex;
    use tokio::task::{JoinSet, yield_now};

    use super::*;

    fn sources(registry: Registry) -> Arc<Sources> {
        let phase = Phase::Running;
        Arc::new(Sources {
            registry,
            phase: watch::channel(phase).1,
            status: Box::new(|| Status {
                wss_peers: 0,
                udp_nodes: 0,
                learnt_nodes: 0,
                of_doors: BTreeMap::new(),
                packets_queued: 0,
                packets_dropped: 0,
                last_reload: ReloadStatus::default(),
                needs_restart: Vec::new(),
                switches: BTreeMap::new(),
                expected_drops: Vec::new(),
                cluster: None,
                bus: None,
                acme: None,
            }),
            tables: Box::new(Tables::default),
            readiness: Box::new(move || Readiness::new(phase, BTreeMap::new())),
            since: Instant::now(),
            max_connections: 2,
            hosts: Hosts::new(([127, 0, 0, 1], 1).into(), []),
        })
    }

    #[tokio::test]
    async fn slow_scrape_keeps_no_thread_of_the_runtime() {
        let registry = Registry::default();
        let (release, released) = channel::<()>();
        let released = Mutex::new(released);
        registry.add(move |_| released.lock().recv_timeout(Duration::from_secs(10)).unwrap());
        let pages = Pages::new(sources(registry), Arc::default());
        let scrape = tokio::spawn(metrics(State(pages)));
        // The one thread of this runtime gets here only while the scrape waits elsewhere.
        yield_now().await;
        release.send(()).unwrap();
        assert_eq!(scrape.await.unwrap().status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn few_pages_are_made_at_a_time() {
        let pages = Pages::new(sources(Registry::default()), Arc::default());
        let (making, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut asked = JoinSet::new();
        for _ in 0..8 * AT_ONCE {
            let (making, most) = (Arc::clone(&making), Arc::clone(&most));
            asked.spawn(pages.clone().make(move |_| {
                most.fetch_max(making.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // Room for others to come in, were they let in.
                (0..1_000).for_each(|_| std::thread::yield_now());
                making.fetch_sub(1, Ordering::SeqCst);
            }));
        }
        assert!(asked.join_all().await.iter().all(Option::is_some));
        let most = most.load(Ordering::SeqCst);
        assert!((1..=AT_ONCE).contains(&most), "{most} at a time");
    }
}

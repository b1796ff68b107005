//! The stream of snapshots: one a second while anybody watches, made once for all of them. While
//! nobody does, only the history of the charts goes on.
//!
//! A watcher who reads too slowly misses snapshots; one who reads nothing is ended by the
//! connection ([`super::connections`]).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::Sources;
use super::counters::Counters;
use super::history::{self, History, is_charted};

/// Between two snapshots.
const INTERVAL: Duration = Duration::from_secs(1);

/// What a watcher that finds no place is told to wait, in seconds.
const RETRY_AFTER: &str = "30";

/// The latest snapshot, and those who wait for the next.
#[derive(Debug)]
pub(super) struct Feed {
    /// One event of the stream as it goes out; empty where nobody has watched of late.
    latest: watch::Sender<Bytes>,
    places: Arc<Semaphore>,
    max_watchers: usize,
    arrived: Notify,
}

impl Feed {
    /// A feed that nobody watches. Each watcher costs a connection with its buffers, about
    /// 100 KiB where it reads nothing.
    pub(super) fn new(max_watchers: usize) -> Self {
        Self {
            latest: watch::Sender::default(),
            places: Arc::new(Semaphore::new(max_watchers)),
            max_watchers,
            arrived: Notify::new(),
        }
    }

    /// How many watch.
    pub(super) fn watchers(&self) -> usize {
        self.max_watchers - self.places.available_permits()
    }

    /// The stream for one more watcher, or the refusal of one too many.
    pub(super) fn watch(&self, counters: &Counters) -> Response {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            counters.watchers_refused.increment();
            let headers = [(header::RETRY_AFTER, RETRY_AFTER), (header::CONNECTION, "close")];
            let code = StatusCode::SERVICE_UNAVAILABLE;
            return (code, headers, "too many watch already\n").into_response();
        };
        let headers = [
            (header::CONTENT_TYPE, "text/event-stream"),
            (header::CACHE_CONTROL, "no-store"),
            // nginx would hold the stream back.
            (header::HeaderName::from_static("x-accel-buffering"), "no"),
        ];
        (headers, Body::from_stream(self.stream(place))).into_response()
    }

    fn stream(
        &self,
        place: OwnedSemaphorePermit,
    ) -> impl stream::Stream<Item = Result<Bytes, Infallible>> + use<> {
        let mut receiver = self.latest.subscribe();
        receiver.mark_changed();
        self.arrived.notify_one();
        stream::unfold((receiver, place), |(mut receiver, place)| async {
            loop {
                receiver.changed().await.ok()?;
                let event = receiver.borrow_and_update().clone();
                if !event.is_empty() {
                    return Some((Ok(event), (receiver, place)));
                }
            }
        })
    }

    /// Makes the snapshots; for a task of its own.
    pub(super) async fn run(
        &self,
        sources: Arc<Sources>,
        counters: &Counters,
        history: &Arc<History>,
    ) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut noted = Instant::now();
        loop {
            let is_watched = self.latest.receiver_count() > 0;
            if is_watched {
                ticks.tick().await;
            } else {
                // What there is would be old news for the next one.
                self.latest.send_replace(Bytes::new());
                if timeout_at(noted + history::INTERVAL, self.arrived.notified()).await.is_ok() {
                    continue;
                }
            }
            noted = Instant::now();
            let (sources, history) = (Arc::clone(&sources), Arc::clone(history));
            // Apart from the threads of the packets: it reads /proc and looks at each session.
            let made = spawn_blocking(move || {
                if is_watched {
                    return event(&sources, &history);
                }
                history.note(sources.uptime_seconds(), &sources.registry.samples(is_charted));
                Bytes::new()
            });
            let Ok(event) = made.await else {
                tracing::error!("making a snapshot panicked: this is a bug of the relay");
                continue;
            };
            if is_watched {
                counters.snapshots.increment();
                self.latest.send_replace(event);
            }
        }
    }
}

/// A snapshot as an event of the stream (WHATWG HTML, 9.2.5): one line of JSON. It is a point of
/// the history as well.
fn event(sources: &Sources, history: &History) -> Bytes {
    let snapshot = sources.snapshot();
    history.note(snapshot.uptime_seconds, &snapshot.metrics);
    let json = serde_json::to_string(&snapshot).expect("all keys are strings");
    Bytes::from(format!("data: {json}\n\n"))
}

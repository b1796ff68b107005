//! Health as orchestrators of another relay's deployments ask for it: `GET /health`, on an address
//! of its own, one request a connection.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;

use super::connections;
use super::counters::Counters;

/// Connections at once: probes come one by one.
const CONNECTIONS: usize = 64;

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub struct HealthReport {
    /// `healthy`, or `unhealthy`.
    pub status: &'static str,
    /// When, as RFC 3339 writes it.
    pub timestamp: String,
    /// What clients can come by.
    pub listeners: Vec<&'static str>,
    /// Whether the certificates that they are shown can be believed.
    pub certificate_valid: bool,
}

/// What makes the answer, at each request.
pub type Report = Arc<dyn Fn() -> HealthReport + Send + Sync>;

impl HealthReport {
    /// Whether clients should be sent here.
    fn is_healthy(&self) -> bool {
        self.status == Self::HEALTHY
    }

    /// The status of a relay that clients should be sent to.
    pub const HEALTHY: &'static str = "healthy";

    /// That of another.
    pub const UNHEALTHY: &'static str = "unhealthy";
}

/// Answers until `shutdown`.
pub async fn serve_health(
    listener: TcpListener,
    report: Report,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let router = Router::new()
        .route("/health", get(health))
        .with_state(report)
        .layer(from_fn(connections::end_after_body));
    let counters = Arc::<Counters>::default();
    connections::serve(listener, router, CONNECTIONS, counters, || {}, shutdown).await;
}

async fn health(State(report): State<Report>) -> Response {
    let report = report();
    let code = if report.is_healthy() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = (code, axum::Json(report)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

//! The status page: its files, and the headers that keep it what it is.
//!
//! The files are part of the binary; the page loads nothing from elsewhere, and runs no script
//! but these.

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// What a browser may do with anything that this port answers: nothing but these files and
/// the stream. No inline script or style, no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// For people with a terminal.
const TEXT: &str = concat!(
    "beacon-relay ",
    env!("CARGO_PKG_VERSION"),
    "\n\n/         the status page, in a browser\n/metrics  for Prometheus\n\
     /healthz  200 while the process answers\n/readyz   200 while it takes new peers; ?verbose says why, as JSON\n\
     /status   what the page shows, as JSON\n/events   the same each second, as a stream\n\
     /history  the last five minutes of its charts, as JSON\n\
     /cluster  the relays of the cluster, as a table\n"
);

/// The page's files, each under the path that the page names it by.
const FILES: [(&str, &str, &str); 10] = [
    ("/page/page.css", "text/css; charset=utf-8", include_str!("page.css")),
    ("/page/theme.js", SCRIPT, include_str!("theme.js")),
    ("/page/main.js", SCRIPT, include_str!("main.js")),
    ("/page/chart.js", SCRIPT, include_str!("chart.js")),
    ("/page/charts.js", SCRIPT, include_str!("charts.js")),
    ("/page/series.js", SCRIPT, include_str!("series.js")),
    ("/page/format.js", SCRIPT, include_str!("format.js")),
    ("/page/tables.js", SCRIPT, include_str!("tables.js")),
    ("/page/peers.js", SCRIPT, include_str!("peers.js")),
    ("/page/icon.svg", "image/svg+xml", include_str!("icon.svg")),
];

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The routes of the page.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let mut router = Router::new().route("/", get(index));
    for (path, kind, text) in FILES {
        router = router.route(path, get(async move || file(kind, text)));
    }
    router
}

/// Adds the headers that every answer of the port has.
pub(super) async fn guard(mut response: Response) -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The page for browsers, the text for everybody else.
async fn index(headers: HeaderMap) -> Response {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut kinds = accepted.flat_map(|value| value.split(','));
    let is_browser =
        kinds.any(|kind| kind.split(';').next().is_some_and(|k| k.trim() == "text/html"));
    let mut response = if is_browser {
        file("text/html; charset=utf-8", include_str!("index.html"))
    } else {
        TEXT.into_response()
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

/// A file of the page. Never kept by a browser: after an update it would be the old one's.
fn file(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text).into_response()
}

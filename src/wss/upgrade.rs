//! HTTP before the WebSocket: which requests become one, and what the others are told
//! (SPEC §3.1 to §3.3).

use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::net::SocketAddr;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HOST, HeaderName, HeaderValue, ORIGIN, RETRY_AFTER, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL,
};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use super::client_address::{self, Client};
use super::held::Held;
use super::{Gate, Outcome, Settings};

/// The path of the WebSocket.
const PATH: &str = "/v1/compat";

/// The path that a proxy or a load balancer asks whether the listener answers.
const HEALTH: &str = "/health";

/// The subprotocol that daemons offer.
const SUBPROTOCOL: &str = "pilot.v1";

/// Most bytes of request line and headers (SPEC §3.1): hyper's least, several times what
/// a daemon behind a proxy sends.
const MAX_HEADERS: usize = 8_192;

/// A connection that is a WebSocket from here on.
pub(super) struct Upgraded<T> {
    pub(super) stream: T,
    /// The 101, which is still to be sent.
    pub(super) response: Vec<u8>,
    /// What the client sent behind its request.
    pub(super) early: Bytes,
    pub(super) client: Client,
}

/// Why a connection did not become a WebSocket, which is counted already; `None` for a
/// health check.
pub(super) type NotUpgraded = Option<Outcome>;

/// Answers the one request of a connection.
pub(super) async fn upgrade<T>(
    stream: T,
    remote: SocketAddr,
    gate: &Gate,
    settings: &Settings,
) -> Result<Upgraded<T>, NotUpgraded>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    // What the service decided: it is called once, since every answer ends the HTTP.
    let decided: Mutex<Option<Result<Client, NotUpgraded>>> = Mutex::new(None);
    let service = service_fn(|request| {
        let (response, decision) = answer(&request, remote, gate, settings);
        *decided.lock() = Some(decision);
        ready(Ok::<_, Infallible>(response))
    });
    let mut connection = hyper::server::conn::http1::Builder::new()
        .auto_date_header(false)
        .max_buf_size(MAX_HEADERS)
        .serve_connection(TokioIo::new(Held::new(stream)), service);
    let served = poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    let parts = connection.into_parts();
    let Held { mut stream, written, .. } = parts.io.into_inner();
    let decision = match served {
        Ok(()) => decided.lock().take(),
        Err(error) if error.is_parse() => Some(Err(Some(gate.count(Outcome::BadRequest)))),
        Err(_) => None,
    };
    match decision.unwrap_or_else(|| Err(Some(gate.count(Outcome::Gone)))) {
        Ok(client) => Ok(Upgraded { stream, response: written, early: parts.read_buf, client }),
        Err(outcome) => {
            // A client that is gone needs no answer.
            let _ = stream.write_all(&written).await;
            let _ = stream.shutdown().await;
            Err(outcome)
        }
    }
}

type Answer = (Response<Full<Bytes>>, Result<Client, NotUpgraded>);

fn answer(
    request: &Request<Incoming>,
    remote: SocketAddr,
    gate: &Gate,
    settings: &Settings,
) -> Answer {
    // Counted before the client can know of it.
    let refuse = |status, text: &'static str, outcome: NotUpgraded| {
        (plain(status, text), Err(outcome.map(|outcome| gate.count(outcome))))
    };
    if [HOST, ORIGIN].iter().any(|name| repeats(request.headers(), name)) {
        let text = "a request has one Host header, and one Origin at most\n";
        return refuse(StatusCode::BAD_REQUEST, text, Some(Outcome::BadRequest));
    }
    let path = request.uri().path();
    if path == HEALTH && matches!(*request.method(), Method::GET | Method::HEAD) {
        return refuse(StatusCode::OK, "ok\n", None);
    }
    if path != PATH {
        return refuse(StatusCode::NOT_FOUND, "not found\n", Some(Outcome::NotFound));
    }
    let client = client_address::find(remote, request.headers(), &settings.trusted_proxies);
    if client.unnamed {
        gate.note_unnamed();
    }
    if let Some(seconds) = gate.draining() {
        let text = "the relay is stopping\n";
        let (mut response, decision) =
            refuse(StatusCode::SERVICE_UNAVAILABLE, text, Some(Outcome::Draining));
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        return (response, decision);
    }
    if !gate.admits(client.address.ip(), settings, Instant::now()) {
        let text = "too many upgrades from this address\n";
        let (mut response, decision) =
            refuse(StatusCode::TOO_MANY_REQUESTS, text, Some(Outcome::RateLimited));
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        return (response, decision);
    }
    if gate.is_full() {
        let text = "the relay has as many peers as it takes\n";
        let (mut response, decision) =
            refuse(StatusCode::SERVICE_UNAVAILABLE, text, Some(Outcome::AtCapacity));
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
        return (response, decision);
    }
    if !origin_is_allowed(request, &settings.allow_origins) {
        let text = "this origin may not connect\n";
        return refuse(StatusCode::FORBIDDEN, text, Some(Outcome::OriginRefused));
    }
    match create_response_with_body(request, Full::default) {
        Ok(mut response) if has_key(request) => {
            if offers_subprotocol(request) {
                let headers = response.headers_mut();
                headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
            }
            (response, Ok(client))
        }
        Err(Error::Protocol(
            ProtocolError::MissingConnectionUpgradeHeader
            | ProtocolError::MissingUpgradeWebSocketHeader
            | ProtocolError::MissingSecWebSocketVersionHeader,
        )) => {
            let text = "this path is a WebSocket of version 13\n";
            let (mut response, decision) =
                refuse(StatusCode::UPGRADE_REQUIRED, text, Some(Outcome::BadUpgrade));
            let headers = response.headers_mut();
            headers.insert("upgrade", HeaderValue::from_static("websocket"));
            headers.insert("sec-websocket-version", HeaderValue::from_static("13"));
            (response, decision)
        }
        Ok(_) | Err(_) => {
            let text = "not an upgrade to WebSocket as RFC 6455 has it\n";
            refuse(StatusCode::BAD_REQUEST, text, Some(Outcome::BadUpgrade))
        }
    }
}

/// Whether a header that may stand once stands more often: which one counts, two programs may
/// decide differently.
fn repeats(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.get_all(name).iter().count() > 1
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    // One request a connection: an idle one would hold a place among those that log in.
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Daemons send no Origin; a page's must be listed, one of the overlay's own, or the page's
/// own host.
fn origin_is_allowed(request: &Request<Incoming>, allowed: &[String]) -> bool {
    let Some(origin) = request.headers().get(ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let own = origin.split_once("://").is_some_and(|(_, authority)| {
        host.is_some_and(|host| !host.is_empty() && authority.eq_ignore_ascii_case(host))
    });
    own || origin.starts_with("pilot://")
        || allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
}

/// Whether the request has a key of 16 bytes; the library takes any text for one.
fn has_key(request: &Request<Incoming>) -> bool {
    let key = request.headers().get(SEC_WEBSOCKET_KEY).map(|key| STANDARD.decode(key));
    matches!(key, Some(Ok(key)) if key.len() == 16)
}

fn offers_subprotocol(request: &Request<Incoming>) -> bool {
    let offers = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    offers
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|offer| offer.trim() == SUBPROTOCOL)
}

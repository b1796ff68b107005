//! HTTP before the WebSocket: which requests become one, and what the others are told
//! (SPEC §3.1 to §3.3).

use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HOST, HeaderName, HeaderValue, ORIGIN, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::held::Held;
use super::turn::Turn;
use super::{Client, Door, Gate, Origins, Outcome, Settings, client_address, conversation};
use crate::net::Stream;
use crate::net::udp::canonical;

/// The path that a proxy or a load balancer asks whether the listener answers.
const HEALTH: &str = "/health";

/// Most bytes of request line and headers (SPEC §3.1): hyper's least, several times what
/// a daemon behind a proxy sends.
const MAX_HEADERS: usize = 8_192;

/// A connection that is a WebSocket from here on.
pub(super) struct Upgraded {
    /// The 101, which is still to be sent.
    pub(super) response: Vec<u8>,
    /// What the client sent behind its request.
    pub(super) early: Bytes,
    pub(super) client: Client,
    pub(super) door: Arc<dyn Door>,
}

/// Why a connection did not become a WebSocket, which is counted already; `None` for a
/// health check.
pub(super) type NotUpgraded = Option<Outcome>;

/// What answers the one request of a connection.
#[derive(Clone, Copy)]
pub(super) struct Front<'a> {
    pub(super) gate: &'a Gate,
    pub(super) settings: &'a Settings,
    pub(super) doors: &'a [Arc<dyn Door>],
    pub(super) turn: Turn,
}

/// Who may go on, and through which door.
type Decision = Result<(Client, Arc<dyn Door>), NotUpgraded>;

type Answer = (Response<Full<Bytes>>, Decision);

impl Front<'_> {
    /// Answers the request of a connection from `remote`, of which this was read already.
    pub(super) async fn upgrade(
        self,
        stream: &dyn Stream,
        early: Vec<u8>,
        remote: SocketAddr,
    ) -> Result<Upgraded, NotUpgraded> {
        // What the service decided: it is called once, since every answer ends the HTTP.
        let decided: Mutex<Option<Decision>> = Mutex::new(None);
        let service = service_fn(|request| {
            let (response, decision) = self.answer(&request, remote);
            *decided.lock() = Some(decision);
            ready(Ok::<_, Infallible>(response))
        });
        let mut connection = hyper::server::conn::http1::Builder::new()
            .auto_date_header(false)
            .max_buf_size(MAX_HEADERS)
            .serve_connection(TokioIo::new(Held::new(stream, early)), service);
        let served = poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
        let parts = connection.into_parts();
        let Held { written, .. } = parts.io.into_inner();
        let decision = match served {
            Ok(()) => decided.lock().take(),
            Err(error) if error.is_parse() => Some(Err(Some(self.count(Outcome::BadRequest)))),
            Err(_) => None,
        };
        match decision.unwrap_or_else(|| Err(Some(self.count(Outcome::Gone)))) {
            Ok((client, door)) => {
                let early = parts.read_buf;
                Ok(Upgraded { response: written, early, client, door })
            }
            Err(outcome) => {
                // A client that is gone needs no answer.
                let _ = conversation::write_all(stream, &written).await;
                stream.shutdown_write();
                Err(outcome)
            }
        }
    }

    fn count(self, outcome: Outcome) -> Outcome {
        if !self.turn.is_probe {
            self.gate.count(outcome);
        }
        outcome
    }

    fn answer(self, request: &Request<Incoming>, remote: SocketAddr) -> Answer {
        let Self { gate, settings, .. } = self;
        // Counted before the client can know of it.
        let refuse = |status, text: &'static str, outcome: NotUpgraded| -> Answer {
            (plain(status, text), Err(outcome.map(|outcome| self.count(outcome))))
        };
        if [HOST, ORIGIN].iter().any(|name| repeats(request.headers(), name)) {
            let text = "a request has one Host header, and one Origin at most\n";
            return refuse(StatusCode::BAD_REQUEST, text, Some(Outcome::BadRequest));
        }
        let path = request.uri().path();
        if path == HEALTH && matches!(*request.method(), Method::GET | Method::HEAD) {
            return refuse(StatusCode::OK, "ok\n", None);
        }
        let Some(door) = self.door_of(path) else {
            return refuse(StatusCode::NOT_FOUND, "not found\n", Some(Outcome::NotFound));
        };
        let client = if self.turn.is_probe {
            Client { address: canonical(remote), is_probe: true }
        } else {
            let found = client_address::find(remote, request.headers(), &settings.trusted_proxies);
            if found.unnamed {
                gate.note_unnamed();
            }
            Client { address: found.address, is_probe: false }
        };
        if !client.is_probe {
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
        }
        if !origin_is_allowed(request, &**door, &settings.allow_origins) {
            let text = "this origin may not connect\n";
            return refuse(StatusCode::FORBIDDEN, text, Some(Outcome::OriginRefused));
        }
        match handshake(request, door.subprotocol()) {
            Ok(response) => (response, Ok((client, Arc::clone(door)))),
            Err(NoHandshake::Other) => {
                let instead = door.dialect().upgrade_required;
                let text = instead.unwrap_or("this path is a WebSocket of version 13\n");
                let (mut response, decision) =
                    refuse(StatusCode::UPGRADE_REQUIRED, text, Some(Outcome::BadUpgrade));
                let headers = response.headers_mut();
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
                if instead.is_some() {
                    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade, close"));
                }
                (response, decision)
            }
            Err(NoHandshake::Broken) => {
                let text = "not an upgrade to WebSocket as RFC 6455 has it\n";
                refuse(StatusCode::BAD_REQUEST, text, Some(Outcome::BadUpgrade))
            }
        }
    }

    /// The door that a path belongs to.
    fn door_of(&self, path: &str) -> Option<&Arc<dyn Door>> {
        let kind = self.settings.routes.door(path)?;
        self.doors.iter().find(|door| door.name() == kind.name)
    }
}

/// Why a request is no upgrade to WebSocket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum NoHandshake {
    /// It is one to nothing, or to something else.
    Other,
    /// It is one, but not as RFC 6455 has it.
    Broken,
}

/// The answer to an upgrade (RFC 6455 §4.2.2).
fn handshake(
    request: &Request<Incoming>,
    subprotocol: Option<&'static str>,
) -> Result<Response<Full<Bytes>>, NoHandshake> {
    let headers = request.headers();
    if *request.method() != Method::GET || request.version() < Version::HTTP_11 {
        return Err(NoHandshake::Broken);
    }
    let mut versions = items(headers, &SEC_WEBSOCKET_VERSION);
    let is_ours = versions.next() == Some("13") && versions.all(|version| version == "13");
    if !items(headers, &CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade"))
        || !items(headers, &UPGRADE).any(|protocol| protocol.eq_ignore_ascii_case("websocket"))
        || !is_ours
    {
        return Err(NoHandshake::Other);
    }
    let key = key(headers).ok_or(NoHandshake::Broken)?;
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(SEC_WEBSOCKET_ACCEPT, accept.expect("base64 is visible ASCII"));
    if let Some(ours) = subprotocol
        && items(headers, &SEC_WEBSOCKET_PROTOCOL).any(|offer| offer == ours)
    {
        answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(ours));
    }
    Ok(response)
}

/// The items of a header that is a list, over all of its lines (RFC 9110 §5.6.1).
fn items<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|item| !item.is_empty())
}

/// The one key of an upgrade, which is 16 bytes in base64.
fn key(headers: &HeaderMap) -> Option<&str> {
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| !repeats(headers, &SEC_WEBSOCKET_KEY))?;
    let key = key.to_str().ok()?;
    STANDARD.decode(key).ok().filter(|bytes| bytes.len() == 16).map(|_| key)
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

/// Programs send no Origin; a page's must be one that the listener allows.
fn origin_is_allowed(request: &Request<Incoming>, door: &dyn Door, allowed: &Origins) -> bool {
    let Some(origin) = request.headers().get(ORIGIN) else { return true };
    let is_listed = |origins: &[String]| {
        origin
            .to_str()
            .is_ok_and(|origin| origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)))
    };
    match allowed {
        Origins::DoorAnd(origins) => {
            origin_is_the_doors(request, door, origin) || is_listed(origins)
        }
        Origins::Only(origins) => is_listed(origins),
        Origins::Any => true,
    }
}

/// Whether a page is one that the door lets in, or on the host that it asks.
fn origin_is_the_doors(request: &Request<Incoming>, door: &dyn Door, origin: &HeaderValue) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let own = origin.split_once("://").is_some_and(|(_, authority)| {
        host.is_some_and(|host| !host.is_empty() && authority.eq_ignore_ascii_case(host))
    });
    own || door.admits_origin(origin)
}

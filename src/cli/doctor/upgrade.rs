//! The upgrade through the proxy, and what the challenge tells: is it a relay, which name has
//! it, and what time does it think it is?

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError, SubProtocolError};
use tokio_tungstenite::tungstenite::http::{HeaderMap, Response};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::report::Report;
use super::{Args, PATIENCE};
use crate::client::{Target, upgrade_request};
use crate::wire::auth::Challenge;

/// The path of the relay.
const PATH: &str = "/v1/compat";

/// The path of a relay of NetBird's clients.
const NETBIRD_PATH: &str = "/relay";

/// Clocks that differ by more are worth a look. A challenge counts whole seconds.
const SKEW: Duration = Duration::from_secs(5);

/// Whether a URL is that of a relay of NetBird's clients.
pub(super) fn is_netbird(url: &str) -> bool {
    url.starts_with("rel://") || url.starts_with("rels://")
}

/// Upgrades and reads the challenge; whether a node could go on from there.
pub(super) async fn check<S: AsyncRead + AsyncWrite + Unpin>(
    target: &Target,
    args: &Args,
    stream: S,
    report: &mut Report,
) -> bool {
    let request = upgrade_request(&target.uri, &HeaderMap::new())
        .and_then(|request| request.into_client_request());
    let upgraded = match request {
        Ok(request) => timeout(PATIENCE, client_async(request, stream)).await,
        Err(error) => Ok(Err(error)),
    };
    let mut socket = match upgraded {
        Ok(Ok((socket, _response))) => socket,
        Ok(Err(error)) => {
            tell_refusal(&error, target, PATH, report);
            return false;
        }
        Err(_late) => {
            tell_late(report);
            return false;
        }
    };
    report.ok("upgrade", "a WebSocket, with the subprotocol pilot.v1");
    let challenge = match challenge(&mut socket).await {
        Ok(challenge) => challenge,
        Err(found) => {
            let remedy = "something else than a relay answers: the proxy's upstream, the path";
            report.fail("challenge", found, remedy);
            return false;
        }
    };
    report.ok("challenge", "it is a relay");
    tell_clock(challenge.ts, SystemTime::now(), report);
    tell_name(challenge.relay.as_deref(), target, args, report)
}

/// Asks for the upgrade as a client of NetBird does; whether it could go on to the login.
pub(super) async fn check_netbird<S: AsyncRead + AsyncWrite + Unpin>(
    target: &Target,
    stream: S,
    report: &mut Report,
) -> bool {
    let upgraded = match (&target.uri).into_client_request() {
        Ok(request) => timeout(PATIENCE, client_async(request, stream)).await,
        Err(error) => Ok(Err(error)),
    };
    match upgraded {
        Ok(Ok(_socket)) => {
            report.ok("upgrade", format!("a WebSocket at {}", target.uri.path()));
            true
        }
        Ok(Err(error)) => {
            tell_refusal(&error, target, NETBIRD_PATH, report);
            false
        }
        Err(_late) => {
            tell_late(report);
            false
        }
    }
}

fn tell_late(report: &mut Report) {
    let remedy = "does the proxy reach the relay, and pass the upgrade on?";
    report.fail("upgrade", "no answer to the upgrade within 10 s", remedy);
}

/// Says why there was no upgrade at a relay whose path is this.
fn tell_refusal(error: &Error, target: &Target, path: &str, report: &mut Report) {
    let missing = ProtocolError::SecWebSocketSubProtocolError(SubProtocolError::NoSubProtocol);
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest says itself what it is")]
    match error {
        Error::Http(response) => {
            let remedy = status_remedy(response, target, path);
            report.fail("upgrade", format!("refused with {}", described(response)), remedy);
        }
        Error::Protocol(problem) if *problem == missing => report.fail(
            "subprotocol",
            "the answer does not name pilot.v1, which was offered",
            "the proxy must pass Sec-WebSocket-Protocol on, both ways; or it is no relay",
        ),
        other => report.fail(
            "upgrade",
            format!("no upgrade: {other}"),
            "does the proxy speak HTTP/1.1 to both sides, and pass Upgrade and Connection on?",
        ),
    }
}

/// The status, and who says that he gave it.
fn described<T>(response: &Response<T>) -> String {
    let server = response.headers().get("server").and_then(|server| server.to_str().ok());
    let by = server.map(|server| format!(" by {server}")).unwrap_or_default();
    format!("{}{by}", response.status())
}

fn status_remedy<T>(response: &Response<T>, target: &Target, path: &str) -> String {
    match response.status().as_u16() {
        400 | 426 => "the proxy does not pass the upgrade on: HTTP/1.1, Upgrade and Connection \
                      (deploy/Caddyfile, deploy/nginx/nginx.conf)"
            .to_owned(),
        403 => "a firewall in front, or the relay refuses the Origin: --allow-origin".to_owned(),
        404 => match target.uri.path() {
            asked if asked == path => "no relay has answered: another site of the proxy, or \
                                       something else at this port"
                .to_owned(),
            other => format!("the relay's path is {path}, and {other} was asked for"),
        },
        429 => "too many upgrades from this address: wait, or raise --upgrade-burst".to_owned(),
        502 | 504 => "the proxy does not reach the relay: is it running, and is its --wss-bind \
                      the proxy's upstream?"
            .to_owned(),
        503 => "the relay is full (--max-peers), starting or draining; or the proxy has no \
                upstream"
            .to_owned(),
        300..=399 => "daemons follow no redirects: use the URL that it leads to".to_owned(),
        _ => "what answers there is no relay, or a proxy with trouble: see its log".to_owned(),
    }
}

async fn challenge<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
) -> Result<Challenge, String> {
    let next = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Close(frame))) => {
                    let reason = frame.map(|frame| format!(": {frame}")).unwrap_or_default();
                    return Err(format!("closed before a challenge{reason}"));
                }
                Some(Ok(Message::Binary(_) | Message::Frame(_))) => {
                    return Err("a packet came before a challenge".to_owned());
                }
                Some(Err(error)) => return Err(format!("no challenge: {error}")),
                None => return Err("closed before a challenge".to_owned()),
            }
        }
    };
    let text =
        timeout(PATIENCE, next).await.map_err(|_| "no challenge within 10 s".to_owned())??;
    Challenge::decode(&text).map_err(|_| "the first message is no challenge".to_owned())
}

fn tell_clock(theirs: u64, now: SystemTime, report: &mut Report) {
    let ours = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let theirs = Duration::from_secs(theirs);
    let skew = ours.abs_diff(theirs).as_secs();
    if ours.abs_diff(theirs) <= SKEW {
        report.ok("clock", "the relay's agrees with this machine's");
        return;
    }
    let side = if theirs < ours { "behind" } else { "ahead of" };
    report.warn(
        "clock",
        format!("the relay's is {skew} s {side} this machine's"),
        "run NTP on both: punch grants, certificates and clusters go by the clock",
    );
}

/// Whether a client of the third generation would sign for this name.
fn tell_name(name: Option<&str>, target: &Target, args: &Args, report: &mut Report) -> bool {
    let given = args.flags.text("relay_name");
    let expected = |name: &str| {
        [Some(&*target.host), given].into_iter().flatten().any(|e| e.eq_ignore_ascii_case(name))
    };
    match name {
        Some(name) if expected(name) => {
            report.ok("relay-name", format!("{name}: logins cannot be passed on"));
            true
        }
        Some(name) => {
            let found = format!("the relay calls itself {name:?}, and {} was dialled", target.host);
            let remedy = format!(
                "clients do not sign for another name: set --relay-name {} at the relay, or dial \
                 that name",
                target.host
            );
            report.fail("relay-name", found, remedy);
            false
        }
        None => {
            let remedy = format!("set --relay-name {} at the relay", target.host);
            let found = "the relay has no name: a rogue relay can pass logins on to it";
            report.warn("relay-name", found, remedy);
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_are_told_with_their_direction() {
        let now = UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        for (theirs, part) in [
            (1_767_225_600, "agrees"),
            (1_767_225_605, "agrees"),
            (1_767_225_606, "6 s ahead of"),
            (1_767_225_000, "600 s behind"),
            (0, "behind"),
        ] {
            let mut report = Report::default();
            tell_clock(theirs, now, &mut report);
            assert!(report.to_string().contains(part), "{report}");
        }
    }
}

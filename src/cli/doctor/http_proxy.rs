//! The way of a peer that has to go through an HTTP proxy: does the proxy let it through, and
//! is there a relay behind?

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};

use super::report::Report;
use super::session::{self, Login};
use super::{Args, PATIENCE, client_address, probe};
use crate::client::{Proxy, ProxyError, ProxyUrl, Target, Tunnel};
use crate::net::resolve::Resolver;
use crate::net::tls::Trust;

const CHECK: &str = "http-proxy";

/// Goes through the proxy, from the tunnel to the login.
pub(super) async fn check(
    url: &str,
    target: &Target,
    proxy: ProxyUrl,
    args: &Args,
    login: Option<&Login>,
    report: &mut Report,
) {
    let Some(stream) = open(target, &proxy, args, report).await else { return };
    let usable = probe::check_stream(stream, target, args, report).await;
    let Some(login) = session::may_log_in(login, usable, report) else { return };
    let proxy = Proxy::Url(proxy);
    let observed = session::check(url, target, login, proxy, Resolver::shared(), report).await;
    if let Some(observed) = observed {
        client_address::check_behind_proxy(observed, report);
    }
}

/// Asks the proxy for the way to the relay; the stream that leads there.
pub(super) async fn open(
    target: &Target,
    proxy: &ProxyUrl,
    args: &Args,
    report: &mut Report,
) -> Option<impl AsyncRead + AsyncWrite + Unpin + use<>> {
    report.skip("name", format!("{proxy} resolves it: https_proxy or --proxy says so"));
    let trust = args.ca.clone().map_or(Trust::System, Trust::CaFile);
    let tunnel = match Tunnel::new(proxy.clone(), &trust, Resolver::shared()) {
        Ok(tunnel) => tunnel,
        Err(error) => {
            report.fail(CHECK, error.to_string(), "name a good --ca FILE");
            return None;
        }
    };
    let started = Instant::now();
    let stream = match timeout(PATIENCE, tunnel.open(target)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            report.fail(CHECK, error.to_string(), remedy(&error));
            return None;
        }
        Err(_late) => {
            let remedy = "is it an HTTP proxy, and does it reach the relay? Its log tells";
            report.fail(CHECK, format!("{proxy} gives no answer within 10 s"), remedy);
            return None;
        }
    };
    let took = started.elapsed().as_secs_f64() * 1_000.0;
    let Target { host, port, .. } = target;
    report.ok(CHECK, format!("{proxy} leads to {host} port {port} in {took:.1} ms"));
    Some(stream)
}

fn remedy(error: &ProxyError) -> &'static str {
    match error {
        ProxyError::Variable { .. } => "correct the variable, or name another: --proxy URL",
        ProxyError::Unreachable { .. } => {
            "is it running? Without it: --proxy none, or the relay's name in no_proxy"
        }
        ProxyError::Authentication { .. } => {
            "http://user:password@host:port, with special characters as %XX"
        }
        ProxyError::Forbidden { .. } => "have its administrator allow CONNECT to there",
        ProxyError::Refused { .. } => {
            "does it allow CONNECT to that port, and does it reach the relay? Its log tells"
        }
        ProxyError::Handshake { .. }
        | ProxyError::Answer { .. }
        | ProxyError::Broken { .. }
        | _ => "is it an HTTP proxy? http:// and https:// are not the same",
    }
}

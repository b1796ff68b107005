//! What a peer does at one address of the name: TCP, TLS, the upgrade, the challenge. Each
//! address is judged by itself, and all at the same time: no connection idles meanwhile.

use std::net::{IpAddr, SocketAddr};

use futures_util::future::join_all;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Duration;

use super::report::Report;
use super::{Args, certificate, reach, upgrade};
use crate::client::Target;

/// What was found at one address.
pub(super) struct Probe {
    pub(super) address: SocketAddr,
    /// This machine's address of the connection, where there was one.
    pub(super) local: Option<IpAddr>,
    /// Whether a peer could go on from there to the login.
    pub(super) usable: bool,
    connected: Result<Duration, String>,
    report: Report,
}

/// Probes all addresses, and says what was found: once what is the same at all of them.
pub(super) async fn check(
    addresses: Vec<SocketAddr>,
    target: &Target,
    args: &Args,
    report: &mut Report,
) -> Vec<Probe> {
    let probing = addresses.into_iter().map(|address| probe(address, target, args));
    let probes = join_all(probing).await;
    let answers = probes.iter().map(|probe| (probe.address, probe.connected.clone()));
    reach::tell(&answers.collect::<Vec<_>>(), report);
    let reached = probes.iter().filter(|probe| probe.connected.is_ok());
    report.merge(&reached.map(|probe| (probe.address, &probe.report)).collect::<Vec<_>>());
    probes
}

async fn probe(address: SocketAddr, target: &Target, args: &Args) -> Probe {
    let mut report = Report::default();
    match reach::dial(address).await {
        Ok((tcp, took)) => {
            let local = tcp.local_addr().ok().map(|local| local.ip());
            let usable = check_stream(tcp, target, args, &mut report).await;
            Probe { address, local, usable, connected: Ok(took), report }
        }
        Err(error) => {
            let connected = Err(error.to_string());
            Probe { address, local: None, usable: false, connected, report }
        }
    }
}

/// Goes from a connection to the challenge; whether a peer could go on to the login.
pub(super) async fn check_stream<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    target: &Target,
    args: &Args,
    report: &mut Report,
) -> bool {
    if !target.tls {
        report.skip("tls", "ws:// has none: this is the relay itself, or a path without TLS");
        return check_upgrade(stream, target, args, report).await;
    }
    match certificate::check(target, args.ca.as_deref(), stream, report).await {
        Some((tls, trusted)) => check_upgrade(tls, target, args, report).await && trusted,
        None => false,
    }
}

async fn check_upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    target: &Target,
    args: &Args,
    report: &mut Report,
) -> bool {
    if args.url.as_deref().is_some_and(upgrade::is_netbird) {
        return upgrade::check_netbird(target, stream, report).await;
    }
    upgrade::check(target, args, stream, report).await
}

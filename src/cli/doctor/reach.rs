//! The name and the port: does the name resolve, and does somebody answer at each address?

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, timeout};

use super::PATIENCE;
use super::report::Report;
use crate::client::Target;
use crate::net::dial::MAX_ADDRESSES;
use crate::net::resolve::Resolver;

/// Longest wait for the answer to a connection: by then it was asked for three times, after 0,
/// 1 and 3 s.
const ANSWER: Duration = Duration::from_secs(5);

/// Resolves the name; the addresses that a peer would try.
pub(super) async fn check_name(target: &Target, report: &mut Report) -> Option<Vec<SocketAddr>> {
    let Target { host, port, .. } = target;
    let mut addresses = match resolve(host, *port).await {
        Ok(addresses) => addresses,
        Err(error) => {
            let remedy = format!("add A and AAAA records for {host}, or correct the URL");
            report.fail("name", format!("{host} does not resolve: {error}"), remedy);
            return None;
        }
    };
    let listed: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
    let found = format!("{host} is {}", listed.join(", "));
    if addresses.len() > MAX_ADDRESSES {
        let remedy =
            format!("take some out: peers try {MAX_ADDRESSES} at most, as this check does");
        report.warn("name", found, remedy);
    } else {
        report.ok("name", found);
    }
    addresses.truncate(MAX_ADDRESSES);
    Some(addresses)
}

/// The addresses of a name, each once.
pub(super) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let resolver = Resolver::shared();
    let found = timeout(PATIENCE, resolver.resolve(host, port)).await;
    found.unwrap_or_else(|_late| {
        Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s"))
    })
}

/// Connects to one address; the connection, and how long it took.
pub(super) async fn dial(address: SocketAddr) -> io::Result<(TcpStream, Duration)> {
    let started = Instant::now();
    let connected = timeout(ANSWER, TcpStream::connect(address)).await;
    let tcp = connected.unwrap_or_else(|_late| {
        Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 5 s"))
    })?;
    Ok((tcp, started.elapsed()))
}

/// Says who answers: each address, with the time that it took or what was wrong.
pub(super) fn tell(answers: &[(SocketAddr, Result<Duration, String>)], report: &mut Report) {
    let mut answered = Vec::new();
    let mut silent = Vec::new();
    for (address, answer) in answers {
        match answer {
            Ok(took) => answered.push((took, address)),
            Err(error) => silent.push(format!("{address} ({error})")),
        }
    }
    let Some((took, address)) = answered.iter().min() else {
        let port = answers.first().map_or(0, |(address, _)| address.port());
        let remedy = format!("is the proxy running, and TCP {port} open in the firewall?");
        report.fail("tcp", format!("nobody answers: {}", silent.join(", ")), remedy);
        return;
    };
    let mut found = format!("{address} answers in {:.1} ms", took.as_secs_f64() * 1_000.0);
    let others = answered.iter().filter(|(_, other)| other != address);
    for (_, other) in others {
        found = format!("{found}, {other} too");
    }
    if silent.is_empty() {
        report.ok("tcp", found);
    } else {
        let found = format!("{found}, but not {}", silent.join(", "));
        let remedy = "listen there too, or take the record out: peers wait for it in vain, unless \
                      only this machine has no route";
        report.warn("tcp", found, remedy);
    }
}

//! The name and the port: does the name resolve, and does somebody answer at each address?

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};

use super::PATIENCE;
use super::report::Report;
use crate::client::Target;

/// Resolves the name and dials every address of it; the connection to the first that answers.
pub(super) async fn check(target: &Target, report: &mut Report) -> Option<TcpStream> {
    let Target { host, port, .. } = target;
    let addresses = match resolve(host, *port).await {
        Ok(addresses) => addresses,
        Err(error) => {
            let remedy = format!("add A and AAAA records for {host}, or correct the URL");
            report.fail("name", format!("{host} does not resolve: {error}"), remedy);
            return None;
        }
    };
    let listed: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
    report.ok("name", format!("{host} is {}", listed.join(", ")));

    let (mut first, mut silent) = (None, Vec::new());
    for address in addresses {
        let started = Instant::now();
        match dial(address).await {
            Ok(tcp) if first.is_none() => first = Some((tcp, address, started.elapsed())),
            Ok(_another) => {}
            Err(error) => silent.push(format!("{address} ({error})")),
        }
    }
    let Some((tcp, address, took)) = first else {
        let remedy = format!("is the proxy running, and TCP {port} open in the firewall?");
        report.fail("tcp", format!("nobody answers: {}", silent.join(", ")), remedy);
        return None;
    };
    let answered = format!("{address} answers in {:.1} ms", took.as_secs_f64() * 1_000.0);
    if silent.is_empty() {
        report.ok("tcp", answered);
    } else {
        let found = format!("{answered}, but not {}", silent.join(", "));
        let remedy = "listen there too, or take the record out: peers wait for it in vain, unless \
                      only this machine has no route";
        report.warn("tcp", found, remedy);
    }
    Some(tcp)
}

/// The addresses of a name, each once.
pub(super) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found = timeout(PATIENCE, lookup_host((host, port))).await;
    let mut addresses: Vec<_> = found.map_err(|_| io::ErrorKind::TimedOut)??.collect();
    let mut seen = Vec::new();
    addresses.retain(|address| {
        let new = !seen.contains(address);
        seen.push(*address);
        new
    });
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
    }
    Ok(addresses)
}

async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    timeout(PATIENCE, TcpStream::connect(address)).await.map_err(|_| io::ErrorKind::TimedOut)?
}

//! A plain HTTP GET, for the operators' port of a relay and for Caddy's.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::PATIENCE;
use crate::config::HostPort;
use crate::net::dial::Destination;
use crate::net::resolve::Resolver;

/// Longest answer that is read, in bytes: far above any configuration or scrape.
const LONGEST: u64 = 16 << 20;

/// The status and the body of what `server` answers.
pub(super) async fn http_get(server: &HostPort, path: &str) -> io::Result<(u16, String)> {
    let answered = async {
        let destination = Destination::new(server.host(), server.port(), Resolver::shared());
        exchange(destination.connect().await?, &server.to_string(), path).await
    };
    timeout(PATIENCE, answered).await.map_err(|_| io::ErrorKind::TimedOut)?
}

/// The status and the body of what is answered over `stream`; for callers that bound the time.
pub(super) async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    host: &str,
    path: &str,
) -> io::Result<(u16, String)> {
    // HTTP/1.0, so that no answer is chunked.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let parts = answer
        .split_once("\r\n\r\n")
        .and_then(|(head, body)| Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned())));
    parts.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

//! The listeners of this machine's relay, where its settings have more than that of `wss_bind`:
//! does each answer?

use std::io;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::PATIENCE;
use super::http::{exchange, http_get};
use super::machine::local;
use super::report::Report;
use crate::config::{Config, Listener, WssBind};

const CHECK: &str = "listener";

/// Asks each listener whether it is there, as a load balancer does.
pub(super) async fn check(config: &Config, report: &mut Report) {
    let listeners = config.all_listeners(false);
    if let [only] = &listeners[..]
        && only.setting == "wss-bind"
    {
        return;
    }
    for listener in &listeners {
        check_one(listener, report).await;
    }
}

async fn check_one(listener: &Listener, report: &mut Report) {
    let at = format!("{} at {}", listener.label(), listener.bind);
    let found = if listener.speaks_tls() { "accepts connections, for TLS" } else { "answers" };
    let answer = match &listener.bind {
        WssBind::Tcp(address) if address.port() == 0 => {
            return report.skip(CHECK, format!("{at}: its port is chosen at the start"));
        }
        // A client goes the rest of the way: `doctor URL` does as well.
        WssBind::Tcp(address) if listener.speaks_tls() => {
            let connected = timeout(PATIENCE, TcpStream::connect(local(*address))).await;
            connected
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                .map(|_stream| (200, String::new()))
        }
        WssBind::Tcp(address) => {
            let server = local(*address).to_string();
            let server = server.parse().expect("an address is a host and a port");
            http_get(&server, "/health").await
        }
        WssBind::Unix(path) => {
            let asked =
                async { exchange(UnixStream::connect(path).await?, "relay", "/health").await };
            timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        }
    };
    let remedy = "does the relay run with these settings, or has systemd opened a socket elsewhere \
                  for it? Its log says where it listens; a Unix socket is for its group";
    match answer {
        Ok((200, _)) => report.ok(CHECK, format!("{at} {found}")),
        Ok((status, _)) => report.warn(CHECK, format!("{at} answers with {status}"), remedy),
        Err(error) => report.warn(CHECK, format!("{at} does not answer: {error}"), remedy),
    }
}

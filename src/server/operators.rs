//! Opens the doors for operators: the control socket, and the pages and actions over HTTP.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::admin;
use crate::config::Config;
use crate::control::{Actions, Parts, Socket, Token, routes};

/// Serves operators until `stopping`. Must be called within the runtime.
pub(super) fn start(
    tasks: &mut JoinSet<()>,
    stopping: &CancellationToken,
    listener: TcpListener,
    pages: Arc<admin::Sources>,
    parts: Parts,
    config: &Config,
) {
    let actions = Actions::new(parts, &config.state_dir);
    let (hosts, counted) = (Arc::clone(&pages.hosts), Arc::clone(&actions));
    pages.registry.add(move |families| {
        hosts.families(families);
        counted.families(families);
    });
    match Socket::bind(&config.state_dir) {
        Ok(socket) => {
            tasks.spawn(socket.serve(Arc::clone(&actions)));
        }
        // Packets do not wait for it.
        Err(error) => warn!(%error, "no control socket: `status`, `kick` and others fail"),
    }
    let token = config.admin_token.as_ref().map(|token| Token::new(token.expose()));
    let routes = routes(actions, token);
    tasks.spawn(admin::serve(listener, pages, routes, stopping.clone().cancelled_owned()));
}

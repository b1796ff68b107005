//! Opens the doors for operators: the control socket, and the pages and actions over HTTP.

use std::io;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::tasks::Tasks;
use crate::admin;
use crate::config::Config;
use crate::control::{Actions, Parts, Socket, Token, keep_socket, routes};

/// Serves operators until `stopping`. Must be called within the runtime.
///
/// # Errors
/// The system has no room for a thread.
pub(super) fn start(
    tasks: &mut Tasks,
    stopping: &CancellationToken,
    listener: TcpListener,
    pages: Arc<admin::Sources>,
    parts: Parts,
    config: &Config,
) -> io::Result<()> {
    let actions = Actions::start(parts, &config.state_dir)?;
    let (hosts, counted) = (Arc::clone(&pages.hosts), Arc::clone(&actions));
    pages.registry.add(move |families| {
        hosts.families(families);
        counted.families(families);
    });
    let socket = Socket::bind(&config.state_dir);
    let keeping = keep_socket(socket, config.state_dir.clone(), Arc::clone(&actions));
    tasks.spawn("control socket", keeping);
    let watched = Arc::clone(&actions);
    tasks.spawn("audit log", async move { watched.failed().await });
    let guessed = Arc::clone(&actions);
    let stopped = stopping.clone();
    tasks.spawn("audit of guesses", async move {
        let _stopped = stopped.run_until_cancelled(guessed.audit_guesses()).await;
    });
    let token = config.admin_token.as_ref().map(|token| Token::new(token.expose()));
    let waiting = Arc::clone(&actions);
    let actions = admin::Actions {
        routes: routes(actions, token),
        give_way: Box::new(move || waiting.give_way()),
    };
    let stopped = stopping.clone().cancelled_owned();
    tasks.spawn("operators' port", admin::serve(listener, pages, actions, stopped));
    Ok(())
}

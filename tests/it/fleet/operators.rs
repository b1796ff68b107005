//! What an operator does to real daemons.

use super::daemon::{Daemon, Transport};
use super::lab::Lab;
use super::site::Site;
use crate::control::ask;

#[test]
fn notified_daemon_asks_its_registry_at_once() {
    Lab::run(|lab| {
        let site = Site::start(lab);
        for transport in [Transport::Compat, Transport::Udp] {
            let name = format!("{transport:?}").to_lowercase();
            let daemon = Daemon::start(&site, &name, transport);
            // By itself it asks once a minute, and not at its start.
            let before = site.registry.requests("poll_handshakes", daemon.id);
            ask(site.relay(), &["notify", &daemon.id.to_string()]);
            site.registry.wait_for_more("poll_handshakes", daemon.id, before);
        }
    });
}

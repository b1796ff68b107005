//! A daemon that changes its transport, and one that dies.

use std::time::Duration;

use super::daemon::{Daemon, Transport};
use super::lab::Lab;
use super::site::Site;

/// From a daemon's start until others reach it again, on a machine that may be busy. Where its
/// Discovers met the hold of the session before, it was dark for 87 s.
const SOON: Duration = Duration::from_secs(15);

#[test]
fn daemon_that_moves_between_compat_and_udp_is_reachable_at_once() {
    Lab::run(|lab| {
        let site = Site::start(lab);
        let mut mover = Daemon::start(&site, "mover", Transport::Compat);
        let compat = Daemon::start(&site, "compat", Transport::Compat);
        let udp = Daemon::start(&site, "udp", Transport::Udp);
        compat.reaches(&mover, SOON);
        udp.reaches(&mover, SOON);

        for transport in [Transport::Udp, Transport::Compat, Transport::Udp] {
            mover.stop();
            mover.start_again(&site, transport);
            let reached = [&compat, &udp].map(|from| from.reaches(&mover, SOON));
            let back = mover.reaches(&udp, SOON);
            eprintln!("moved to {transport:?}: reached in {reached:?}, reaches in {back:?}");
        }
    });
}

#[test]
fn daemon_that_was_killed_comes_back_over_either_transport() {
    Lab::run(|lab| {
        let site = Site::start(lab);
        let mut killed = Daemon::start(&site, "killed", Transport::Compat);
        let other = Daemon::start(&site, "other", Transport::Udp);
        other.reaches(&killed, SOON);

        // Its session was lost, not ended; its Discover comes from where the session came from.
        for transport in [Transport::Compat, Transport::Udp, Transport::Compat] {
            killed.kill();
            killed.start_again(&site, transport);
            let reached = other.reaches(&killed, SOON);
            eprintln!("killed, came back as {transport:?}: reached in {reached:?}");
        }
    });
}

//! Two daemons that run with one identity.

use std::thread;
use std::time::{Duration, Instant};

use super::daemon::{Daemon, Transport};
use super::lab::Lab;
use super::site::Site;
use crate::harness::{PATIENCE, look_until};

/// How long the two are watched, after the first few takeovers.
const WATCHED: Duration = Duration::from_secs(12);

#[test]
fn two_daemons_with_one_identity_do_not_chase_each_other() {
    Lab::run(|lab| {
        let site = Site::start(lab);
        let first = Daemon::start(&site, "shared", Transport::Compat);
        let other = Daemon::start(&site, "other", Transport::Compat);
        other.reaches(&first, PATIENCE);
        let _second = first.twin(&site, Transport::Compat);
        let relay = site.relay();
        let replaced =
            || relay.metric("pilot_beacon_wss_sessions_ended_total{reason=\"replaced\"}");
        let chasing = look_until(Instant::now() + PATIENCE, || (replaced() >= 3.0).then_some(()));
        assert!(chasing.is_some(), "the two never met");

        let before = replaced();
        thread::sleep(WATCHED);
        let takeovers = replaced() - before;
        eprintln!("{takeovers} takeovers in {WATCHED:?}");
        // They were four a second, 48 in this time; delays of 1, 2, 4 and 8 s leave few.
        assert!(takeovers <= 8.0, "{takeovers} takeovers in {WATCHED:?}");
        // Whoever has the session serves: nobody is dark.
        other.reaches(&first, PATIENCE);
    });
}

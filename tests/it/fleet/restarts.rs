//! The relay and Caddy end, well or badly, and come back.

use std::time::Duration;

use super::daemon::{Daemon, Transport};
use super::lab::Lab;
use super::site::Site;

/// Daemons in compat mode dial again after 0.25 s, doubled each time.
const REDIALLED: Duration = Duration::from_secs(20);

/// Daemons on UDP send a Discover each 60 s; they find out sooner that a relay has forgotten them.
const DISCOVERED: Duration = Duration::from_secs(75);

#[test]
fn daemons_come_back_after_a_restart_of_the_relay_or_of_caddy() {
    Lab::run(|lab| {
        let mut site = Site::start(lab);
        let a = Daemon::start(&site, "compat-a", Transport::Compat);
        let b = Daemon::start(&site, "compat-b", Transport::Compat);
        let udp = Daemon::start(&site, "udp-c", Transport::Udp);
        a.reaches(&b, REDIALLED);
        a.reaches(&udp, DISCOVERED);

        site.relay().signal("TERM");
        assert_eq!(site.relay.as_mut().unwrap().wait_for_end(), 0);
        site.start_relay();
        let back = a.reaches(&b, REDIALLED);
        let over_udp = udp.reaches(&a, DISCOVERED);
        eprintln!("relay stopped and started: {back:?} over WebSocket, {over_udp:?} from UDP");

        site.relay().signal("KILL");
        site.start_relay();
        let back = a.reaches(&b, REDIALLED);
        let over_udp = udp.reaches(&a, DISCOVERED);
        eprintln!("relay killed and started: {back:?} over WebSocket, {over_udp:?} from UDP");

        site.restart_caddy();
        let back = b.reaches(&a, REDIALLED);
        let over_udp = udp.reaches(&b, DISCOVERED);
        eprintln!("Caddy restarted: {back:?} over WebSocket, {over_udp:?} from UDP");
    });
}

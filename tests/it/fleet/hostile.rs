//! What a stranger can do to real daemons through the relay.

use super::daemon::{Daemon, Transport};
use super::lab::Lab;
use super::site::Site;
use crate::harness::{Node, PATIENCE};
use crate::peer::{Peer, relay as packet};

#[test]
fn stranger_with_large_packets_keeps_no_compat_daemon_off_the_net() {
    Lab::run(|lab| {
        let site = Site::start(lab);
        let daemon = Daemon::start(&site, "compat", Transport::Compat);
        let other = Daemon::start(&site, "udp", Transport::Udp);
        other.reaches(&daemon, PATIENCE);
        let stranger = lab.host().udp_socket();
        let relay = site.relay();

        // A daemon's library reads 32,768 bytes: a delivery has 5 before its payload.
        stranger.send_to(&packet(77, daemon.id, &[0; 32_763]), site.beacon).unwrap();
        for length in [32_764, 40_000, 65_498] {
            stranger.send_to(&packet(77, daemon.id, &vec![0; length]), site.beacon).unwrap();
        }

        relay.wait_for_dropped("too_large_for_peer", 3);
        other.reaches(&daemon, PATIENCE);
        daemon.reaches(&other, PATIENCE);
        let logins = relay.metric("pilot_beacon_wss_connections_total{outcome=\"auth_ok\"}");
        assert_eq!(logins, 1.0, "the daemon had to log in again:\n{}", daemon.log());
    });
}

#[test]
fn stranger_whom_the_registry_does_not_know_is_no_fault_of_the_registry() {
    Lab::run(|lab| {
        let site = Site::start(lab);
        let relay = site.relay();

        Peer::upgrade(relay.wss).try_to_authenticate(&Node::new(999), 2);

        relay.wait_for_metric("pilot_beacon_wss_refusals_total{reason=\"unknown_node\"}", 1.0);
        assert!(!relay.log().contains("the registry failed"), "{}", relay.log());
    });
}

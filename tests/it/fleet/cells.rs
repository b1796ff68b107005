//! Every transport with every other: starts, pings and files.

use std::thread;
use std::time::Duration;

use super::daemon::{Daemon, Transport};
use super::lab::Lab;
use super::site::Site;
use crate::cells::assert_balance;
use crate::random::Random;

#[test]
fn every_daemon_reaches_every_other_and_sends_it_a_megabyte() {
    Lab::run(|lab| {
        let site = Site::start(lab);
        let daemons = [
            Daemon::start(&site, "compat-a", Transport::Compat),
            Daemon::start(&site, "compat-b", Transport::Compat),
            Daemon::start(&site, "udp-c", Transport::Udp),
            Daemon::start(&site, "auto-d", Transport::Auto),
        ];
        let [a, b, c, d] = &daemons;

        let started: Vec<_> =
            daemons.iter().map(|daemon| (&daemon.name, daemon.started_in)).collect();
        eprintln!("started in {started:?}");
        // Unanswered, the question for its own address costs a daemon 5 s. One of two that asked
        // it is enough: this machine may be busy.
        let fastest = c.started_in.min(d.started_in);
        assert!(fastest < Duration::from_secs(1), "{started:?}");
        for daemon in [c, d] {
            let registered = site.registry.real_address(daemon.id);
            assert!(
                registered.starts_with(&daemon.host.address.to_string()),
                "{} registered {registered}, which is not what the relay saw",
                daemon.name
            );
        }
        assert_eq!(d.info()["data"]["transport"], "udp", "auto, where UDP works: {}", d.info());

        thread::scope(|scope| {
            for from in &daemons {
                scope.spawn(|| {
                    for to in daemons.iter().filter(|to| to.name != from.name) {
                        let took = from.reaches(to, Duration::from_secs(20));
                        eprintln!("{} reaches {} in {took:?}", from.name, to.name);
                    }
                });
            }
        });

        let mut random = Random(1);
        let mut file =
            |_| -> Vec<u8> { (0..131_072).flat_map(|_| random.next().to_be_bytes()).collect() };
        for (number, (from, to)) in [(a, b), (b, c), (c, a), (c, d)].into_iter().enumerate() {
            from.send_file(to, &file(number));
        }
        let relay = site.relay();
        for (src, dst) in [("wss", "wss"), ("wss", "udp"), ("udp", "wss"), ("udp", "udp")] {
            let carried = relay.metric(&format!(
                "pilot_beacon_relay_bridge_total{{src_transport=\"{src}\",dst_transport=\"{dst}\"}}"
            ));
            assert!(carried > 800.0, "{carried} packets of a megabyte from {src} to {dst}");
        }
        assert_balance(relay);
    });
}

#[test]
fn auto_daemon_without_udp_takes_the_websocket() {
    Lab::run(|lab| {
        let site = Site::start(lab);
        let auto = Daemon::start(&site, "auto", Transport::AutoWithoutUdp);
        let udp = Daemon::start(&site, "udp", Transport::Udp);
        assert_eq!(auto.info()["data"]["transport"], "compat", "{}", auto.info());
        auto.reaches(&udp, Duration::from_secs(20));
        udp.reaches(&auto, Duration::from_secs(20));
        assert_balance(site.relay());
    });
}

#[test]
fn daemons_speak_to_the_relay_s_own_tls() {
    Lab::run(|lab| {
        let site = Site::with_own_tls(lab);
        let mut one = Daemon::start(&site, "compat-a", Transport::Compat);
        let other = Daemon::start(&site, "compat-b", Transport::Compat);
        let udp = Daemon::start(&site, "udp-c", Transport::Udp);
        for (from, to) in [(&one, &other), (&other, &udp), (&udp, &one)] {
            from.reaches(to, Duration::from_secs(20));
        }
        let file: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
        one.send_file(&other, &file);

        // A daemon that comes back makes a connection of its own.
        one.stop();
        one.start_again(&site, Transport::Compat);
        one.reaches(&other, Duration::from_secs(20));
        let relay = site.relay();
        let handshakes: f64 = ["full", "resumed"]
            .map(|kind| relay.metric(&crate::tls::handshakes(kind)))
            .iter()
            .sum();
        assert!(handshakes >= 3.0, "{handshakes}");
        assert_balance(relay);
    });
}

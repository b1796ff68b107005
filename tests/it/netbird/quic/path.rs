//! Paths of other MTUs than loopback's: the relay runs in a network namespace of its own, behind a
//! pair of virtual interfaces.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::super::{Site, message};
use super::{Manner, QuicPeer};
use crate::cells::assert_balance;
use crate::deploy::nginx::write_certificates;
use crate::harness::{PATIENCE, look_until};
use crate::veth::{free_network, ip};

/// A relay behind a link, and a client at our end of it.
struct Far {
    site: Site,
    name: String,
    manner: Manner,
}

impl Far {
    /// With a link of this MTU.
    fn start(mtu: u16) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (number, process) = (NEXT.fetch_add(1, Ordering::Relaxed), std::process::id());
        let name = format!("nb{process}-{number}");
        // Beside those of other tests.
        let network = free_network(Ipv4Addr::new(198, 18, 0, 0), 4, 0x1000 + process * 8 + number);
        let [here, there] = [1, 2].map(|host| Ipv4Addr::from(network + host));
        ip(&format!("netns add {name}"));
        ip(&format!("link add {name} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {name}"));
        ip(&format!("address add {here}/30 dev {name}"));
        ip(&format!("link set {name} up"));
        ip(&format!("-n {name} address add {there}/30 dev eth0"));
        ip(&format!("-n {name} link set eth0 up"));
        ip(&format!("-n {name} link set lo up"));
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &name, env!("CARGO_BIN_EXE_beacon-relay")]);
        let folder = tempfile::tempdir().unwrap();
        write_certificates(folder.path(), &["127.0.0.1".to_owned()], 90);
        let bind = format!("{there}:0");
        let binds = ["--wss-bind", &bind, "--udp-bind", &bind, "--admin-bind", &bind];
        let more = [&binds[..], &["--public-plaintext", "--relay-rate", "0"]].concat();
        let site = Site::with_tls_by(command, folder, &bind, &more);
        let manner = Manner { from: here, ..Manner::wide() };
        Self { site, name, manner }
    }

    /// A client that has logged in.
    fn log_in(&self, who: &str) -> QuicPeer {
        let Site { relay, .. } = &self.site;
        let dialled = QuicPeer::dial(self.site.quic.unwrap(), &self.site.ca(), &self.manner);
        let peer = dialled.unwrap_or_else(|error| panic!("{error}\n{}", relay.log()));
        peer.log_in(who);
        peer
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        // The link goes with the namespace that has its other end.
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

/// What a tunnel of MTU 1,280 makes: 1,312 bytes, in a message of 1,350.
const PAYLOAD: [u8; 1_312] = [7; 1_312];

#[test]
fn packets_of_a_tunnel_cross_a_link_of_1500_bytes_from_the_first_on() {
    let far = Far::start(1_500);
    let bob = far.log_in("bob");
    let alice = far.log_in("alice");
    // At once after the acceptance.
    for number in 0..50 {
        let payload = [&[number][..], &PAYLOAD[1..]].concat();
        alice.send(&message(3, "bob", &payload));
        assert_eq!(bob.read(), Some(message(3, "alice", &payload)), "{number}");
    }
    assert_eq!(far.site.relay.dropped("too_large_for_path"), 0);
    assert_balance(&far.site.relay);
}

#[test]
fn packets_beyond_a_link_of_1400_bytes_are_dropped_with_a_reason_and_others_pass() {
    let far = Far::start(1_400);
    // Those that are too long for its link come over WebSocket.
    let mut alice = far.site.log_in("alice");
    let bob = far.log_in("bob");
    // At once after the acceptance. Until it is known what the path carries, some are lost on it,
    // and small ones that are in a packet with them.
    let too_large = || far.site.relay.dropped("too_large_for_path");
    let found = look_until(Instant::now() + PATIENCE, || {
        alice.send(2, &message(3, "bob", &PAYLOAD));
        alice.send(2, &message(3, "bob", b"probing"));
        bob.wait(Duration::from_millis(50));
        (too_large() >= 3).then_some(())
    });
    found.expect("what is too long is dropped with its reason");

    // From here on nothing else is lost, and what waits holds nobody up.
    for number in 0..50_u32 {
        let small = number.to_be_bytes();
        alice.send(2, &message(3, "bob", &PAYLOAD));
        alice.send(2, &message(3, "bob", &small));
        let expected = message(3, "alice", &small);
        while bob.read() != Some(expected.clone()) {}
    }
    // 1,200 bytes always pass, and the session is the same.
    let payload = [&[1][..], &[7; 1_100]].concat();
    alice.send(2, &message(3, "bob", &payload));
    assert_eq!(bob.read(), Some(message(3, "alice", &payload)));
    let waiting = || {
        let queued = far.site.relay.metric("pilot_beacon_packets_queued");
        (queued < 1.0).then_some(())
    };
    look_until(Instant::now() + PATIENCE, waiting).expect("what waited is dropped");
    assert_balance(&far.site.relay);
}

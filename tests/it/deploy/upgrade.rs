//! The package is upgraded while peers talk, and taken back: systemd's part, to keep the sockets and to
//! start the program that is there, is played by the test.

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use super::package::{Machine, package_of};
use super::run;
use crate::activation::{Traffic, hand_over_to, udp_sockets};
use crate::harness::{Node, Relay};
use crate::peer::Peer;

/// What systemd keeps, and the state folder of the relay.
struct Site {
    machine: Machine,
    wss: TcpListener,
    udp: Vec<UdpSocket>,
    state: Arc<TempDir>,
}

impl Site {
    /// Starts the relay that is installed, with the settings that are there.
    fn start(&self) -> Relay {
        let mut sockets = vec![("wss", self.wss.as_fd())];
        sockets.extend(self.udp.iter().map(|socket| ("udp", socket.as_fd())));
        let program = self.machine.path("usr/bin/beacon-relay");
        let (command, _kept) = hand_over_to(&program, &sockets);
        let settings = self.machine.path("etc/beacon-relay/beacon-relay.toml");
        let flags = ["--config", settings.to_str().unwrap(), "--log-level", "debug"];
        Relay::start_in(Arc::clone(&self.state), command, flags)
    }

    fn address(&self) -> SocketAddr {
        self.wss.local_addr().unwrap()
    }

    fn enroll(&self, node: &Node) {
        let key = STANDARD.encode(node.key.verifying_key().to_bytes());
        let mut enroll = Command::new(self.machine.path("usr/bin/beacon-relay"));
        enroll.arg("enroll").arg("--state-dir").arg(self.state.path());
        run(enroll.args([node.id.to_string(), key]));
    }

    fn installed(&self) -> String {
        let status = fs::read_to_string(self.machine.path("var/lib/dpkg/status")).unwrap();
        let version = status.lines().find_map(|line| line.strip_prefix("Version: "));
        version.expect("it is installed").to_owned()
    }
}

#[test]
fn package_is_upgraded_and_taken_back_while_peers_talk() {
    let folder = tempfile::tempdir().unwrap();
    let [before, after] = ["0.0.9", "99.0.0"].map(|version| package_of(version, folder.path()));
    let site = Site {
        machine: Machine::new(),
        wss: TcpListener::bind("127.0.0.1:0").unwrap(),
        udp: udp_sockets(1),
        state: Arc::new(tempfile::tempdir().unwrap()),
    };
    site.machine.dpkg(&["--install", before.to_str().unwrap()]);
    // What an operator has changed stays through all of it.
    let settings = site.machine.path("etc/beacon-relay/beacon-relay.toml");
    let ours = "relay_name = \"relay.example.org\"\ndrain_time = \"300ms\"\ndiscover_rate = 0\n";
    fs::write(&settings, ours).unwrap();
    let (alice, bob) = (Node::new(11), Node::new(12));
    site.enroll(&alice);
    site.enroll(&bob);
    let mut relay = site.start();
    let traffic = Traffic::start(site.address(), relay.udp);
    let talk = || {
        let mut from = Peer::log_in(site.address(), &alice);
        let mut to = Peer::log_in(site.address(), &bob);
        from.relay(11, 12, b"hello");
        assert_eq!(to.delivery(), (11, b"hello".to_vec()));
        to
    };

    for package in [&after, &before] {
        let mut connected = talk();
        traffic.wait_for_more();
        site.machine.dpkg(&["--force-downgrade", "--install", package.to_str().unwrap()]);
        // The program that runs is the old one until it is restarted, and serves on.
        traffic.wait_for_more();
        relay.signal("TERM");
        assert_eq!(connected.read_close().0, 1001);
        assert_eq!(relay.wait_for_end(), 0);
        relay = site.start();
        traffic.wait_for_more();
    }

    drop(talk());
    traffic.stop();
    assert_eq!(site.installed(), "0.0.9");
    assert_eq!(fs::read_to_string(&settings).unwrap(), ours);
}

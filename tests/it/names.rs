//! Names whose first address is dead, as where IPv6 is broken: whatever dials them comes to
//! the second.
//!
//! The programs run in network namespaces with an `/etc/hosts` of their own, in which each
//! name has an IPv6 address whose packets vanish, and then a good IPv4 address.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::cluster::network::Network;
use crate::cluster::{mesh_arguments, wait_for_members};
use crate::doctor::doctor_by;
use crate::harness::{Node, Program, Relay};
use crate::peer::Peer;
use crate::registry::{Answer, Registry};
use crate::veth::ip;

/// The host of a network at which this process is.
const HERE: u32 = 29;

/// The address from which nothing comes back, of a range for documents (RFC 3849).
pub(crate) const DEAD: &str = "2001:db8::1";

/// A network whose hosts know one name.
pub(crate) struct Names {
    pub(crate) network: Network,
    folder: TempDir,
}

impl Names {
    /// So many hosts, which know the name `relay.test` as the dead address and that of `host`.
    pub(crate) fn new(hosts: u32, host: u32) -> Self {
        let network = Network::new(hosts);
        for number in 0..hosts {
            let namespace = network.namespace(number);
            let own = format!("2001:db8::{:x}", number + 2);
            ip(&format!("-n {namespace} -6 address add {own}/64 dev eth0 nodad"));
            // Whoever has the address is known, and is nobody.
            let nobody = "lladdr 02:00:00:00:00:01 dev eth0 nud permanent";
            ip(&format!("-n {namespace} neigh add {DEAD} {nobody}"));
        }
        let names = Self { network, folder: tempfile::tempdir().unwrap() };
        let good = names.network.address(host);
        names.write_hosts(&format!("{DEAD} relay.test\n{good} relay.test\n"));
        names
    }

    fn write_hosts(&self, text: &str) {
        fs::write(self.hosts(), text).unwrap();
    }

    fn hosts(&self) -> PathBuf {
        self.folder.path().join("hosts")
    }

    /// A command that runs a program on a host, with those names.
    pub(crate) fn run_on(&self, host: u32, program: &str) -> Command {
        let mut command = self.network.run_on(host, "sh");
        // `ip netns exec` gives each program a mount namespace of its own.
        command.args(["-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]);
        command.arg(self.hosts()).arg(program);
        command
    }

    /// Where this process listens for the hosts.
    pub(crate) fn here(&self) -> Ipv4Addr {
        self.network.address(HERE)
    }

    /// A relay on a host, with its listeners there.
    fn relay_on(&self, host: u32, arguments: &[String]) -> Relay {
        let any = format!("{}:0", self.network.address(host));
        let binds = ["--wss-bind", &any, "--udp-bind", &any, "--admin-bind", &any];
        let binds = binds.iter().chain(&["--public-plaintext"]).map(|word| (*word).to_owned());
        let relay = self.run_on(host, env!("CARGO_BIN_EXE_beacon-relay"));
        Relay::start_by(relay, binds.chain(arguments.iter().cloned()))
    }
}

#[test]
fn connect_reaches_a_relay_whose_first_address_is_dead() {
    let (names, node) = (Names::new(1, HERE), Node::new(11));
    let bind = format!("{}:0", names.here());
    let relay = Relay::with_nodes(&[&node], &["--wss-bind", &bind, "--public-plaintext"]);
    let url = format!("ws://relay.test:{}", relay.wss.port());
    let key = node.write_key(names.folder.path());

    let mut connect = names.run_on(0, env!("CARGO_BIN_EXE_beacon-relay"));
    connect.args(["connect", &url, "--node-id", "11", "--key"]).arg(key);
    // Whatever proxy this machine has leads to no host of the test.
    connect.env("no_proxy", "*");
    let connect = Program::start(&mut connect);

    let line = connect.wait_for_line_of(&["connected to", "not connected"]);
    assert!(line.starts_with("connected to"), "{line}");
}

#[test]
fn relay_reaches_a_registry_whose_first_address_is_dead() {
    let (names, node) = (Names::new(1, HERE), Node::new(11));
    let listener = TcpListener::bind((names.here(), 0)).unwrap();
    let registry = Registry::on(listener, Answer::Key, json!([]));
    let address = format!("relay.test:{}", registry.address.port());
    let relay = names.relay_on(0, &["--registry".to_owned(), address]);
    drop(Peer::log_in(relay.wss, &node));
    assert_eq!(relay.metric("pilot_beacon_registry_up"), 1.0);
}

#[test]
fn relays_link_though_the_first_address_of_a_name_is_dead() {
    let names = Names::new(2, 1);
    let binds = [0, 1].map(|host| format!("{}:9002", names.network.address(host)));
    let joins = ["relay.test:9002".to_owned()];
    let folder = names.folder.path();
    // Neither is told the other's address; only the first knows a name.
    let relays = [
        names.relay_on(0, &mesh_arguments(folder, &binds[0], &joins)),
        names.relay_on(1, &mesh_arguments(folder, &binds[1], &binds[1..])),
    ];
    relays.iter().for_each(|relay| wait_for_members(relay, 2));
}

#[test]
fn doctor_blames_the_dead_address_and_nothing_else() {
    let (names, node) = (Names::new(1, HERE), Node::new(11));
    let bind = format!("{}:0", names.here());
    // Shorter than the doctor's patience: a connection that idles meanwhile is closed.
    let flags = ["--wss-bind", &bind, "--public-plaintext", "--auth-timeout", "1s"];
    let relay =
        Relay::with_nodes(&[&node], &[&flags[..], &["--relay-name", "relay.test"]].concat());
    let url = format!("ws://relay.test:{}", relay.wss.port());
    let key = node.write_key(names.folder.path()).display().to_string();

    let doctor = names.run_on(0, env!("CARGO_BIN_EXE_beacon-relay"));
    let path = std::env::var("PATH").unwrap();
    let arguments = [&*url, "--node-id", "11", "--key", &key];
    let diagnosis = doctor_by(doctor, &path, arguments);

    let dead = format!("but not [{DEAD}]:{}", relay.wss.port());
    diagnosis.assert("tcp", "warning", &dead);
    for check in ["upgrade", "challenge", "relay-name", "login", "largest-frame"] {
        diagnosis.assert(check, "ok", "");
    }
    diagnosis.assert_code(1);
}

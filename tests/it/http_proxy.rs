//! `connect` and the doctor through a real HTTP proxy (tinyproxy), which alone can resolve the
//! name of the relay.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::caddy::Caddy;
use crate::doctor::{Diagnosis, Known, doctor_by};
use crate::harness::{Node, Program, Relay};

const BIN: &str = env!("CARGO_BIN_EXE_beacon-relay");

/// A tinyproxy that wants a user and a password, with an `/etc/hosts` of its own.
struct TinyProxy {
    address: SocketAddr,
    program: Program,
    _port: Socket,
    _folder: TempDir,
}

impl TinyProxy {
    /// Starts one with this line more in its configuration.
    fn start(more: &str) -> Self {
        // It cannot say which port the system chose for it, so that is chosen for it.
        let port = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        port.set_reuse_address(true).unwrap();
        port.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let address = port.local_addr().unwrap().as_socket().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (hosts, settings) = (folder.path().join("hosts"), folder.path().join("tinyproxy.conf"));
        fs::write(&hosts, "127.0.0.1 relay.test localhost\n").unwrap();
        let text = format!(
            "Listen 127.0.0.1\nPort {}\nTimeout 60\nMaxClients 20\nLogLevel Info\n\
             BasicAuth alice s3cret-home\n{more}\n",
            address.port()
        );
        fs::write(&settings, text).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c"]);
        command.arg("mount --bind \"$0\" /etc/hosts && exec tinyproxy -d -c \"$1\" >&2");
        let program = Program::start(command.arg(&hosts).arg(&settings));
        program.wait_for_line("Accepting connections");
        Self { address, program, _port: port, _folder: folder }
    }

    /// Its URL with the right password, or another.
    fn url(&self, password: &str) -> String {
        format!("http://alice:{password}@{}", self.address)
    }
}

/// `connect` as a node of the relay, under a name that only the proxy can resolve.
fn connect(relay: &Relay, node: &Node, folder: &TempDir) -> Command {
    let url = format!("ws://relay.test:{}", relay.wss.port());
    let mut command = node.connect(&url, folder.path());
    for variable in ["http_proxy", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"] {
        command.env_remove(variable);
    }
    command
}

#[test]
fn connect_goes_through_the_proxy_of_the_environment_by_name_and_with_credentials() {
    let (proxy, known) = (TinyProxy::start(""), Known::start(&["--relay-name", "relay.test"]));
    let node = Node::of_the_vectors();
    let mut command = connect(&known.relay, &node, &known.folder);
    let program = Program::start(command.env("http_proxy", proxy.url("s3cret%2dhome")));

    let line = program.wait_for_line_of(&["connected to", "not connected"]);

    assert!(line.starts_with("connected to"), "{line}");
    proxy.program.wait_for_line("CONNECT relay.test:");
    assert!(!program.log().contains("s3cret"), "{}", program.log());
}

#[test]
fn proxy_that_does_not_let_a_node_through_ends_connect_with_the_reason() {
    let (proxy, known) = (TinyProxy::start("ConnectPort 1"), Known::start(&[]));
    let node = Node::of_the_vectors();
    for (url, part) in [
        (proxy.url("wrong"), "wants another user or password (HTTP status 401)"),
        (format!("http://{}", proxy.address), "wants a user and a password, as in"),
        (proxy.url("s3cret%2dhome"), "forbids connections to relay.test:"),
    ] {
        let mut command = connect(&known.relay, &node, &known.folder);
        let output = command.args(["--proxy", &url]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.lines().last().unwrap().contains(part), "{said}");
        assert!(!said.contains("alice") && !said.contains("s3cret"), "{said}");
    }
    let mut command = connect(&known.relay, &node, &known.folder);
    let output = command.args(["--proxy", "socks5://alice:s3cret@proxy.test"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("must be http or https") && !said.contains("s3cret"), "{said}");
}

#[test]
fn doctor_checks_the_whole_chain_through_a_proxy() {
    let (proxy, known) = (TinyProxy::start(""), Known::start(&["--relay-name", "localhost"]));
    let caddy = Caddy::start(known.relay.wss);
    let ca = caddy.ca.display().to_string();
    let doctor = |proxy: &str| -> Diagnosis {
        let mut arguments = vec![caddy.url(), "--ca".to_owned(), ca.clone()];
        arguments.extend(known.login(&Node::of_the_vectors()));
        arguments.extend(["--proxy".to_owned(), proxy.to_owned()]);
        doctor_by(Command::new(BIN), "/usr/bin", arguments)
    };

    let diagnosis = doctor(&proxy.url("s3cret%2dhome"));
    diagnosis.assert("name", "skipped", "resolves it");
    for check in ["http-proxy", "tls", "upgrade", "challenge", "login", "largest-frame"] {
        diagnosis.assert(check, "ok", "");
    }
    diagnosis.assert("client-address", "ok", "depends on the HTTP proxy");
    diagnosis.assert_code(0);

    let diagnosis = doctor(&proxy.url("wrong"));
    diagnosis.assert("http-proxy", "failed", "another user or password");
    diagnosis.assert_code(2);
}

//! The listener on a Unix socket, where nobody else on the machine can pose as the proxy.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::harness::{Node, Program, write_directory};
use crate::peer::Peer;

/// `serve` on a Unix socket, everything else in `folder`.
fn serve(folder: &Path, socket: &Path, nodes: &[&Node]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    command.args(["serve", "--log-level", "debug", "--udp-bind", "127.0.0.1:0"]);
    command.args(["--admin-bind", "127.0.0.1:0", "--state-dir"]).arg(folder.join("state"));
    command.arg("--keys").arg(write_directory(folder, nodes));
    command.arg("--wss-bind").arg(format!("unix:{}", socket.display()));
    command
}

fn connect(socket: &Path) -> Peer {
    Peer::over(UnixStream::connect(socket).unwrap())
}

#[test]
fn spec_3_4_peers_log_in_and_talk_over_a_unix_socket() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("relay.sock");
    let (a, b) = (Node::new(11), Node::new(12));
    let relay = Program::start(&mut serve(folder.path(), &socket, &[&a, &b]));
    relay.wait_for_line("listening");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);

    let mut peers = [&a, &b].map(|node| {
        let mut peer = connect(&socket);
        assert_eq!(peer.ask_for_upgrade("X-Forwarded-For: 203.0.113.9\r\n"), 101);
        peer.authenticate(node, 2);
        peer
    });
    peers[0].relay(11, 12, b"over a file");
    assert_eq!(peers[1].delivery(), (11, b"over a file".to_vec()));
    // Whoever may open the socket is the proxy, so its word counts.
    relay.wait_for_line("remote_addr=203.0.113.9");
    assert!(!relay.log().contains("without X-Forwarded-For"));
}

#[test]
fn socket_file_that_a_crash_left_behind_is_replaced() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("relay.sock");
    drop(UnixListener::bind(&socket).unwrap());
    assert!(UnixStream::connect(&socket).is_err(), "nobody listens, and the file is there");
    let node = Node::new(11);
    let relay = Program::start(&mut serve(folder.path(), &socket, &[&node]));
    relay.wait_for_line("listening");
    let mut peer = connect(&socket);
    assert_eq!(peer.ask_for_upgrade(""), 101);
    peer.authenticate(&node, 2);
}

#[test]
fn socket_that_somebody_listens_on_is_left_alone_and_exits_69() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("relay.sock");
    let other = UnixListener::bind(&socket).unwrap();
    let output = serve(folder.path(), &socket, &[]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(69), "{said}");
    let line = said.lines().last().unwrap();
    assert!(line.contains("wss-bind") && line.contains(&*socket.to_string_lossy()), "{said}");
    drop(UnixStream::connect(&socket).unwrap());
    // First the relay's own look whether anybody listens, then ours.
    assert!(other.accept().is_ok() && other.accept().is_ok());
}

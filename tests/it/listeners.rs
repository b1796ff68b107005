//! Several listeners in one relay: peers of all reach each other, each listener has its own rules,
//! a reload takes over what it can of them, and a drain ends all.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::doctor::doctor;
use crate::harness::{Node, Program, Relay, write_directory};
use crate::peer::Peer;

/// What a page of this origin is told at a listener.
fn page(mut peer: Peer, origin: &str) -> u16 {
    peer.ask_for_upgrade(&format!("Origin: {origin}\r\n"))
}

/// The statuses of a page of the listed origin and of one of another.
fn pages(connect: impl Fn() -> Peer) -> [u16; 2] {
    ["https://app.test", "https://other.test"].map(|origin| page(connect(), origin))
}

fn over(socket: &Path) -> Peer {
    Peer::over(UnixStream::connect(socket).unwrap())
}

/// Logs in for a client that the proxy names.
fn log_in(mut peer: Peer, client: &str, node: &Node) -> Peer {
    assert_eq!(peer.ask_for_upgrade(&format!("X-Forwarded-For: {client}\r\n")), 101);
    peer.authenticate(node, 2);
    peer
}

#[test]
fn two_listeners_have_their_own_rules_over_a_reload_and_drain_together() {
    let folder = TempDir::new().unwrap();
    let (config, socket) = (folder.path().join("relay.toml"), folder.path().join("proxy.sock"));
    let write = |trusted: &str, origins: &str, more: &str| {
        let bind = format!("unix:{}", socket.display());
        let text = format!(
            "log_level = \"debug\"\ndrain_time = \"2s\"\ntrusted_proxy = []\n\
             [[listener]]\nname = \"proxy\"\nbind = \"{bind}\"\ndoors = [\"pilot\"]\n\
             trusted_proxies = {trusted}\nallow_origins = {origins}\n{more}"
        );
        fs::write(&config, text).unwrap();
    };
    write("[\"127.0.0.1\"]", "[\"https://app.test\"]", "");
    let nodes = [11, 12, 13].map(Node::new);
    let flags = ["--config", config.to_str().unwrap()];
    let mut relay = Relay::with_nodes(&nodes.each_ref(), &flags);
    let line = relay.wait_for_line("also listening");
    let bound = format!("listener=\"proxy\" bind=unix:{} doors=\"pilot\"", socket.display());
    assert!(line.contains(&bound), "{line}");

    // A proxy is believed where it is trusted, and pages get in where they are listed.
    let tcp = || Peer::connect(relay.wss);
    let mut direct = log_in(tcp(), "203.0.113.1", &nodes[0]);
    let line = relay.wait_for_line("node=11 remote_addr=");
    assert!(line.contains("remote_addr=127.0.0.1:"), "{line}");
    let mut behind = log_in(over(&socket), "203.0.113.2", &nodes[1]);
    relay.wait_for_line("node=12 remote_addr=203.0.113.2 ");
    assert_eq!(pages(tcp), [403, 403]);
    assert_eq!(pages(|| over(&socket)), [101, 403]);
    direct.relay(11, 12, b"over TCP");
    assert_eq!(behind.delivery(), (11, b"over TCP".to_vec()));
    assert_eq!(relay.metric("pilot_beacon_wss_active"), 2.0);
    assert_eq!(relay.metric("pilot_beacon_ready"), 1.0);

    // A reload changes what it may, and says of the rest that it waits.
    let second = "[[listener]]\nbind = \"[::1]:0\"\ndoors = [\"pilot\"]\n";
    write("[]", "\"*\"", second);
    relay.signal("HUP");
    let line = relay.wait_for_line("setting=\"listener[1].trusted_proxies\"");
    assert!(line.contains("a setting has changed") && line.contains("old=127.0.0.1 "), "{line}");
    let line = relay.wait_for_line("setting=\"listener[2].bind\"");
    assert!(line.contains("a changed setting needs a restart"), "{line}");
    assert!(relay.wait_for_line("reloaded").contains("applied=2 needs_restart=1"));
    assert_eq!(pages(tcp), [403, 403]);
    assert_eq!(pages(|| over(&socket)), [101, 101]);
    let _third = log_in(over(&socket), "203.0.113.3", &nodes[2]);
    relay.wait_for_line("node=13 remote_addr=127.0.0.1 ");
    behind.relay(12, 11, b"and back");
    assert_eq!(direct.delivery(), (12, b"and back".to_vec()));

    // A drain sends all away, and takes nobody anywhere.
    relay.signal("TERM");
    relay.wait_for_line("draining");
    assert_eq!([tcp(), over(&socket)].map(|mut peer| peer.ask_for_upgrade("")), [503, 503]);
    assert_eq!([&mut direct, &mut behind].map(|peer| peer.read_close().0), [1001, 1001]);
    assert_eq!(relay.wait_for_end(), 0);
    assert!(!socket.exists(), "the socket's file is left behind");
}

/// `serve` by this file alone, everything else in `folder`.
fn serve(folder: &Path, config: &str) -> Command {
    let path = folder.join("relay.toml");
    fs::write(&path, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    command.arg("serve").arg("--config").arg(path).arg("--state-dir").arg(folder.join("state"));
    command.args(["--udp-bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0", "--keys"]);
    command.arg(write_directory(folder, &[&Node::new(11)]));
    command
}

#[test]
fn table_with_the_pilot_door_takes_the_place_of_the_default_listener() {
    let folder = TempDir::new().unwrap();
    // Somebody has the default address, or could have.
    let _taken = TcpListener::bind("127.0.0.1:8443");
    let config = "[[listener]]\nbind = \"127.0.0.1:0\"\ndoors = [\"pilot\"]\n";
    let relay = Program::start(&mut serve(folder.path(), config));
    let line = relay.wait_for_line("listening");
    let wss = line.split_whitespace().find_map(|word| word.strip_prefix("wss=")).unwrap();
    let wss: SocketAddr = wss.parse().unwrap();
    drop(Peer::log_in(wss, &Node::new(11)));
    assert!(!relay.log().contains("also listening"), "{}", relay.log());
}

#[test]
fn address_that_somebody_has_is_named_by_its_table() {
    let folder = TempDir::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap();
    let config = format!(
        "[[listener]]\nbind = \"127.0.0.1:0\"\ndoors = [\"pilot\"]\n\
         [[listener]]\nbind = \"{taken}\"\ndoors = [\"pilot\"]\n"
    );
    let output = serve(folder.path(), &config).output().unwrap();
    drop(listener);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(69), "{said}");
    let line = said.lines().last().unwrap();
    assert!(line.contains(&format!("beacon-relay: listener[2].bind = \"{taken}\": ")), "{said}");
}

#[test]
fn doctor_asks_each_listener_of_the_settings() {
    let folder = TempDir::new().unwrap();
    let (config, socket) = (folder.path().join("relay.toml"), folder.path().join("lan.sock"));
    let write = |socket: &Path| {
        let bind = format!("unix:{}", socket.display());
        let text = format!(
            "[[listener]]\nname = \"lan\"\nbind = \"{bind}\"\ndoors = [\"pilot\"]\n\
             [[listener]]\nbind = \"127.0.0.1:0\"\ndoors = [\"pilot\"]\n"
        );
        fs::write(&config, text).unwrap();
    };
    write(&socket);
    let config = config.to_str().unwrap();
    let relay = Relay::start(["--config", config]);
    let admin = relay.admin.to_string();
    let arguments = ["--config", config, "--admin-bind", &admin];

    let diagnosis = doctor(arguments);
    diagnosis.assert("listener", "ok", &format!("lan at unix:{} answers", socket.display()));

    write(&folder.path().join("elsewhere.sock"));
    let diagnosis = doctor(arguments);
    diagnosis.assert("listener", "warning", "elsewhere.sock does not answer");
}

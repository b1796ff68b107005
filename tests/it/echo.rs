//! The door of examples/echo.rs, which stands in no room of the relay: all that the relay does
//! for its own doors it does for this one.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, client};

use crate::cells::assert_balance;
use crate::cluster::{arguments, free_udp_address, host, mesh_arguments, wait_for_members};
use crate::cluster::{wait_until, wait_until_claimed};
use crate::harness::{PATIENCE, Relay, write_directory};

/// The example's program, which `cargo test` builds beside the tests.
fn program() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_beacon-relay")).with_file_name("examples/echo");
    assert!(program.exists(), "build it first: cargo build --example echo");
    program
}

const SESSIONS: &str = "beacon_relay_sessions{door=\"echo\"}";

/// A relay with the door.
struct Echo {
    relay: Relay,
    address: SocketAddr,
    _folder: TempDir,
}

impl Echo {
    fn start(more: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("relay.toml");
        let listener = "[[listener]]\nbind = \"127.0.0.1:0\"\ndoors = [\"echo\"]\n";
        std::fs::write(&config, format!("log_level = \"debug\"\n{listener}")).unwrap();
        let config = ["--config".to_owned(), config.to_str().unwrap().to_owned()];
        let arguments = config.iter().chain(more);
        let relay = Relay::start_by(Command::new(program()), arguments);
        let line = relay.wait_for_line("also listening");
        let bind = line.split_whitespace().find_map(|word| word.strip_prefix("bind="));
        let address = bind.unwrap().parse().unwrap();
        Self { relay, address, _folder: folder }
    }

    /// What the program itself says as a command to the running relay.
    fn say(&self, words: &[&str]) -> String {
        let state_dir = self.relay.state_dir();
        let mut command = Command::new(program());
        let output = command.args(words).arg("--state-dir").arg(state_dir).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn ask(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.say(&[words, &["--json"]].concat())).unwrap()
    }

    fn log_in(&self, name: &str) -> Peer {
        let mut peer = Peer::connect(self.address);
        peer.send(&format!("{name} secret of {name}"));
        assert_eq!(peer.read(), "welcome");
        peer
    }
}

/// A client that knows nothing of the relay.
struct Peer(WebSocket<TcpStream>);

impl Peer {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(client(format!("ws://{address}/echo"), stream).unwrap().0)
    }

    fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).unwrap();
    }

    fn read(&mut self) -> String {
        loop {
            match self.0.read().unwrap() {
                Message::Text(text) => return text.as_str().to_owned(),
                Message::Ping(_) | Message::Pong(_) => {}
                other @ (Message::Binary(_) | Message::Close(_) | Message::Frame(_)) => {
                    panic!("{other:?}")
                }
            }
        }
    }

    /// The code that the relay closes with.
    fn close_code(&mut self) -> u16 {
        loop {
            match self.0.read() {
                Ok(Message::Close(Some(frame))) => return frame.code.into(),
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn clients_exchange_text_and_operators_see_their_door_everywhere() {
    let mut echo = Echo::start(&["--drain-time".to_owned(), "1s".to_owned()]);
    let mut alice = echo.log_in("alice");
    let mut bob = echo.log_in("bob");

    alice.send("bob hi, is that you?");
    assert_eq!(bob.read(), "alice hi, is that you?");
    bob.send("alice yes");
    assert_eq!(alice.read(), "bob yes");
    alice.send("alice note to self");
    assert_eq!(alice.read(), "alice note to self");

    // A name is its holder's, as long as it is connected.
    let mut thief = Peer::connect(echo.address);
    thief.send("alice another secret");
    assert_eq!(thief.close_code(), 1000);

    // What is no message of the door, or for nobody, is counted, and disturbs nobody.
    alice.send("nospace");
    alice.send("carol are you there?");
    alice.0.send(Message::binary(&b"bob not text"[..])).unwrap();
    alice.send("bob still there?");
    assert_eq!(bob.read(), "alice still there?");

    let metric = |name: &str| echo.relay.metric(name);
    assert_eq!(metric(SESSIONS), 2.0);
    assert_eq!(metric("beacon_relay_logins_total{door=\"echo\",outcome=\"auth_ok\"}"), 2.0);
    assert_eq!(metric("beacon_relay_logins_total{door=\"echo\",outcome=\"superseded\"}"), 1.0);
    assert_eq!(metric("beacon_relay_logins_total{door=\"pilot\",outcome=\"auth_ok\"}"), 0.0);
    assert_eq!(echo.relay.dropped("unknown_destination"), 1);
    assert_balance(&echo.relay);
    let no_message = "beacon_relay_packets_dropped_total{door=\"echo\",reason=\"no_message\"}";
    assert_eq!(metric(no_message), 2.0);

    let peers = echo.ask(&["peers"]);
    let listed: Vec<_> = peers["peers"].as_array().unwrap().iter().collect();
    // Shorter names go first.
    assert_eq!([&listed[0]["node"], &listed[1]["node"]], ["echo:bob", "echo:alice"]);
    assert_eq!((&listed[1]["door"], &listed[1]["over"]), (&"echo".into(), &"wss".into()));
    assert!(echo.say(&["peer", "echo:bob"]).contains("session    from 127.0.0.1:"));
    let explained = echo.ask(&["explain", "echo:alice"]);
    let drops = explained["drops"].as_array().unwrap();
    assert!(drops.iter().any(|drop| drop["dest"] == "echo:carol"), "{explained}");
    assert!(drops.iter().any(|drop| drop["reason"] == "no_message"), "{explained}");
    assert!(explained["events"].to_string().contains("\"door\":\"echo\""), "{explained}");

    echo.say(&["kick", "echo:bob"]);
    assert_eq!(bob.close_code(), 1008);
    echo.relay.wait_for_metric(SESSIONS, 1.0);

    echo.relay.signal("TERM");
    assert_eq!(alice.close_code(), 1001);
    assert_eq!(echo.relay.wait_for_end(), 0);
}

#[test]
fn rates_and_sizes_of_the_relay_hold_for_the_door_too() {
    let echo = Echo::start(&["--relay-rate".to_owned(), "5".to_owned()]);
    let mut alice = echo.log_in("alice");
    let mut bob = echo.log_in("bob");

    for number in 0..50 {
        alice.send(&format!("bob {number}"));
    }
    assert_eq!(bob.read(), "alice 0");
    wait_until("messages over the rate are dropped", || echo.relay.dropped("rate_limited") > 0);

    let send = alice.0.send(Message::text("bob ".to_owned() + &"x".repeat(5_000)));
    assert!(send.is_ok() || matches!(send, Err(Error::Io(_))));
    assert_eq!(alice.close_code(), 1009);
    echo.relay.wait_for_metric(
        "beacon_relay_sessions_ended_total{door=\"echo\",reason=\"violation\"}",
        1.0,
    );
}

#[test]
fn names_that_would_forge_lines_are_one_word_everywhere() {
    let echo = Echo::start(&[]);
    let mut forger = echo.log_in("a\u{1b}[2J\nERROR\tforged");
    let mut nobody = echo.log_in("");
    let shown = r"echo:a\u{1b}[2J\u{a}ERROR\u{9}forged";

    echo.relay.wait_for_line(&format!("peer connected node={shown} "));
    for words in [&["peers"][..], &["record"], &["explain", shown], &["peer", "echo:"]] {
        let said = echo.say(words);
        assert!(!said.contains(['\u{1b}', '\t']) && !said.contains("\nERROR"), "{said:?}");
    }
    let said = echo.say(&["explain", shown]);
    assert!(said.contains("session    from") && !said.contains("directory"), "{said}");
    nobody.send("a\u{1b}[2J\nERROR\tforged ");
    assert_eq!(forger.read(), " ");
    forger.send(" hi");
    assert_eq!(nobody.read(), "a\u{1b}[2J\nERROR\tforged hi");

    echo.say(&["kick", shown]);
    assert_eq!(forger.close_code(), 1008);
}

/// Two relays of one cluster.
fn pair() -> ([Echo; 2], TempDir) {
    let folder = tempfile::tempdir().unwrap();
    write_directory(folder.path(), &[]);
    let binds: Vec<_> = (0..2).map(|index| free_udp_address(&host(index))).collect();
    let pair = [0, 1].map(|index| {
        let mut words = arguments(folder.path(), &host(index), &[]);
        words.extend(mesh_arguments(folder.path(), &binds[index], &binds));
        Echo::start(&words)
    });
    pair.iter().for_each(|echo| wait_for_members(&echo.relay, 2));
    (pair, folder)
}

#[test]
fn clients_of_two_relays_exchange_text_and_a_peer_moves_between_them() {
    let ([here, there], _folder) = pair();
    let mut alice = here.log_in("alice");
    let mut bob = there.log_in("bob");
    [&here, &there].into_iter().for_each(|echo| wait_until_claimed(&echo.relay, 1));

    alice.send("bob across");
    assert_eq!(bob.read(), "alice across");
    bob.send("alice and back");
    assert_eq!(alice.read(), "bob and back");

    let found = here.ask(&["explain", "echo:bob"]);
    assert_eq!(found["place"], "cluster", "{found}");

    // bob comes to alice's relay: the session at the other ends, and he is found here.
    let mut moved = here.log_in("bob");
    assert_eq!(bob.close_code(), 1000);
    alice.send("bob welcome");
    assert_eq!(moved.read(), "alice welcome");
}

#[test]
fn wrong_secret_at_another_relay_evicts_nobody() {
    let ([here, there], _folder) = pair();
    let mut alice = here.log_in("alice");
    let mut bob = there.log_in("bob");
    [&here, &there].into_iter().for_each(|echo| wait_until_claimed(&echo.relay, 1));

    // Whom the homes do not let stay is served until they have said so.
    for _ in 0..5 {
        let mut thief = Peer::connect(there.address);
        thief.send("alice another secret");
        assert_eq!(thief.read(), "welcome");
        assert_eq!(thief.close_code(), 1000);
    }

    bob.send("alice still there?");
    assert_eq!(alice.read(), "bob still there?");
    assert_eq!(here.relay.metric(SESSIONS), 1.0);
    // Nor does it keep her from coming there herself.
    let mut moved = there.log_in("alice");
    assert_eq!(there.relay.metric("pilot_beacon_wss_delayed_total"), 0.0);
    assert_eq!(alice.close_code(), 1000);
    bob.send("alice welcome");
    assert_eq!(moved.read(), "bob welcome");
}

#[test]
fn sessions_that_replaced_each_other_at_two_relays_did_so_as_fast_as_they_dialled() {
    let ([here, there], _folder) = pair();
    // Of two logins within a millisecond, nobody can tell which is the newer.
    let log_in = |echo: &Echo| {
        let peer = echo.log_in("alice");
        wait_until_claimed(&echo.relay, 1);
        peer
    };
    let mut at_here = log_in(&here);
    for _ in 0..4 {
        let mut at_there = log_in(&there);
        assert_eq!(at_here.close_code(), 1000);
        at_here = log_in(&here);
        assert_eq!(at_there.close_code(), 1000);
    }

    let mut waits = Peer::connect(there.address);
    waits.send("alice secret of alice");

    // One before it may have waited as well, on a slow machine or a quick one.
    let delayed = || there.relay.metric("pilot_beacon_wss_delayed_total");
    wait_until("a login waits", || delayed() >= 1.0);
    assert_eq!(waits.read(), "welcome");
    assert_eq!(at_here.close_code(), 1000);
}

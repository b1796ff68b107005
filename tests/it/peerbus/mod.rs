//! The peerbus door: recorded conversations of the original broker, and what it did worse.

mod audit;
mod backup;
mod budget;
mod client;
mod cluster;
mod defects;
mod disk;
mod faults;
mod full;
mod gate;
mod hostile;
pub(crate) mod jetstream;
mod kills;
mod letters;
mod listeners;
mod moved;
mod operators;
mod recordings;
mod roam;
mod stranger;
mod traffic;
mod withdrawn;

use std::collections::VecDeque;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::Relay;
use crate::peer::{Frame, Peer};

/// The tokens of the recordings.
const TOKENS: &str = "tok\ntok-B\n";

/// The request that opens a connection, at any path.
const UPGRADE: &str = "GET /any/path HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A relay with the door.
pub(crate) struct Site {
    pub(crate) relay: Relay,
    pub(crate) address: SocketAddr,
    /// What outlives the relay.
    state: Arc<TempDir>,
    /// The files that its settings name.
    pub(crate) folder: TempDir,
}

impl Site {
    pub(crate) fn start(more: &[&str]) -> Self {
        Self::with_tokens(TOKENS, more)
    }

    /// Has a message wait for a peer that is not there.
    pub(crate) fn leave_one(&self) {
        drop(self.register("away"));
        let (mut sender, _) = self.register("sender");
        sender.say(&envelope("m1", "sender", "away", "hello"));
        sender.settle();
    }

    /// Has a peer send itself messages, and acknowledge them, until it is told to stop.
    pub(crate) fn carry(&self, stop: &AtomicBool, pace: Duration) {
        let (mut peer, _) = self.register("itself");
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            peer.say(&envelope(&number.to_string(), "itself", "itself", "hello"));
            let (key, _) = peer.delivery();
            peer.acknowledge(&key);
            std::thread::sleep(pace);
        }
    }

    fn with_tokens(tokens: &str, more: &[&str]) -> Self {
        let (state, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let state = Arc::new(state);
        write_secret(&folder.path().join("tokens"), tokens);
        let relay = start(&state, folder.path(), more);
        Self { address: relay.wss, relay, state, folder }
    }

    /// Ends the relay by this signal, and starts another in its place.
    fn restart(&mut self, signal: &str, more: &[&str]) {
        self.relay.signal(signal);
        self.start_again(more);
    }

    /// Waits for the end of the relay, and starts another in its place.
    fn start_again(&mut self, more: &[&str]) {
        self.relay.wait_until_gone();
        self.relay = start(&self.state, self.folder.path(), more);
        self.address = self.relay.wss;
    }

    /// Waits for the end of the relay, and starts another at its address.
    pub(crate) fn start_again_here(&mut self) {
        self.relay.wait_until_gone();
        let bind = format!("--peerbus-bind={}", self.address);
        let tokens = self.folder.path().join("tokens");
        let flags = [&bind, "--peerbus-tokens-file", tokens.to_str().unwrap()];
        let command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
        self.relay = Relay::start_in(Arc::clone(&self.state), command, flags);
    }

    /// A peer that has registered; the names that it was told first.
    fn register(&self, name: &str) -> (Adapter, Vec<String>) {
        self.register_with("tok", name)
    }

    fn register_with(&self, token: &str, name: &str) -> (Adapter, Vec<String>) {
        let mut adapter = Adapter::connect(self.address);
        adapter.say(&register(token, name));
        let names = adapter.names();
        (adapter, names)
    }

    /// A peer that gets receipts.
    fn register_for_receipts(&self, name: &str) -> Adapter {
        let mut adapter = Adapter::connect(self.address);
        let mut first = register("tok", name);
        first["receipts"] = true.into();
        adapter.say(&first);
        adapter.names();
        adapter
    }

    /// The close that a registration ends with.
    fn refused(&self, token: &str, name: &str) -> (u16, String) {
        let mut adapter = Adapter::connect(self.address);
        adapter.say(&register(token, name));
        adapter.peer.read_close()
    }

    /// Waits until so many messages of the door were dropped for a reason.
    fn wait_for_dropped(&self, reason: &str, count: usize) {
        #[allow(clippy::cast_precision_loss)] // a few
        let count = count as f64;
        let drops = "beacon_relay_packets_dropped_total";
        self.relay
            .wait_for_metric(&format!("{drops}{{door=\"peerbus\",reason=\"{reason}\"}}"), count);
    }
}

/// Writes a file that is its owner's alone.
pub(crate) fn write_secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn start(state: &Arc<TempDir>, folder: &Path, more: &[&str]) -> Relay {
    start_by(Command::new(env!("CARGO_BIN_EXE_beacon-relay")), state, folder, more)
}

/// Starts a relay by this command, which becomes the relay with the arguments added.
fn start_by(command: Command, state: &Arc<TempDir>, folder: &Path, more: &[&str]) -> Relay {
    let tokens = folder.join("tokens");
    let flags = [
        "--peerbus-bind",
        "127.0.0.1:0",
        "--peerbus-tokens-file",
        tokens.to_str().unwrap(),
        "--upgrade-rate=0",
        "--drain-time=0s",
    ];
    Relay::start_in(Arc::clone(state), command, [&flags[..], more].concat())
}

/// A client of the door, frame by frame.
struct Adapter {
    peer: Peer,
    /// What came before what was waited for.
    waiting: VecDeque<Frame>,
}

impl Adapter {
    fn connect(address: SocketAddr) -> Self {
        let mut peer = Peer::connect(address);
        let (status, head) = peer.ask(UPGRADE);
        assert_eq!(status, 101, "{head}");
        Self::of(peer)
    }

    const fn of(peer: Peer) -> Self {
        Self { peer, waiting: VecDeque::new() }
    }

    fn say(&mut self, message: &Value) {
        self.peer.send(1, message.to_string().as_bytes());
    }

    /// The next frame; none at the end of the connection.
    fn read(&mut self) -> Option<Frame> {
        loop {
            let frame = self.waiting.pop_front().or_else(|| self.peer.read());
            match frame {
                // A sign of life.
                Some((9, payload)) => self.peer.send(10, &payload),
                other => return other,
            }
        }
    }

    /// The next message.
    fn message(&mut self) -> Value {
        let (opcode, text) = self.read().expect("a message comes");
        assert_eq!(opcode, 1, "{}", String::from_utf8_lossy(&text));
        serde_json::from_slice(&text).unwrap()
    }

    /// Who is connected, from the next message.
    fn names(&mut self) -> Vec<String> {
        let message = self.message();
        assert_eq!(message["type"], "peers", "{message}");
        serde_json::from_value(message["names"].clone()).unwrap()
    }

    /// Waits until all that was said before is at the bus: what comes meanwhile is read later.
    fn settle(&mut self) {
        self.say(&json!({"type": "peers"}));
        let mut before = std::mem::take(&mut self.waiting);
        loop {
            let frame = self.peer.read().expect("an answer comes");
            if frame.1.starts_with(br#"{"protocol_version":"v1","type":"peers""#) {
                break;
            }
            before.push_back(frame);
        }
        self.waiting = before;
    }

    /// The key and the body of the next delivery.
    fn delivery(&mut self) -> (String, Value) {
        let message = self.message();
        assert_eq!(message["type"], "deliver", "{message}");
        let key = message["delivery_key"].as_str().unwrap().to_owned();
        (key, message["envelope"]["body"].clone())
    }

    fn acknowledge(&mut self, key: &str) {
        self.say(&json!({"type": "ack", "id": key}));
    }

    /// Leaves by itself, whatever else is on its way.
    fn leave(mut self) {
        self.peer.send(8, &1000_u16.to_be_bytes());
        while self.read().is_some_and(|(opcode, _)| opcode != 8) {}
    }

    /// Whether nothing comes for a while.
    fn is_silent(&mut self) -> bool {
        self.waiting.is_empty() && self.peer.is_silent(Duration::from_millis(200))
    }
}

fn register(token: &str, name: &str) -> Value {
    json!({"protocol_version": "v1", "type": "register", "token": token, "name": name})
}

/// A message of one peer to another.
fn envelope(id: &str, from: &str, to: &str, body: impl Into<Value>) -> Value {
    let kind = if to == "*" { "broadcast" } else { "msg" };
    json!({
        "protocol_version": "v1", "id": id, "from": from, "to": to, "ts": "t", "source": "test",
        "kind": kind, "body": body.into(), "hmac": "",
    })
}

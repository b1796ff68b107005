//! The middleman door: recorded conversations of the original broker, and what it did worse.

mod client;
mod cluster;
mod hostile;
mod operators;
mod order;
mod recordings;
mod requests;
mod sessions;
mod slow;
mod stranger;

use std::collections::VecDeque;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::Relay;
use crate::peer::{Frame, Peer};

/// The keys of the recordings.
const SERVICE: &str = "xyzzy";
const CLIENT: &str = "plugh";

/// A relay with the door.
pub(crate) struct Site {
    pub(crate) relay: Relay,
    address: SocketAddr,
    /// What outlives the relay.
    state: Arc<TempDir>,
    /// The files that its settings name.
    folder: TempDir,
}

impl Site {
    pub(crate) fn start(more: &[&str]) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_beacon-relay")), more)
    }

    /// Starts it by this command, to which the arguments are added.
    fn start_by(command: Command, more: &[&str]) -> Self {
        let (state, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let state = Arc::new(state);
        write_secret(&folder.path().join("services"), SERVICE);
        write_secret(&folder.path().join("clients"), CLIENT);
        let relay = start(&state, folder.path(), command, more);
        Self { address: relay.wss, relay, state, folder }
    }

    /// Waits for the end of the relay, and starts another in its place.
    fn start_again(&mut self) {
        self.relay.wait_until_gone();
        let command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
        self.relay = start(&self.state, self.folder.path(), command, &[]);
        self.address = self.relay.wss;
    }

    /// Waits for the end of the relay, and starts another at its address.
    fn start_again_here(&mut self) {
        self.relay.wait_until_gone();
        let bind = format!("--middleman-bind={}", self.address);
        let services = self.folder.path().join("services");
        let flags = [&bind, "--middleman-service-keys-file", services.to_str().unwrap()];
        let command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
        self.relay = Relay::start_in(Arc::clone(&self.state), command, flags);
    }

    /// Services and clients that have published, asked, answered and tried what they may not; one
    /// request waits as long as what is returned is kept.
    pub(crate) fn converse(&self) -> impl Sized {
        let mut service = self.service();
        service.tell(&["EPUB Chat", "ESUB Chat", "EREQ Svc"]);
        let mut client = self.client();
        client.tell(&["SUB Chat", "PUB Chat", "REQ Secret"]);
        client.say("REQ Svc\r\nrid: 1\r\n\r\n.\r\n");
        let asked = service.message();
        let rid = asked.header("Rid").unwrap();
        service.say(&format!("RES Svc\r\nrid: {rid}\r\n\r\n.\r\n"));
        while client.message().top != "RES Svc" {}
        client.tell(&["REQ Svc"]);
        [service, client]
    }

    fn service(&self) -> Speaker {
        Speaker::log_in(self.address, SERVICE)
    }

    fn client(&self) -> Speaker {
        Speaker::log_in(self.address, CLIENT)
    }

    /// Waits until so many messages of the door were dropped for a reason.
    fn wait_for_dropped(&self, reason: &str, count: f64) {
        let drops = "beacon_relay_packets_dropped_total";
        self.relay
            .wait_for_metric(&format!("{drops}{{door=\"middleman\",reason=\"{reason}\"}}"), count);
    }
}

/// Writes a file that is its owner's alone.
fn write_secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn start(state: &Arc<TempDir>, folder: &Path, command: Command, more: &[&str]) -> Relay {
    let of = |file: &str| folder.join(file).to_str().unwrap().to_owned();
    let (services, clients) = (of("services"), of("clients"));
    let flags = [
        "--middleman-bind",
        "127.0.0.1:0",
        "--middleman-service-keys-file",
        &services,
        "--middleman-client-keys-file",
        &clients,
        "--upgrade-rate=0",
        "--drain-time=0s",
    ];
    Relay::start_in(Arc::clone(state), command, [&flags[..], more].concat())
}

/// A client or a service, frame by frame.
struct Speaker {
    peer: Peer,
    guid: String,
    /// What came before what was waited for.
    waiting: VecDeque<String>,
}

impl Speaker {
    fn connect(address: SocketAddr) -> Self {
        let mut speaker = Self::connecting(address);
        speaker.upgrade();
        speaker
    }

    /// Has a connection, over which nothing was said.
    fn connecting(address: SocketAddr) -> Self {
        Self::of(Peer::connect(address))
    }

    fn upgrade(&mut self) {
        let (status, head) = self.peer.ask(
            "GET /any/path HTTP/1.1\r\nHost: relay\r\nOrigin: http://page.test\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        assert_eq!(status, 101, "{head}");
    }

    const fn of(peer: Peer) -> Self {
        Self { peer, guid: String::new(), waiting: VecDeque::new() }
    }

    fn log_in(address: SocketAddr, key: &str) -> Self {
        let mut speaker = Self::connect(address);
        speaker.say(key);
        assert_eq!(speaker.text(), "MM OK");
        speaker.guid = speaker.text();
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'v');
        assert!(speaker.guid.len() == 20 && speaker.guid.bytes().all(is_digit), "{}", speaker.guid);
        speaker
    }

    fn say(&mut self, text: &str) {
        self.peer.send(1, text.as_bytes());
    }

    /// Says messages without headers and without a body, one after the other.
    fn tell(&mut self, tops: &[&str]) {
        for top in tops {
            self.say(&format!("{top}\r\n\r\n.\r\n"));
        }
        self.settle();
    }

    /// Waits until the relay has taken all that was said: what comes meanwhile is read later.
    fn settle(&mut self) {
        // A ping is answered before messages of the same read, and behind those of the one before.
        for _ in 0..2 {
            self.peer.send(9, b"settle");
            loop {
                match self.read() {
                    Some((1, text)) => self.waiting.push_back(String::from_utf8(text).unwrap()),
                    Some((10, of)) if of == b"settle" => break,
                    other => panic!("{other:?} instead of a pong"),
                }
            }
        }
    }

    /// What has come, once the relay has taken all that was said.
    fn settled(&mut self) -> Vec<Heard> {
        self.settle();
        self.waiting.drain(..).map(|text| Heard::parse(&text)).collect()
    }

    /// The next frame; none at the end of the connection.
    fn read(&mut self) -> Option<Frame> {
        loop {
            match self.peer.read() {
                // A sign of life.
                Some((9, payload)) => self.peer.send(10, &payload),
                other => return other,
            }
        }
    }

    /// The next text.
    fn text(&mut self) -> String {
        if let Some(text) = self.waiting.pop_front() {
            return text;
        }
        let frame = self.read();
        let Some((1, text)) = frame else { panic!("{frame:?} instead of a text") };
        String::from_utf8(text).unwrap()
    }

    /// The next message.
    fn message(&mut self) -> Heard {
        Heard::parse(&self.text())
    }

    /// The text of the next message, which tells of an error.
    fn error(&mut self) -> String {
        let heard = self.message();
        assert_eq!(heard.top, "PUB ERROR", "{heard:?}");
        assert_eq!(heard.headers, [], "{heard:?}");
        heard.body
    }

    /// Whether nothing comes for a while.
    fn is_silent(&mut self) -> bool {
        self.waiting.is_empty() && self.peer.is_silent(Duration::from_millis(200))
    }
}

/// A message as it came.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Heard {
    top: String,
    /// In the order of their names: that of the original's is random.
    headers: Vec<(String, String)>,
    body: String,
}

impl Heard {
    fn parse(text: &str) -> Self {
        let (head, rest) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
        // An empty body has no line of its own.
        let body = rest.strip_suffix("\r\n.\r\n").unwrap_or_else(|| panic!("{text:?}"));
        let mut lines = head.split("\r\n");
        let top = lines.next().unwrap().to_owned();
        let mut headers: Vec<_> = lines
            .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("{text:?}")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        headers.sort();
        Self { top, headers, body: body.to_owned() }
    }

    /// The value of a header, spelled like this.
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(of, _)| of == name).map(|(_, value)| &**value)
    }
}

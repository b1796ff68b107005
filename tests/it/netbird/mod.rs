//! The NetBird door: recorded conversations of real servers, and clients that come and go.

mod client;
mod cluster;
mod doctor;
mod flags;
mod health;
mod hostile;
mod meters;
mod quic;
mod recordings;
mod sessions;
mod stranger;
mod stuck;
mod takeover;

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::harness::Relay;
use crate::peer::{Frame, Peer};
use crate::tls::certificates;

/// What recorded servers were started with.
const SECRET: &str = "s3cret";
const EXPOSED: &str = "rel://127.0.0.1:33080";

/// A relay whose listeners have the door.
struct Site {
    relay: Relay,
    /// Where the door is, over WebSocket without TLS.
    address: SocketAddr,
    /// Where it is over QUIC, if it is.
    quic: Option<SocketAddr>,
    folder: TempDir,
}

impl Site {
    /// With one listener, without TLS.
    fn start(more: &[&str]) -> Self {
        Self::exposed_as(EXPOSED, more)
    }

    /// One whose clients are told this.
    fn exposed_as(exposed: &str, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::of(program(), folder, "127.0.0.1:0", "", exposed, more)
    }

    /// With another listener, which has TLS and so QUIC as well.
    fn with_tls(more: &[&str]) -> Self {
        Self::with_tls_by(program(), certificates(), "127.0.0.1:0", more)
    }

    /// The same, run by this command at this address, with the certificate in the folder.
    fn with_tls_by(command: Command, folder: TempDir, bind: &str, more: &[&str]) -> Self {
        let at = |file: &str| folder.path().join(file).to_str().unwrap().to_owned();
        let tls =
            format!("tls = [{{ cert = \"{}\", key = \"{}\" }}]", at("cert.pem"), at("key.pem"));
        let listener = listener("nbs", bind, &tls);
        Self::of(command, folder, bind, &listener, EXPOSED, more)
    }

    fn of(
        command: Command,
        folder: TempDir,
        bind: &str,
        table: &str,
        exposed: &str,
        more: &[&str],
    ) -> Self {
        let (config, secrets) = (folder.path().join("relay.toml"), folder.path().join("secrets"));
        fs::write(&secrets, format!("older secret\n\n{SECRET}\n")).unwrap();
        let plain = listener("nb", bind, "public_plaintext = true");
        fs::write(&config, format!("log_level = \"debug\"\n{plain}{table}")).unwrap();
        let flags = ["--config", config.to_str().unwrap(), "--netbird-exposed-address", exposed];
        let secrets = ["--netbird-auth-secret-file", secrets.to_str().unwrap()];
        let relay = Relay::start_by(command, [&flags[..], &secrets, more].concat());
        let address = address_of(&relay.wait_for_line("listener=\"nb\""), "bind=");
        let quic = (!table.is_empty())
            .then(|| address_of(&relay.wait_for_line("listener=\"nbs\""), "quic="));
        Self { relay, address, quic, folder }
    }

    /// A client that has logged in.
    fn log_in(&self, who: &str) -> Peer {
        let mut peer = connect(self.address);
        peer.send(2, &auth(id(who), &token(SECRET, unix_now() + 3_600)));
        assert_eq!(peer.read(), Some((2, [b"\x01\x07", EXPOSED.as_bytes()].concat())));
        peer
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_beacon-relay"))
}

/// The table of a listener with the door.
fn listener(name: &str, bind: &str, more: &str) -> String {
    let doors = "doors = [\"netbird\"]";
    format!("[[listener]]\nname = \"{name}\"\nbind = \"{bind}\"\n{doors}\n{more}\n")
}

/// The address behind a key in a line of the log.
fn address_of(line: &str, key: &str) -> SocketAddr {
    line.split_once(key).unwrap().1.split(' ').next().unwrap().parse().unwrap()
}

/// A connection that is a WebSocket.
fn connect(address: SocketAddr) -> Peer {
    connect_with(address, "")
}

/// The same, whose request has these headers as well.
fn connect_with(address: SocketAddr, headers: &str) -> Peer {
    let mut peer = Peer::connect(address);
    let (status, _) = peer.ask(&format!(
        "GET /relay HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         {headers}\r\n",
    ));
    assert_eq!(status, 101);
    peer
}

/// The id of a peer of this name.
fn id(who: &str) -> [u8; 36] {
    [&b"sha-"[..], &Sha256::digest(who)].concat().try_into().unwrap()
}

/// The Base64 of the hash of a name.
fn shown(who: &str) -> String {
    STANDARD.encode(&id(who)[4..])
}

/// A token that is good until then, in Unix seconds.
fn token(secret: &str, expiry: u64) -> Vec<u8> {
    let text = expiry.to_string();
    let mac = Hmac::<Sha256>::new_from_slice(&Sha256::digest(secret)).unwrap();
    let code = mac.chain_update(&text).finalize().into_bytes();
    [&[1][..], &code, text.as_bytes()].concat()
}

fn auth(id: [u8; 36], token: &[u8]) -> Vec<u8> {
    [b"\x01\x06\x21\x12\xa4\x42", &id[..], token].concat()
}

/// A message of this type about a peer.
fn message(kind: u8, who: &str, more: &[u8]) -> Vec<u8> {
    [&[1, kind][..], &id(who), more].concat()
}

/// The message as a frame comes.
fn frame(kind: u8, who: &str, more: &[u8]) -> Option<Frame> {
    Some((2, message(kind, who, more)))
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

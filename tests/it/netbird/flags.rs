//! A relay for clients of NetBird alone, by flags and nothing else.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{SECRET, auth, connect, frame, id, message, token, unix_now};
use crate::deploy::nginx::write_certificates;
use crate::harness::{Relay, http_get};
use crate::over::Tunnel;

const EXPOSED: &str = "rels://relay.test:443";

/// The flags of a relay in this folder, without where it listens.
pub(super) fn flags(folder: &Path) -> Vec<String> {
    let secrets = folder.join("secrets");
    fs::write(&secrets, SECRET).unwrap();
    let flags = ["--netbird-exposed-address", EXPOSED, "--netbird-auth-secret-file"];
    let flags = flags.into_iter().map(str::to_owned);
    flags.chain([secrets.to_str().unwrap().to_owned()]).collect()
}

#[test]
fn one_command_is_a_relay_over_tls_with_no_listener_for_nodes() {
    let folder = TempDir::new().unwrap();
    let home = TempDir::new().unwrap();
    write_certificates(folder.path(), &["127.0.0.1".to_owned()], 90);
    let pair = ["cert.pem", "key.pem"].map(|name| folder.path().join(name).display().to_string());
    let [cert, key] = &pair;
    let mut all = flags(home.path());
    let more =
        ["--netbird-bind", "127.0.0.1:0", "--netbird-tls-cert", cert, "--netbird-tls-key", key];
    all.extend(more.map(str::to_owned));
    let relay = Relay::start(&all);
    assert!(!relay.log().contains("also listening"), "{}", relay.log());
    let tunnel = Tunnel::start(relay.wss, folder);

    let mut peers = ["alice", "bob"].map(|who| {
        let mut peer = connect(tunnel.address);
        peer.send(2, &auth(id(who), &token(SECRET, unix_now() + 60)));
        assert_eq!(peer.read(), Some((2, [b"\x01\x07", EXPOSED.as_bytes()].concat())));
        peer
    });
    let [alice, bob] = &mut peers;
    alice.send(2, &message(3, "bob", &[7; 1_312]));
    assert_eq!(bob.read(), frame(3, "alice", &[7; 1_312]));

    let (status, body) = http_get(relay.admin, "/readyz");
    assert_eq!(status, 200, "{body}");
    // Nobody speaks Pilot there.
    let mut node = crate::peer::Peer::connect(tunnel.address);
    let (status, _) = node.ask("GET /v1/compat HTTP/1.1\r\nHost: relay\r\n\r\n");
    assert_eq!(status, 404);
}

#[test]
fn address_that_others_reach_is_refused_without_tls() {
    let folder = TempDir::new().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_beacon-relay"))
        .args(["serve", "--netbird-bind", ":0", "--state-dir"])
        .arg(folder.path())
        .args(flags(folder.path()))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("--netbird-bind = \":0\": it is open to others"), "{said}");
}

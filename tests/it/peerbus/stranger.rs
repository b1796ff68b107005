//! Runs tests/stranger/peerbus.py, which was written from a description of the wire alone.

use std::process::Command;

use super::{Site, write_secret};
use crate::cells::assert_balance;
use crate::deploy::root;

const SECRET: &str = "peerbus-test-peerbus-test-peerbu";

/// What the stranger says of each step.
const STEPS: [&str; 9] = [
    "vectors hold",
    "refused with the reason",
    "registered",
    "delivered and verified",
    "bad frames are survived",
    "queued while away, in order, once",
    "broadcast to who is connected",
    "taken over by its owner alone",
    "left",
];

fn interoperates(site: &Site) {
    let output = Command::new("python3")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(root("tests/stranger/peerbus.py"))
        .args([site.address.ip().to_string(), site.address.port().to_string()])
        .args(["tok", "tok-B", SECRET])
        .output()
        .expect("python3 is missing; `make setup` installs it");
    let said = String::from_utf8(output.stdout).unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}{complaint}{}", site.relay.log());
    assert_eq!(said.lines().collect::<Vec<_>>(), STEPS);
    assert_balance(&site.relay);
}

#[test]
fn stranger_interoperates() {
    interoperates(&Site::start(&[]));
}

#[test]
fn stranger_signs_as_the_relay_wants_it() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    write_secret(&secret, SECRET);
    interoperates(&Site::start(&["--peerbus-hmac-secret-file", secret.to_str().unwrap()]));
}

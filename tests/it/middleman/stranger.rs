//! Runs tests/stranger/middleman.py, which was written from a description of the wire alone.

use std::process::Command;

use super::{CLIENT, SERVICE, Site};
use crate::cells::assert_balance;
use crate::deploy::root;

/// What the stranger says of each step.
const STEPS: [&str; 8] = [
    "refused without a key",
    "let in by either key",
    "denied until a service allows it",
    "published with who it is from",
    "asked, and answered by who was asked",
    "requests are shared alike",
    "a request fails with its responder",
    "left",
];

#[test]
fn stranger_interoperates() {
    let site = Site::start(&[]);
    let output = Command::new("python3")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(root("tests/stranger/middleman.py"))
        .args([site.address.ip().to_string(), site.address.port().to_string()])
        .args([SERVICE, CLIENT])
        .output()
        .expect("python3 is missing; `make setup` installs it");
    let said = String::from_utf8(output.stdout).unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}{complaint}{}", site.relay.log());
    assert_eq!(said.lines().collect::<Vec<_>>(), STEPS);
    assert_balance(&site.relay);
}

//! Runs tests/stranger/middleman.py, and middleman.js in a browser: both were written from a
//! description of the wire alone.

use std::fs;
use std::process::Command;

use super::{CLIENT, SERVICE, Site};
use crate::cells::assert_balance;
use crate::deploy::root;
use crate::page::browser::Browser;

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

/// What the stranger in a browser says of each step.
const STEPS_IN_A_BROWSER: &str = "let in, each with a name of its own; \
     denied until a service allows it; published in order; published 900,000 characters; \
     asked, and answered by ReqID; a request fails with its responder; left";

#[test]
fn stranger_in_a_browser_interoperates() {
    let site = Site::start(&[]);
    let mut browser = Browser::start();
    let script = fs::read_to_string(root("tests/stranger/middleman.js")).unwrap();
    browser.value(&format!("{script}; 0"));

    browser.value(&format!("run('ws://{}', '{SERVICE}', '{CLIENT}'); 0", site.address));

    let ended = "stranger.failure !== null || stranger.steps.at(-1) === 'left'";
    browser.wait_for(ended);
    let failure = browser.value("stranger.failure");
    assert!(
        failure.is_null(),
        "{failure}: {}\n{}",
        browser.value("stranger.steps"),
        site.relay.log()
    );
    assert_eq!(browser.value("stranger.steps.join('; ')"), STEPS_IN_A_BROWSER);
    assert_balance(&site.relay);
}

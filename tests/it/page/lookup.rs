//! What the page says of one peer, of each door, and of what has happened.

use std::fs;

use tempfile::TempDir;

use super::browser::Browser;
use super::traffic::WSS;
use super::{LIVE, nodes};
use crate::control::ask;
use crate::harness::Relay;
use crate::peer::{Peer, frame};

const TOKEN: &str = "a token that only a test may have";

/// A relay that takes actions over HTTP, and the folder of its token.
fn relay_with_a_token() -> (Relay, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, TOKEN).unwrap();
    let relay = super::start(&["--admin-token-file", path.to_str().unwrap()]);
    (relay, folder)
}

fn open(relay: &Relay) -> Browser {
    let mut browser = Browser::start();
    browser.resize(1_280, 900, false);
    browser.open(&format!("http://{}/", relay.admin));
    browser.wait_for(LIVE);
    browser
}

/// Has the page show the text of an element.
fn wait_for_text(browser: &mut Browser, id: &str, part: &str) {
    browser.wait_for(&format!("document.getElementById('{id}').textContent.includes('{part}')"));
}

/// Types into a field.
fn write(browser: &mut Browser, id: &str, text: &str) {
    browser.value(&format!("document.getElementById('{id}').value = '{text}'; 0"));
}

#[test]
fn page_looks_a_peer_up_for_who_has_the_token() {
    let (relay, _folder) = relay_with_a_token();
    let node = &nodes()[0];
    let mut peer = Peer::log_in(relay.wss, node);
    peer.relay(WSS[0], 99, b"nobody has this id");
    relay.wait_for_dropped("unknown_destination", 1);
    let mut browser = open(&relay);

    // As a click on its name in a table does.
    browser.value(&format!("location.hash = 'peers/{}'; 0", WSS[0]));
    browser.wait_for(&format!("document.getElementById('peer').value === '{}'", WSS[0]));
    write(&mut browser, "token", "another");
    browser.value("document.getElementById('lookup').requestSubmit(); 0");
    wait_for_text(&mut browser, "peer_error", "that is not the token");
    assert_eq!(browser.value("document.getElementById('found').hidden"), true);

    write(&mut browser, "token", TOKEN);
    browser.value("document.getElementById('lookup').requestSubmit(); 0");
    wait_for_text(&mut browser, "found_path", "wss: over its WebSocket session, from 127.0.0.1:");
    wait_for_text(&mut browser, "found_facts", "session: waiting bytes");
    wait_for_text(&mut browser, "found_drops", "unknown_destination");
    wait_for_text(&mut browser, "found_events", "logged in");
    assert_eq!(browser.value("document.getElementById('peer_error').hidden"), true);

    // With the token, a name is enough.
    browser.value("location.hash = 'peers/99'; 0");
    wait_for_text(&mut browser, "found_path", "nowhere: ");
    // An address that somebody has broken is a name as well, of nobody.
    browser.value("location.hash = 'peers/%E0%A4%A'; 0");
    wait_for_text(&mut browser, "peer_error", "node");
    let refused = |complaint: &String| complaint.contains("401") || complaint.contains("400");
    assert!(browser.complaints().iter().all(refused));
    // It is nowhere but in the field.
    let stored = browser.value("JSON.stringify({ ...localStorage, ...sessionStorage }) + location");
    assert!(!stored.as_str().unwrap().contains(TOKEN), "{stored}");
}

#[test]
fn page_shows_one_row_for_each_login_and_events_by_area() {
    let (relay, _folder) = relay_with_a_token();
    let node = &nodes()[0];
    let _peer = Peer::log_in(relay.wss, node);
    let mut stranger = Peer::upgrade(relay.wss);
    stranger.challenge();
    stranger.write(&frame(0x81, b"{}"));
    relay.wait_for_metric("beacon_relay_logins_total{door=\"pilot\",outcome=\"auth_fail\"}", 1.0);
    ask(&relay, &["switch", "relay", "off"]);
    let mut browser = open(&relay);
    browser.value("location.hash = 'events'; 0");

    let rows = "[...document.querySelectorAll('#all_events tbody tr')].map((row) => \
                [...row.cells].slice(1).map((cell) => cell.textContent).join()).join(';')";
    let action = "operators,action,,relay off";
    let logins = "connections,refused,pilot,malformed;connections,logged in,11,";
    browser.wait_for(&format!("{rows} === '{action};{logins}'"));
    let choose = |area: &str| {
        format!(
            "(() => {{ const area = document.getElementById('area'); area.value = '{area}'; \
             area.dispatchEvent(new Event('change')); }})()"
        )
    };
    browser.value(&choose("operators"));
    browser.wait_for(&format!("{rows} === '{action}'"));
    browser.value(&choose("connections"));
    browser.wait_for(&format!("{rows} === '{logins}'"));

    // The door has its logins as well, by how they ended.
    browser.value("location.hash = 'doors'; 0");
    let outcomes = "[...document.querySelectorAll('#door_pilot .chart')][1]\
                    .querySelector('tbody').innerText";
    browser
        .wait_for(&format!("{outcomes}.includes('auth_ok') && {outcomes}.includes('auth_fail')"));
    assert_eq!(browser.complaints(), [] as [String; 0]);
}

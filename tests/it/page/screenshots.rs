//! Makes the pictures in docs/page: `make screenshots`.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::LIVE;
use super::browser::Browser;
use super::layout::SCREENS;
use super::nodes;
use super::traffic::Traffic;
use crate::cluster::{Cluster, Fabric, wait_for_members};
use crate::harness::{Node, Relay};
use crate::peer::{Peer, UdpNode, frame};

/// The peers answer no pings, and one of them reads nothing.
const PATIENT: [&str; 6] =
    ["--write-timeout", "1h", "--ping-interval", "0s", "--idle-timeout", "1h"];

/// As long as the charts show.
const TIME: Duration = Duration::from_secs(305);

#[test]
#[ignore = "takes five minutes; make screenshots"]
fn screenshots_of_the_page_under_traffic() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/page");
    fs::create_dir_all(&folder).unwrap();
    let (stuck, far) = (Node::new(31), Node::new(41));
    let mut all = nodes();
    all.extend([stuck.clone(), far.clone()]);
    let known: Vec<_> = all.iter().collect();
    let mut cluster = Cluster::of_three(Fabric::Mesh, &known, &PATIENT);
    let relay = &cluster.relays[0];
    let far_peer = Peer::log_in(cluster.relays[1].wss, &far);
    // Nobody watches: the page draws what the relay has kept.
    let traffic = Traffic::start(relay, 12, true);
    let stuck_peer = Peer::log_in(relay.wss, &stuck);
    let sender = UdpNode::register(relay.udp, 23);
    let began = Instant::now();
    let mut minute = 0;
    while began.elapsed() < TIME {
        thread::sleep(Duration::from_millis(50));
        // Some packets for a node that reads nothing, and some for one on another relay.
        for dest in [stuck.id, stuck.id, stuck.id, stuck.id, far.id, far.id] {
            sender.relay(dest, &[0; 1_200]);
        }
        if began.elapsed() > Duration::from_secs(60) * minute {
            minute += 1;
            crowd(relay);
        }
    }
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", relay.admin));
    browser.wait_for(LIVE);
    shoot(&mut browser, folder.as_path(), "ready");

    // The other relays are lost, and a key file is broken.
    drop(far_peer);
    fs::write(cluster.folder().join("keys.json"), "{").unwrap();
    cluster.relays.truncate(1);
    let relay = &cluster.relays[0];
    wait_for_members(relay, 1);
    browser.wait_for("document.getElementById('verdict').textContent === 'degraded'");
    shoot(&mut browser, folder.as_path(), "degraded");
    traffic.stop();
    drop(stuck_peer);
}

/// Takes a picture of all of the overview at each width in each theme.
fn shoot(browser: &mut Browser, folder: &Path, state: &str) {
    for (width, height, is_phone) in SCREENS {
        browser.resize(width, height, is_phone);
        for theme in ["light", "dark"] {
            browser.prefer(theme);
            browser.value("new Promise((done) => setTimeout(done, 1500))");
            let whole = browser.value("document.documentElement.scrollHeight").as_u64().unwrap();
            // What is below the window of a phone is a picture too long for a document.
            let shown = u32::try_from(whole).unwrap().min(if is_phone { height } else { u32::MAX });
            browser.resize(width, shown, is_phone);
            browser.value("new Promise((done) => setTimeout(done, 200))");
            let png = browser.screenshot();
            fs::write(folder.join(format!("{state}-{width}-{theme}.png")), png).unwrap();
        }
    }
}

/// Clients that come and are refused.
fn crowd(relay: &Relay) {
    for _ in 0..6 {
        let mut peer = Peer::upgrade(relay.wss);
        peer.challenge();
        peer.write(&frame(0x81, b"{}"));
    }
}

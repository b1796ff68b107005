//! Makes the pictures in docs/page: `make screenshots`.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::browser::Browser;
use super::traffic::Traffic;
use super::{LIVE, PHONE, nodes};
use crate::cluster::{Cluster, Fabric};
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
    let cluster = Cluster::of_three(Fabric::Mesh, &known, &PATIENT);
    let relay = &cluster.relays[0];
    let _far = Peer::log_in(cluster.relays[1].wss, &far);
    let mut browser = Browser::start();
    browser.resize(1_440, 1_340, false);
    browser.prefer("light");
    browser.open(&format!("http://{}/", relay.admin));
    browser.wait_for(LIVE);

    let traffic = Traffic::start(relay, 12, true);
    let _stuck = Peer::log_in(relay.wss, &stuck);
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
    let shoot = |name: &str, browser: &mut Browser| {
        browser.wait_for(LIVE);
        let png = browser.screenshot();
        fs::write(folder.join(name), png).unwrap();
    };
    shoot("light.png", &mut browser);
    browser.prefer("dark");
    shoot("dark.png", &mut browser);
    browser.resize(PHONE, 780, true);
    shoot("phone.png", &mut browser);
    traffic.stop();
}

/// Clients that come and are refused.
fn crowd(relay: &Relay) {
    for _ in 0..6 {
        let mut peer = Peer::upgrade(relay.wss);
        peer.challenge();
        peer.write(&frame(0x81, b"{}"));
    }
}

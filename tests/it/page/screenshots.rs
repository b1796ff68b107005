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
use crate::peer::{Peer, frame, relay as relay_packet};

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
    let cluster = Cluster::of_three(Fabric::Mesh, &known, &["--write-timeout", "1h"]);
    let relay = &cluster.relays[0];
    let _far = Peer::log_in(cluster.relays[1].wss, &far);
    let mut browser = Browser::start();
    browser.resize(1_440, 1_020, false);
    browser.prefer("light");
    browser.open(&format!("http://{}/", relay.admin));
    browser.wait_for(LIVE);

    let traffic = Traffic::start(relay, 12, true);
    let _stuck = Peer::log_in(relay.wss, &stuck);
    let began = Instant::now();
    let mut minute = 0;
    while began.elapsed() < TIME {
        thread::sleep(Duration::from_millis(700));
        flood(relay, &stuck, &far);
        if began.elapsed() > Duration::from_secs(60) * minute {
            minute += 1;
            crowd(relay);
        }
    }
    let shoot = |name: &str, browser: &mut Browser| {
        browser.wait_for(LIVE);
        let png = browser.screenshot();
        assert!(png.len() < 200 << 10, "{name}: {} bytes", png.len());
        fs::write(folder.join(name), png).unwrap();
    };
    shoot("light.png", &mut browser);
    browser.prefer("dark");
    shoot("dark.png", &mut browser);
    browser.resize(PHONE, 780, true);
    shoot("phone.png", &mut browser);
    traffic.stop();
}

/// Some packets for a node that reads nothing, and some for one on another relay.
fn flood(relay: &Relay, stuck: &Node, far: &Node) {
    let sender = Node::new(12_000);
    let node = crate::peer::UdpNode::register(relay.udp, sender.id);
    for _ in 0..60 {
        node.send(&relay_packet(sender.id, stuck.id, &[0; 1_200]));
        node.send(&relay_packet(sender.id, far.id, &[0; 200]));
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

//! Links that are cut and heal, and halves of a cluster that do not see each other, in
//! network namespaces. A relay's links are those to the others over the mesh, and that to the
//! engine over NATS.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::faults::print_row;
use super::flow::Flow;
use super::nats::NatsServer;
use super::network::Network;
use super::soon::{FOUND_WITHIN, assert_in_the_end};
use super::{
    Fabric, mesh_arguments, on_both_fabrics, wait_for_members, wait_until, wait_until_found,
};
use crate::cells::assert_balance;
use crate::harness::{Node, Relay, write_directory};
use crate::peer::Peer;

on_both_fabrics!(newest_login_wins_when_two_halves_see_each_other_again);

/// Time to cut and heal a link within three of them on a machine that is slow to do so.
const KEEPALIVE: &str = "1500ms";

/// Until a relay that is cut off is out of every route: three of them, and half a second.
const DEAD_AFTER: Duration = Duration::from_millis(3 * 1_500 + 500);

/// The host of the engine, where there is one.
const ENGINE: u32 = 3;

/// Three relays on hosts 0 to 2 of a network.
struct Cut {
    fabric: Fabric,
    relays: Vec<Relay>,
    _nats: Option<NatsServer>,
    network: Arc<Network>,
    _folder: TempDir,
}

impl Cut {
    /// Cuts the first relay off from the others.
    fn cut_off(&self) {
        match self.fabric {
            Fabric::Mesh => [1, 2].into_iter().for_each(|other| self.network.cut(0, other)),
            Fabric::Nats => self.network.cut(0, ENGINE),
        }
    }

    fn heal(&self) {
        match self.fabric {
            Fabric::Mesh => [1, 2].into_iter().for_each(|other| self.network.heal(0, other)),
            Fabric::Nats => self.network.heal(0, ENGINE),
        }
    }
}

fn three(fabric: Fabric, nodes: &[Node]) -> Cut {
    let network = Arc::new(Network::new(4));
    let nats = (fabric == Fabric::Nats).then(|| {
        let (address, on) = (network.address(ENGINE), Arc::clone(&network));
        NatsServer::start_at((address, 4222).into(), move || on.run_on(ENGINE, "nats-server"))
    });
    let folder = tempfile::tempdir().unwrap();
    let keys = write_directory(folder.path(), &nodes.iter().collect::<Vec<_>>());
    let binds: Vec<_> = (0..3).map(|host| format!("{}:9002", network.address(host))).collect();
    let relays = (0..3u32).zip(&binds).map(|(host, bind)| {
        let any = format!("{}:0", network.address(host));
        let words = ["--keys", keys.to_str().unwrap(), "--wss-bind", &any, "--udp-bind", &any];
        let more = ["--admin-bind", &any, "--upgrade-rate", "0", "--relay-rate", "0"];
        let rest = ["--public-plaintext", "--cluster-keepalive", KEEPALIVE];
        let cluster = match &nats {
            Some(nats) => vec!["--cluster-nats".to_owned(), nats.url()],
            None => mesh_arguments(folder.path(), bind, &binds),
        };
        let words = words.iter().chain(&more).chain(&rest).map(|word| (*word).to_owned());
        let relay = network.run_on(host, env!("CARGO_BIN_EXE_beacon-relay"));
        Relay::start_by(relay, words.chain(cluster))
    });
    let relays: Vec<_> = relays.collect();
    relays.iter().for_each(|relay| wait_for_members(relay, 3));
    Cut { fabric, relays, _nats: nats, network, _folder: folder }
}

#[test]
fn cut_link_heals_and_others_notice_nothing() {
    let nodes: Vec<_> = (11..=14).map(Node::new).collect();
    let Cut { relays, network, .. } = &three(Fabric::Mesh, &nodes);
    let at = |index: usize, node: usize| Peer::log_in(relays[index].wss, &nodes[node]);
    let across = Flow::start(at(0, 0), 11, 12, at(1, 1));
    let (c, d) = (at(1, 2), at(2, 3));
    // Not one of the others' packets may be lost, nor those before it is known where they go.
    wait_until_found(&relays[1], 14, &relays[2]);
    let others = Flow::start(c, 13, 14, d);
    wait_until("both flows run", || across.received() > 100 && others.received() > 100);

    // Shorter than three keep-alives: a matter of retransmission.
    network.cut(0, 1);
    thread::sleep(Duration::from_millis(300));
    network.heal(0, 1);
    let received = across.received();
    wait_until("packets cross again", || across.received() > received + 100);
    assert_eq!(relays[0].metric("pilot_beacon_cluster_lost_total"), 0.0);

    // Longer: the link is given up, and dialled again until it is up.
    let cut = Instant::now();
    network.cut(0, 1);
    wait_for_members(&relays[0], 2);
    wait_for_members(&relays[1], 2);
    wait_for_members(&relays[2], 3);
    let known = cut.elapsed();
    network.heal(0, 1);
    let healed = Instant::now();
    wait_for_members(&relays[0], 3);
    wait_for_members(&relays[1], 3);
    let back = healed.elapsed();
    let received = across.received();
    wait_until("packets cross once more", || across.received() > received + 100);
    let (across, others) = (across.stop(), others.stop());
    print_row(
        Fabric::Mesh,
        "link cut and healed",
        "over the link, after 300 ms and the long cut",
        &across,
        healed,
    );
    print_row(Fabric::Mesh, "link cut and healed", "over other links", &others, cut);
    eprintln!("| Mesh | link healed | members again | | {} ms |", back.as_millis());
    assert_eq!((others.lost().len(), others.doubled(), across.doubled()), (0, 0, 0));
    assert!(across.is_in_order());
    assert_in_the_end("Mesh | link cut | known", DEAD_AFTER, known);
    relays.iter().for_each(assert_balance);
}

fn newest_login_wins_when_two_halves_see_each_other_again(fabric: Fabric) {
    let nodes: Vec<_> = (11..=13).map(Node::new).collect();
    let cut = three(fabric, &nodes);
    let relays = &cut.relays;
    let at = |index: usize, node: usize| Peer::log_in(relays[index].wss, &nodes[node]);
    let flow = Flow::start(at(1, 0), 11, 12, at(0, 1));
    wait_until("the flow runs", || flow.received() > 100);
    cut.cut_off();
    wait_for_members(&relays[0], 1);
    wait_for_members(&relays[1], 2);
    wait_for_members(&relays[2], 2);

    // The node logs in on the other side as well: both halves have it, as far as they see.
    let newest = at(2, 1);
    let moved = Instant::now();
    flow.listen(newest);
    let received = flow.received();
    wait_until("its half reaches it", || flow.received() > received + 100);
    assert!(!flow.is_cut(), "the old half cannot know yet");
    cut.heal();
    let healed = Instant::now();
    relays.iter().for_each(|relay| wait_for_members(relay, 3));
    let back = healed.elapsed();
    wait_until("the older session is closed", || flow.is_cut());
    relays[0].wait_for_metric("pilot_beacon_wss_active", 0.0);
    // From the half that was alone, too, the node is where it came last.
    let mut third = at(0, 2);
    let received = flow.received();
    third.relay(13, 12, &u32::MAX.to_be_bytes()[..0]);
    wait_until("packets go on", || flow.received() > received + 100);
    let report = flow.stop();
    print_row(
        fabric,
        "partition 1 | 2",
        "to the node, which came to the other half",
        &report,
        moved,
    );
    eprintln!("| {fabric:?} | partition healed | members again | | {} ms |", back.as_millis());
    assert_eq!(report.doubled(), 0);
    let found = report.recovered_after(moved);
    assert_in_the_end(&format!("{fabric:?} | partition | move"), FOUND_WITHIN, found);
    relays.iter().for_each(assert_balance);
}

//! What breaks: relays that are killed or frozen, links that are cut, halves that do not see
//! each other, an engine that restarts. Each under traffic; what was lost is printed.

use std::thread;
use std::time::{Duration, Instant};

use super::flow::{Flow, Report};
use super::soon::assert_in_the_end;
use super::{Cluster, Fabric, on_both_fabrics, wait_for_members, wait_until, wait_until_found};
use crate::cells::assert_balance;
use crate::harness::Node;
use crate::peer::Peer;

on_both_fabrics!(
    killed_relay_loses_only_its_own_connections,
    frozen_relay_disturbs_nobody_and_is_back_when_it_thaws,
    relays_that_start_at_once_find_each_other,
);

/// Short, so that a test of three of them is.
const KEEPALIVE: Duration = Duration::from_millis(500);
const KEEPALIVE_FLAGS: [&str; 2] = ["--cluster-keepalive", "500ms"];

/// Until a lost relay is out of every route.
const DEAD_AFTER: Duration = Duration::from_millis(3 * 500 + 500);

/// Prints one line of the table of faults.
pub(super) fn print_row(
    fabric: Fabric,
    fault: &str,
    flow: &str,
    report: &Report,
    fault_at: Instant,
) {
    eprintln!(
        "| {fabric:?} | {fault} | {flow} | {} of {} | {} ms |",
        report.lost().len(),
        report.sent.len(),
        report.recovered_after(fault_at).as_millis(),
    );
}

pub(super) fn peers(cluster: &Cluster, nodes: &[Node], at: &[usize]) -> Vec<Peer> {
    nodes.iter().zip(at).map(|(n, at)| Peer::log_in(cluster.relays[*at].wss, n)).collect()
}

fn killed_relay_loses_only_its_own_connections(fabric: Fabric) {
    let nodes: Vec<_> = (11..=14).map(Node::new).collect();
    let mut cluster =
        Cluster::of_three(fabric, &nodes.iter().collect::<Vec<_>>(), &KEEPALIVE_FLAGS);
    let mut peers = peers(&cluster, &nodes, &[0, 1, 0, 2]).into_iter();
    let mut next = || peers.next().unwrap();
    let (a, b, c, d) = (next(), next(), next(), next());
    // Not one of the others' packets may be lost, nor those before it is known where they go.
    wait_until_found(&cluster.relays[0], 12, &cluster.relays[1]);
    let others = Flow::start(a, 11, 12, b);
    let its_own = Flow::start(c, 13, 14, d);
    wait_until("both flows run", || others.received() > 100 && its_own.received() > 100);

    let killed = Instant::now();
    cluster.relays[2].signal("KILL");
    thread::sleep(Duration::from_millis(100));
    // Its node redials, as a daemon does, long before anybody knows that the relay is dead.
    its_own.listen(Peer::log_in(cluster.relays[1].wss, &nodes[3]));
    for relay in &cluster.relays[..2] {
        wait_for_members(relay, 2);
    }
    let known = killed.elapsed();
    let received = its_own.received();
    wait_until("the redialled node receives", || its_own.received() > received + 100);
    let (others, its_own) = (others.stop(), its_own.stop());
    print_row(fabric, "SIGKILL", "between others", &others, killed);
    print_row(fabric, "SIGKILL", "to its node, which redialled", &its_own, killed);

    assert_in_the_end(&format!("{fabric:?} | SIGKILL | known to all"), DEAD_AFTER, known);
    assert_eq!((others.lost().len(), others.doubled()), (0, 0), "others lost packets");
    assert_eq!(its_own.doubled(), 0);
    let found = its_own.recovered_after(killed);
    assert_in_the_end(&format!("{fabric:?} | SIGKILL | redial"), DEAD_AFTER, found);
    cluster.relays[..2].iter().for_each(assert_balance);

    cluster.restart(2);
    cluster.wait_for_members(3);
}

fn frozen_relay_disturbs_nobody_and_is_back_when_it_thaws(fabric: Fabric) {
    let nodes: Vec<_> = (11..=14).map(Node::new).collect();
    let cluster = Cluster::of_three(fabric, &nodes.iter().collect::<Vec<_>>(), &KEEPALIVE_FLAGS);
    let mut peers = peers(&cluster, &nodes, &[0, 1, 0, 2]).into_iter();
    let mut next = || peers.next().unwrap();
    let (a, b, c, d) = (next(), next(), next(), next());
    // Not one of the others' packets may be lost, nor those before it is known where they go.
    wait_until_found(&cluster.relays[0], 12, &cluster.relays[1]);
    let others = Flow::start(a, 11, 12, b);
    let its_own = Flow::start(c, 13, 14, d);
    wait_until("both flows run", || others.received() > 100 && its_own.received() > 100);

    let frozen = Instant::now();
    cluster.relays[2].signal("STOP");
    for relay in &cluster.relays[..2] {
        wait_for_members(relay, 2);
    }
    thread::sleep(Duration::from_secs(10).saturating_sub(frozen.elapsed()));
    cluster.relays[2].signal("CONT");
    let thawed = Instant::now();
    cluster.wait_for_members(3);
    let back = thawed.elapsed();
    let received = its_own.received();
    wait_until("its node receives again", || its_own.received() > received + 100);
    let (others, its_own) = (others.stop(), its_own.stop());
    print_row(fabric, "SIGSTOP for 10 s", "between others", &others, frozen);
    print_row(fabric, "SIGSTOP for 10 s", "to its node (after it thawed)", &its_own, thawed);
    eprintln!("| {fabric:?} | SIGSTOP for 10 s | member again | | {} ms |", back.as_millis());

    assert_eq!((others.lost().len(), others.doubled()), (0, 0), "others lost packets");
    assert_eq!(its_own.doubled(), 0);
    assert!(its_own.is_in_order());
    cluster.relays.iter().for_each(assert_balance);
}

fn relays_that_start_at_once_find_each_other(fabric: Fabric) {
    let nodes: Vec<_> = (11..=15).map(Node::new).collect();
    let began = Instant::now();
    let cluster =
        Cluster::start(fabric, 5, &nodes.iter().collect::<Vec<_>>(), |_| KEEPALIVE_FLAGS.to_vec());
    // Nodes come while the relays are still finding each other.
    let mut peers = peers(&cluster, &nodes, &[0, 1, 2, 3, 4]);
    cluster.wait_for_members(5);
    eprintln!(
        "| {fabric:?} | start of 5 at once | all are members | | {} ms |",
        began.elapsed().as_millis()
    );
    thread::sleep(KEEPALIVE * 2);
    for (from, to) in [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (0, 3)] {
        let (sender, dest) = (nodes[from].id, nodes[to].id);
        wait_until_found(&cluster.relays[from], dest, &cluster.relays[to]);
        peers[from].relay(sender, dest, b"hello");
        assert_eq!(peers[to].delivery(), (sender, b"hello".to_vec()));
    }
    // Nobody who found a link lost it again over another one to the same relay.
    for relay in &cluster.relays {
        assert_eq!(relay.metric("pilot_beacon_cluster_members"), 5.0);
    }
    cluster.relays.iter().for_each(assert_balance);
}

#[test]
fn restarted_nats_is_a_matter_of_moments() {
    let nodes: Vec<_> = (11..=14).map(Node::new).collect();
    let mut cluster =
        Cluster::of_three(Fabric::Nats, &nodes.iter().collect::<Vec<_>>(), &KEEPALIVE_FLAGS);
    let mut peers = peers(&cluster, &nodes, &[0, 1, 0, 0]).into_iter();
    let mut next = || peers.next().unwrap();
    let (a, b, c, d) = (next(), next(), next(), next());
    let across = Flow::start(a, 11, 12, b);
    let within = Flow::start(c, 13, 14, d);
    wait_until("both flows run", || across.received() > 100 && within.received() > 100);

    let cut = Instant::now();
    cluster.nats.as_mut().unwrap().kill();
    thread::sleep(KEEPALIVE);
    cluster.nats.as_mut().unwrap().start_again();
    let back = Instant::now();
    let received = across.received();
    wait_until("packets cross again", || across.received() > received + 100);

    // Gone for longer than a relay may be silent: each goes on alone, and all find each other.
    let second = Instant::now();
    cluster.nats.as_mut().unwrap().kill();
    cluster.relays.iter().for_each(|relay| wait_for_members(relay, 1));
    cluster.nats.as_mut().unwrap().start_again();
    let second_back = Instant::now();
    cluster.wait_for_members(3);
    let received = across.received();
    wait_until("packets cross once more", || across.received() > received + 100);
    let (across, within) = (across.stop(), within.stop());
    eprintln!(
        "| Nats | restart (down {} ms, {} ms) | |",
        (back - cut).as_millis(),
        (second_back - second).as_millis()
    );
    print_row(Fabric::Nats, "restarts", "across relays (after the last)", &across, second_back);
    print_row(Fabric::Nats, "restarts", "within one relay", &within, cut);
    assert_eq!((within.lost().len(), within.doubled(), across.doubled()), (0, 0, 0));
    assert!(across.is_in_order());
    cluster.relays.iter().for_each(assert_balance);
}

//! Every metric that the relay exports is explained, and shown or left out for a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use super::{dashboard, root};
use crate::acme;
use crate::cluster::{Cluster, Fabric, wait_for_members};
use crate::harness::{Node, Relay, look_until};
use crate::middleman;
use crate::peerbus::jetstream::Engine;
use crate::stopping::Stopping;

/// Families that the dashboard does not show, and why.
const NOT_SHOWN: [(&str, &str); 14] = [
    ("beacon_relay_bus_turns_total", "says which thread works, not how well"),
    ("beacon_relay_logins_total", "as pilot_beacon_wss_connections_total, for each door"),
    ("beacon_relay_sessions", "as pilot_beacon_wss_sessions, for each door"),
    (
        "beacon_relay_sessions_ended_total",
        "as pilot_beacon_wss_sessions_ended_total, for each door",
    ),
    (
        "pilot_beacon_local_address_failures_total",
        "comes with a want of descriptors, which are shown",
    ),
    ("process_threads", "a number of the machine, the same from start to end"),
    ("process_virtual_memory_bytes", "says nothing of memory in use: allocators reserve"),
    ("relay_peer_authentication_time_milliseconds", NETBIRD),
    ("relay_peer_store_time_milliseconds", NETBIRD),
    ("relay_peers", NETBIRD),
    ("relay_peers_active", NETBIRD),
    ("relay_peers_idle", NETBIRD),
    ("relay_transfer_received_bytes_total", NETBIRD),
    ("relay_transfer_sent_bytes_total", NETBIRD),
];

/// Why metrics under the names of NetBird's are not shown.
const NETBIRD: &str = "NetBird's own dashboards show it";

/// What a relay exports that uses everything there is.
fn families() -> BTreeSet<String> {
    let secrets = tempfile::NamedTempFile::new().unwrap();
    fs::write(&secrets, "a secret of NetBird's").unwrap();
    let doors = dashboard::doors(secrets.path().to_str().unwrap());
    let more = [&["--registry", "127.0.0.1:1"], &doors[..]].concat();
    let cluster = Cluster::start(Fabric::Mesh, 1, &[&Node::new(1)], |_| more.clone());
    let engine = Engine::start();
    let text = acme::with_certificate(Relay::metrics)
        + &cluster.relays[0].metrics()
        + &engine.site_of_a_cluster().relay.metrics()
        + &middleman::Site::start(&[]).relay.metrics();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

/// Families that the load below does not move: where they move, and what they are called there.
const MOVES_ELSEWHERE: &[(&str, &str, &str)] = &[
    ("beacon_relay_tls_handshakes_total", "tests/it/tls.rs", NAME),
    ("beacon_relay_tls_reloads_total", "tests/it/tls.rs", NAME),
    ("admin_abandoned_total", "tests/it/control/http.rs", NAME),
    ("admin_foreign_hosts_total", "tests/it/control/http.rs", NAME),
    ("admin_snapshots_total", "tests/it/page/watchers.rs", NAME),
    ("admin_stuck_total", "src/admin/connections.rs", "counters.stuck.value(), 1"),
    ("admin_watchers", "tests/it/page/watchers.rs", NAME),
    ("admin_watchers_refused_total", "tests/it/page/watchers.rs", NAME),
    ("audit_failures_total", "tests/it/control/trouble.rs", NAME),
    ("cluster_clock_skew_seconds", "tests/it/cluster/clock.rs", NAME),
    ("cluster_address_mismatches", "tests/it/netbird/cluster.rs", NAME),
    ("cluster_watch_frames_total", "tests/it/netbird/cluster.rs", NAME),
    (
        "cluster_nacks_sent_total",
        "src/doors/pilot/overlay/tests/cluster.rs",
        "nacks_sent.value(), 1",
    ),
    ("cluster_panics_total", "src/cluster/nats/tests/failures.rs", "panics.value() == 1"),
    ("cluster_rejects_total", "src/cluster/mesh/tests/lanes.rs", "(Reject::Malformed), before + 1"),
    (
        "cluster_takeovers_total",
        "crates/proto/src/presence/tests/takeovers.rs",
        "unproved), (3, 0)",
    ),
    (
        "cluster_unproved_takeovers_total",
        "crates/proto/src/presence/tests/takeovers.rs",
        "unproved), (0, 3)",
    ),
    ("cluster_waiting_bytes", "src/cluster/nats/tests/outage.rs", "outbox.bytes() == 0"),
    ("control_actions_total", "tests/it/control/commands.rs", NAME),
    ("control_rejects_total", "tests/it/control/socket.rs", NAME),
    ("control_socket_made_again_total", "tests/it/control/trouble.rs", NAME),
    ("control_socket_up", "tests/it/control/trouble.rs", NAME),
    ("directory_cache_entries", "src/doors/pilot/directory/registry/tests/answers.rs", NAME),
    (
        "directory_cache_evictions_total",
        "src/doors/pilot/directory/registry/cache.rs",
        "cache.evictions())",
    ),
    ("gossip_sources", "tests/it/gossip.rs", NAME),
    ("keys_entries", "tests/it/changes.rs", NAME),
    ("keys_last_reload_success", "tests/it/changes.rs", NAME),
    ("keys_last_reload_timestamp_seconds", "tests/it/changes.rs", NAME),
    ("keys_reload_total", "tests/it/changes.rs", NAME),
    ("last_reload_success", "tests/it/changes.rs", NAME),
    ("last_reload_timestamp_seconds", "tests/it/changes.rs", NAME),
    ("learnt_nodes", "tests/it/gossip.rs", NAME),
    ("local_address_failures_total", "tests/it/udp.rs", NAME),
    ("log_lines_lost_total", "src/log_writer.rs", "lost(&log, Loss::Full), 2"),
    ("packets_originated_dropped_total", "tests/it/stuck.rs", NAME),
    ("packets_queued", "tests/it/stuck.rs", NAME),
    ("process_max_fds", "tests/it/upgrade.rs", NAME),
    ("ready", "tests/it/readiness.rs", NAME),
    ("registry_contradictions_total", "src/doors/pilot/directory/registry/tests/answers.rs", NAME),
    ("registry_held_nodes", "tests/it/registry.rs", NAME),
    ("registry_lookups_in_flight", "tests/it/registry.rs", NAME),
    ("registry_saves_total", "src/doors/pilot/directory/registry/tests/failures.rs", NAME),
    ("registry_up", "tests/it/registry.rs", NAME),
    ("reloads_total", "tests/it/changes.rs", NAME),
    ("switch_on", "tests/it/control/switches.rs", NAME),
    ("udp_kernel_dropped_total", "tests/it/udp.rs", NAME),
    ("udp_send_retries_total", "tests/it/veth.rs", NAME),
    ("wss_accept_errors_total", "tests/it/upgrade.rs", NAME),
    ("wss_contested_nodes", "tests/it/takeover.rs", NAME),
    ("wss_delayed", "tests/it/takeover.rs", NAME),
    ("wss_delayed_total", "tests/it/takeover.rs", NAME),
    ("wss_idle_disconnects_total", "tests/it/sessions.rs", NAME),
    ("wss_refusals_total", "tests/it/login.rs", NAME),
    ("wss_replacements_total", "tests/it/sessions.rs", NAME),
];

/// How long the load lasts at most, if not all that it moves has moved before.
const LOAD_TIME: Duration = Duration::from_secs(5);

/// It is called there as here.
const NAME: &str = "";

/// Families that nothing moves, and why.
const NEVER_MOVES: [(&str, &str); 7] = [
    ("build_info", "names the build"),
    ("process_start_time_seconds", "the start is over"),
    ("process_threads", "as many as ever"),
    ("process_virtual_memory_bytes", "allocators have reserved what the load needs"),
    ("udp_panics_total", "no packet is known that would: the tests of noise say so"),
    ("udp_receive_errors_total", "the kernel has no errors for a socket that is not connected"),
    ("wss_panics_total", "as over UDP"),
];

/// A family without the name of the project.
fn short(family: &str) -> &str {
    family.strip_prefix("pilot_beacon_").unwrap_or(family)
}

/// The samples of each family, as text.
fn samples(text: &str) -> BTreeMap<String, String> {
    let mut samples = BTreeMap::<_, String>::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some(of) = line.strip_prefix("# TYPE ") {
            of.split(' ').next().unwrap().clone_into(&mut family);
        } else if !line.starts_with('#') {
            samples.entry(family.clone()).or_default().push_str(line);
        }
    }
    samples
}

#[test]
fn every_metric_moves_in_some_test() {
    let nodes = [1, 2, 3].map(Node::new);
    let more = ["--registry", "127.0.0.1:1", "--drain-time", "0s"];
    let mut cluster = Cluster::start(Fabric::Mesh, 2, &nodes.each_ref(), |_| more.to_vec());
    cluster.wait_for_members(2);
    let at_first = samples(&cluster.relays[0].metrics());
    let elsewhere = MOVES_ELSEWHERE.iter().map(|(family, ..)| *family);
    let excused: BTreeSet<_> = elsewhere.chain(NEVER_MOVES.map(|(family, _)| family)).collect();
    let mut still: BTreeSet<_> = at_first.keys().map(|family| short(family)).collect();
    assert!(still.is_superset(&excused), "gone: {:?}", excused.difference(&still));

    let mut look = |cluster: &Cluster| {
        let now = samples(&cluster.relays[0].metrics());
        let moved = now.iter().filter(|(family, text)| at_first.get(*family) != Some(text));
        moved.for_each(|(family, _)| {
            still.remove(short(family));
        });
        still.is_subset(&excused).then_some(())
    };

    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stopping = Stopping(&stop);
        let loading = scope.spawn(|| dashboard::load(&cluster, &stop));
        look_until(Instant::now() + LOAD_TIME, || {
            look(&cluster).or_else(|| loading.is_finished().then_some(()))
        });
        drop(stopping);
        loading.join().unwrap();
    });
    // A sibling that goes and comes back.
    cluster.relays[1].signal("TERM");
    assert_eq!(cluster.relays[1].wait_for_end(), 0);
    wait_for_members(&cluster.relays[0], 1);
    look(&cluster);
    cluster.restart(1);
    cluster.wait_for_members(2);
    look(&cluster);
    let unmoved: Vec<_> = still.difference(&excused).collect();
    assert!(unmoved.is_empty(), "{unmoved:?}");
    for &(family, file, called) in MOVES_ELSEWHERE {
        let test = fs::read_to_string(root(file)).unwrap();
        let full = at_first.keys().find(|full| short(full) == family).unwrap();
        let is_there = if called == NAME { names(&test, full) } else { test.contains(called) };
        assert!(is_there, "{family} is not in {file}");
    }
}

/// Whether `text` has this name, and not as a part of another.
fn names(text: &str, family: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(family).any(|(at, _)| {
        let rest = &text[at + family.len()..];
        let series = ["_bucket", "_sum", "_count"];
        let after = series.iter().find_map(|end| rest.strip_prefix(end)).unwrap_or(rest);
        !text[..at].ends_with(is_word) && !after.starts_with(is_word)
    })
}

#[test]
fn every_metric_is_in_the_document() {
    let document = fs::read_to_string(root("docs/METRICS.md")).unwrap();
    for family in families() {
        let listed = document.lines().any(|line| names(line, short(&family)));
        assert!(listed, "{family} is not in docs/METRICS.md");
    }
}

#[test]
fn every_metric_is_in_the_dashboard_or_left_out_for_a_reason() {
    let families = families();
    let queries: String = dashboard::queries().into_iter().map(|(_, query)| query + "\n").collect();
    let left_out: BTreeSet<_> = NOT_SHOWN.iter().map(|(family, _)| (*family).to_owned()).collect();
    let missing: BTreeSet<_> =
        families.iter().filter(|family| !names(&queries, family)).cloned().collect();
    assert_eq!(missing, left_out);
}

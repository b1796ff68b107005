//! Gathers what a scrape and the status page show.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, UNIX_EPOCH};

use super::Reloader;
use super::core::Core;
use super::doors::Doors;
use super::last_reload::LastReload;
use super::readiness::Vitals;
use super::slow_readers::SlowReaders;
use crate::admin::{self, MOST_EVENTS, MOST_ROWS, Status, Tables, Talker};
use crate::build;
use crate::bus;
use crate::log_writer::LogWriter;
use crate::metrics::{self, Registry, Talkers, Traffic, Transport, Word as _, family};
use crate::net::calls::{Call, made};
use crate::net::udp::{Retry, retries};
use crate::session::TopicOrder;

const CPU_TIME: &str = "process_cpu_seconds_total";

/// The ticks of a second in /proc, on all machines that Linux runs on but Alpha.
const TICKS: f64 = 100.0;

pub(super) struct Parts<'a> {
    pub(super) core: &'a Arc<Core>,
    pub(super) doors: &'a Doors,
    pub(super) reloader: &'a Arc<Reloader>,
    pub(super) vitals: &'a Arc<Vitals>,
    pub(super) log: Option<LogWriter>,
}

/// CPU time of the process, in seconds, as proc(5) has it: by 10 ms. (Reading its clock ends a process
/// that Valgrind runs, as `make counts` does: rustix looks for the vDSO, which is not there.)
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which may have spaces, the 12th and 13th field.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut ticks = fields.split(' ').skip(11).map(|field| field.parse::<f64>().ok());
    Some((ticks.next()?? + ticks.next()??) / TICKS)
}

pub(super) fn all(parts: &Parts<'_>) -> Registry {
    let registry = Registry::default();
    registry.add(parts.doors.sessions.exporter());
    for door in &parts.doors.all {
        let door = Arc::clone(door);
        registry.add(move |families| door.families(families));
    }
    registry.add(parts.doors.threads.exporter());
    registry.add(parts.doors.stun.exporter());
    let certificates = Arc::clone(&parts.doors.certificates);
    registry.add(move |families| certificates.families(families));
    let core = Arc::clone(parts.core);
    let foreign = parts.doors.all.iter().find_map(|door| door.foreign_server());
    registry.add(move |families| {
        let Core { table, traffic, directory, cluster, overlay, bus, .. } = &*core;
        traffic.families(foreign.unwrap_or_else(|| Transport::Foreign.word()), families);
        directory.metrics(families);
        core.switches().families(families);
        if let Some(cluster) = cluster {
            cluster.families(families);
        }
        if let Some(bus) = bus {
            bus.families(families);
        }
        #[allow(clippy::cast_precision_loss)] // the exposition format is f64
        let gauge =
            |name: &str, help: &str, value: usize| family::gauge_value(name, help, value as f64);
        families.extend([
            gauge("pilot_beacon_udp_nodes", "Nodes with a UDP endpoint.", table.endpoint_count()),
            gauge(
                "pilot_beacon_learnt_nodes",
                "Nodes that other beacons serve.",
                table.learnt_count(),
            ),
            family::counter_value(
                "pilot_beacon_local_address_failures_total",
                "Readings of this machine's own addresses that failed.",
                overlay.local_addresses().failures() as f64,
            ),
        ]);
    });
    if let Some(log) = parts.log.clone() {
        registry.add(move |families| log.families(families));
    }
    let reloader = Arc::clone(parts.reloader);
    registry.add(move |families| reloader.families(families));
    let vitals = Arc::clone(parts.vitals);
    registry.add(move |families| vitals.families(families));
    registry.add(|families| {
        let samples: Vec<_> = Call::ALL.iter().map(|call| ([call.word()], made(*call))).collect();
        families.push(family::counts(
            "pilot_beacon_system_calls_total",
            "System calls of the packet path.",
            &["call"],
            samples.iter().map(|(words, count)| (words.as_slice(), *count)),
        ));
        let samples: Vec<_> = Retry::ALL.iter().map(|why| ([why.word()], retries(*why))).collect();
        families.push(family::counts(
            "pilot_beacon_udp_send_retries_total",
            "Times that the kernel refused datagrams, which were sent in another way.",
            &["reason"],
            samples.iter().map(|(words, count)| (words.as_slice(), *count)),
        ));
        families.push(family::gauge_values(
            "pilot_beacon_build_info",
            "What runs, as labels.",
            &["version", "commit", "target"],
            [(&[build::VERSION, build::BUILD.commit, build::BUILD.target] as &[&str], 1.0)],
        ));
    });
    let process = prometheus::process_collector::ProcessCollector::for_self();
    registry.add(move |families| {
        families.extend(prometheus::core::Collector::collect(&process));
        // The collector counts whole seconds, too coarse for a rate over a few.
        if let Some(seconds) = cpu_seconds() {
            families.retain(|family| family.name() != CPU_TIME);
            families.push(family::counter_value(CPU_TIME, "CPU time of the process.", seconds));
        }
    });
    registry
}

pub(super) fn status(
    core: &Arc<Core>,
    doors: &Doors,
    last_reload: &Arc<LastReload>,
) -> Box<dyn Fn() -> Status + Send + Sync> {
    let last_reload = Arc::clone(last_reload);
    let core = Arc::clone(core);
    let acme = Arc::clone(doors.certificates.acme());
    let doors = doors.all.clone();
    Box::new(move || Status {
        wss_peers: core.table.session_count(),
        udp_nodes: core.table.endpoint_count(),
        learnt_nodes: core.table.learnt_count(),
        of_doors: {
            let mut numbers = BTreeMap::new();
            doors.iter().for_each(|door| door.numbers(&mut numbers));
            numbers
        },
        packets_queued: core.traffic.packets_queued(),
        packets_dropped: core.traffic.packets_dropped_unexpectedly(),
        last_reload: last_reload.status(),
        needs_restart: last_reload.needs_restart(),
        switches: core
            .switches()
            .iter()
            .map(|(name, is_on)| (name, if is_on { "on" } else { "off" }))
            .collect(),
        expected_drops: core
            .traffic
            .reasons()
            .into_iter()
            .filter(|reason| reason.is_expected)
            .map(|reason| reason.label)
            .collect(),
        bus: core.bus.as_ref().and_then(bus::Handle::status),
        cluster: core.cluster.as_ref().map(|cluster| cluster.status()),
        acme: acme.status(),
    })
}

pub(super) fn tables(core: &Arc<Core>, doors: &Doors) -> Box<dyn Fn() -> Tables + Send + Sync> {
    let core = Arc::clone(core);
    let doors = doors.all.clone();
    let slow_readers = SlowReaders::of(Arc::clone(&core.table));
    Box::new(move || Tables {
        top_talkers: top_talkers(&core.traffic),
        slow_readers: slow_readers.now(),
        events: core
            .traffic
            .events
            .recent_of_each_area(MOST_EVENTS)
            .into_iter()
            .map(shown)
            .collect(),
        // At most one door has topics.
        topics: doors
            .iter()
            .find_map(|door| door.topics(TopicOrder::Busiest, MOST_ROWS))
            .map(|busiest| busiest.topics),
        behind: core.bus.as_ref().and_then(|bus| bus.leading()?.behind(MOST_ROWS)),
    })
}

fn top_talkers(traffic: &Traffic) -> Vec<Talker> {
    let Talkers { senders, receivers } = traffic.talkers(MOST_ROWS, Instant::now());
    let sides = [("sends", senders), ("receives", receivers)];
    let row = |does| {
        move |talker: metrics::Talker| Talker {
            node: talker.peer,
            does,
            packets_per_second: talker.packets,
            bytes_per_second: talker.bytes,
        }
    };
    let mut talkers: Vec<_> =
        sides.into_iter().flat_map(|(does, talkers)| talkers.into_iter().map(row(does))).collect();
    talkers.sort_by_key(|talker| std::cmp::Reverse(talker.bytes_per_second));
    talkers.truncate(MOST_ROWS);
    talkers
}

/// An event as the page shows it, which anybody who reaches the port may read: without an
/// address.
fn shown(event: metrics::Event) -> admin::Event {
    let at = event.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    admin::Event {
        at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
        what: event.what.word(),
        area: event.what.area().word(),
        door: event.door,
        node: event.peer,
        relay: event.relay.map(|relay| relay.to_string()),
        reason: event.reason,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn cpu_time_grows_with_what_is_computed() {
        let (before, began) = (cpu_seconds().unwrap(), Instant::now());
        while cpu_seconds().unwrap() < before + 0.02 {
            assert!(began.elapsed() < Duration::from_secs(60), "{before}");
        }
    }
}

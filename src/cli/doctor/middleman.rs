//! The middleman door of this machine's relay: who may come in, and is it one with those of other
//! relays?

use super::machine::{metrics, sum};
use super::report::Report;
use crate::config::{Config, KeyDigest, MIDDLEMAN, Middleman, WssBind};

/// The keys that the original has by default, which everybody knows.
const PUBLIC: [&str; 3] = ["xyzzy", "jabberwocky", "plugh"];

/// Checks the door, where the settings have it.
pub(super) async fn check(config: &Config, report: &mut Report) {
    let Some(middleman) = &config.middleman else { return };
    check_keys(config, middleman, report);
    // That none runs is said already.
    let Some(metrics) = metrics(config).await else { return };
    if !metrics.contains("\nbeacon_relay_middleman_peers ") {
        let found = "the relay that runs has no middleman door";
        report.warn("middleman", found, "restart it: these settings have one");
        return;
    }
    check_cluster(&metrics, report);
}

fn check_keys(config: &Config, middleman: &Middleman, report: &mut Report) {
    let Middleman { service_keys, client_keys, .. } = middleman;
    let is_known = PUBLIC.map(|key| KeyDigest::of(key.as_bytes()));
    let is_known = is_known.iter().any(|key| service_keys.has(key) || client_keys.has(key));
    let is_open = config.all_listeners(false).iter().any(|listener| {
        let is_reached = match &listener.bind {
            WssBind::Tcp(address) => !address.ip().is_loopback(),
            WssBind::Unix(_) => false,
        };
        is_reached && listener.doors.contains(&&MIDDLEMAN)
    });
    let clients = match client_keys.count() {
        0 => "nobody is a client".to_owned(),
        count => format!("{count} of clients"),
    };
    let found = format!("{} of services, {clients}", service_keys.count());
    if is_known && is_open {
        let found = format!("{found}; one of them is a default of the original, which all know");
        let remedy = "write others into the files, or bind the door to loopback alone";
        report.warn("middleman-keys", found, remedy);
    } else {
        report.ok("middleman-keys", found);
    }
}

/// How many of the other relays have the door as well: each of those is linked.
fn check_cluster(metrics: &str, report: &mut Report) {
    let others = sum(metrics, "pilot_beacon_cluster_members").saturating_sub(1);
    let linked = sum(metrics, "beacon_relay_middleman_links");
    let found = format!("its topics are one with those of {linked} of {others} other relays");
    match (others, linked) {
        (0, _) => report.ok("middleman", "its topics are of this relay alone"),
        (others, linked) if linked < others => report.warn(
            "middleman",
            found,
            "does each relay have the door, with the same keys? Those without it are no fault",
        ),
        (_, _) => report.ok("middleman", found),
    }
}

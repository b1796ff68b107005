//! Clients that never read, and clients of many subscriptions: what they cost themselves, and what
//! nobody else may pay.

use std::thread;

use super::{Site, id, message};
use crate::cells::assert_balance;
use crate::stuck::{ABSENT, FLOOD_PAYLOAD, MOST_MEMORY, SHARE, STUCK, Shared, alone, compare};

/// Most subscriptions of one client.
const MOST: u32 = 10_000;

/// Packets that were dropped for a reason that all doors have.
fn dropped(site: &Site, reason: &str) -> f64 {
    site.relay.metric(&format!("pilot_beacon_packets_dropped_total{{reason=\"{reason}\"}}"))
}

#[test]
fn stuck_clients_cost_themselves_and_nobody_else() {
    let _alone = alone();
    // Nobody is ended meanwhile: these readers stay for good.
    let site = Site::start(&["--write-timeout", "1h", "--upgrade-rate", "0"]);
    let stuck: Vec<_> = STUCK.map(|number| site.log_in(&number.to_string())).collect();
    let shared = Shared::at(ABSENT.start);

    let (share, beside_stuck, beside_absent) = thread::scope(|scope| {
        let shared = &shared;
        let _stopping = shared.stopping();
        for name in ["flooder", "another flooder"] {
            let peer = site.log_in(name);
            scope.spawn(move || {
                shared.flood(peer, |to| message(3, &to.to_string(), &FLOOD_PAYLOAD))
            });
        }
        for number in 0..4 {
            let names = [format!("left {number}"), format!("right {number}")];
            let [left, right] = &names;
            let peers = [left, right].map(|name| site.log_in(name));
            // The source stands where the destination did.
            let way = |from: &str, to: &str, payload| {
                [message(3, to, payload), message(3, from, payload)]
            };
            let ways = [way(left, right, b"there"), way(right, left, b"back")];
            scope.spawn(move || shared.exchange(peers, ways));
        }
        compare(shared)
    });

    let memory = site.relay.anonymous_memory();
    eprintln!(
        "beside 8 stuck clients {beside_stuck:.0} packets/s, beside 8 absent ones \
         {beside_absent:.0}: {:.1} %; RssAnon {} MB",
        share * 100.0,
        memory >> 20
    );
    assert!(share >= SHARE, "{share}");
    assert!(memory < MOST_MEMORY, "{memory}");
    // The flood did reach both kinds, the stuck ones to overflowing.
    assert!(dropped(&site, "unknown_destination") > 1_000.0, "{}", site.relay.metrics());
    assert!(dropped(&site, "outbox_full") + dropped(&site, "outbox_share") > 1_000.0);
    drop(stuck);
    site.relay.wait_for_metric("beacon_relay_sessions{door=\"netbird\"}", 0.0);
    site.relay.wait_for_metric("pilot_beacon_packets_queued", 0.0);
    assert_balance(&site.relay);
}

#[test]
fn hundred_thousand_subscriptions_take_bounded_memory_and_leave_nothing() {
    let site = Site::start(&["--upgrade-rate", "0"]);
    let subscriptions = "beacon_relay_netbird_subscriptions";
    let before = site.relay.anonymous_memory();
    let mut clients: Vec<_> =
        (0..10).map(|number| site.log_in(&format!("client {number}"))).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let names = (0..MOST).map(|other| id(&format!("{number} looks for {other}")));
        for ids in names.collect::<Vec<_>>().chunks(244) {
            client.send(2, &[b"\x01\x08", &ids.concat()[..]].concat());
        }
    }
    site.relay.wait_for_metric(subscriptions, f64::from(MOST) * 10.0);
    let memory = site.relay.anonymous_memory().saturating_sub(before);
    eprintln!("{} bytes for each of 100,000 subscriptions", memory / 100_000);
    assert!(memory < 64 << 20, "{memory}");

    // Of one more it gets no news, and of those that it has it still does.
    clients[0].send(2, &message(8, "one too many", b""));
    site.relay.wait_for_metric(
        "beacon_relay_packets_dropped_total{door=\"netbird\",reason=\"too_many_watched\"}",
        1.0,
    );
    let _one_too_many = site.log_in("one too many");
    let _known = site.log_in("0 looks for 9999");
    assert_eq!(clients[0].read(), Some((2, message(10, "0 looks for 9999", b""))));
    drop(clients);
    site.relay.wait_for_metric(subscriptions, 0.0);
    assert_balance(&site.relay);
}

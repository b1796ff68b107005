//! What a reload of a proxy costs a thousand WebSockets, by version and directives, and how the
//! limits of the relay hold the storm of redials.

use std::time::{Duration, Instant};

use super::crowd::{Crowd, count, raise_descriptors};
use super::nginx::Nginx;
use super::{deploy, run, tool};
use crate::caddy::Caddy;
use crate::harness::{Node, PATIENCE, Relay};

const PEERS: usize = 1_000;

/// Descriptors of Caddy, with both sides of each WebSocket, and some.
const DESCRIPTORS: u64 = 8_192;

/// A relay that knows all peers, with these limits of upgrades.
fn relay(rate: &str, burst: &str) -> Relay {
    raise_descriptors(DESCRIPTORS);
    let nodes: Vec<_> = (1..=u32::try_from(PEERS).unwrap()).map(Node::new).collect();
    let limits = ["--upgrade-rate", rate, "--upgrade-burst", burst];
    Relay::with_nodes(&nodes.iter().collect::<Vec<_>>(), &limits)
}

#[allow(clippy::cast_possible_truncation)] // a count, far below 2^53
fn outcome(relay: &Relay, outcome: &str) -> usize {
    let name = format!("pilot_beacon_wss_connections_total{{outcome=\"{outcome}\"}}");
    relay.metric(&name) as usize
}

#[test]
fn reload_of_a_caddy_that_keeps_streams_disconnects_nobody() {
    let relay = relay("0", "100");
    let caddy = Caddy::that_keeps(relay.wss);
    let crowd = Crowd::dial(PEERS, 10, caddy.address, &caddy.ca);
    crowd.wait_until_connected(PATIENCE);

    caddy.reload();

    crowd.probe();
    assert!(crowd.seen().ends.lock().is_empty(), "{:?}", crowd.seen().ends.lock());
    assert_eq!(outcome(&relay, "auth_ok"), PEERS);
}

#[test]
fn reload_of_nginx_disconnects_nobody() {
    let relay = relay("0", "100");
    let nginx = Nginx::with(relay.wss, &["localhost".to_owned()], 1, ("", ""));
    let crowd = Crowd::dial(PEERS, 10, nginx.address, &nginx.ca());
    crowd.wait_until_connected(PATIENCE);

    nginx.reload();

    crowd.probe();
    assert!(crowd.seen().ends.lock().is_empty(), "{:?}", crowd.seen().ends.lock());
}

#[test]
fn later_caddy_closes_all_without_the_directive_that_keeps_them() {
    const FEW: usize = 50;
    let relay = relay("0", "100");
    let caddy = Caddy::of(tool("caddy"), "Caddyfile", relay.wss);
    let crowd = Crowd::dial(FEW, 1, caddy.address, &caddy.ca);
    crowd.wait_until_connected(PATIENCE);
    caddy.reload();
    crowd.wait_for_ends(FEW);
}

#[test]
fn reload_of_caddy_closes_all_and_the_limits_hold_the_storm() {
    const OFFICES: usize = 4;
    const RATE: usize = 20;
    const BURST: usize = PEERS / OFFICES;
    let relay = relay(&RATE.to_string(), &BURST.to_string());
    let caddy = Caddy::start(relay.wss);
    let began = Instant::now();
    // Each office uses its burst to the last.
    let crowd = Crowd::dial(PEERS, OFFICES, caddy.address, &caddy.ca);
    crowd.wait_until_connected(PATIENCE);

    caddy.reload();

    crowd.wait_for_ends(PEERS);
    // 1001 from Caddy; some see only the end of the connection.
    let ends = crowd.seen().ends.lock().clone();
    assert!(ends.keys().all(|code| matches!(code, Some(1001) | None)), "{ends:?}");
    // All dial again within half a second, and more than the limits allow are told to wait.
    crowd.wait_for_accepted(PEERS + PEERS / 3);
    let told_to_wait = count(&crowd.seen().limited);
    let (accepted, limited) = (outcome(&relay, "auth_ok"), outcome(&relay, "rate_limited"));
    let allowed =
        OFFICES * (BURST + RATE * (usize::try_from(began.elapsed().as_secs()).unwrap() + 1));
    assert!(accepted <= allowed, "{accepted} upgrades, and {allowed} are allowed");
    assert!(0 < told_to_wait && told_to_wait <= limited, "{told_to_wait} of {limited}");
}

/// The figures of docs/OPERATIONS.md, with the default limits.
#[test]
#[ignore = "takes minutes"]
fn soak_redial_storm_by_offices() {
    for offices in [PEERS, 100, 10, 1] {
        let relay = relay("10", "100");
        let caddy = Caddy::start(relay.wss);
        let crowd = Crowd::dial(PEERS, offices, caddy.address, &caddy.ca);
        crowd.wait_until_connected(Duration::from_secs(300));
        // As long as it takes for every office to have its burst again.
        std::thread::sleep(Duration::from_secs(11));
        let before = count(&crowd.seen().limited);
        caddy.reload();
        let began = Instant::now();
        crowd.wait_for_ends(PEERS);
        crowd.wait_until_connected(Duration::from_secs(300));
        println!(
            "{offices} offices: all {PEERS} back after {:.1} s, {} times 429, {} dials failed otherwise",
            began.elapsed().as_secs_f64(),
            count(&crowd.seen().limited) - before,
            count(&crowd.seen().failed),
        );
    }
}

#[test]
fn both_caddies_serve_every_address_unless_told_otherwise() {
    for (caddy, file) in [
        ("caddy".into(), "Caddyfile"),
        (tool("caddy"), "Caddyfile"),
        (tool("caddy"), "Caddyfile.stream-close-delay"),
    ] {
        let mut command = std::process::Command::new(&caddy);
        command.args(["adapt", "--adapter", "caddyfile", "--config"]).arg(deploy(file));
        let adapted = run(command.env_remove("RELAY_LISTEN").env_remove("RELAY_HTTPS_PORT"));
        let json = adapted.lines().last().unwrap();
        let config: serde_json::Value = serde_json::from_str(json).unwrap();
        let listen = &config["apps"]["http"]["servers"]["srv0"]["listen"];
        assert_eq!(listen, &serde_json::json!(["0.0.0.0:443"]), "{}: {file}", caddy.display());
    }
}

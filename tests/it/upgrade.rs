//! What becomes a WebSocket, and what the other requests are told (SPEC §3.1 to §3.4).

use std::time::Instant;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::harness::{Node, PATIENCE, Relay, http_get, look_until};
use crate::peer::{Peer, upgrade_request};

/// The status that a request with further headers gets.
fn status(relay: &Relay, headers: &str) -> u16 {
    Peer::request(relay.wss, headers).1
}

fn connections(relay: &Relay, outcome: &str) -> f64 {
    relay.metric(&format!("pilot_beacon_wss_connections_total{{outcome=\"{outcome}\"}}"))
}

/// Upgrades again and again as the client that a proxy names; the statuses.
fn statuses(relay: &Relay, forwarded_for: &str, times: usize) -> Vec<u16> {
    let header = format!("X-Forwarded-For: {forwarded_for}\r\n");
    (0..times).map(|_| status(relay, &header)).collect()
}

#[test]
fn spec_3_1_only_two_paths_exist() {
    let relay = Relay::with_nodes(&[], &[]);
    assert_eq!(http_get(relay.wss, "/health"), (200, "ok\n".to_owned()));
    for path in ["/", "/v1", "/v1/compat/", "/v1/compat/x", "/V1/compat", "/metrics", "/healthz"] {
        assert_eq!(http_get(relay.wss, path).0, 404, "{path}");
        let request = upgrade_request("").replacen("/v1/compat", path, 1);
        assert_eq!(Peer::connect(relay.wss).ask(&request).0, 404, "an upgrade of {path}");
    }
    assert_eq!(connections(&relay, "not_found"), 14.0);
}

#[test]
fn spec_3_1_incomplete_upgrade_is_told_what_is_missing() {
    let relay = Relay::with_nodes(&[], &[]);
    let cases = [
        ("Upgrade: websocket", "X: y", 426),
        ("Upgrade: websocket", "Upgrade: h2c", 426),
        ("Connection: Upgrade", "Connection: close", 426),
        ("Sec-WebSocket-Version: 13", "X: y", 426),
        ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8", 426),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "X: y", 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ==", 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "no base64 at all, sadly", 400),
        ("GET", "POST", 400),
    ];
    for (right, wrong, expected) in cases {
        let request = upgrade_request("").replacen(right, wrong, 1);
        let (status, head) = Peer::connect(relay.wss).ask(&request);
        assert_eq!(status, expected, "{wrong} for {right}: {head}");
        if status == 426 {
            assert!(head.contains("\r\nupgrade: websocket\r\n"), "{head}");
            assert!(head.contains("\r\nsec-websocket-version: 13\r\n"), "{head}");
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    let tried = cases.len() as f64;
    assert_eq!(connections(&relay, "bad_upgrade"), tried);
}

#[test]
fn spec_3_1_subprotocol_is_echoed_only_where_it_is_offered() {
    let relay = Relay::with_nodes(&[], &[]);
    let offer = "Sec-WebSocket-Protocol: pilot.v1\r\n";
    let accepted = [
        ("", None),
        ("Sec-WebSocket-Protocol: other\r\n", None),
        ("Sec-WebSocket-Protocol: other, pilot.v1\r\n", Some("sec-websocket-protocol: pilot.v1")),
    ];
    for (offered, echo) in accepted {
        let request = upgrade_request("").replacen(offer, offered, 1);
        let (status, head) = Peer::connect(relay.wss).ask(&request);
        assert_eq!(status, 101);
        let line = head.lines().find(|line| line.starts_with("sec-websocket-protocol"));
        assert_eq!(line, echo);
        assert!(!head.contains("sec-websocket-extensions"), "{head}");
    }
}

#[test]
fn spec_3_1_upgrade_may_stand_in_lists_and_over_several_lines() {
    let relay = Relay::with_nodes(&[], &[]);
    let cases = [
        ("Connection: Upgrade", "Connection: keep-alive\r\nConnection: Upgrade", 101),
        ("Connection: Upgrade", "Connection: keep-alive, upgrade ,", 101),
        ("Connection: Upgrade", "Connection: close\r\nConnection: keep-alive", 426),
        ("Connection: Upgrade", "Connection: not-upgrade", 426),
        ("Upgrade: websocket", "Upgrade: foo, websocket", 101),
        ("Upgrade: websocket", "Upgrade: foo\r\nUpgrade: ,WebSocket", 101),
        ("Upgrade: websocket", "Upgrade: foo\r\nUpgrade: websockets", 426),
        ("-Protocol: pilot.v1", "-Protocol: a\r\nSec-WebSocket-Protocol: b,pilot.v1", 101),
        ("-Version: 13", "-Version: 13\r\nSec-WebSocket-Version: 13", 101),
        ("-Version: 13", "-Version: 13\r\nSec-WebSocket-Version: 8", 426),
        ("-Version: 13", "-Version: ,", 426),
        ("-Key: ", "-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: ", 400),
    ];
    for (usual, other, expected) in cases {
        let request = upgrade_request("").replacen(usual, other, 1);
        let (status, head) = Peer::connect(relay.wss).ask(&request);
        assert_eq!(status, expected, "{other}: {head}");
        if status == 101 {
            assert!(head.contains("\r\nsec-websocket-protocol: pilot.v1\r\n"), "{head}");
            assert!(head.contains("\r\nupgrade: websocket\r\n"), "{head}");
        }
    }
}

#[test]
fn spec_3_1_request_head_over_8_kib_is_refused() {
    let relay = Relay::with_nodes(&[], &[]);
    let padded = |bytes: usize| {
        let rest = upgrade_request("X-Padding: \r\n").len();
        upgrade_request(&format!("X-Padding: {}\r\n", "x".repeat(bytes - rest)))
    };
    assert_eq!(Peer::connect(relay.wss).ask(&padded(8_000)).0, 101);
    let (status, _) = Peer::connect(relay.wss).ask(&padded(8_300));
    assert_eq!(status, 431);
    assert_eq!(connections(&relay, "bad_request"), 1.0);
}

#[test]
fn spec_3_1_head_that_two_programs_may_read_differently_is_refused() {
    let relay = Relay::with_nodes(&[], &[]);
    let health = "GET /health HTTP/1.1\r\nHost: relay\r\n\r\n";
    let upgrade = upgrade_request("");
    let origin = "Origin: https://relay\r\n";
    let cases = [
        ("two Host headers", upgrade_request("Host: other\r\n")),
        ("the same Host twice", upgrade_request("Host: relay\r\n")),
        ("two of a health check", health.replacen("\r\n\r\n", "\r\nHost: relay\r\n\r\n", 1)),
        ("two Origin headers", upgrade_request(&format!("{origin}{origin}"))),
        ("a lone LF behind the request line", upgrade.replacen("\r\n", "\n", 1)),
        ("a lone LF behind a header", upgrade.replacen("relay\r\n", "relay\n", 1)),
        ("a lone LF at the end", format!("{}\n", upgrade.strip_suffix("\r\n").unwrap())),
        ("a lone LF before the request", format!("\n{upgrade}")),
        ("a lone LF behind empty lines", format!("\r\n\r\n{}", health.replace("y\r\n", "y\n"))),
        ("lone LFs alone", health.replace("\r\n", "\n")),
    ];
    for (what, request) in &cases {
        assert_eq!(Peer::connect(relay.wss).ask(request).0, 400, "{what}");
    }
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    let tried = cases.len() as f64;
    assert_eq!(connections(&relay, "bad_request"), tried);
    // Empty lines before it are allowed (RFC 9112 §2.2).
    assert_eq!(Peer::connect(relay.wss).ask(&format!("\r\n{upgrade}")).0, 101);
}

#[test]
fn operators_head_that_two_programs_may_read_differently_is_refused() {
    let relay = Relay::with_nodes(&[], &[]);
    let host = format!("Host: {}\r\n", relay.admin);
    let get = format!("GET /healthz HTTP/1.1\r\n{host}\r\n");
    let post = format!("POST /healthz HTTP/1.1\r\n{host}Content-Length: 2\r\n\r\n\n\n");
    let lone = get.replacen("\r\n", "\n", 1);
    let twice = get.replacen(&host, &host.repeat(2), 1);
    for (what, request) in [("a lone LF", &lone), ("two Host headers", &twice)] {
        assert_eq!(Peer::connect(relay.admin).ask(request).0, 400, "{what}");
    }
    // The second request of a connection as well; after a body there is none.
    let mut operator = Peer::connect(relay.admin);
    let (status, head) = operator.ask(&get);
    assert_eq!((status, head.contains("connection: close")), (200, false), "{head}");
    std::io::Read::read_exact(&mut operator.stream, &mut [0; 3]).unwrap();
    assert_eq!(operator.ask(&lone).0, 400);
    let (status, head) = Peer::connect(relay.admin).ask(&post);
    assert_eq!((status, head.contains("connection: close")), (405, true), "{head}");
}

#[test]
fn spec_3_2_only_daemons_and_allowed_pages_may_connect() {
    let relay = Relay::with_nodes(&[], &["--allow-origin", "https://app.example.net"]);
    let cases = [
        ("", 101),
        ("Origin: pilot://daemon\r\n", 101),
        ("Origin: https://relay\r\n", 101),
        ("Origin: https://app.example.net\r\n", 101),
        ("Origin: http://app.example.net\r\n", 403),
        ("Origin: https://app.example.net:444\r\n", 403),
        ("Origin: https://relay.example.net\r\n", 403),
        ("Origin: https://evil.example.net\r\n", 403),
        ("Origin: https://pilot://daemon\r\n", 403),
        ("Origin: null\r\n", 403),
        ("Origin: \r\n", 403),
    ];
    for (origin, expected) in cases {
        assert_eq!(status(&relay, origin), expected, "{origin}");
    }
    assert_eq!(connections(&relay, "origin_refused"), 7.0);
}

#[test]
fn spec_3_3_clients_behind_a_proxy_have_their_own_upgrades() {
    // Slow enough that no upgrade comes back within the test.
    let limits = ["--upgrade-rate", "1", "--upgrade-burst", "50"];
    let relay = Relay::with_nodes(&[], &limits);
    let began = Instant::now();
    let first = statuses(&relay, "198.51.100.1", 60);
    let refilled = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    let admitted = first.iter().filter(|status| **status == 101).count();
    assert!((50..=50 + refilled).contains(&admitted), "{first:?}");
    assert!(first[..50].iter().all(|status| *status == 101), "{first:?}");
    assert!(first[50..].contains(&429), "{first:?}");

    // Another client; a claim to the left of what the proxy wrote; two of one IPv6 customer.
    assert_eq!(statuses(&relay, "198.51.100.2", 1), [101]);
    assert_eq!(statuses(&relay, "198.51.100.1, 198.51.100.3", 1), [101]);
    assert!(statuses(&relay, "198.51.100.99, 198.51.100.1", 5).contains(&429));
    let _used = statuses(&relay, "2001:db8:0:1::1", 50);
    assert!(statuses(&relay, "2001:db8:0:1:ffff::2", 5).contains(&429));
    assert_eq!(statuses(&relay, "2001:db8:0:2::1", 1), [101]);
    // Who is not limited is not counted, and health checks are free.
    assert!(connections(&relay, "rate_limited") >= 10.0);
    assert_eq!(http_get(relay.wss, "/health").0, 200);
}

#[test]
fn three_hundred_clients_behind_a_translator_are_not_one_client() {
    // Each has one upgrade, and none comes back for a while.
    let mut settings = vec!["--upgrade-rate", "1", "--upgrade-burst", "1"];
    // One /64 for all, and one prefix whose clients' addresses go on behind the "u" octet.
    settings.extend(["--nat64-prefix", "2001:db8:64::/96", "--nat64-prefix", "2001:db8:122::/48"]);
    let relay = Relay::with_nodes(&[], &settings);
    let by_96 = (0..300).map(|n| format!("2001:db8:64::203.0.{}.{}", n / 256, n % 256));
    let by_48 = (0..300).map(|n| format!("2001:db8:122:c633:{:x}:{:x}::", n / 256, n % 256 * 256));
    for client in by_96.chain(by_48) {
        assert_eq!(statuses(&relay, &client, 1), [101], "{client}");
    }
    assert_eq!(connections(&relay, "rate_limited"), 0.0);

    // Whoever comes without the translator as well is the same client.
    let again = ["203.0.0.7", "2001:db8:64::203.0.0.7"].repeat(5);
    let again: Vec<_> = again.into_iter().flat_map(|client| statuses(&relay, client, 1)).collect();
    assert!(again.contains(&429), "{again:?}");
    // Of a prefix that nobody named, all of a /64 are one client.
    let strangers = (0..10).map(|n| format!("2001:db8:65::203.0.113.{n}"));
    let strangers: Vec<_> = strangers.flat_map(|client| statuses(&relay, &client, 1)).collect();
    assert!(strangers.contains(&429), "{strangers:?}");
}

#[test]
fn spec_3_4_forwarded_address_of_a_stranger_is_ignored() {
    let limits = ["--upgrade-rate", "1", "--upgrade-burst", "50", "--trusted-proxy", ""];
    let relay = Relay::with_nodes(&[], &limits);
    let statuses: Vec<_> =
        (0..60).flat_map(|n| statuses(&relay, &format!("198.51.100.{n}"), 1)).collect();
    assert!(statuses[..50].iter().all(|status| *status == 101), "{statuses:?}");
    assert!(statuses[50..].contains(&429), "{statuses:?}");
    assert_eq!(relay.metric("pilot_beacon_wss_not_forwarded_total"), 0.0);
}

#[test]
fn spec_3_4_proxy_that_names_nobody_is_counted_and_warned_about_once() {
    let relay = Relay::with_nodes(&[], &[]);
    for _ in 0..3 {
        assert_eq!(status(&relay, ""), 101);
    }
    assert_eq!(relay.metric("pilot_beacon_wss_not_forwarded_total"), 3.0);
    let warning = "a trusted proxy passes requests on without X-Forwarded-For";
    relay.wait_for_line(warning);
    assert_eq!(relay.log().matches(warning).count(), 1);
}

#[test]
fn spec_3_3_relay_that_is_full_says_so_before_the_upgrade() {
    let nodes = [1, 2, 3].map(Node::new);
    let relay = Relay::with_nodes(&[&nodes[0], &nodes[1], &nodes[2]], &["--max-peers", "2"]);
    let _first = Peer::log_in(relay.wss, &nodes[0]);
    // Both upgrade while there is one place left; who logs in later is told afterwards.
    let (mut second, mut third) = (Peer::upgrade(relay.wss), Peer::upgrade(relay.wss));
    second.authenticate(&nodes[1], 2);
    let (opcode, payload) = third.try_to_authenticate(&nodes[2], 2);
    assert_eq!((opcode, &payload[..2]), (8, &1013_u16.to_be_bytes()[..]));

    assert_eq!(status(&relay, ""), 503);
    assert_eq!(connections(&relay, "at_capacity"), 2.0);
    assert_eq!(relay.metric("pilot_beacon_wss_active"), 2.0);

    drop(second);
    let admitted = look_until(Instant::now() + PATIENCE, || {
        let (mut peer, status) = Peer::request(relay.wss, "");
        (status == 101).then(|| peer.authenticate(&nodes[2], 2))
    });
    assert!(admitted.is_some(), "a place that was left stays taken");
}

/// Gives a running relay another limit of descriptors.
pub(crate) fn limit_descriptors(relay: &Relay, limit: usize) {
    let pid = Pid::from_raw(relay.id().cast_signed()).unwrap();
    // It has our own, of which it raises no more than the current one.
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = Some(limit as u64);
    prlimit(Some(pid), Resource::Nofile, Rlimit { current, maximum }).unwrap();
}

#[test]
fn relay_without_descriptors_serves_who_is_here_and_all_others_later() {
    let nodes = [11, 12, 13].map(Node::new);
    let relay = Relay::with_nodes(&nodes.each_ref(), &[]);
    let (mut a, mut b) = (Peer::log_in(relay.wss, &nodes[0]), Peer::log_in(relay.wss, &nodes[1]));
    let before = relay.metric("process_max_fds");
    // Whatever the relay opens for a moment it closes again: then none is left to accept.
    limit_descriptors(&relay, relay.descriptors());
    let mut waits = Peer::connect(relay.wss);
    relay.wait_for_line("cannot accept a connection");
    a.relay(11, 12, b"still here");
    assert_eq!(b.delivery(), (11, b"still here".to_vec()));

    limit_descriptors(&relay, 1_000);
    assert_eq!(waits.ask_for_upgrade(""), 101);
    waits.authenticate(&nodes[2], 2);
    assert!(relay.metric("pilot_beacon_wss_accept_errors_total") >= 1.0);
    assert_ne!(relay.metric("process_max_fds"), before);
}

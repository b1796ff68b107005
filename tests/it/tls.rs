//! The relay's own TLS: nodes log in and exchange packets over it, whoever disturbs is alone in
//! it, and what is wrong with certificates shows at the start.

use std::fs;
use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use beacon_relay::client::{Client, Options};
use beacon_relay::ids::NodeId;
use beacon_relay::net::tls::Trust;
use tempfile::TempDir;

use crate::deploy::nginx::write_certificates;
use crate::descriptors::Descriptors;
use crate::harness::{Node, PATIENCE, Relay};
use crate::wording::assert_names_a_way_out;

/// Connections before counting, so that what is kept for all is not counted for each.
const WARM_UP: u32 = 50;

/// Connections that are counted.
const COUNT: u32 = 500;

/// Most anonymous memory of the relay for each idle connection, in bytes.
const MOST: u64 = 10_000;

pub(crate) fn handshakes(outcome: &str) -> String {
    format!("beacon_relay_tls_handshakes_total{{outcome=\"{outcome}\"}}")
}

/// A folder with a certificate for loopback, its key and its CA.
pub(crate) fn certificates() -> TempDir {
    let folder = TempDir::new().unwrap();
    write_certificates(folder.path(), &["127.0.0.1".to_owned()], 90);
    folder
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// The flags that name the certificate.
fn flags(folder: &Path) -> [String; 4] {
    let at = |name: &str| text(&folder.join(name));
    ["--wss-tls-cert".to_owned(), at("cert.pem"), "--wss-tls-key".to_owned(), at("key.pem")]
}

/// A relay that speaks TLS at an address that needs `--public-plaintext` without.
pub(crate) fn relay(folder: &Path, nodes: &[Node], more: &[&str]) -> Relay {
    let flags = flags(folder);
    let mut arguments: Vec<_> = flags.iter().map(String::as_str).collect();
    arguments.extend(more);
    let known: Vec<_> = nodes.iter().collect();
    Relay::with_nodes(&known, &arguments)
}

pub(crate) async fn log_in(relay: &Relay, folder: &Path, node: &Node) -> Client {
    let id = NodeId::new(node.id).unwrap();
    let url = format!("wss://127.0.0.1:{}", relay.wss.port());
    let mut options = Options::new(url, id, node.key.clone());
    options.trust = Trust::CaFile(folder.join("ca.pem"));
    let client = tokio::time::timeout(PATIENCE, Client::connect(&options)).await;
    client.unwrap().unwrap_or_else(|error| panic!("{error}\n{}", relay.log()))
}

pub(crate) async fn next(client: &mut Client) -> Vec<u8> {
    let delivery = tokio::time::timeout(PATIENCE, client.recv()).await;
    delivery.unwrap().unwrap().unwrap().payload.to_vec()
}

pub(crate) fn run<T>(what: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(what)
}

/// What a client hears that says this, up to the end of the connection.
pub(crate) fn stranger(relay: &Relay, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", relay.wss.port())).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut heard = Vec::new();
    // An end by a reset is one too.
    let _ = stream.read_to_end(&mut heard);
    heard
}

#[test]
fn packets_go_over_tls_while_strangers_are_refused_and_the_canary_flies() {
    let folder = certificates();
    let nodes = [11, 12].map(Node::new);
    let more = ["--wss-bind", "0.0.0.0:0", "--canary-interval", "10ms"];
    let relay = relay(folder.path(), &nodes, &more);
    run(async {
        let mut one = log_in(&relay, folder.path(), &nodes[0]).await;
        let mut other = log_in(&relay, folder.path(), &nodes[1]).await;
        let exchange = async |one: &mut Client, other: &mut Client| {
            for length in [0, 1, 1_200, 16_384, 32_000] {
                let payload = vec![7; length];
                one.send_to(NodeId::new(12).unwrap(), &payload).await.unwrap();
                assert_eq!(next(other).await, payload);
            }
        };
        exchange(&mut one, &mut other).await;

        let heard = stranger(&relay, b"GET /v1/compat HTTP/1.1\r\nHost: relay\r\n\r\n");
        let heard = String::from_utf8(heard).unwrap();
        assert!(heard.starts_with("HTTP/1.1 400 ") && heard.contains("speaks TLS"), "{heard}");
        relay.wait_for_metric(&handshakes("not_tls"), 1.0);
        // A record that is longer than any may be.
        stranger(&relay, &[22, 3, 1, 0xff, 0xff, 1, 0, 0]);
        relay.wait_for_metric(&handshakes("invalid"), 1.0);
        drop(TcpStream::connect(("127.0.0.1", relay.wss.port())).unwrap());
        relay.wait_for_metric(&handshakes("gone"), 1.0);
        relay.wait_for_metric("pilot_beacon_wss_connections_total{outcome=\"tls_failed\"}", 2.0);

        exchange(&mut one, &mut other).await;
        assert_eq!(relay.metric(&handshakes("full")), 2.0);
    });
    assert!(relay.metric("pilot_beacon_canary_total{result=\"ok\"}") >= 1.0);
    for failed in ["connect", "login", "session"] {
        let failed = format!("pilot_beacon_canary_total{{result=\"{failed}\"}}");
        assert_eq!(relay.metric(&failed), 0.0, "{failed}");
    }
}

#[test]
fn reader_that_is_stuck_loses_its_own_packets_and_its_session() {
    let folder = certificates();
    let nodes = [11, 12, 13].map(Node::new);
    let more = ["--write-timeout", "500ms", "--relay-rate", "0"];
    let relay = relay(folder.path(), &nodes, &more);
    run(async {
        let one = log_in(&relay, folder.path(), &nodes[0]).await;
        let mut other = log_in(&relay, folder.path(), &nodes[1]).await;
        let stuck = log_in(&relay, folder.path(), &nodes[2]).await;
        let ended = "pilot_beacon_wss_sessions_ended_total{reason=\"write_timeout\"}";
        let payload = vec![9; 16_384];
        while relay.metric(ended) < 1.0 {
            for _ in 0..100 {
                one.send_to(NodeId::new(13).unwrap(), &payload).await.unwrap();
            }
            one.send_to(NodeId::new(12).unwrap(), b"still here").await.unwrap();
            assert_eq!(next(&mut other).await, b"still here");
        }
        assert!(relay.dropped("outbox_full") + relay.dropped("outbox_share") > 0);
        assert_eq!(relay.metric("pilot_beacon_wss_active"), 2.0);
        drop(stuck);
    });
}

#[test]
fn changed_certificates_are_for_new_connections_and_broken_ones_for_nobody() {
    const SESSIONS: u32 = 1_000;
    // Both ends of a connection are this process's or its child's, which inherits the limit.
    let _descriptors = Descriptors::take(u64::from(SESSIONS));
    let (folder, other) = (certificates(), certificates());
    let nodes: Vec<_> = (1..=SESSIONS + 2).map(Node::new).collect();
    let relay = relay(folder.path(), &nodes, &["--upgrade-rate", "0"]);
    let reloads = |result| format!("beacon_relay_tls_reloads_total{{result=\"{result}\"}}");
    let ends = "beacon_relay_tls_certificate_expiry_timestamp_seconds{listener=\"wss\",\
                name=\"IpAddress(127.0.0.1)\"}";
    let copy = |name: &str| {
        fs::copy(other.path().join(name), folder.path().join(name)).unwrap();
    };
    let in_days = |days: f64| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let left = (relay.metric(ends) - now) / 86_400.0;
        assert!((left - days).abs() < 1.0, "{left} days");
    };
    in_days(90.0);
    run(async {
        let mut clients = Vec::new();
        for node in &nodes[..SESSIONS as usize] {
            clients.push(log_in(&relay, folder.path(), node).await);
        }
        let last = log_in(&relay, folder.path(), &nodes[SESSIONS as usize]).await;

        // A key of another certificate: the old pair stays, for new connections too.
        copy("key.pem");
        relay.wait_for_metric(&reloads("failed"), 1.0);
        drop(log_in(&relay, folder.path(), &nodes[SESSIONS as usize + 1]).await);

        write_certificates(other.path(), &["127.0.0.1".to_owned()], 60);
        copy("cert.pem");
        copy("key.pem");
        relay.wait_for_metric(&reloads("ok"), 1.0);
        in_days(60.0);
        drop(log_in(&relay, other.path(), &nodes[SESSIONS as usize + 1]).await);

        for (client, number) in clients.iter_mut().zip(1..) {
            last.send_to(NodeId::new(number).unwrap(), b"still here").await.unwrap();
            assert_eq!(next(client).await, b"still here");
        }
    });
    assert_eq!(relay.metric("pilot_beacon_wss_replacements_total"), 0.0);
}

#[test]
fn idle_connection_takes_at_most_ten_thousand_bytes() {
    let folder = certificates();
    let nodes: Vec<_> = (1..=WARM_UP + COUNT).map(Node::new).collect();
    let patient = ["--upgrade-rate", "0", "--ping-interval", "0s", "--idle-timeout", "1h"];
    let relay = relay(folder.path(), &nodes, &patient);
    let mut before = 0;
    run(async {
        let mut clients = Vec::new();
        for (node, number) in nodes.iter().zip(0..) {
            if number == WARM_UP {
                before = relay.anonymous_memory();
            }
            clients.push(log_in(&relay, folder.path(), node).await);
        }
        let each = relay.anonymous_memory().saturating_sub(before) / u64::from(COUNT);
        println!("{each} bytes for each of {COUNT} idle connections over TLS");
        assert_eq!(relay.metric("pilot_beacon_wss_active"), f64::from(WARM_UP + COUNT));
        assert!(each <= MOST, "{each} bytes");
    });
}

/// The start with these arguments, which fails.
fn refused(arguments: &[String]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    let state = TempDir::new().unwrap();
    command.args(["serve", "--udp-bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0"]);
    command.arg("--state-dir").arg(state.path());
    let Output { status, stderr, .. } = command.args(arguments).output().unwrap();
    let line = String::from_utf8(stderr).unwrap();
    assert_names_a_way_out(&line);
    (status.code(), line)
}

#[test]
fn certificate_that_cannot_be_used_ends_the_start_with_the_reason() {
    let (folder, other) = (certificates(), certificates());
    let good = flags(folder.path());
    let at = |name: &str| text(&folder.path().join(name));
    fs::write(at("empty.pem"), "").unwrap();
    let foreign = text(&other.path().join("key.pem"));
    for (position, path, said) in [
        (1, at("none.pem"), "cannot be read"),
        (1, at("empty.pem"), "no certificate in it"),
        (3, at("empty.pem"), "no private key"),
        (3, foreign, "not the key of the certificate in"),
    ] {
        let mut arguments = good.clone();
        arguments[position].clone_from(&path);
        let (code, error) = refused(&arguments);
        assert!(error.contains(&path) && error.contains(said), "{error}");
        assert_eq!(code, Some(78), "{error}");
    }
    let (code, error) = refused(&good[..2]);
    assert!(error.contains("needs --wss-tls-key as well"), "{error}");
    assert_eq!(code, Some(64), "{error}");

    let table = |tls: &str| {
        let config = folder.path().join("relay.toml");
        let listener = format!("[[listener]]\nbind = \"127.0.0.1:0\"\ndoors = [\"pilot\"]\n{tls}");
        fs::write(&config, listener).unwrap();
        refused(&["--config".to_owned(), text(&config)])
    };
    let (code, error) = table("tls = [{ cert = \"none.pem\", key = \"none.key\" }]");
    assert!(error.contains("listener[1].tls") && error.contains("none.pem"), "{error}");
    assert_eq!(code, Some(78), "{error}");
    let (_, error) = table("tls = [{ cert = \"none.pem\" }]");
    assert!(error.contains("write tls = [{ cert = "), "{error}");
}

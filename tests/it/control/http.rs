//! Actions over HTTP, with a token and without, and the names that the listener is asked by.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::audit;
use crate::harness::{Node, PATIENCE, Relay, http_get, read_response};
use crate::peer::Peer;

const TOKEN: &str = "a token that only a test may have";

/// A relay that takes actions over HTTP, and the folder of its token.
fn relay(nodes: &[&Node], more: &[&str]) -> (Relay, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("token");
    fs::write(&path, format!("{TOKEN}\n")).unwrap();
    let token = ["--admin-token-file", path.to_str().unwrap()];
    (Relay::with_nodes(nodes, &[&token, more].concat()), folder)
}

/// Sends a request with these headers, each ended by CRLF; the status and the body.
fn request(relay: &Relay, line: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(relay.admin).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let head = format!("{line} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n");
    stream.write_all(format!("{head}{headers}\r\n{body}").as_bytes()).unwrap();
    read_response(&mut stream)
}

/// Posts an action with this Authorization, where there is one.
fn act(relay: &Relay, name: &str, authorization: &str, body: &str) -> (u16, Value) {
    let authorization = match authorization {
        "" => String::new(),
        text => format!("Authorization: {text}\r\n"),
    };
    let headers = format!("Host: {}\r\n{authorization}", relay.admin);
    let (status, body) = request(relay, &format!("POST /actions/{name}"), &headers, body);
    (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
}

fn with_token(relay: &Relay, name: &str, body: &str) -> (u16, Value) {
    act(relay, name, &format!("Bearer {TOKEN}"), body)
}

#[test]
fn same_actions_are_for_whoever_has_the_token() {
    let node = Node::new(11);
    let (relay, _folder) = relay(&[&node], &[]);
    let mut peer = Peer::log_in(relay.wss, &node);
    let (status, answer) = with_token(&relay, "peer", r#"{"node":11}"#);
    assert_eq!((status, &answer["result"]["over"]), (200, &"wss".into()));
    assert_eq!(with_token(&relay, "status", "").1["result"]["wss_peers"], 1);
    assert_eq!(with_token(&relay, "kick", r#"{"node":12}"#).0, 404);
    let (status, answer) = with_token(&relay, "kick", r#"{"node":11}"#);
    assert_eq!((status, &answer["ok"]), (200, &true.into()));
    assert_eq!(peer.read_close(), (1008, "kicked".to_owned()));

    let lines = audit(&relay);
    let last = lines.last().unwrap();
    assert_eq!((&last["action"], &last["by"]), (&"kick".into(), &"http".into()));
    let written = fs::read_to_string(relay.state_dir().join("audit.jsonl")).unwrap();
    assert!(!written.contains(TOKEN) && !relay.log().contains(TOKEN));
}

#[test]
fn nobody_without_the_token_does_anything() {
    let node = Node::new(11);
    let (relay, _folder) = relay(&[&node], &[]);
    let _peer = Peer::log_in(relay.wss, &node);
    let refused = |reason: &str| {
        relay.metric(&format!("pilot_beacon_control_rejects_total{{reason=\"{reason}\"}}"))
    };
    for authorization in ["", TOKEN, "Basic YTph"] {
        assert_eq!(act(&relay, "kick", authorization, r#"{"node":11}"#).0, 401, "{authorization}");
    }
    assert_eq!(refused("no_token"), 3.0);
    for token in ["", "a", &TOKEN[1..], &format!("{TOKEN}x")] {
        assert_eq!(act(&relay, "kick", &format!("Bearer {token}"), r#"{"node":11}"#).0, 401);
    }
    assert_eq!(refused("no_token") + refused("wrong_token"), 7.0);
    let (status, _) =
        request(&relay, "GET /actions/kick", &format!("Host: {}\r\n", relay.admin), "");
    assert_eq!(status, 405);
    relay.wait_for_metric("pilot_beacon_wss_active", 1.0);
    assert!(!relay.state_dir().join("audit.jsonl").exists());
}

#[test]
fn relay_without_a_token_file_takes_no_action_over_http() {
    let relay = Relay::start::<&str>([]);
    let (status, answer) = act(&relay, "status", "Bearer x", "");
    assert_eq!(status, 403);
    assert!(answer["error"].as_str().unwrap().contains("--admin-token-file"), "{answer}");
}

#[test]
fn request_that_is_none_too_large_or_too_slow_is_refused() {
    let (relay, _folder) = relay(&[], &[]);
    assert_eq!(with_token(&relay, "shutdown", "").0, 400);
    assert_eq!(with_token(&relay, "kick", "").0, 400);
    assert_eq!(with_token(&relay, "kick", "[7]").0, 400);
    assert_eq!(
        with_token(&relay, "kick", r#"{"node":7,"action":"drain"}"#).0,
        404,
        "the path counts"
    );

    let mut huge = TcpStream::connect(relay.admin).unwrap();
    let headers = format!("Host: {}\r\nAuthorization: Bearer {TOKEN}\r\n", relay.admin);
    let head = |length| {
        format!(
            "POST /actions/kick HTTP/1.1\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n"
        )
    };
    huge.write_all(head(1_000_000_000).as_bytes()).unwrap();
    // It is refused long before all of it has come.
    let _ = huge.write_all(&[b' '; 100_000]);
    assert_eq!(read_response(&mut huge).0, 413);

    let mut slow = TcpStream::connect(relay.admin).unwrap();
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    slow.write_all(head(10).as_bytes()).unwrap();
    let began = Instant::now();
    assert_eq!(read_response(&mut slow).0, 408);
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
}

#[test]
fn foreign_host_is_refused_on_every_path() {
    let (relay, _folder) = relay(&[], &["--admin-host", "relay.internal"]);
    let status_of = |path: &str, host: &str| {
        let headers = format!("Host: {host}\r\nAuthorization: Bearer {TOKEN}\r\n");
        request(&relay, path, &headers, "").0
    };
    for path in ["GET /metrics", "GET /status", "GET /", "POST /actions/status", "GET /nothing"] {
        assert_eq!(status_of(path, "evil.example"), 403, "{path}");
        assert_eq!(status_of(path, "evil.example:9464"), 403, "{path}");
    }
    let port = relay.admin.port();
    for host in ["localhost", &format!("localhost:{port}"), "relay.internal", "RELAY.internal:1"] {
        assert_eq!(status_of("GET /metrics", host), 200, "{host}");
        assert_eq!(status_of("POST /actions/status", host), 200, "{host}");
    }
    assert_eq!(http_get(relay.admin, "/healthz").0, 200);
    relay.wait_for_metric("pilot_beacon_admin_foreign_hosts_total", 10.0);
}

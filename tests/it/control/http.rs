//! Actions over HTTP, with a token and without, and the names that the listener is asked by.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::audit;
use crate::harness::{Node, PATIENCE, Relay, http_get, look_until, read_response};
use crate::peer::Peer;
use crate::stopping::Stopping;

const TOKEN: &str = "a token that only a test may have";

/// A relay that takes actions over HTTP, and the folder of its token.
fn relay(nodes: &[&Node], more: &[&str]) -> (Relay, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("token");
    fs::write(&path, format!("{TOKEN}\n")).unwrap();
    let token = ["--admin-token-file", path.to_str().unwrap()];
    (Relay::with_nodes(nodes, &[&token, more].concat()), folder)
}

/// The same for no nodes and, by 1,024 descriptors, for 32 connections of operators at a time.
fn relay_with_32_places() -> (Relay, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, format!("{TOKEN}\n")).unwrap();
    let mut command = Command::new("prlimit");
    command.args(["--nofile=1024:1024", env!("CARGO_BIN_EXE_beacon-relay")]);
    let token = ["--admin-token-file", path.to_str().unwrap()];
    (Relay::with_nodes_by(command, &[], &token), folder)
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
    assert_eq!(last["action"], "kick");
    let by = last["by"].as_str().unwrap().strip_prefix("http ").unwrap();
    assert!(by.parse::<SocketAddr>().unwrap().ip().is_loopback(), "{by}");
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
    let mut lines = audit(&relay).into_iter();
    assert!(lines.all(|line| line["action"] == "wrong-token" && line["result"] == "refused"));
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
fn body_that_broke_off_was_reported_as_too_large() {
    let (relay, _folder) = relay(&[], &[]);
    let mut broken = TcpStream::connect(relay.admin).unwrap();
    broken.set_read_timeout(Some(PATIENCE)).unwrap();
    let headers = format!("Host: {}\r\nAuthorization: Bearer {TOKEN}\r\n", relay.admin);
    let head = format!("POST /actions/kick HTTP/1.1\r\n{headers}Content-Length: 10\r\n\r\n{{");
    broken.write_all(head.as_bytes()).unwrap();
    broken.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    // The relay may have nothing more to say to somebody who has gone.
    let _ = broken.read_to_string(&mut answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let rejects = |why: &str| format!("pilot_beacon_control_rejects_total{{reason=\"{why}\"}}");
    relay.wait_for_metric(&rejects("aborted"), 1.0);
    assert!(relay.metric(&rejects("too_large")).abs() < f64::EPSILON);
}

#[test]
fn wrong_tokens_were_answered_by_the_thousand_and_left_no_trace() {
    const GUESSERS: u32 = 40;
    // Fewer than there are guessers.
    let (relay, _folder) = relay_with_32_places();
    let (stop, answered) = (AtomicBool::new(false), AtomicU32::new(0));
    let began = Instant::now();
    thread::scope(|scope| {
        let _stopping = Stopping(&stop);
        for _ in 0..GUESSERS {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(act(&relay, "status", "Bearer 0123456789abcdef", "").0, 401);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let guessed = || (answered.load(Ordering::Relaxed) >= 3).then_some(());
        look_until(Instant::now() + PATIENCE, guessed).expect("a guess is answered");
        // The right one is not slowed by the pace of guesses, and never refused.
        for _ in 0..3 {
            assert_eq!(with_token(&relay, "status", "").0, 200);
        }
    });
    let answered = f64::from(answered.load(Ordering::Relaxed));
    // One a second, and ten a second that give way to others; and those that all wait at last.
    let most = 11.0 * began.elapsed().as_secs_f64() + f64::from(GUESSERS);
    assert!(answered <= most, "{answered} answers, {most} at most");

    let lines = audit(&relay);
    let guesses: Vec<_> = lines.iter().filter(|line| line["action"] == "wrong-token").collect();
    assert!((1..=10).contains(&guesses.len()), "{lines:?}");
    assert!(guesses[0]["by"].as_str().unwrap().starts_with("http 127.0.0.1:"), "{lines:?}");
    assert!(
        !fs::read_to_string(relay.state_dir().join("audit.jsonl")).unwrap().contains("01234567")
    );
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

#[test]
fn guesser_that_did_not_wait_for_the_answer_had_its_tokens_checked_by_the_thousand() {
    const GUESSERS: u32 = 16;
    const GUESSES: u32 = 1_500;
    let (relay, _folder) = relay_with_32_places();
    let head = format!(
        "POST /actions/status HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer 0123456789abcdef\r\n\r\n",
        relay.admin
    );
    let guessed = AtomicU32::new(0);
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..GUESSERS {
            scope.spawn(|| {
                while guessed.fetch_add(1, Ordering::Relaxed) < GUESSES {
                    let Ok(mut stream) = TcpStream::connect(relay.admin) else { continue };
                    // It may have been closed already.
                    let _sent = stream.write_all(head.as_bytes());
                    // What the guesser does, not what the test waits for.
                    thread::sleep(Duration::from_millis(5));
                }
            });
        }
        // The right one gets in meanwhile.
        for _ in 0..3 {
            assert_eq!(with_token(&relay, "status", "").0, 200);
        }
    });
    let checked = relay.metric("pilot_beacon_control_rejects_total{reason=\"wrong_token\"}");
    // Ten a second that give way, 32 places for 10 s each, and those that all wait at last.
    let most = 14.0 * began.elapsed().as_secs_f64() + 2.0 * 32.0;
    assert!((1.0..=most).contains(&checked), "{checked} were checked, {most} at most");
    assert!(relay.metric("pilot_beacon_admin_abandoned_total") >= 1.0);
}

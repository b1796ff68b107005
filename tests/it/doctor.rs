//! `beacon-relay doctor` against real relays behind real proxies, and against all that can be
//! wrong on the way.

use std::ffi::OsStr;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use beacon_relay::wire::auth::Challenge;
use serde_json::Value;
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Message, accept_hdr};

use crate::caddy::Caddy;
use crate::deploy::nginx::Nginx;
use crate::deploy::{deploy, tool};
use crate::harness::{Node, Relay};
use crate::ports::free_address;
use crate::registry::{Answer, Registry};

/// What a run of the doctor came to.
pub(crate) struct Diagnosis {
    code: i32,
    report: Value,
}

impl Diagnosis {
    /// The verdict and the text of a check; the worst, if it has several.
    fn of(&self, check: &str) -> (String, String) {
        let checks = self.report["checks"].as_array().unwrap();
        let found = checks.iter().filter(|finding| finding["check"] == check);
        let rank = |finding: &&Value| {
            ["skipped", "ok", "warning", "failed"].iter().position(|v| finding["verdict"] == *v)
        };
        let worst = found.max_by_key(rank);
        let worst = worst.unwrap_or_else(|| panic!("no {check} in {:#}", self.report));
        let text = |key: &str| worst[key].as_str().unwrap_or_default();
        (text("verdict").to_owned(), format!("{} -> {}", text("found"), text("remedy")))
    }

    /// Each finding that is worth a look, or worse, says what to do.
    fn assert_remedies(&self) {
        let findings = self.report["checks"].as_array().unwrap();
        let is_wrong =
            |finding: &&Value| ["warning", "failed"].iter().any(|v| finding["verdict"] == *v);
        for finding in findings.iter().filter(is_wrong) {
            let remedy = finding["remedy"].as_str().unwrap_or_default();
            assert!(remedy.len() > 5, "{finding}");
        }
    }

    fn verdict(&self, check: &str) -> String {
        self.of(check).0
    }

    /// Asserts what the doctor ended with.
    pub(crate) fn assert_code(&self, code: i32) {
        assert_eq!(self.code, code, "{:#}", self.report);
    }

    /// Asserts that a check ended so, and says this.
    pub(crate) fn assert(&self, check: &str, verdict: &str, part: &str) {
        let (is, text) = self.of(check);
        assert!(
            is == verdict && text.contains(part),
            "{check}: {is}: {text}, not {verdict}: {part}"
        );
    }
}

/// Runs the doctor where nothing of the machine is in the way of a test.
pub(crate) fn doctor<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Diagnosis {
    let later = tool("caddy").parent().unwrap().display().to_string();
    doctor_in(&format!("{later}:{}", std::env::var("PATH").unwrap()), arguments)
}

/// Runs it with this PATH, by which it finds Caddy.
fn doctor_in<A: AsRef<OsStr>>(path: &str, arguments: impl IntoIterator<Item = A>) -> Diagnosis {
    doctor_by(Command::new(env!("CARGO_BIN_EXE_beacon-relay")), path, arguments)
}

/// Runs it by this command, to which the arguments are added.
pub(crate) fn doctor_by<A: AsRef<OsStr>>(
    mut command: Command,
    path: &str,
    arguments: impl IntoIterator<Item = A>,
) -> Diagnosis {
    // Caddy writes to its home whatever it is asked.
    let home = tempfile::tempdir().unwrap();
    command.env_clear().env("HOME", home.path()).env("PATH", path);
    let output = command.args(["doctor", "--json"]).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.lines().count() <= 1 && !said.contains("panicked"), "{said}");
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let diagnosis = Diagnosis { code: output.status.code().unwrap(), report };
    diagnosis.assert_remedies();
    diagnosis
}

/// A relay that a node of the vectors may log in to, and what names that node.
pub(crate) struct Known {
    pub(crate) relay: Relay,
    pub(crate) folder: TempDir,
}

impl Known {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let relay = Relay::with_nodes(&[&Node::of_the_vectors()], arguments);
        Self { relay, folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn login(&self, node: &Node) -> [String; 4] {
        // The id is that of the node that the relay knows, whoever's key it is.
        let key = node.write_key(self.folder.path());
        ["--node-id", "4242", "--key", key.to_str().unwrap()].map(str::to_owned)
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn doctor_finds_no_fault_in_the_whole_chain_behind_caddy() {
    let known = Known::start(&["--relay-name", "localhost"]);
    let caddy = Caddy::that_keeps(known.relay.wss);
    let node = Node::of_the_vectors();
    let registry = Registry::start(|_| Answer::Key(4242));
    let mut arguments = vec![caddy.url(), "--ca".to_owned(), text(&caddy.ca)];
    arguments.extend(known.login(&node));
    arguments.extend(["--udp".to_owned(), known.relay.udp.to_string()]);
    arguments.extend(["--registry".to_owned(), registry.address.to_string()]);
    arguments.extend(["--proxy-config".to_owned(), text(&deploy("Caddyfile.stream-close-delay"))]);

    let diagnosis = doctor(&arguments);

    for check in [
        "name",
        "tls",
        "tcp",
        "upgrade",
        "challenge",
        "clock",
        "relay-name",
        "login",
        "ping",
        "largest-frame",
        "client-address",
        "udp",
        "proxy-reload",
        "registry",
    ] {
        assert_eq!(diagnosis.verdict(check), "ok", "{check}: {:#}", diagnosis.report);
    }
    diagnosis.assert("udp", "ok", "127.0.0.1");
    assert_eq!(known.relay.metric("pilot_beacon_udp_nodes"), 0.0, "it made a node known");
    diagnosis.assert("client-address", "ok", "127.0.0.1");
    diagnosis.assert("proxy-reload", "ok", "86400 s");
    diagnosis.assert_code(0);
}

#[test]
fn doctor_that_finds_nothing_exits_0() {
    let known = Known::start(&["--relay-name", "localhost"]);
    let nginx = Nginx::with(known.relay.wss, &["localhost".to_owned()], 90, ("", ""));
    let mut arguments = vec![nginx.url(), "--ca".to_owned(), text(&nginx.ca())];
    // What the arguments do not let it check is no fault.
    doctor(&arguments).assert_code(0);
    arguments.extend(known.login(&Node::of_the_vectors()));
    let diagnosis = doctor(&arguments);
    diagnosis.assert_code(0);
    diagnosis.assert("tls", "ok", "days");
    diagnosis.assert("udp", "skipped", "--udp");
    diagnosis.assert("registry", "skipped", "--registry");
    diagnosis.assert("largest-frame", "ok", "65536");
}

#[test]
fn key_that_the_relay_does_not_know_fails_the_login() {
    let known = Known::start(&[]);
    let stranger = Node { id: 4242, ..Node::new(7) };
    let url = format!("ws://{}", known.relay.wss);
    let diagnosis = doctor(std::iter::once(url.clone()).chain(known.login(&stranger)));
    diagnosis.assert_code(2);
    diagnosis.assert("upgrade", "ok", "pilot.v1");
    diagnosis.assert("login", "failed", "beacon-relay enroll 4242 ");

    // Directly, the relay takes this machine for its proxy; that is no fault.
    let diagnosis = doctor(std::iter::once(url).chain(known.login(&Node::of_the_vectors())));
    diagnosis.assert("client-address", "ok", "the relay itself");
    diagnosis.assert("relay-name", "warning", "--relay-name 127.0.0.1");
    diagnosis.assert_code(1);
}

#[test]
fn certificate_that_a_peer_would_refuse_fails_and_nobody_logs_in() {
    let known = Known::start(&[]);
    let ours = &["localhost".to_owned()][..];
    let other = &["relay.example.net".to_owned()][..];
    for (names, days, trusts, part) in [
        (ours, -1, true, "expired on 20"),
        (other, 90, true, "for relay.example.net, not for localhost"),
        (ours, 90, false, "signed by nobody"),
    ] {
        let nginx = Nginx::with(known.relay.wss, names, days, ("", ""));
        let mut arguments = vec![nginx.url()];
        arguments.extend(known.login(&Node::of_the_vectors()));
        if trusts {
            arguments.extend(["--ca".to_owned(), text(&nginx.ca())]);
        }
        let diagnosis = doctor(&arguments);
        diagnosis.assert_code(2);
        diagnosis.assert("tls", "failed", part);
        // One run finds all: the rest of the way is good.
        diagnosis.assert("challenge", "ok", "");
        diagnosis.assert("login", "skipped", "after the failure");
    }
    assert!(!known.relay.log().contains("4242"), "{}", known.relay.log());
}

#[test]
fn way_that_leads_nowhere_fails_at_its_step() {
    let relay = Relay::start([] as [&str; 0]);
    let dead = free_address();
    for (url, check, part) in [
        (format!("http://{}", relay.wss), "url", "the scheme must be wss or ws"),
        (format!("ws://{dead}"), "tcp", "nobody answers"),
        ("wss://a..b".to_owned(), "name", "does not resolve"),
        (format!("wss://{}", relay.wss), "tls", "handshake failed"),
        (format!("ws://{}/v2", relay.wss), "upgrade", "404"),
        (format!("ws://{}", relay.admin), "upgrade", "404"),
    ] {
        let diagnosis = doctor([&url]);
        diagnosis.assert_code(2);
        diagnosis.assert(check, "failed", part);
    }
}

#[test]
fn proxy_without_its_relay_is_told_from_a_dead_one() {
    let dead = free_address();
    let nginx = Nginx::with(dead, &["localhost".to_owned()], 90, ("", ""));
    let diagnosis = doctor([nginx.url(), "--ca".to_owned(), text(&nginx.ca())]);
    diagnosis.assert("upgrade", "failed", "502 Bad Gateway by nginx");
    diagnosis.assert("upgrade", "failed", "is its --wss-bind the proxy's upstream?");
    diagnosis.assert_code(2);
}

/// Upgrades one connection after another, and sends a challenge.
fn pretend(subprotocol: Option<&'static str>, skew: i64, name: Option<&str>) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let ts = now.checked_add_signed(skew).unwrap();
    let challenge = Challenge { nonce: "5a".repeat(32), ts, relay: name.map(str::to_owned) };
    thread::spawn(move || {
        for stream in listener.incoming() {
            #[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
            let echo = |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
                if let Some(echo) = subprotocol {
                    let echo = HeaderValue::from_static(echo);
                    response.headers_mut().insert("sec-websocket-protocol", echo);
                }
                Ok(response)
            };
            if let Ok(mut socket) = accept_hdr(stream.unwrap(), echo) {
                let _ = socket.send(Message::text(challenge.encode()));
                while socket.read().is_ok() {}
            }
        }
    });
    url
}

#[test]
fn server_that_does_not_name_the_subprotocol_fails() {
    let diagnosis = doctor([pretend(None, 0, None)]);
    diagnosis.assert("subprotocol", "failed", "Sec-WebSocket-Protocol");
    diagnosis.assert_code(2);
}

#[test]
fn clock_that_differs_is_a_warning() {
    for (skew, part) in [(-600, "behind"), (3_600, "ahead of")] {
        let diagnosis = doctor([pretend(Some("pilot.v1"), skew, Some("127.0.0.1"))]);
        diagnosis.assert("clock", "warning", part);
        diagnosis.assert_code(1);
    }
}

#[test]
fn relay_of_another_name_fails_unless_that_name_is_given() {
    let url = pretend(Some("pilot.v1"), 0, Some("other.example.net"));
    let diagnosis = doctor([&url]);
    diagnosis.assert("relay-name", "failed", "--relay-name 127.0.0.1");
    diagnosis.assert_code(2);
    let diagnosis = doctor([&url, "--relay-name", "other.example.net"]);
    diagnosis.assert("relay-name", "ok", "other.example.net");
    diagnosis.assert_code(0);
}

#[test]
fn proxy_that_passes_on_what_a_client_claims_is_a_warning() {
    let known = Known::start(&["--relay-name", "localhost"]);
    let part = ("X-Forwarded-For $remote_addr", "X-Forwarded-For $http_x_forwarded_for");
    let nginx = Nginx::with(known.relay.wss, &["localhost".to_owned()], 90, part);
    let mut arguments = vec![nginx.url(), "--ca".to_owned(), text(&nginx.ca())];
    arguments.extend(known.login(&Node::of_the_vectors()));
    let diagnosis = doctor(&arguments);
    diagnosis.assert("client-address", "warning", "replace X-Forwarded-For");
    diagnosis.assert_code(1);
}

#[test]
fn what_a_reload_of_the_proxy_does_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::File::create(&path).unwrap().write_all(content.as_bytes()).unwrap();
        text(&path)
    };
    let url = pretend(Some("pilot.v1"), 0, Some("127.0.0.1"));
    let closes = write("closes", "events {}\nworker_shutdown_timeout 9s;\nproxy_pass x;\n");
    let caddy = Caddy::that_keeps(SocketAddr::from((Ipv4Addr::LOCALHOST, 9)));
    for (source, verdict, part) in [
        (text(&deploy("Caddyfile.stream-close-delay")), "ok", "86400 s"),
        (text(&deploy("Caddyfile")), "warning", "add stream_close_delay"),
        (text(&deploy("nginx/nginx.conf")), "ok", "old workers"),
        (closes, "warning", "worker_shutdown_timeout 9s"),
        (format!("http://{}", caddy.admin), "ok", "86400 s"),
        (write("nonsense", "{ nonsense"), "warning", "cannot be checked"),
        (text(&folder.path().join("missing")), "warning", "No such file"),
    ] {
        let diagnosis = doctor([&url, "--proxy-config", &source]);
        diagnosis.assert("proxy-reload", verdict, part);
        diagnosis.assert_code(i32::from(verdict == "warning"));
    }
    let file = text(&deploy("Caddyfile"));
    let debians = doctor_in(&std::env::var("PATH").unwrap(), [&url, "--proxy-config", &file]);
    debians.assert("proxy-reload", "warning", "closes every WebSocket at a reload");
    let none = doctor_in("/nonexistent", [&url, "--proxy-config", &file]);
    none.assert("proxy-reload", "warning", "caddy cannot be run");
}

#[test]
fn silent_udp_and_registry_are_warnings() {
    let url = pretend(Some("pilot.v1"), 0, Some("127.0.0.1"));
    // Bound, and nobody reads: the doctor waits for an answer in vain.
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let udp = silent.local_addr().unwrap().to_string();
    let diagnosis = doctor([&*url, "--udp", &udp, "--registry", "127.0.0.1:1"]);
    diagnosis.assert("udp", "warning", "no answer");
    diagnosis.assert("udp", "warning", "UDP is blocked");
    diagnosis.assert("udp", "warning", "upgrade it");
    diagnosis.assert("registry", "warning", "(connect)");
    diagnosis.assert_code(1);
}

#[test]
fn relay_of_this_machine_is_looked_at_without_a_url() {
    let relay = Relay::start(["--relay-name", "localhost"]);
    relay.wait_for_metric("pilot_beacon_ready", 1.0);
    let admin = relay.admin.to_string();
    let state = text(relay.state_dir());
    let diagnosis = doctor(["--admin-bind", &admin, "--state-dir", &state]);
    diagnosis.assert("settings", "ok", "valid");
    diagnosis.assert("keys", "ok", &state);
    // Other tests may keep the machine busy, which degrades it.
    diagnosis.assert("relay", &diagnosis.verdict("relay"), &format!("{admin}: ready"));
    assert_ne!(diagnosis.verdict("descriptors"), "skipped");
    diagnosis.assert("udp-buffers", &diagnosis.verdict("udp-buffers"), "net.core.");
    assert!(diagnosis.code < 2, "no URL, no failure");

    drop(relay);
    let diagnosis = doctor(["--admin-bind", &admin, "--state-dir", &state]);
    diagnosis.assert("relay", "warning", "start it");
    diagnosis.assert_code(1);
    let diagnosis = doctor(["--max-peers", "0"]);
    diagnosis.assert("settings", "failed", "--max-peers");
    diagnosis.assert_code(2);
}

#[test]
fn key_that_cannot_be_read_is_a_wrong_argument() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    let key = ["--node-id", "11", "--key", "/nonexistent/key"];
    let output = command.args(["doctor", "ws://127.0.0.1:1"]).args(key).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(64), 0), "{said}");
    assert!(said.contains("--key: ") && said.contains("/nonexistent/key"), "{said}");
}

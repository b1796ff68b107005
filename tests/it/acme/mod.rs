//! Certificates that the relay gets itself, from a real authority: the first by one command, what
//! is kept of them, and what goes wrong at the authority, on the way and on the disk.

mod pebble;

use std::fs;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use beacon_relay::client::{Client, ConnectError, Options};
use beacon_relay::ids::NodeId;
use beacon_relay::net::resolve::Resolver;
use beacon_relay::net::tls::Trust;
use tempfile::TempDir;

use self::pebble::Authority;
use crate::harness::{Node, PATIENCE, Relay, http_get, look_until, write_directory};
use crate::ports::free_port;

const NAME: &str = "relay.test";

/// As long as certificates of 90 days: nothing is renewed while a test runs.
const LONG: u64 = 90 * 24 * 60 * 60;

/// Renewed after 12 to 14 s.
const SHORT: u64 = 20;

fn orders(result: &str) -> String {
    format!("beacon_relay_acme_orders_total{{result=\"{result}\"}}")
}

fn handshakes(outcome: &str) -> String {
    format!("beacon_relay_tls_handshakes_total{{outcome=\"{outcome}\"}}")
}

/// A relay's folders, which outlive it.
struct Home {
    state: Arc<TempDir>,
    keys: TempDir,
    nodes: Vec<Node>,
}

impl Home {
    fn new(nodes: u32) -> Self {
        let keys = TempDir::new().unwrap();
        let nodes: Vec<_> = (1..=nodes).map(Node::new).collect();
        write_directory(keys.path(), &nodes.iter().collect::<Vec<_>>());
        Self { state: Arc::new(TempDir::new().unwrap()), keys, nodes }
    }

    /// Starts the relay at this port, 0 for a free one.
    fn start(&self, authority: &Authority, port: u16, names: &str) -> Relay {
        let keys = self.keys.path().join("keys.json").to_str().unwrap().to_owned();
        let bind = format!("127.0.0.1:{port}");
        let mut arguments = vec!["--keys", &keys, "--wss-bind", &bind, "--acme", names];
        arguments.extend(["--acme-contact", "mailto:admin@relay.test"]);
        let flags = authority.flags();
        arguments.extend(flags.iter().map(String::as_str));
        let program = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
        Relay::start_in(Arc::clone(&self.state), program, arguments)
    }

    fn acme(&self) -> PathBuf {
        self.state.path().join("acme")
    }

    /// The one file with a certificate.
    fn certificate(&self) -> PathBuf {
        let files = fs::read_dir(self.acme()).unwrap().map(|file| file.unwrap().path());
        let mut files = files.filter(|path| path.extension().is_some_and(|end| end == "pem"));
        let file = files.next().unwrap();
        assert_eq!(files.next(), None);
        file
    }
}

/// Logs in under this name, trusting this root alone.
async fn log_in(relay: &Relay, name: &str, root: &Path, node: &Node) -> Client {
    let client = try_log_in(relay, name, root, node).await;
    client.unwrap_or_else(|error| panic!("{error}\n{}", relay.log()))
}

async fn try_log_in(
    relay: &Relay,
    name: &str,
    root: &Path,
    node: &Node,
) -> Result<Client, ConnectError> {
    try_log_in_at(relay.wss.port(), name, root, node).await
}

async fn try_log_in_at(
    port: u16,
    name: &str,
    root: &Path,
    node: &Node,
) -> Result<Client, ConnectError> {
    let url = format!("wss://{name}:{port}");
    let mut options = Options::new(url, NodeId::new(node.id).unwrap(), node.key.clone());
    options.trust = Trust::CaFile(root.to_owned());
    options.resolver = Resolver::new(1, |_| Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))]));
    tokio::time::timeout(PATIENCE, Client::connect(&options)).await.unwrap()
}

fn run<T>(what: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(what)
}

async fn exchange(one: &mut Client, other: &mut Client, to: u32) {
    one.send_to(NodeId::new(to).unwrap(), b"hello").await.unwrap();
    let delivery = tokio::time::timeout(PATIENCE, other.recv()).await;
    assert_eq!(delivery.unwrap().unwrap().unwrap().payload.to_vec(), b"hello");
}

fn stop(mut relay: Relay) {
    relay.signal("TERM");
    assert_eq!(relay.wait_for_end(), 0);
}

/// Logs in, again while the certificate is a short one that a busy machine has let expire.
async fn log_in_soon(relay: &Relay, root: &Path, node: &Node) -> Client {
    let end = Instant::now() + PATIENCE * 3;
    loop {
        match try_log_in(relay, NAME, root, node).await {
            Ok(client) => return client,
            Err(error) => assert!(Instant::now() < end, "{error}\n{}", relay.log()),
        }
    }
}

/// Waits until the relay is ready.
/// Hands over a relay that has got its certificate.
pub(crate) fn with_certificate<T>(then: impl FnOnce(&Relay) -> T) -> T {
    let (authority, home) = (Authority::new(), Home::new(0));
    authority.name(NAME);
    let port = free_port();
    let _pebble = authority.start(port, LONG);
    let relay = home.start(&authority, port, NAME);
    relay.wait_for_metric(&orders("ok"), 1.0);
    then(&relay)
}

fn ready(relay: &Relay) {
    let is_ready = || (http_get(relay.admin, "/readyz").0 == 200).then_some(());
    look_until(Instant::now() + PATIENCE, is_ready)
        .unwrap_or_else(|| panic!("{}\n{}", http_get(relay.admin, "/readyz").1, relay.log()));
}

#[test]
fn one_command_is_a_relay_with_a_certificate_which_a_restart_has_without_the_authority() {
    let (authority, home) = (Authority::new(), Home::new(2));
    authority.name(NAME);
    let port = free_port();
    let pebble = authority.start(port, LONG);
    let root = pebble.root();
    let relay = home.start(&authority, port, NAME);
    relay.wait_for_metric(&orders("ok"), 1.0);
    run(async {
        let mut one = log_in(&relay, NAME, &root, &home.nodes[0]).await;
        let mut other = log_in(&relay, NAME, &root, &home.nodes[1]).await;
        exchange(&mut one, &mut other, 2).await;
    });
    ready(&relay);
    assert!(relay.metric(&handshakes("acme_challenge")) >= 1.0);
    assert!(relay.metric("pilot_beacon_wss_connections_total{outcome=\"acme_challenge\"}") >= 1.0);
    let of_name = |family: &str| format!("{family}{{name=\"{NAME}\"}}");
    let ends = format!(
        "beacon_relay_tls_certificate_expiry_timestamp_seconds{{listener=\"wss\",name=\"{NAME}\"}}"
    );
    let next = relay.metric(&of_name("beacon_relay_acme_next_order_timestamp_seconds"));
    let got = relay.metric(&of_name("beacon_relay_acme_last_success_timestamp_seconds"));
    let life = relay.metric(&ends) - got;
    let share = (next - got) / life;
    assert!((0.59..0.68).contains(&share), "{share} of {life} s");
    let (_, status) = http_get(relay.admin, "/status");
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["acme"][0]["names"][0], NAME);
    assert!(status["acme"][0]["expires_at"].is_string() && status["acme"][0]["error"].is_null());
    for file in fs::read_dir(home.acme()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", file.path());
    }
    assert_eq!(fs::metadata(home.acme()).unwrap().permissions().mode() & 0o777, 0o700);
    let kept = fs::read(home.certificate()).unwrap();
    let log = relay.log();
    assert!(!log.contains("PRIVATE") && !log.contains("key_pkcs8"), "{log}");
    stop(relay);
    drop(pebble);

    let relay = home.start(&authority, port, NAME);
    relay.wait_for_line("shows the certificate of the last time");
    run(async { drop(log_in(&relay, NAME, &root, &home.nodes[0]).await) });
    ready(&relay);
    assert_eq!(relay.metric(&orders("ok")), 0.0);
    assert_eq!(relay.metric(&orders("unreachable")), 0.0, "nobody was asked");
    assert_eq!(fs::read(home.certificate()).unwrap(), kept);
}

#[test]
fn authority_that_is_away_at_the_start_is_asked_again_until_it_answers() {
    let (authority, home) = (Authority::new(), Home::new(1));
    authority.name(NAME);
    let relay = home.start(&authority, 0, NAME);
    let line = relay.wait_for_line("no certificate came of an order");
    assert!(line.contains("result=\"unreachable\"") && line.contains("127.0.0.1"), "{line}");
    // Bound, and nobody gets in; /readyz says why in words.
    let root = authority.ca();
    run(async { try_log_in(&relay, NAME, &root, &home.nodes[0]).await.err().unwrap() });
    assert!(relay.metric(&handshakes("no_certificate")) >= 1.0);
    let (status, said) = http_get(relay.admin, "/readyz");
    assert_eq!(status, 503);
    let part = format!("acme: no certificate for {NAME} yet: ");
    assert!(said.contains(&part) && said.contains("; the next order is in "), "{said}");

    let pebble = authority.start(relay.wss.port(), LONG);
    relay.wait_for_metric(&orders("ok"), 1.0);
    assert!(relay.metric(&orders("unreachable")) >= 1.0);
    let root = pebble.root();
    run(async { drop(log_in(&relay, NAME, &root, &home.nodes[0]).await) });
    ready(&relay);
}

#[test]
fn certificate_is_renewed_under_sessions_that_stay_and_stays_while_the_authority_is_away() {
    let (authority, home) = (Authority::new(), Home::new(3));
    authority.name(NAME);
    let port = free_port();
    let pebble = authority.start(port, SHORT);
    let relay = home.start(&authority, port, NAME);
    wait_for_more(&relay, "ok", 0.0);
    let root = pebble.root();
    run(async {
        let mut one = log_in_soon(&relay, &root, &home.nodes[0]).await;
        let mut other = log_in_soon(&relay, &root, &home.nodes[1]).await;
        let first = fs::read(home.certificate()).unwrap();
        let before = relay.metric(&orders("ok"));
        wait_for_more(&relay, "ok", before);
        wait_for_change(&home, &first);
        exchange(&mut one, &mut other, 2).await;
        drop(log_in_soon(&relay, &root, &home.nodes[2]).await);

        // The authority goes: the next renewal fails, and nobody here notices.
        drop(pebble);
        wait_for_more(&relay, "unreachable", 0.0);
        let kept = fs::read(home.certificate()).unwrap();
        exchange(&mut one, &mut other, 2).await;
        let (_, said) = http_get(relay.admin, "/readyz?verbose");
        assert!(said.contains("until") && said.contains("the next order is in"), "{said}");

        // It comes back with another root and without the account.
        let before = relay.metric(&orders("ok"));
        let pebble = authority.start(port, LONG);
        let root = pebble.root();
        wait_for_more(&relay, "ok", before);
        assert!(relay.log().contains("the authority does not know the account"), "{}", relay.log());
        wait_for_change(&home, &kept);
        exchange(&mut one, &mut other, 2).await;
        drop(log_in_soon(&relay, &root, &home.nodes[2]).await);
        ready(&relay);
    });
    assert_eq!(relay.metric("pilot_beacon_wss_replacements_total"), 0.0);
    assert_eq!(relay.metric("pilot_beacon_wss_active"), 0.0);
}

/// Waits until more orders than that have ended so.
fn wait_for_more(relay: &Relay, result: &str, before: f64) {
    let more = || (relay.metric(&orders(result)) > before).then_some(());
    look_until(Instant::now() + PATIENCE * 3, more).unwrap_or_else(|| panic!("{}", relay.log()));
}

/// Waits until another certificate is kept.
fn wait_for_change(home: &Home, before: &[u8]) {
    let changed = || (fs::read(home.certificate()).unwrap() != before).then_some(());
    look_until(Instant::now() + PATIENCE, changed).expect("it is kept");
}

#[test]
fn listeners_prove_names_for_each_other_and_share_what_is_for_the_same() {
    let (authority, home) = (Authority::new(), Home::new(2));
    for name in [NAME, "b.test"] {
        authority.name(name);
    }
    let port = free_port();
    let pebble = authority.start(port, LONG);
    let table = |names: &str| {
        format!("[[listener]]\nbind = \"127.0.0.1:0\"\ndoors = [\"pilot\"]\nacme = [{names}]\n")
    };
    let tables = [table("\"b.test\", \"relay.test\""), table("\"relay.test\", \"b.test\"")];
    let file = home.keys.path().join("relay.toml");
    fs::write(&file, tables.concat()).unwrap();
    let keys = home.keys.path().join("keys.json");
    let bind = format!("127.0.0.1:{port}");
    let mut arguments = vec!["--wss-bind", &bind, "--acme", NAME, "--keys", keys.to_str().unwrap()];
    let flags = authority.flags();
    arguments.extend(flags.iter().map(String::as_str));
    arguments.extend(["--config", file.to_str().unwrap()]);
    let relay = Relay::start(arguments);
    // The authority comes to the one port, and two of three lists are the same.
    relay.wait_for_metric(&orders("ok"), 2.0);
    let root = pebble.root();
    let bound = |listener: &str| {
        let line = relay.wait_for_line(&format!("also listening listener=\"{listener}\""));
        let bind = line.split("bind=127.0.0.1:").nth(1).unwrap();
        bind.split(' ').next().unwrap().parse::<u16>().unwrap()
    };
    run(async {
        drop(log_in(&relay, NAME, &root, &home.nodes[0]).await);
        assert!(try_log_in(&relay, "b.test", &root, &home.nodes[1]).await.is_err());
        for listener in ["listener[1]", "listener[2]"] {
            for name in [NAME, "b.test"] {
                let client = try_log_in_at(bound(listener), name, &root, &home.nodes[1]).await;
                drop(client.unwrap_or_else(|error| panic!("{error}\n{}", relay.log())));
            }
        }
    });
    assert_eq!(relay.metric(&orders("ok")), 2.0);
}

#[test]
fn name_that_leads_elsewhere_is_told_with_what_the_authority_found() {
    let (authority, home) = (Authority::new(), Home::new(1));
    authority.name(NAME);
    // Nobody listens there.
    authority.names.lock().insert("b.test".to_owned(), Ipv4Addr::new(127, 0, 0, 2));
    let port = free_port();
    let _pebble = authority.start(port, LONG);
    let relay = home.start(&authority, port, "relay.test,b.test");
    let line = relay.wait_for_line("no certificate came of an order");
    assert!(line.contains("result=\"validation\"") && line.contains("error=b.test: "), "{line}");
    assert!(line.contains("Failed to connect to 127.0.0.2"), "{line}");
    // A minute, and a quarter of it at most.
    let seconds = line.split("seconds=").nth(1).unwrap().split(' ').next().unwrap();
    assert!((59..=75).contains(&seconds.parse::<u32>().unwrap()), "{line}");
    assert_eq!(relay.metric(&orders("validation")), 1.0);
    let doctor = Command::new(env!("CARGO_BIN_EXE_beacon-relay"))
        .args(["doctor", "--acme", "relay.test,b.test", "--admin-bind", &relay.admin.to_string()])
        .arg("--state-dir")
        .arg(home.state.path())
        .output()
        .unwrap();
    let said = String::from_utf8(doctor.stdout).unwrap();
    assert!(said.contains("b.test does not resolve: "), "{said}");
    let failed = "relay.test, b.test: no certificate yet; the last order failed: b.test: ";
    assert!(said.contains(failed), "{said}");
    stop(relay);

    // A restart tries at once, but not more often than the authority allows.
    for _ in 0..3 {
        let relay = home.start(&authority, port, "relay.test,b.test");
        relay.wait_for_line("no certificate came of an order");
        stop(relay);
    }
    let relay = home.start(&authority, port, "relay.test,b.test");
    relay.wait_for_line("waits for the next order");
    assert_eq!(relay.metric(&orders("validation")), 0.0);
    let (_, said) = http_get(relay.admin, "/readyz");
    assert!(said.contains("several orders have failed within an hour"), "{said}");
    stop(relay);

    // Other names have nothing to do with it.
    let relay = home.start(&authority, port, NAME);
    relay.wait_for_metric(&orders("ok"), 1.0);
}

#[test]
fn broken_files_are_replaced_and_the_log_says_so() {
    let (authority, home) = (Authority::new(), Home::new(1));
    authority.name(NAME);
    let port = free_port();
    let pebble = authority.start(port, LONG);
    let root = pebble.root();
    stop({
        let relay = home.start(&authority, port, NAME);
        relay.wait_for_metric(&orders("ok"), 1.0);
        relay
    });
    let (file, account) = (home.certificate(), home.acme().join("account.json"));
    let good = fs::read_to_string(&file).unwrap();
    let cut = good[..good.len() / 3].to_owned();
    for (certificate, of_account) in [(cut, "{}"), ("no PEM".to_owned(), ""), (String::new(), "[")]
    {
        fs::write(&file, &certificate).unwrap();
        fs::write(&account, of_account).unwrap();
        let relay = home.start(&authority, port, NAME);
        let line = relay.wait_for_line("a kept certificate is of no use");
        assert!(line.contains(file.to_str().unwrap()) && line.contains("reason="), "{line}");
        relay.wait_for_line("the ACME account is of no use: there will be a new one");
        relay.wait_for_metric(&orders("ok"), 1.0);
        run(async { drop(log_in(&relay, NAME, &root, &home.nodes[0]).await) });
        stop(relay);
        assert!(fs::read_to_string(&file).unwrap().contains("PRIVATE KEY"));
    }
}

#[test]
fn state_folder_that_takes_nothing_orders_nothing_until_it_does() {
    let (authority, home) = (Authority::new(), Home::new(1));
    authority.name(NAME);
    let port = free_port();
    let pebble = authority.start(port, LONG);
    // Root may write to any folder, but not where a file is.
    fs::write(home.acme(), "in the way").unwrap();
    let relay = home.start(&authority, port, NAME);
    let line = relay.wait_for_line("no certificate came of an order");
    assert!(line.contains("result=\"storage\"") && line.contains("cannot be written"), "{line}");
    assert!(!relay.log().contains("has an account at the authority"), "it was asked");
    fs::remove_file(home.acme()).unwrap();
    relay.wait_for_metric(&orders("ok"), 1.0);
    let root = pebble.root();
    run(async { drop(log_in(&relay, NAME, &root, &home.nodes[0]).await) });
}

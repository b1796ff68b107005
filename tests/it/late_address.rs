//! Addresses that the machine does not have yet when the relay starts, as after a boot: in a
//! network namespace that has none but loopback's.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{PATIENCE, Program, look_until};

/// The address that is not there (RFC 5737).
const LATE: &str = "192.0.2.77";

/// A namespace, which goes when this is dropped.
struct Namespace(String);

impl Namespace {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let namespace = Self(format!("brlate{}-{number}", std::process::id()));
        ip(&format!("netns add {}", namespace.0));
        ip(&format!("-n {} link set lo up", namespace.0));
        namespace
    }

    fn add_address(&self) {
        ip(&format!("-n {} address add {LATE}/32 dev lo", self.0));
    }

    /// A relay in the namespace, `flag` of which has the address that is not there.
    fn serve(&self, folder: &TempDir, flag: &str, more: &[&str]) -> Command {
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "a secret that only a test may have").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&secret, mode).unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, env!("CARGO_BIN_EXE_beacon-relay"), "serve"]);
        command.arg("--state-dir").arg(folder.path()).arg("--cluster-secret-file").arg(secret);
        command.args(["--public-plaintext", "--log-format=text"]).args(more);
        for bind in FLAGS {
            let host = if bind == flag { LATE } else { "127.0.0.1" };
            command.arg(bind).arg(format!("{host}:0"));
        }
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nothing is left to tell that it stays.
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

/// Everything that the relay binds.
const FLAGS: [&str; 4] = ["--wss-bind", "--udp-bind", "--admin-bind", "--cluster-bind"];

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.unwrap().success(), "ip {arguments}");
}

#[test]
fn address_that_came_after_the_start_was_never_bound_to() {
    for flag in FLAGS {
        let namespace = Namespace::new();
        let folder = tempfile::tempdir().unwrap();
        let relay = Program::start(&mut namespace.serve(&folder, flag, &[]));
        let line = relay.wait_for_line("waits for an address that is not there yet");
        assert!(line.contains(flag.trim_start_matches('-')) && line.contains(LATE), "{line}");
        namespace.add_address();
        relay.wait_for_line("listening");
    }
}

#[test]
fn service_manager_hears_which_address_is_waited_for() {
    let namespace = Namespace::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = namespace.serve(&folder, "--wss-bind", &[]);
    let relay = Program::start(command.env("NOTIFY_SOCKET", &path));
    let hear = || {
        let mut buffer = [0; 1_024];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let heard = hear();
    assert!(heard.starts_with("EXTEND_TIMEOUT_USEC="), "{heard}");
    assert!(heard.contains(&format!("STATUS=Waiting for the address {LATE}:0 of --wss-bind")));
    namespace.add_address();
    relay.wait_for_line("listening");
    while !hear().starts_with("READY=1") {}
}

#[test]
fn address_that_is_not_there_is_bound_to_where_that_is_asked_for() {
    let namespace = Namespace::new();
    for flag in FLAGS {
        let folder = tempfile::tempdir().unwrap();
        let relay = Program::start(&mut namespace.serve(&folder, flag, &["--free-bind"]));
        relay.wait_for_line("listening");
        assert!(!relay.log().contains("waits for an address"), "{}", relay.log());
        if flag == "--udp-bind" {
            // A standby is no worse for it.
            relay.wait_for_line("the relay does not serve its canary");
            assert!(!has_failed_over_udp(&folder), "{}", relay.log());
        }
    }
}

/// Whether the part `udp` keeps the relay in this folder from being ready.
fn has_failed_over_udp(folder: &TempDir) -> bool {
    let mut status = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    status.args(["status", "--json", "--state-dir"]).arg(folder.path());
    let answer: Value = serde_json::from_slice(&status.output().unwrap().stdout).unwrap();
    answer["failed"].get("udp").is_some()
}

#[test]
fn signal_ends_the_wait_for_an_address() {
    let namespace = Namespace::new();
    let folder = tempfile::tempdir().unwrap();
    let mut relay = Program::start(&mut namespace.serve(&folder, "--udp-bind", &[]));
    relay.wait_for_line("waits for an address that is not there yet");
    // `ip netns exec` becomes the relay.
    let id = relay.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    relay.wait_for_success();
}

#[test]
fn relay_whose_udp_is_cut_off_was_ready() {
    let namespace = Namespace::new();
    namespace.add_address();
    let folder = tempfile::tempdir().unwrap();
    let mut command = namespace.serve(&folder, "--udp-bind", &["--canary-interval=100ms"]);
    let relay = Program::start(&mut command);
    relay.wait_for_line("listening");
    let failed = || has_failed_over_udp(&folder);
    assert!(!failed(), "{}", relay.log());

    let rule = |words: &str| ip(&format!("-n {} rule {words}", namespace.0));
    // Before the rule that finds all local addresses.
    rule("add pref 10 lookup local");
    rule("del pref 0");
    rule("add pref 5 ipproto udp prohibit");
    let end = Instant::now() + PATIENCE;
    look_until(end, || failed().then_some(())).unwrap_or_else(|| panic!("{}", relay.log()));
    relay.wait_for_line("the relay does not serve its canary");
    rule("del pref 5");
    relay.wait_for_line("the canary is served again");
    let end = Instant::now() + PATIENCE;
    look_until(end, || (!failed()).then_some(())).unwrap_or_else(|| panic!("{}", relay.log()));
}

//! The door over NATS JetStream, with the real nats-server.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::{Site, envelope};
use crate::cluster::nats::NatsServer;
use crate::cluster::wait_until;
use crate::control::ask;
use crate::deploy::tool;
use crate::doctor::doctor;
use crate::harness::{Program, http_get};
use crate::peer::UdpNode;
use crate::ports::free_address;

/// A nats-server with streams.
pub(crate) struct Engine {
    pub(super) server: NatsServer,
    folder: TempDir,
}

impl Engine {
    pub(crate) fn start() -> Self {
        Self::with("max_payload: 2MB")
    }

    fn with(config: &str) -> Self {
        Self::of(config, "", |_| Box::new(|| Command::new(tool("nats-server"))))
    }

    /// One by these settings and those of its streams, started by what is made of the folder in
    /// which those are, in `bus`.
    pub(super) fn of(
        config: &str,
        of_streams: &str,
        start: impl FnOnce(&Path) -> Box<dyn Fn() -> Command + Send + Sync>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nats.conf");
        configure(folder.path(), config, of_streams);
        let start = start(folder.path());
        let server = NatsServer::start_at(free_address(), move || {
            let mut command = start();
            command.arg("-c").arg(&file);
            command
        });
        Self { server, folder }
    }

    /// Starts the server again, by these settings.
    fn start_again_with(&mut self, config: &str) {
        configure(self.folder.path(), config, "");
        self.server.start_again();
    }

    pub(crate) fn flag(&self) -> String {
        format!("--bus-nats={}", self.server.url())
    }

    /// The flags of a relay that is a cluster of its own, with its messages here.
    fn cluster_flags(&self) -> [String; 3] {
        let secret = self.folder.path().join("secret");
        super::write_secret(&secret, "a secret that only a test may have");
        let secret = format!("--cluster-secret-file={}", secret.display());
        [self.flag(), "--cluster-bind=127.0.0.1:0".to_owned(), secret]
    }

    /// Such a relay, once it leads.
    pub(crate) fn site_of_a_cluster(&self) -> Site {
        let flags = self.cluster_flags();
        let site = Site::start(&flags.each_ref().map(|flag| &**flag));
        site.relay.wait_for_metric("beacon_relay_bus_front_leading", 1.0);
        site
    }
}

/// Writes the configuration of a server whose streams are in the same folder.
fn configure(folder: &Path, config: &str, of_streams: &str) {
    let streams = folder.join("bus");
    let jetstream = format!("jetstream {{ store_dir: {streams:?}\n{of_streams} }}");
    fs::write(folder.join("nats.conf"), format!("{config}\n{jetstream}\n")).unwrap();
}

#[test]
fn messages_outlive_the_relay_and_its_state() {
    let engine = Engine::start();
    let flag = engine.flag();
    let flags = [flag.as_str()];
    let mut site = Site::start(&flags);
    drop(site.register("bob"));
    let mut alice = site.register_for_receipts("alice");
    for number in 0..20 {
        alice.say(&envelope(&format!("m{number}"), "alice", "bob", number));
        let receipt = alice.message();
        assert_eq!((&receipt["type"], &receipt["result"]), (&json!("receipt"), &json!("stored")));
    }

    site.restart("TERM", &flags);
    let (mut bob, _) = site.register("bob");
    for number in 0..5 {
        let (key, body) = bob.delivery();
        assert_eq!(body, number);
        bob.acknowledge(&key);
    }
    site.relay.wait_for_metric("beacon_relay_bus_messages", 15.0);
    drop(bob);

    site.restart("KILL", &flags);
    let (mut bob, _) = site.register("bob");
    for number in 5..10 {
        let (key, body) = bob.delivery();
        assert_eq!(body, number);
        bob.acknowledge(&key);
    }
    site.relay.wait_for_metric("beacon_relay_bus_messages", 10.0);
    drop(bob);
    let mut alice = site.register_for_receipts("alice");
    alice.say(&envelope("m19", "alice", "bob", 19));
    assert_eq!(alice.message()["result"], "duplicate");

    // What the relay has on its own disk is made again from the log.
    site.relay.signal("KILL");
    site.relay.wait_until_gone();
    fs::remove_dir_all(site.state.path().join("bus-replica")).unwrap();
    site.start_again(&flags);
    let (mut bob, _) = site.register("bob");
    assert!((10..20).all(|number| bob.delivery().1 == number));
}

#[test]
fn while_nats_is_away_messages_wait_and_readiness_says_so() {
    let mut engine = Engine::start();
    let site = Site::start(&[&engine.flag()]);
    drop(site.register("bob"));
    let mut alice = site.register_for_receipts("alice");
    alice.say(&envelope("m0", "alice", "bob", 0));
    assert_eq!(alice.message()["result"], "stored");

    engine.server.kill();
    alice.say(&envelope("m1", "alice", "bob", 1));
    site.relay.wait_for_metric("beacon_relay_bus_store_unavailable", 1.0);
    let (code, body) = http_get(site.relay.admin, "/readyz");
    assert!(code == 503 && body.contains("NATS"), "{code} {body}");
    assert!(alice.peer.is_silent(Duration::from_millis(100)), "no receipt");

    engine.server.start_again();
    assert_eq!(alice.message()["result"], "stored");
    site.relay.wait_for_metric("beacon_relay_bus_store_unavailable", 0.0);
    site.relay.wait_for_metric("beacon_relay_bus_log_leads", 1.0);
    let (mut bob, _) = site.register("bob");
    assert!((0..2).all(|number| bob.delivery().1 == number));
}

#[test]
fn relay_without_nats_serves_packets_and_its_messages_begin_when_nats_can_be_used() {
    let mut engine = Engine::start();
    engine.server.kill();
    let site = Site::start(&[&engine.flag()]);
    UdpNode::register(site.relay.udp, 1);
    let is_ready = || http_get(site.relay.admin, "/readyz");
    let (code, reason) = is_ready();
    assert!(code == 503 && reason.contains("is reached: NATS at"), "{code} {reason}");
    assert_eq!(ask(&site.relay, &["status"])["bus"]["role"], "waits");

    // It is there, and of no use.
    engine.start_again_with("");
    let refused = site.relay.wait_for_line("takes messages of 1048576 bytes at most");
    assert!(refused.contains("NATS cannot be used"), "{refused}");
    wait_until("readiness says why", || is_ready().1.contains("1114112 are needed"));
    UdpNode::register(site.relay.udp, 2);

    engine.server.kill();
    engine.start_again_with("max_payload: 2MB");
    wait_until("the relay is ready", || is_ready().0 == 200);
    site.leave_one();
    site.relay.wait_for_metric("beacon_relay_bus_messages", 1.0);
}

#[test]
fn doctor_says_what_is_wrong_with_nats_and_how_to_help_it() {
    let config =
        "max_payload: 2MB\naccounts { small { jetstream { max_streams: 1, max_file: 100MB }
        users: [{ user: small, password: secret }] }
        none { users: [{ user: none, password: secret }] } }";
    let engine = Engine::with(config);
    let (state, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tokens = folder.path().join("tokens");
    super::write_secret(&tokens, "tok\n");
    let tokens = format!("--peerbus-tokens-file={}", tokens.display());
    let state = format!("--state-dir={}", state.path().display());
    let address = engine.server.address();
    let examine = |user: &str| {
        let nats = format!("--bus-nats=nats://{user}@{address}");
        doctor(["--peerbus-bind=127.0.0.1:0", &*tokens, &*state, &*nats])
    };
    let limited = examine("small:secret");
    limited.assert("messages", "warning", "may have 1 streams, and 2 are needed -> max_streams");
    let without = examine("none:secret");
    without.assert("messages", "warning", "has no JetStream");
    let refused = examine("small:wrong");
    refused.assert("messages", "warning", "authorization violation");
    refused.assert("messages", "warning", "-> is nats-server up");
}

#[test]
fn server_whose_messages_are_too_short_is_a_configuration_error() {
    let engine = Engine::with("");
    let (state, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tokens = folder.path().join("tokens");
    super::write_secret(&tokens, "tok\n");
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    command.args(["serve", "--peerbus-bind=127.0.0.1:0", "--udp-bind=127.0.0.1:0"]);
    command.args(["--admin-bind=127.0.0.1:0", &engine.flag(), "--state-dir"]).arg(state.path());
    command.arg("--peerbus-tokens-file").arg(&tokens);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("bus-nats") && said.contains("1114112"), "{said}");
    assert!(said.contains("set max_payload"), "{said}");
}

#[test]
fn second_relay_of_one_log_waits_and_takes_over_when_the_first_resigns() {
    let engine = Engine::start();
    let flag = engine.flag();
    let first = Site::start(&[&flag]);
    first.leave_one();
    let (state, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tokens = folder.path().join("tokens");
    super::write_secret(&tokens, super::TOKENS);
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    command.args(["serve", "--peerbus-bind=127.0.0.1:0", "--udp-bind=127.0.0.1:0"]);
    command.args(["--admin-bind=127.0.0.1:0", &flag, "--state-dir"]).arg(state.path());
    command.arg("--peerbus-tokens-file").arg(&tokens);
    let second = Program::start(&mut command);
    second.wait_for_line("connected to NATS for messages");
    let listening = second.wait_for_line(" listening ");
    let admin = listening.split_once("admin=").unwrap().1.split(' ').next().unwrap();
    let admin: SocketAddr = admin.parse().unwrap();
    wait_until("it says why it waits", || {
        http_get(admin, "/readyz").1.contains("leads the messages in NATS, and this one is not of")
    });
    first.relay.signal("TERM");
    second.wait_for_line("this relay leads the log of messages");
    let open = second.wait_for_line("the message bus is open");
    assert!(open.contains("messages=1"), "{open}");
}

#[test]
fn operators_of_a_cluster_see_who_leads_and_that_nats_is_away() {
    let mut engine = Engine::start();
    let site = engine.site_of_a_cluster();
    let status = || ask(&site.relay, &["status"]);
    let seen = status();
    let bus = &seen["bus"];
    assert_eq!((&bus["role"], &bus["epoch"]), (&json!("leads"), &json!(1)), "{bus}");
    assert_eq!((&bus["leader"], &bus["trouble"]), (&seen["cluster"]["relay"], &json!(null)));

    let tokens = site.folder.path().join("tokens");
    let door = format!("--peerbus-tokens-file={}", tokens.display());
    let admin = format!("--admin-bind={}", site.relay.admin);
    let examine = |more: &[&str]| {
        let flags = engine.cluster_flags();
        let flags = flags.iter().map(|flag| &**flag);
        let door = ["--peerbus-bind=127.0.0.1:0", &*door, &*admin];
        doctor(flags.chain(door).chain(more.iter().copied()))
    };
    let diagnosis = examine(&["--bus-nats-max-bytes=100000000"]);
    diagnosis.assert("bus-leader", "ok", "this relay leads");
    diagnosis.assert("messages", "ok", "on 1 servers");
    examine(&[]).assert("messages", "warning", "nothing bounds what messages take");
    let diagnosis = examine(&["--bus-nats-replicas=3"]);
    diagnosis.assert("messages", "warning", "have 1 copies, and --bus-nats-replicas is 3");

    // Although nobody sends anything.
    engine.server.kill();
    wait_until("the relay is not ready", || http_get(site.relay.admin, "/readyz").0 == 503);
    let (_, reason) = http_get(site.relay.admin, "/readyz");
    assert!(reason.contains("bus: messages cannot be stored: NATS at"), "{reason}");
    assert!(status()["bus"]["trouble"].as_str().unwrap().contains("NATS at"));
    engine.server.start_again();
    wait_until("it is again", || http_get(site.relay.admin, "/readyz").0 == 200);
}

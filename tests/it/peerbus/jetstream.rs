//! The door over NATS JetStream, with the real nats-server.

use std::fs;
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
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nats.conf");
        let streams = folder.path().join("streams");
        let jetstream = format!("jetstream {{ store_dir: {streams:?} }}");
        fs::write(&file, format!("{config}\n{jetstream}\n")).unwrap();
        let server = NatsServer::start_at(free_address(), move || {
            let mut command = Command::new(tool("nats-server"));
            command.arg("-c").arg(&file);
            command
        });
        Self { server, folder }
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
    let diagnosis = examine(&[]);
    diagnosis.assert("bus-leader", "ok", "this relay leads");
    diagnosis.assert("messages", "ok", "on 1 servers");
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

//! STUN, by a client that others have written.

use std::process::Command;
use std::time::Instant;

use crate::deploy::{run, try_to_run};
use crate::harness::{PATIENCE, Relay, look_until};

fn requests(outcome: &str) -> String {
    format!("beacon_relay_stun_requests_total{{outcome=\"{outcome}\"}}")
}

#[test]
fn client_of_coturn_learns_its_address_at_each_address_of_the_relay() {
    let relay = Relay::start(["--stun-bind", "127.0.0.1:0", "--stun-bind", "[::1]:0"]);
    let log = relay.wait_for_line("answering STUN");
    assert!(log.contains("stun=127.0.0.1:"), "{log}");
    relay.wait_for_line("stun=[::1]:");
    let log = relay.log();
    let ports = log.lines().filter(|line| line.contains("answering STUN"));
    let ports: Vec<_> = ports
        .map(|line| line.split_once("stun=").unwrap().1.split(' ').next().unwrap())
        .map(|address| address.rsplit_once(':').unwrap())
        .collect();
    assert_eq!(ports.len(), 2, "{log}");
    for (host, port) in &ports {
        let host = host.trim_matches(['[', ']']);
        let said = run(Command::new("turnutils_stunclient").args(["-p", port, host]));
        assert!(said.contains("UDP reflexive addr: ") && said.contains(host), "{said}");
    }
    // It counts after it has answered.
    let answered = || (relay.metric(&requests("answered")) >= 2.0).then_some(());
    look_until(Instant::now() + PATIENCE, answered).expect("both are counted");
    assert_eq!(relay.metric(&requests("not_stun")), 0.0);
}

#[test]
fn address_that_somebody_has_ends_the_start() {
    let relay = Relay::start(["--stun-bind", "127.0.0.1:0"]);
    let log = relay.wait_for_line("answering STUN");
    let address = log.split_once("stun=").unwrap().1.split(' ').next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let binds = ["--wss-bind", "--udp-bind", "--admin-bind"].map(|bind| [bind, "127.0.0.1:0"]);
    let (is_up, said) = try_to_run(
        Command::new(env!("CARGO_BIN_EXE_beacon-relay"))
            .args(["serve", "--stun-bind", address, "--state-dir"])
            .arg(folder.path())
            .args(binds.concat()),
    );
    assert!(!is_up && said.contains(&format!("--stun-bind = \"{address}\"")), "{said}");
}

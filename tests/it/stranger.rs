//! Runs tests/stranger/client.py, which was written from the specification alone.

use std::path::Path;
use std::process::{Command, Output};

use crate::cells::assert_balance;
use crate::harness::{Node, Relay};

/// A relay that knows the node of the vectors (SPEC §4.6), and what the stranger makes of it.
fn meet(arguments: &[&str]) -> (Relay, Output) {
    let relay = Relay::with_nodes(&[&Node::of_the_vectors()], arguments);
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stranger/client.py");
    let output = Command::new("python3")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(client)
        .arg(relay.wss.ip().to_string())
        .args([relay.wss, relay.udp].map(|address| address.port().to_string()))
        .output()
        .expect("python3 is missing; `make setup` installs it");
    (relay, output)
}

#[test]
fn client_that_knows_only_the_specification_interoperates() {
    for (name, generation) in [(None, 2), (Some("127.0.0.1"), 3)] {
        let arguments = name.map(|name| ["--relay-name", name]);
        let (relay, output) = meet(arguments.as_ref().map_or(&[], |arguments| arguments));
        let said = String::from_utf8(output.stdout).unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}{complaint}{}", relay.log());
        let steps = [
            "vectors hold",
            &format!("logged in, generation {generation}"),
            "discovered over WebSocket",
            "discovered over UDP",
            "relayed to UDP and back",
            "takes the largest messages",
            "deliveries name their destination",
            "said bye",
        ];
        assert_eq!(said.lines().collect::<Vec<_>>(), steps);
        assert_balance(&relay);
    }
}

#[test]
fn stranger_does_not_sign_for_a_relay_that_it_did_not_dial() {
    let (relay, output) = meet(&["--relay-name", "relay.example.net"]);
    assert_eq!(output.status.code(), Some(1));
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(complaint.contains("not signed"), "{complaint}");
    let accepted = "pilot_beacon_wss_connections_total{outcome=\"auth_ok\"}";
    assert_eq!(relay.metric(accepted), 0.0);
}

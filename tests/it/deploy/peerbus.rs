//! What stands in for peerbus's broker: its settings, translated.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use tempfile::TempDir;

use super::{run, try_to_run};

/// The program, without anything of the environment of the tests.
fn relay(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    command.args(arguments).env_clear().env("HOME", "/nonexistent");
    command
}

#[test]
fn environment_of_a_broker_becomes_a_valid_configuration_and_a_tokens_file() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let secret = "0123456789abcdef0123456789abcdef";
    let migrate = |tokens: &str| {
        let mut command = relay(&["migrate", "peerbus"]);
        command.args(["--tokens-file", &path("tokens"), "--hmac-secret-file", &path("secret")]);
        command.args(["--", "serve", "--db", "x.db"]);
        command.env("PEERBUS_TOKENS", tokens).env("PEERBUS_HMAC_SECRET", secret);
        command
    };

    let toml = run(&mut migrate("hunter2, hunter3"));

    assert!(!toml.contains("hunter") && !toml.contains(secret), "{toml}");
    assert_eq!(fs::read_to_string(path("tokens")).unwrap(), "hunter2\nhunter3\n");
    assert_eq!(fs::read_to_string(path("secret")).unwrap(), format!("{secret}\n"));
    assert_eq!(fs::metadata(path("tokens")).unwrap().permissions().mode() & 0o777, 0o600);
    fs::write(path("relay.toml"), &toml).unwrap();
    run(&mut relay(&["check-config", "--config", &path("relay.toml")]));

    // The same files stay, and one that holds something else is not overwritten.
    assert_eq!(run(&mut migrate("hunter2, hunter3")), toml);
    let (is_done, said) = try_to_run(&mut migrate("hunter4"));
    assert!(!is_done && said.contains("--tokens-file = "), "{said}");
    assert!(said.contains("holds something else") && !said.contains("hunter4"), "{said}");
}

#[test]
fn what_cannot_be_translated_is_one_line() {
    for (variables, flags, reason) in [
        (&[][..], &[][..], "PEERBUS_TOKENS is missing"),
        (&[("PEERBUS_TOKENS", "a"), ("PEERBUS_LISTEN", "localhost:1")], &[], "not IP"),
        (&[("PEERBUS_TOKENS", "a")], &["serve", "--port", "1"], "--port: no flag"),
    ] {
        let mut command = relay(&[&["migrate", "peerbus", "--"], flags].concat());
        let (is_done, said) = try_to_run(command.envs(variables.iter().copied()));
        assert!(!is_done && said.contains(reason) && said.lines().count() == 1, "{reason}: {said}");
    }
}

//! What stands in for NetBird's relay: its settings translated, its container files, and the image's
//! entrypoint, which is run.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::docker::compose;
use super::{deploy, run, try_to_run};
use crate::harness::Program;

/// The program, without anything of the environment of the tests.
fn relay(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    command.args(arguments).env_clear().env("HOME", "/nonexistent");
    command
}

/// The lines of a configuration, without their comments.
fn lines(toml: &str) -> Vec<&str> {
    let lines = toml.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split(" #").next().unwrap()).collect()
}

/// What a configuration is refused for; nothing where it is none.
fn check(folder: &Path, toml: &str, variables: &[(&str, &str)]) -> String {
    let file = folder.join("migrated.toml");
    fs::write(&file, toml).unwrap();
    let mut command = relay(&["check-config", "--config", file.to_str().unwrap()]);
    let (is_valid, said) = try_to_run(command.envs(variables.iter().copied()));
    if is_valid { String::new() } else { said }
}

#[test]
fn variables_of_the_original_become_a_valid_configuration_without_the_secret() {
    let folder = TempDir::new().unwrap();
    let secret = folder.path().join("secret");
    let migrate = |more: &[&str]| {
        let file = ["migrate", "netbird", "--secret-file", secret.to_str().unwrap()];
        let mut command = relay(&[&file, more].concat());
        command.envs([
            ("NB_LISTEN_ADDRESS", "0.0.0.0:443"),
            ("NB_EXPOSED_ADDRESS", "rels://relay.test:443"),
            ("NB_AUTH_SECRET", "c29tZSBzZWNyZXQ="),
            ("NB_LETSENCRYPT_DOMAINS", "relay.test"),
            ("NB_LETSENCRYPT_EMAIL", "admin@relay.test"),
            ("NB_LETSENCRYPT_DATA_DIR", "/etc/letsencrypt"),
            ("NB_TRUSTED_PROXIES", "10.0.0.0/8,192.0.2.1"),
            ("NB_ENABLE_STUN", "true"),
            ("NB_STUN_PORTS", "3478,3479"),
            ("NB_METRICS_PORT", "9090"),
            ("NB_LOG_FILE", "console"),
            ("NB_SOMETHING_NEW", "1"),
        ]);
        command
    };
    let toml = run(&mut migrate(&["--", "--log-level", "debug"]));
    assert!(!toml.contains("c29tZSBzZWNyZXQ="), "{toml}");
    let secret_line = format!("netbird_auth_secret_file = \"{}\"", secret.display());
    let expected = [
        "netbird_bind = \"0.0.0.0:443\"",
        "netbird_exposed_address = \"rels://relay.test:443\"",
        "netbird_acme = [\"relay.test\"]",
        "acme_contact = [\"mailto:admin@relay.test\"]",
        &secret_line,
        "trusted_proxy = [\"10.0.0.0/8\", \"192.0.2.1\"]",
        "stun_bind = [\":3478\", \":3479\"]",
        "netbird_health_bind = \":9000\"",
        "admin_bind = \":9090\"",
        "log_level = \"debug\"",
    ];
    assert_eq!(lines(&toml), expected);
    assert!(toml.contains("# NB_LETSENCRYPT_DATA_DIR: certificates are kept"), "{toml}");
    assert!(toml.contains("# NB_SOMETHING_NEW: no setting of a relay that is known"), "{toml}");
    assert!(!toml.contains("NB_LOG_FILE"), "{toml}");
    assert_eq!(fs::read_to_string(&secret).unwrap(), "c29tZSBzZWNyZXQ=\n");
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(check(folder.path(), &toml, &[]), "");

    // The same file stays, and one that holds something else is not overwritten.
    assert_eq!(run(&mut migrate(&["--", "--log-level", "debug"])), toml);
    fs::write(&secret, "another\n").unwrap();
    let (is_done, said) = try_to_run(&mut migrate(&[]));
    assert!(!is_done && said.contains("holds something else"), "{said}");
    assert!(!said.contains("c29tZSBzZWNyZXQ="), "{said}");
}

#[test]
fn relay_behind_a_proxy_and_that_of_openzro_are_translated() {
    let folder = TempDir::new().unwrap();
    let mut command = relay(&["migrate", "netbird"]);
    let toml = run(command.envs([
        ("OZ_LISTEN_ADDRESS", ":33080"),
        ("OZ_EXPOSED_ADDRESS", "relay.test:443"),
        ("OZ_AUTH_SECRET", "s3cret"),
        ("OZ_CLUSTER_HEADLESS", "relays.svc"),
    ]));
    let expected = [
        "netbird_bind = \":33080\"",
        "netbird_exposed_address = \"relay.test:443\"",
        "public_plaintext = true",
        "netbird_auth_secret_file = \"/etc/beacon-relay/netbird-secret\"",
    ];
    assert_eq!(lines(&toml), expected, "openZro's has no health");
    assert!(toml.contains("# OZ_CLUSTER_HEADLESS: a cluster is another one here"), "{toml}");
    assert!(!toml.contains("s3cret"), "{toml}");
    let refused = check(folder.path(), &toml, &[]);
    assert!(refused.contains("netbird-secret"), "only the file is missing: {refused}");
}

#[test]
fn what_cannot_be_translated_is_one_line() {
    let whole = [("NB_EXPOSED_ADDRESS", "rels://a.test:443"), ("NB_AUTH_SECRET", "hunter2hunter2")];
    for (variables, flags, reason) in [
        (&[][..], &[][..], "NB_EXPOSED_ADDRESS (or --exposed-address) is missing"),
        (&whole[..1], &[], "NB_AUTH_SECRET (or --auth-secret) is missing"),
        (
            &whole,
            &["--listen-address", "localhost:1"],
            "--listen-address = \"localhost:1\": not IP",
        ),
        (&whole, &["--tls-cert-file", "/c"], "tls-key-file is missing"),
        (&whole, &["--trusted-proxies", "x"], "--trusted-proxies: `x` is"),
        (&whole, &["--enable-stun", "--stun-ports", "x"], "--stun-ports: `x` is no port"),
        (&whole, &["--auth-secret", " hunter2hunter2"], "begins or ends with a space"),
        (&whole, &["--log-levl", "info"], "--log-levl: no flag"),
    ] {
        let mut command = relay(&[&["migrate", "netbird", "--"], flags].concat());
        let (is_done, said) = try_to_run(command.envs(variables.iter().copied()));
        assert!(!is_done && said.contains(reason) && said.lines().count() == 1, "{reason}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn composed_relays_of_netbird_are_what_they_say() {
    let folder = TempDir::new().unwrap();
    let variables = [("RELAY_HOST", "relay.test"), ("NB_AUTH_SECRET", "s3cret")];
    for (file, services) in [("compose.yaml", 1), ("compose.three.yaml", 3)] {
        let path = format!("netbird/{file}");
        let compose = compose(&path);
        let all = compose["services"].as_object().unwrap();
        assert_eq!(all.len(), services, "{file}");
        for (name, service) in all {
            let secret = folder.path().join(format!("{file}-{name}"));
            let mut command = relay(&["migrate", "netbird", "--service", name, "--compose"]);
            command.arg(deploy(&path)).arg("--secret-file").arg(&secret).envs(variables);
            let toml = run(&mut command);
            assert!(toml.contains("netbird_exposed_address = \"rels://relay.test:443\""), "{toml}");
            assert_eq!(fs::read_to_string(&secret).unwrap(), "s3cret\n");
            let build = &service["build"];
            let context = deploy("netbird").join(build["context"].as_str().unwrap());
            assert!(context.join(build["dockerfile"].as_str().unwrap()).is_file(), "{name}");
            check_service(name, service, &compose);
            if services == 1 {
                assert_eq!(check(folder.path(), &toml, &[]), "", "{toml}");
            }
        }
    }
}

/// Checks that both protocols have their port, and that volumes and networks are there.
fn check_service(name: &str, service: &Value, compose: &Value) {
    let ports: Vec<_> = service["ports"].as_array().unwrap().iter().map(Value::as_str).collect();
    for protocol in ["443/tcp", "443/udp"] {
        let published = |port: &Option<&str>| port.unwrap().ends_with(&format!(":{protocol}"));
        assert!(ports.iter().any(published), "{name}: {protocol}");
    }
    for volume in service["volumes"].as_array().unwrap() {
        let source = volume.as_str().unwrap().split(':').next().unwrap();
        // What an operator puts there is explained at the head of the file.
        let known = compose["volumes"].as_object().unwrap().contains_key(source);
        assert!(known || source.starts_with("./"), "{name}: {source}");
    }
}

#[test]
fn entrypoint_of_the_image_takes_variables_and_flags_of_the_original() {
    let folder = TempDir::new().unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_beacon-relay"));
    let entrypoint = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = Command::new(deploy("docker/entrypoint"));
        let path = format!("{}:/usr/bin:/bin", binary.parent().unwrap().display());
        command.args(arguments).env_clear().env("PATH", path);
        command.env("BEACON_RELAY_STATE_DIR", folder.path()).envs(variables.iter().copied());
        command
    };
    let ports = [
        ("NB_LISTEN_ADDRESS", "127.0.0.1:0"),
        ("NB_EXPOSED_ADDRESS", "rel://relay.test:80"),
        ("NB_AUTH_SECRET", "s3cret"),
        ("NB_HEALTH_LISTEN_ADDRESS", "127.0.0.1:0"),
        ("BEACON_RELAY_ADMIN_BIND", "127.0.0.1:0"),
    ];
    for secret in ["s3cret", "another"] {
        let mut ports = ports;
        ports[2].1 = secret;
        let relay = Program::start(&mut entrypoint(&["serve"], &ports));
        relay.wait_for_line("listening");
        let kept = fs::read_to_string(folder.path().join("netbird-secret")).unwrap();
        assert_eq!(kept, format!("{secret}\n"));
    }
    let flags = [
        "--exposed-address",
        "rel://relay.test:80",
        "--listen-address=127.0.0.1:0",
        "--auth-secret=x",
    ];
    let relay = Program::start(&mut entrypoint(&flags, &ports[3..]));
    relay.wait_for_line("answering health checks");
    // Its state folder is for one at a time.
    drop(relay);
    // Everything else is as ever.
    let version = run(&mut entrypoint(&["--version"], &[]));
    assert!(version.starts_with("beacon-relay "), "{version}");
    let own = [("BEACON_RELAY_WSS_BIND", "127.0.0.1:0"), ("BEACON_RELAY_UDP_BIND", "127.0.0.1:0")];
    let relay = Program::start(&mut entrypoint(&[], &[&own, &ports[4..]].concat()));
    relay.wait_for_line("listening");
}

//! What only `serve` can find wrong: one line that names the key, the value and the reason,
//! and the exit code of whoever is to blame.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::harness::Relay;
use crate::ports::free_address;
use crate::wording::assert_names_a_way_out;

const USAGE: i32 = 64;
const UNAVAILABLE: i32 = 69;
const CONFIG: i32 = 78;

/// The single line on stderr of a `serve` that must fail with `code`.
fn refused(arguments: &[&str], code: i32) -> String {
    let state = TempDir::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    command.env_clear().env("RUST_BACKTRACE", "1").args(["serve", "--log-level", "error"]);
    command.args(arguments);
    for (flag, value) in [
        ("--state-dir", state.path().to_str().unwrap()),
        ("--wss-bind", "127.0.0.1:0"),
        ("--udp-bind", "127.0.0.1:0"),
        ("--admin-bind", "127.0.0.1:0"),
    ] {
        if !arguments.contains(&flag) {
            command.args([flag, value]);
        }
    }
    let output = command.output().unwrap();
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {line}");
    assert_eq!(line.lines().count(), 1, "{arguments:?}: {line}");
    assert_names_a_way_out(&line);
    assert!(!line.contains("panicked"), "{arguments:?}: {line}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    line
}

/// Asserts that the line says which setting has which value, once, and why not.
fn assert_names(line: &str, flag: &str, value: &str, reason: &str) {
    assert!(line.starts_with(&format!("beacon-relay: {flag} = \"{value}\": ")), "{line}");
    assert_eq!(line.matches(flag).count(), 1, "{line}");
    assert!(line.contains(reason), "{line}");
}

fn write(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    text_of(&path)
}

fn text_of(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn address_that_another_program_has_exits_69_and_is_named() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp_address = tcp.local_addr().unwrap().to_string();
    let udp_address = udp.local_addr().unwrap().to_string();
    for (flag, address) in
        [("--wss-bind", &tcp_address), ("--admin-bind", &tcp_address), ("--udp-bind", &udp_address)]
    {
        let line = refused(&[flag, address], UNAVAILABLE);
        assert_names(&line, flag, address, "Address already in use");
    }
    let folder = TempDir::new().unwrap();
    let path = text_of(&folder.path().join("relay.sock"));
    let _listener = UnixListener::bind(&path).unwrap();
    let line = refused(&["--wss-bind", &format!("unix:{path}")], UNAVAILABLE);
    assert_names(&line, "--wss-bind", &format!("unix:{path}"), "Address already in use");
}

#[test]
fn address_that_another_relay_has_exits_69_and_is_named() {
    let relay = Relay::start([] as [&str; 0]);
    for (flag, address) in
        [("--wss-bind", relay.wss), ("--admin-bind", relay.admin), ("--udp-bind", relay.udp)]
    {
        let address = address.to_string();
        let line = refused(&[flag, &address], UNAVAILABLE);
        assert_names(&line, flag, &address, "Address already in use");
    }
}

#[test]
fn address_that_does_not_come_exits_69_and_is_named() {
    for flag in ["--wss-bind", "--admin-bind", "--udp-bind"] {
        let wait = "--bind-wait=300ms";
        let line = refused(&[flag, "192.0.2.1:0", "--public-plaintext", wait], UNAVAILABLE);
        assert_names(&line, flag, "192.0.2.1:0", "Cannot assign requested address");
    }
}

#[test]
fn key_file_that_cannot_be_used_exits_78_with_the_place() {
    let folder = TempDir::new().unwrap();
    for (name, text, reason) in [
        ("cut.json", "{\n  \"7\": \"A6EHv/POEL4d", "line 2"),
        ("number.json", "{\n  \"7\": 7}", "line 2, column 9"),
        ("short.json", "{\"7\": \"AAAA\"}", "line 1, column"),
        ("zero.json", "{\"0\": \"A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=\"}", "line 1"),
        ("list.json", "[]", "line 1, column"),
        ("empty.json", "", "line 1"),
        ("node.key", "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=", "it must hold JSON such as"),
    ] {
        let path = write(&folder, name, text);
        let line = refused(&["--keys", &path], CONFIG);
        assert_names(&line, "--keys", &path, reason);
    }
    let missing = text_of(&folder.path().join("missing.json"));
    let line = refused(&["--keys", &missing], CONFIG);
    assert_names(&line, "--keys", &missing, "No such file");
    let line = refused(&["--keys", &text_of(folder.path())], CONFIG);
    assert_names(&line, "--keys", &text_of(folder.path()), "irectory");
}

#[test]
fn state_folder_that_cannot_be_used_exits_78() {
    let folder = TempDir::new().unwrap();
    let file = write(&folder, "file", "");
    for path in [file.clone(), format!("{file}/below")] {
        let line = refused(&["--state-dir", &path], CONFIG);
        assert_names(&line, "--state-dir", &path, "the folder cannot be created");
    }
    write(&folder, "keys.json", "{\"7\": 7}");
    let path = text_of(folder.path());
    let line = refused(&["--state-dir", &path], CONFIG);
    assert_names(&line, "--state-dir", &path, "line 1, column");
}

#[test]
fn registry_authority_that_is_no_certificate_exits_78() {
    let folder = TempDir::new().unwrap();
    let bogus = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (name, text, reason) in [
        ("noise.pem", "what is this", "no certificate in it"),
        ("bogus.pem", bogus, "an unusable certificate"),
        ("cut.pem", &bogus[..40], "PEM"),
    ] {
        let path = write(&folder, name, text);
        let line = refused(&["--registry", "127.0.0.1:9000", "--registry-ca", &path], CONFIG);
        assert_names(&line, "--registry-ca", &path, reason);
    }
}

#[test]
fn public_listener_without_tls_exits_64_unless_it_is_asked_for() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:8443"] {
        let line = refused(&["--wss-bind", address], USAGE);
        assert!(line.contains("--public-plaintext"), "{line}");
        assert!(line.starts_with(&format!("beacon-relay: --wss-bind = \"{address}\": ")), "{line}");
    }
    Relay::start(["--wss-bind", "0.0.0.0:0", "--public-plaintext"]);
}

#[test]
fn udp_port_of_quic_that_another_program_has_exits_69_and_is_named() {
    let folder = crate::tls::certificates();
    let secrets = write(&folder, "secrets", "a secret\n");
    // Nobody has this port over TCP, which is bound first.
    let address = free_address().to_string();
    let _taken = UdpSocket::bind(&address).unwrap();
    let at = |file: &str| text_of(&folder.path().join(file));
    let arguments = [
        ["--netbird-bind", &address],
        ["--netbird-tls-cert", &at("cert.pem")],
        ["--netbird-tls-key", &at("key.pem")],
        ["--netbird-exposed-address", "rels://relay.example.org:443"],
        ["--netbird-auth-secret-file", &secrets],
    ];
    let line = refused(&arguments.concat(), UNAVAILABLE);
    assert_names(&line, "--netbird-bind", &format!("{address} over UDP"), "in use");
}

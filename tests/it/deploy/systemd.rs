//! The units of deploy/systemd, as systemd itself reads them.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{deploy, run, try_to_run};

const UNITS: [&str; 5] = [
    "beacon-relay.service",
    "beacon-relay.socket",
    "beacon-relay-tls.socket",
    "beacon-relay-admin.socket",
    "beacon-relay-udp.socket",
];

/// Most exposure that the service may have: of 10, in tenths.
const EXPOSURE: &str = "15";

/// A machine on which the relay is installed.
fn install(root: &Path) {
    let units = root.join("usr/lib/systemd/system");
    fs::create_dir_all(&units).unwrap();
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    fs::copy("/bin/true", root.join("usr/bin/beacon-relay")).unwrap();
    for unit in UNITS {
        fs::copy(deploy("systemd").join(unit), units.join(unit)).unwrap();
    }
    add_surroundings(root);
}

/// Adds what the relay's units name of the rest of a machine: that which this one has.
pub(super) fn add_surroundings(root: &Path) {
    for entry in fs::read_dir("/usr/lib/systemd/system").unwrap() {
        let path = entry.unwrap().path();
        let unit = root.join("usr/lib/systemd/system").join(path.file_name().unwrap());
        if path.is_file() && !unit.exists() {
            fs::copy(&path, unit).unwrap();
        }
    }
}

/// What systemd says of the units on such a machine.
pub(super) fn verify(root: &Path) -> (bool, String) {
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no"]).arg(format!("--root={}", root.display())).args(UNITS);
    try_to_run(&mut command)
}

#[test]
fn systemd_finds_no_fault_in_the_units() {
    let root = tempfile::tempdir().unwrap();
    install(root.path());
    assert_eq!(verify(root.path()), (true, String::new()));

    // It does read these files: a key that it does not know is told.
    let service = root.path().join("usr/lib/systemd/system/beacon-relay.service");
    let text = fs::read_to_string(&service).unwrap();
    fs::write(&service, text.replace("WatchdogSec", "WatchdogSeconds")).unwrap();
    let (_, said) = verify(root.path());
    assert!(said.contains("Unknown key 'WatchdogSeconds'"), "{said}");
}

#[test]
fn service_can_do_little_beyond_its_work() {
    let root = tempfile::tempdir().unwrap();
    install(root.path());
    run(Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", "--threshold", EXPOSURE])
        .arg(format!("--root={}", root.path().display()))
        .arg("beacon-relay.service"));
}

/// The lines of a unit that set this.
fn lines<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let value = |line: &'a str| line.strip_prefix(key)?.strip_prefix('=');
    unit.lines().filter_map(value).collect()
}

#[test]
fn sockets_have_the_names_and_addresses_that_the_relay_knows_them_by() {
    for (file, name, key, address) in [
        ("beacon-relay.socket", "wss", "ListenStream", "127.0.0.1:8443"),
        ("beacon-relay-tls.socket", "wss", "ListenStream", "[::]:443"),
        ("beacon-relay-admin.socket", "admin", "ListenStream", "127.0.0.1:9464"),
        ("beacon-relay-udp.socket", "udp", "ListenDatagram", "[::]:9001"),
    ] {
        let unit = fs::read_to_string(deploy("systemd").join(file)).unwrap();
        assert_eq!(lines(&unit, "FileDescriptorName"), [name]);
        let addresses = lines(&unit, key);
        assert!(!addresses.is_empty() && addresses.iter().all(|line| *line == address), "{file}");
        assert_eq!(lines(&unit, "ReusePort"), if name == "udp" { vec!["yes"] } else { vec![] });
        // The address is that which the relay would bind to by itself.
        let mut check = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
        check.arg("check-config");
        if file == "beacon-relay-tls.socket" {
            check.args(["--acme", "relay.test"]);
        }
        let printed = run(&mut check);
        let default = printed.lines().find(|line| line.starts_with(&format!("{name}_bind")));
        assert!(default.unwrap().contains(address), "{printed}");
    }
}

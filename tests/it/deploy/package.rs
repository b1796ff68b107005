//! The Debian package: made, read, installed into a machine of its own, and removed from it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::{root, run, systemd};
use crate::harness::{Relay, http_get};

/// The package of this binary; uncompressed, which takes a second.
fn package(folder: &Path) -> PathBuf {
    package_of(env!("CARGO_PKG_VERSION"), folder)
}

/// The same with another version.
pub(super) fn package_of(version: &str, folder: &Path) -> PathBuf {
    let mut command = Command::new(root("scripts/package"));
    command.arg(env!("CARGO_BIN_EXE_beacon-relay")).arg(folder);
    command.env("COMPRESSION", "none").env("PACKAGE_VERSION", version);
    PathBuf::from(run(&mut command).trim())
}

/// A machine with nothing on it but a list of installed packages, which is empty.
pub(super) struct Machine {
    folder: TempDir,
}

impl Machine {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for path in ["var/lib/dpkg/updates", "var/lib/dpkg/info", "etc", "usr/bin"] {
            fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        fs::write(folder.path().join("var/lib/dpkg/status"), "").unwrap();
        Self { folder }
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// dpkg on this machine, by a user who may think that he is root.
    pub(super) fn dpkg(&self, arguments: &[&str]) -> String {
        let folder = self.folder.path().display();
        // The scripts run outside, told of the folder; what the package depends on is there.
        let force = "--force-script-chrootless,depends";
        let mut command = Command::new("fakeroot");
        command.args(["dpkg", &format!("--root={folder}"), "--force-not-root", force]);
        command.arg(format!("--log={folder}/log")).args(arguments);
        run(command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"))
    }

    fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.path(path)).unwrap().permissions().mode() & 0o7777
    }
}

#[test]
fn package_says_what_it_is_and_holds_what_a_relay_needs() {
    let folder = tempfile::tempdir().unwrap();
    let package = package(folder.path());
    let field = |name| run(Command::new("dpkg-deb").arg("--field").arg(&package).arg(name));
    assert_eq!(field("Package").trim(), "beacon-relay");
    assert_eq!(field("Version").trim(), env!("CARGO_PKG_VERSION"));
    assert!(field("Depends").starts_with("libc6 (>= 2."), "{}", field("Depends"));

    let contents = run(Command::new("dpkg-deb").arg("--contents").arg(&package));
    for line in contents.lines() {
        assert!(line.contains(" root/root "), "{line}");
        let mode = line.split(' ').next().unwrap();
        assert!(["drwxr-xr-x", "-rwxr-xr-x", "-rw-r--r--"].contains(&mode), "{line}");
    }
    for path in [
        "usr/bin/beacon-relay",
        "usr/lib/systemd/system/beacon-relay.service",
        "usr/lib/systemd/system/beacon-relay.socket",
        "usr/lib/sysusers.d/beacon-relay.conf",
        "etc/beacon-relay/beacon-relay.toml",
        "usr/share/doc/beacon-relay/docs/CONFIGURE.md",
        "usr/share/doc/beacon-relay/copyright",
        "usr/share/doc/beacon-relay/examples/Caddyfile",
        "usr/share/man/man1/beacon-relay.1.gz",
        "usr/share/man/man1/beacon-relay-serve.1.gz",
        "usr/share/man/man5/beacon-relay.toml.5.gz",
        "usr/share/bash-completion/completions/beacon-relay",
    ] {
        assert!(contents.lines().any(|line| line.ends_with(&format!(" ./{path}"))), "{path}");
    }
}

#[test]
fn binary_of_the_package_names_the_file_with_its_symbols() {
    let folder = tempfile::tempdir().unwrap();
    let package = package(folder.path());
    let unpacked = folder.path().join("unpacked");
    run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&unpacked));

    let mut link = Command::new("readelf");
    link.arg("--string-dump=.gnu_debuglink").arg(unpacked.join("usr/bin/beacon-relay"));

    let symbols = package.with_extension("debug");
    let name = symbols.file_name().unwrap().to_str().unwrap();
    assert!(run(&mut link).contains(name), "{name}");
    let sections = run(Command::new("readelf").args(["--section-headers", "--wide"]).arg(&symbols));
    assert!(sections.contains(".symtab"), "{sections}");
}

#[test]
fn package_installs_a_relay_that_systemd_would_start_and_purges_all_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let package = package(folder.path());
    let machine = Machine::new();
    machine.dpkg(&["--install", package.to_str().unwrap()]);

    systemd::add_surroundings(&machine.path(""));
    assert_eq!(systemd::verify(&machine.path("")), (true, String::new()));

    // The user is there, and may read the settings that nobody else may.
    let users = fs::read_to_string(machine.path("etc/passwd")).unwrap();
    assert!(users.contains("beacon-relay:x:"), "{users}");
    assert_eq!(machine.mode("etc/beacon-relay"), 0o750);
    assert_eq!(machine.mode("etc/beacon-relay/beacon-relay.toml"), 0o640);
    // Enabled, the service and the socket.
    for link in
        ["sockets.target.wants/beacon-relay.socket", "multi-user.target.wants/beacon-relay.service"]
    {
        let link = machine.path("etc/systemd/system").join(link);
        assert!(fs::symlink_metadata(&link).is_ok(), "{}", link.display());
    }
    let relay = machine.path("usr/bin/beacon-relay");
    let version = run(Command::new(&relay).arg("--version"));
    assert_eq!(version.lines().next(), Some(concat!("beacon-relay ", env!("CARGO_PKG_VERSION"))));
    let settings = machine.path("etc/beacon-relay/beacon-relay.toml");
    run(Command::new(&relay)
        .env_clear()
        .args(["check-config", "--config"])
        .arg(settings)
        .args(["--state-dir", "/nonexistent"]));

    machine.dpkg(&["--purge", "beacon-relay"]);
    for path in ["usr/bin/beacon-relay", "etc/beacon-relay", "usr/share/doc/beacon-relay"] {
        assert!(!machine.path(path).exists(), "{path}");
    }
}

#[test]
fn program_says_what_it_was_built_from_and_each_view_agrees() {
    let version = run(Command::new(env!("CARGO_BIN_EXE_beacon-relay")).arg("--version"));
    let said = |name: &str| {
        let line = version.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} is not in {version}")).to_owned()
    };
    let commit_and_date = said("commit: ");
    let (commit, date) = commit_and_date.split_once(" of ").unwrap();
    let target = said("target: ");
    assert!(target.contains("-linux-"), "{target}");
    assert!(date == "unknown" || date.split('-').count() == 3, "{date}");

    let relay = Relay::with_nodes(&[], &[]);
    let version = env!("CARGO_PKG_VERSION");
    let labels = format!("{{version=\"{version}\",commit=\"{commit}\",target=\"{target}\"}}");
    assert_eq!(relay.metric(&format!("pilot_beacon_build_info{labels}")), 1.0);
    let (_, status) = http_get(relay.admin, "/status");
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["commit"], commit);
    assert_eq!(status["commit_date"], date);
    assert_eq!(status["target"], *target);
}

#[test]
fn each_setting_that_the_example_proposes_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(root("deploy/debian/beacon-relay.toml")).unwrap();
    let proposals: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
        .collect();
    assert!(proposals.len() > 5, "{proposals:?}");
    let keys = folder.path().join("keys.json");
    fs::write(&keys, "{}").unwrap();
    for line in proposals {
        let line = line.replace("/etc/beacon-relay/keys.json", keys.to_str().unwrap());
        let file = folder.path().join("relay.toml");
        fs::write(&file, line).unwrap();
        let mut check = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
        check.env_clear().args(["check-config", "--state-dir"]).arg(folder.path());
        run(check.arg("--config").arg(&file));
    }
}

#[test]
fn manual_has_a_page_for_each_command_that_the_help_lists() {
    let folder = tempfile::tempdir().unwrap();
    let mut relay = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    run(relay.arg("man").arg(folder.path()));
    let help = run(Command::new(env!("CARGO_BIN_EXE_beacon-relay")).arg("--help"));
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let list = list.split("\n\n").next().unwrap();
    let commands = list.lines().filter_map(|line| line.split_whitespace().next());
    let mut pages = 0;
    for command in commands.filter(|command| *command != "help") {
        let page = folder.path().join(format!("beacon-relay-{command}.1"));
        let said = run(Command::new("man").args(["--warnings", "-l"]).arg(&page));
        for part in ["NAME", command, "EXAMPLES", "EXIT STATUS", "FILES", "beacon-relay.toml(5)"] {
            assert!(said.contains(part), "{command}: {part}: {said}");
        }
        pages += 1;
    }
    assert!(pages > 8, "{help}");
    let page = folder.path().join("beacon-relay.toml.5");
    let said = run(Command::new("man").args(["--warnings", "-l"]).arg(&page));
    assert!(said.contains("idle_timeout = TIME *"), "{said}");
}

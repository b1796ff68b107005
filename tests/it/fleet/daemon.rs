//! One real daemon on a host of its own, and the commands of its owner.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::lab::Host;
use super::site::Site;
use crate::deploy::try_to_run;
use crate::harness::{Program, look_until};

/// An address beyond the hub that answers nothing.
const SILENT: &str = "198.18.255.1:9001";

/// What carries a daemon's packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Transport {
    /// One WebSocket over TLS.
    Compat,
    /// UDP.
    Udp,
    /// What the daemon finds out itself; it considers compat only with a registry over TLS.
    Auto,
    /// The same, where no UDP packet comes through.
    AutoWithoutUdp,
}

/// A daemon with its identity, which it keeps when it is started again.
pub(super) struct Daemon {
    /// Its host name in the registry.
    pub(super) name: String,
    /// Its node id.
    pub(super) id: u32,
    pub(super) host: Host,
    home: TempDir,
    /// Where its owner's commands ask, in clear text.
    registry: String,
    program: Option<Program>,
    /// From its start until it said that it runs.
    pub(super) started_in: Duration,
}

impl Daemon {
    /// Starts a new daemon on a new host and waits until it runs.
    pub(super) fn start(site: &Site<'_>, name: &str, transport: Transport) -> Self {
        let home = tempfile::tempdir().unwrap();
        let host = site.lab.host();
        let name = name.to_owned();
        let registry = site.registry.plain.to_string();
        let started_in = Duration::ZERO;
        let mut daemon = Self { name, id: 0, host, home, registry, program: None, started_in };
        daemon.start_again(site, transport);
        daemon.id = site.registry.id_of(&daemon.name);
        daemon
    }

    /// A second daemon with the identity of this one, on another host.
    pub(super) fn twin(&self, site: &Site<'_>, transport: Transport) -> Self {
        let home = tempfile::tempdir().unwrap();
        for file in ["id.json", "account.json"] {
            // The account is there only once the registry has answered.
            let _ = fs::copy(self.home.path().join(file), home.path().join(file));
        }
        let host = site.lab.host();
        let mut twin = Self {
            name: self.name.clone(),
            id: self.id,
            host,
            home,
            registry: self.registry.clone(),
            program: None,
            started_in: Duration::ZERO,
        };
        twin.spawn(site, transport);
        twin
    }

    /// Starts it with the identity that it has, and waits until it runs.
    pub(super) fn start_again(&mut self, site: &Site<'_>, transport: Transport) {
        let begun = Instant::now();
        self.spawn(site, transport);
        self.program.as_ref().unwrap().wait_for_line("daemon running");
        self.started_in = begun.elapsed();
        let ready = look_until(begun + crate::harness::PATIENCE, || {
            let (succeeded, _) = try_to_run(self.control().args(["--json", "info"]));
            succeeded.then_some(())
        });
        assert!(ready.is_some(), "{} does not answer its owner:\n{}", self.name, self.log());
    }

    fn spawn(&mut self, site: &Site<'_>, transport: Transport) {
        assert!(self.program.is_none(), "{} still runs", self.name);
        let _ = fs::remove_file(self.socket());
        let home = self.home.path();
        let mut command = self.host.command();
        command.env("HOME", home).env("SSL_CERT_FILE", site.ca()).arg(binary("pilot-daemon"));
        command.args(["-hostname", &self.name, "-email", &format!("{}@example.org", self.name)]);
        command.arg("-identity").arg(home.join("id.json"));
        command.arg("-socket").arg(self.socket());
        let beacon = match transport {
            Transport::Compat | Transport::Udp | Transport::Auto => site.beacon.to_string(),
            Transport::AutoWithoutUdp => SILENT.to_owned(),
        };
        command.args(["-beacon", &beacon, "-public", "-trust-auto-approve"]);
        command.args(["-proxy", "off", "-telemetry-url=", "-motd-feed-url=", "-no-skillinject"]);
        command.args(["-compat-beacon", &site.url(), "-tls-trust", "system"]);
        match transport {
            Transport::Compat => command.args(["-transport", "compat", "-registry-tls=false"]),
            Transport::Udp => command.args(["-transport", "udp"]),
            Transport::Auto | Transport::AutoWithoutUdp => command.args([
                "-transport",
                "auto",
                "-registry-tls",
                "-registry-fingerprint",
                &site.registry.fingerprint,
            ]),
        };
        let registry = match transport {
            Transport::Compat | Transport::Udp => site.registry.plain,
            Transport::Auto | Transport::AutoWithoutUdp => site.registry.tls,
        };
        command.args(["-registry", &registry.to_string()]);
        self.program = Some(Program::start(&mut command));
    }

    /// Ends it as its service does.
    pub(super) fn stop(&mut self) {
        let mut program = self.program.take().unwrap();
        program.signal("TERM");
        program.wait_for_end();
    }

    /// Ends it without a word.
    pub(super) fn kill(&mut self) {
        let mut program = self.program.take().unwrap();
        program.signal("KILL");
        program.wait_for_end();
    }

    /// Its log so far.
    pub(super) fn log(&self) -> String {
        self.program.as_ref().map(Program::log).unwrap_or_default()
    }

    /// What it says of itself.
    pub(super) fn info(&self) -> Value {
        let (succeeded, said) = try_to_run(self.control().args(["--json", "info"]));
        assert!(succeeded, "{said}");
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    /// One round trip to another node: whether it came back, and what was said.
    pub(super) fn ping(&self, to: &Self) -> (bool, String) {
        let mut command = self.control();
        command.args(["ping", &to.name, "--count", "1", "--timeout", "5s"]);
        let (succeeded, said) = try_to_run(&mut command);
        (succeeded && said.contains("seq=0 bytes="), said)
    }

    /// Pings until an answer comes; how long that took. Fails after `patience`.
    pub(super) fn reaches(&self, to: &Self, patience: Duration) -> Duration {
        let begun = Instant::now();
        let mut last = String::new();
        let reached = look_until(begun + patience, || {
            let (came_back, said) = self.ping(to);
            last = said;
            came_back.then_some(())
        });
        assert!(
            reached.is_some(),
            "{} does not reach {} in {patience:?}: {last}\n{}",
            self.name,
            to.name,
            self.log()
        );
        begun.elapsed()
    }

    /// Sends a file, which must arrive byte for byte.
    pub(super) fn send_file(&self, to: &Self, bytes: &[u8]) {
        let name = format!("from-{}", self.name);
        let path = self.home.path().join(&name);
        fs::write(&path, bytes).unwrap();
        let mut command = self.control();
        command.args(["--json", "send-file", &to.name]).arg(&path);
        let (succeeded, said) = try_to_run(&mut command);
        let verified = said.contains("\"verified\": true") || said.contains("\"verified\":true");
        assert!(succeeded && verified, "{} to {}: {said}", self.name, to.name);
        let received = to.home.path().join(".pilot/received");
        let arrived = fs::read_dir(&received).unwrap().map(|entry| entry.unwrap().path());
        let arrived = arrived.filter(|path| path.to_string_lossy().contains(&name));
        let contents: Vec<Vec<u8>> = arrived.map(|path| fs::read(path).unwrap()).collect();
        assert!(
            contents.iter().any(|content| content == bytes),
            "{} has no such file from {}",
            to.name,
            self.name
        );
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("pilot.sock")
    }

    /// The owner's command line, before its arguments.
    fn control(&self) -> Command {
        let mut command = self.host.command();
        command.env("HOME", self.home.path()).env("PILOT_SOCKET", self.socket());
        command.env("PILOT_REGISTRY", &self.registry);
        command.args(["timeout", "20"]).arg(binary("pilotctl"));
        command
    }
}

fn binary(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_beacon-relay")).ancestors().nth(2).unwrap();
    let path = target.join("tools/pilotprotocol/bin").join(name);
    assert!(path.is_file(), "{} is missing; `make setup` installs it", path.display());
    path
}

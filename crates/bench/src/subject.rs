//! The server that is measured: a process of its own, started and ended by the benchmark.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use crate::peer::Node;
use crate::process::Usage;

/// Longest time until two relays are linked.
const LINK_TIME: Duration = Duration::from_secs(10);

/// What is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// The relay, with its limits for sources off.
    Relay,
    /// The cheapest server that still relays.
    Floor,
}

impl Kind {
    /// The word in tables.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Floor => "floor",
        }
    }
}

/// The programs that can be started.
#[derive(Debug)]
pub(super) struct Servers {
    relay: PathBuf,
    /// This program itself.
    floor: PathBuf,
}

impl Servers {
    /// The relay that was named, or else the one in the folder of this program.
    ///
    /// # Errors
    /// The relay is not there.
    pub(super) fn new(relay: Option<&Path>) -> anyhow::Result<Self> {
        let floor = std::env::current_exe().context("cannot find this program")?;
        let relay = relay.map_or_else(|| floor.with_file_name("beacon-relay"), Path::to_owned);
        anyhow::ensure!(
            relay.is_file(),
            "there is no {} to measure; build it, or name one with --beacon-relay",
            relay.display()
        );
        Ok(Self { relay, floor })
    }

    /// Starts a server that knows these nodes.
    pub(super) fn start(
        &self,
        kind: Kind,
        nodes: &[Node],
        further: &[&str],
    ) -> anyhow::Result<Subject> {
        let state = temporary_folder()?;
        let command = match kind {
            Kind::Relay => self.relay(state.path(), nodes, further)?,
            Kind::Floor => {
                let mut command = Command::new(&self.floor);
                command.arg("--serve-floor");
                command
            }
        };
        Subject::run(command, state)
    }

    fn relay(&self, state: &Path, nodes: &[Node], further: &[&str]) -> anyhow::Result<Command> {
        let keys = state.join("bench.json");
        let object = nodes.iter().map(|node| {
            (node.id.to_string(), serde_json::Value::from(node.public_key().to_string()))
        });
        let object: serde_json::Map<_, _> = object.collect();
        std::fs::write(&keys, serde_json::to_vec(&object)?)?;
        let mut command = Command::new(&self.relay);
        command.arg("serve").arg("--state-dir").arg(state).arg("--keys").arg(&keys);
        for flag in ["--wss-bind", "--udp-bind", "--admin-bind"] {
            command.args([flag, "127.0.0.1:0"]);
        }
        for flag in ["--upgrade-rate", "--relay-rate", "--discover-rate"] {
            command.args([flag, "0"]);
        }
        command.args(["--trusted-proxy", "", "--log-format=text"]).args(further);
        Ok(command)
    }

    /// Starts two relays of a cluster that know these nodes, and waits until they are linked.
    pub(super) fn two_relays(&self, nodes: &[Node]) -> anyhow::Result<[Subject; 2]> {
        let secret = temporary_folder()?;
        let secret_file = secret.path().join("secret");
        std::fs::write(&secret_file, "a secret for as long as a measurement lasts")?;
        let free = || UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let (one, other) = (free()?.to_string(), free()?.to_string());
        let relay = |bind: &str, join: &str| {
            let secret_file = secret_file.to_str().context("a temporary folder's name is text")?;
            let flags = ["--cluster-bind", bind, "--cluster-join", join, "--cluster-secret-file"];
            self.start(Kind::Relay, nodes, &[&flags[..], &[secret_file]].concat())
        };
        let relays = [relay(&one, &other)?, relay(&other, &one)?];
        let end = Instant::now() + LINK_TIME;
        for relay in &relays {
            while !relay.metrics()?.contains("\npilot_beacon_cluster_members 2\n") {
                anyhow::ensure!(Instant::now() < end, "the two relays do not link");
                thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(relays)
    }
}

/// A folder that only this user may enter; it goes with its content when it is dropped.
fn temporary_folder() -> anyhow::Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("beacon-bench-").tempdir();
    folder.context("cannot make a temporary folder")
}

/// A running server; it ends when this is dropped.
pub(super) struct Subject {
    pub(super) wss: SocketAddr,
    pub(super) udp: SocketAddr,
    /// Where its metrics are; the floor has none.
    admin: Option<SocketAddr>,
    child: Child,
    _state: TempDir,
}

impl Subject {
    fn run(mut command: Command, state: TempDir) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .env("NO_COLOR", "1")
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let stderr = child.stderr.take().context("stderr was piped")?;
        let mut lines = BufReader::new(stderr).lines();
        let Some(listening) =
            lines.by_ref().map_while(Result::ok).find(|l| l.contains("listening "))
        else {
            bail!("the server does not start; try it with `beacon-relay serve`");
        };
        let address = |field: &str| {
            let words = listening.split_whitespace();
            words.filter_map(|word| word.strip_prefix(field)).find_map(|text| text.parse().ok())
        };
        let (wss, udp) = address("wss=").zip(address("udp=")).context("it names its addresses")?;
        let admin = address("admin=");
        // What it has to say later is worth seeing, and a full pipe would stop it.
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _closed = io::Write::write_fmt(&mut io::stderr(), format_args!("{line}\n"));
            }
        });
        Ok(Self { wss, udp, admin, child, _state: state })
    }

    fn metrics(&self) -> anyhow::Result<String> {
        let admin = self.admin.context("a relay names its admin address")?;
        let mut stream = TcpStream::connect(admin)?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    /// What the server has used so far.
    pub(super) fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of(self.child.id()).context("the server has ended")
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // Both fail only where it has ended by itself.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

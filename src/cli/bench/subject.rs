//! The server that is measured: a process of its own, started and ended by the benchmark.

use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::peer::Node;
use super::process::Usage;
use crate::cli::demo::TemporaryState;

/// Longest time until two relays are linked.
const LINK_TIME: Duration = Duration::from_secs(10);

/// What is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(super) enum Kind {
    /// This relay, with its limits for sources off.
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

/// A running server; it ends when this is dropped.
pub(super) struct Subject {
    pub(super) wss: SocketAddr,
    pub(super) udp: SocketAddr,
    /// Where its metrics are; the floor has none.
    admin: Option<SocketAddr>,
    child: Child,
    _state: TemporaryState,
}

impl Subject {
    /// Starts a server that knows these nodes.
    pub(super) fn start(kind: Kind, nodes: &[Node], further: &[&str]) -> anyhow::Result<Self> {
        let state = TemporaryState::create().context("cannot make a temporary folder")?;
        let mut command = Command::new(std::env::current_exe()?);
        match kind {
            Kind::Relay => {
                let keys = state.path().join("bench.json");
                let object = nodes.iter().map(|node| {
                    (node.id.to_string(), serde_json::Value::from(node.public_key().to_string()))
                });
                let object: serde_json::Map<_, _> = object.collect();
                std::fs::write(&keys, serde_json::to_vec(&object)?)?;
                let words: [OsString; 20] = [
                    "serve".into(),
                    "--state-dir".into(),
                    state.path().into(),
                    "--keys".into(),
                    keys.into(),
                    "--wss-bind".into(),
                    "127.0.0.1:0".into(),
                    "--udp-bind".into(),
                    "127.0.0.1:0".into(),
                    "--admin-bind".into(),
                    "127.0.0.1:0".into(),
                    "--upgrade-rate".into(),
                    "0".into(),
                    "--relay-rate".into(),
                    "0".into(),
                    "--discover-rate".into(),
                    "0".into(),
                    "--trusted-proxy".into(),
                    "".into(),
                    "--log-format=text".into(),
                ];
                command.args(words).args(further);
            }
            Kind::Floor => {
                command.args(["bench", "--serve-floor"]);
            }
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .env("NO_COLOR", "1")
            .spawn()
            .context("cannot start the server")?;
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

    /// Starts two relays of a cluster that know these nodes, and waits until they are linked.
    pub(super) fn two_relays(nodes: &[Node]) -> anyhow::Result<[Self; 2]> {
        let secret = TemporaryState::create().context("cannot make a temporary folder")?;
        let secret_file = secret.path().join("secret");
        std::fs::write(&secret_file, "a secret for as long as a measurement lasts")?;
        let free = || UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let (one, other) = (free()?.to_string(), free()?.to_string());
        let relay = |bind: &str, join: &str| {
            let secret_file = secret_file.to_str().context("a temporary folder's name is text")?;
            let flags = ["--cluster-bind", bind, "--cluster-join", join, "--cluster-secret-file"];
            Self::start(Kind::Relay, nodes, &[&flags[..], &[secret_file]].concat())
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

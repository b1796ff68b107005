//! Two servers with one path between them.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::program::Program;
use super::{Kind, Servers, Subject, temporary_folder};
use crate::peer::Node;
use crate::process::Usage;

/// Longest time until two relays are linked.
const LINK_TIME: Duration = Duration::from_secs(10);

/// By what two servers are joined.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Joined {
    /// Two relays by their mesh.
    Mesh,
    /// Two relays by NATS.
    Nats,
    /// Two relays for NetBird's clients by their mesh.
    NetbirdMesh,
    /// Two relays for NetBird's clients by NATS.
    NetbirdNats,
    /// Two floors by one TLS connection over TCP.
    Tcp,
    /// Two floors by one stream of QUIC.
    Quic,
}

impl Joined {
    /// The word in tables.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Mesh | Self::NetbirdMesh => "two relays, mesh",
            Self::Nats | Self::NetbirdNats => "two relays, NATS",
            Self::Tcp => "two floors, TLS/TCP",
            Self::Quic => "two floors, QUIC",
        }
    }
}

/// Two servers that are joined, and what is between them.
pub(crate) struct Two {
    pub(crate) near: Subject,
    pub(crate) far: Subject,
    between: Option<Program>,
}

impl Two {
    /// What all of it has used so far.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        let mut usage = self.near.usage()? + self.far.usage()?;
        if let Some(between) = &self.between {
            usage = usage + between.usage()?;
        }
        Ok(usage)
    }
}

impl Servers {
    /// Starts two servers that know these nodes, and waits until they are joined.
    pub(crate) fn joined(&self, joined: Joined, nodes: &[Node]) -> anyhow::Result<Two> {
        match joined {
            Joined::Mesh => self.mesh(Kind::Relay, nodes),
            Joined::NetbirdMesh => self.mesh(Kind::Netbird, nodes),
            Joined::Nats => self.nats(Kind::Relay, nodes),
            Joined::NetbirdNats => self.nats(Kind::Netbird, nodes),
            Joined::Tcp => self.floors("tcp"),
            Joined::Quic => self.floors("quic"),
        }
    }

    fn mesh(&self, kind: Kind, nodes: &[Node]) -> anyhow::Result<Two> {
        let secret = temporary_folder()?;
        let secret_file = secret.path().join("secret");
        std::fs::write(&secret_file, "a secret for as long as a measurement lasts")?;
        let free = || UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let one = free()?.to_string();
        let other = free()?.to_string();
        let relay = |bind: &str, join: &str| {
            let secret_file = secret_file.to_str().context("a temporary folder's name is text")?;
            let flags = ["--cluster-bind", bind, "--cluster-join", join, "--cluster-secret-file"];
            self.start(kind, nodes, &[&flags[..], &[secret_file]].concat())
        };
        linked(Two { near: relay(&one, &other)?, far: relay(&other, &one)?, between: None })
    }

    fn nats(&self, kind: Kind, nodes: &[Node]) -> anyhow::Result<Two> {
        // Debian puts it where not everybody looks.
        let debian = Path::new("/usr/sbin/nats-server");
        let mut command =
            Command::new(if debian.is_file() { debian } else { Path::new("nats-server") });
        let address = free_port()?;
        let port = address.port().to_string();
        command.args(["--addr", &address.ip().to_string(), "--port", &port]);
        let (server, _) = Program::start(command, "Server is ready")?;
        let url = format!("nats://{address}");
        let relay = || self.start(kind, nodes, &["--cluster-nats", &url]);
        linked(Two { near: relay()?, far: relay()?, between: Some(server) })
    }

    fn floors(&self, transport: &str) -> anyhow::Result<Two> {
        let near = self.start(Kind::Floor, &[], &["--floor-link", transport])?;
        let link = near.link.context("a floor that waits for another names its address")?;
        let link = link.to_string();
        let flags = ["--floor-link", transport, "--floor-link-to", &link];
        Ok(Two { far: self.start(Kind::Floor, &[], &flags)?, near, between: None })
    }
}

/// A port of TCP that was free a moment ago.
pub(super) fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn linked(two: Two) -> anyhow::Result<Two> {
    let end = Instant::now() + LINK_TIME;
    for relay in [&two.near, &two.far] {
        while !relay.metrics()?.contains("\npilot_beacon_cluster_members 2\n") {
            anyhow::ensure!(Instant::now() < end, "the two relays do not link");
            thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(two)
}

//! Two servers with one path between them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::program::Program;
use super::{Kind, Servers, Subject, temporary_folder};
use crate::peer::Node;
use crate::process::Usage;

/// Longest time until relays are linked.
const LINK_TIME: Duration = Duration::from_secs(30);

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

/// Relays that are joined, and what is between them.
pub(crate) struct Cluster {
    relays: Vec<Subject>,
    between: Option<Program>,
}

impl Cluster {
    /// What all relays have used so far, and what is between them.
    pub(crate) fn usage(&self) -> anyhow::Result<(Usage, Usage)> {
        let mut relays = Usage::default();
        for relay in &self.relays {
            relays = relays + relay.usage()?;
        }
        let between = self.between.as_ref().map(Program::usage).transpose()?;
        Ok((relays, between.unwrap_or_default()))
    }
}

impl Servers {
    /// Starts two servers that know these nodes, and waits until they are joined.
    pub(crate) fn joined(&self, joined: Joined, nodes: &[Node]) -> anyhow::Result<Two> {
        let (relays, between) = match joined {
            Joined::Mesh => (self.mesh(Kind::Relay, nodes, 2)?, None),
            Joined::NetbirdMesh => (self.mesh(Kind::Netbird, nodes, 2)?, None),
            Joined::Nats => self.nats(Kind::Relay, nodes, 2)?,
            Joined::NetbirdNats => self.nats(Kind::Netbird, nodes, 2)?,
            Joined::Tcp => return self.floors("tcp"),
            Joined::Quic => return self.floors("quic"),
        };
        wait_for_links(&relays)?;
        let mut relays = relays.into_iter();
        let (near, far) = relays.next().zip(relays.next()).context("two were started")?;
        Ok(Two { near, far, between })
    }

    /// Starts so many relays without peers, and waits until all are joined.
    pub(crate) fn cluster(&self, joined: Joined, count: usize) -> anyhow::Result<Cluster> {
        let (relays, between) = match joined {
            Joined::Nats | Joined::NetbirdNats => self.nats(Kind::Relay, &[], count)?,
            Joined::Mesh | Joined::NetbirdMesh | Joined::Tcp | Joined::Quic => {
                (self.mesh(Kind::Relay, &[], count)?, None)
            }
        };
        wait_for_links(&relays)?;
        Ok(Cluster { relays, between })
    }

    fn mesh(&self, kind: Kind, nodes: &[Node], count: usize) -> anyhow::Result<Vec<Subject>> {
        let secret = temporary_folder()?;
        let secret_file = secret.path().join("secret");
        std::fs::write(&secret_file, "a secret for as long as a measurement lasts")?;
        let secret_file = secret_file.to_str().context("a temporary folder's name is text")?;
        let sockets: Vec<_> = (0..count).map(|_| UdpSocket::bind("127.0.0.1:0")).collect();
        let free = |socket: io::Result<UdpSocket>| Ok(socket?.local_addr()?.to_string());
        let binds = sockets.into_iter().map(free).collect::<anyhow::Result<Vec<_>>>()?;
        let join = binds.join(",");
        let relay = |bind: &String| {
            let flags = ["--cluster-bind", bind, "--cluster-join", &join, "--cluster-secret-file"];
            self.start(kind, nodes, &[&flags[..], &[secret_file]].concat())
        };
        binds.iter().map(relay).collect()
    }

    fn nats(
        &self,
        kind: Kind,
        nodes: &[Node],
        count: usize,
    ) -> anyhow::Result<(Vec<Subject>, Option<Program>)> {
        // Debian puts it where not everybody looks.
        let debian = Path::new("/usr/sbin/nats-server");
        let mut command =
            Command::new(if debian.is_file() { debian } else { Path::new("nats-server") });
        let address = free_port()?;
        let port = address.port().to_string();
        command.args(["--addr", &address.ip().to_string(), "--port", &port]);
        let (server, _) = Program::start(&command, "Server is ready")?;
        let url = format!("nats://{address}");
        let relay = |_| self.start(kind, nodes, &["--cluster-nats", &url]);
        Ok(((0..count).map(relay).collect::<anyhow::Result<_>>()?, Some(server)))
    }

    fn floors(&self, transport: &str) -> anyhow::Result<Two> {
        let near = self.start(Kind::Floor, &[], &["--floor-link", transport])?;
        let link = near.link.context("a floor that waits for another names its address")?;
        let link = link.to_string();
        let flags = ["--floor-link", transport, "--floor-link-to", &link];
        Ok(Two { far: self.start(Kind::Floor, &[], &flags)?, near, between: None })
    }
}

/// Where the ports of [`free_port`] begin: below the ephemeral ports, of which another program might get
/// one before its server does, and not among those of the tests.
const FIRST_PORT: u16 = 10_000;

/// A port of TCP that was free a moment ago.
pub(super) fn free_port() -> anyhow::Result<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Others may measure on this machine.
    let own = FIRST_PORT + u16::try_from(std::process::id() % 90)? * 100;
    loop {
        let port = own + NEXT.fetch_add(1, Ordering::Relaxed) % 1_000;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            bound => return Ok(bound?.local_addr()?),
        }
    }
}

fn wait_for_links(relays: &[Subject]) -> anyhow::Result<()> {
    let end = Instant::now() + LINK_TIME;
    let members = format!("\npilot_beacon_cluster_members {}\n", relays.len());
    for relay in relays {
        while !relay.metrics()?.contains(&members) {
            anyhow::ensure!(Instant::now() < end, "the relays do not link");
            thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

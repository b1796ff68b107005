//! The servers that are measured: processes of their own, started and ended by the benchmark.

mod broker;
mod joined;
mod program;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::ClientConfig;
use tempfile::TempDir;

pub(super) use self::broker::{Broker, Brokers};
pub(super) use self::joined::Joined;
use self::joined::free_port;
use self::program::Program;
use crate::bus::keyop::Authority;
use crate::bus::{middleman, peerbus};
use crate::netbird;
use crate::peer::Node;
use crate::process::Usage;
use crate::tls::{Certificate, NAME};

/// Caddy as it is deployed in front of a relay.
const CADDYFILE: &str = include_str!("../../../../deploy/Caddyfile");

/// What is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// The relay, with its limits for sources off.
    Relay,
    /// The cheapest server that still relays.
    Floor,
    /// The relay with TLS in process.
    RelayTls,
    /// The floor with TLS.
    FloorTls,
    /// Caddy with TLS in front of the relay.
    Caddy,
    /// The relay with the door for NetBird's clients.
    Netbird,
    /// The floor for the same clients.
    NetbirdFloor,
    /// The relay with the door for NetBird's clients and TLS, which has QUIC then.
    NetbirdQuic,
    /// The floor for the same clients over QUIC.
    NetbirdQuicFloor,
    /// The relay with the door for peers of peerbus.
    Peerbus,
    /// The floor for the same peers.
    PeerbusFloor,
    /// The relay with the door for services of middleman.
    Middleman,
    /// The relay with the door for hubs of keyop-messenger.
    Keyop,
    /// The floor for the same peers.
    KeyopFloor,
}

/// What peers speak with a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Protocol {
    Pilot,
    Netbird,
    Peerbus,
    Middleman,
    Keyop,
}

impl Kind {
    /// The word in tables.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Relay
            | Self::Netbird
            | Self::NetbirdQuic
            | Self::Peerbus
            | Self::Middleman
            | Self::Keyop => "relay",
            Self::Floor
            | Self::NetbirdFloor
            | Self::NetbirdQuicFloor
            | Self::PeerbusFloor
            | Self::KeyopFloor => "floor",
            Self::RelayTls => "relay, TLS",
            Self::FloorTls => "floor, TLS",
            Self::Caddy => "Caddy + relay",
        }
    }

    const fn protocol(self) -> Protocol {
        match self {
            Self::Netbird | Self::NetbirdFloor | Self::NetbirdQuic | Self::NetbirdQuicFloor => {
                Protocol::Netbird
            }
            Self::Peerbus | Self::PeerbusFloor => Protocol::Peerbus,
            Self::Middleman => Protocol::Middleman,
            Self::Keyop | Self::KeyopFloor => Protocol::Keyop,
            Self::Relay | Self::Floor | Self::RelayTls | Self::FloorTls | Self::Caddy => {
                Protocol::Pilot
            }
        }
    }
}

/// The programs that can be started.
#[derive(Debug)]
pub(super) struct Servers {
    relay: PathBuf,
    /// This program itself.
    floor: PathBuf,
    certificate: Certificate,
    client: Arc<ClientConfig>,
    folder: TempDir,
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
        let folder = temporary_folder()?;
        let certificate = Certificate::make(folder.path()).context("no certificate")?;
        let client = Arc::new(certificate.client()?);
        Ok(Self { relay, floor, certificate, client, folder })
    }

    /// Starts a server that knows these nodes.
    pub(super) fn start(
        &self,
        kind: Kind,
        nodes: &[Node],
        further: &[&str],
    ) -> anyhow::Result<Subject> {
        let state = temporary_folder()?;
        let has_tls = matches!(
            kind,
            Kind::RelayTls
                | Kind::FloorTls
                | Kind::Caddy
                | Kind::NetbirdQuic
                | Kind::NetbirdQuicFloor
        );
        let command = match kind {
            Kind::Relay
            | Kind::RelayTls
            | Kind::Caddy
            | Kind::Netbird
            | Kind::NetbirdQuic
            | Kind::Peerbus
            | Kind::Middleman
            | Kind::Keyop => {
                let mut command = self.relay(state.path(), nodes, kind.protocol())?;
                if kind == Kind::RelayTls {
                    command.arg("--wss-tls-cert").arg(&self.certificate.certificate);
                    command.arg("--wss-tls-key").arg(&self.certificate.key);
                }
                if kind == Kind::NetbirdQuic {
                    command.arg("--netbird-tls-cert").arg(&self.certificate.certificate);
                    command.arg("--netbird-tls-key").arg(&self.certificate.key);
                }
                command.args(further);
                command
            }
            Kind::Floor
            | Kind::FloorTls
            | Kind::NetbirdFloor
            | Kind::NetbirdQuicFloor
            | Kind::PeerbusFloor
            | Kind::KeyopFloor => {
                let mut command = Command::new(&self.floor);
                command.arg("--serve-floor").arg("--floor-certificate").arg(self.folder.path());
                // What is for the relay alone is nothing to it.
                command.args(further.iter().filter(|_| further[0].starts_with("--floor")));
                command.args(has_tls.then_some("--floor-tls"));
                let is_netbird = kind.protocol() == Protocol::Netbird;
                command.args(is_netbird.then_some("--floor-netbird"));
                command
            }
        };
        let mut subject = Subject::run(&command, state, kind.protocol())?;
        if kind == Kind::Caddy {
            self.put_caddy_before(&mut subject)?;
        }
        subject.tls = has_tls.then(|| Arc::clone(&self.client));
        Ok(subject)
    }

    /// The folder of certificates.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts a relay for peers whose certificates are of this authority.
    pub(super) fn start_keyop(
        &self,
        authority: &Authority,
        further: &[&str],
    ) -> anyhow::Result<Subject> {
        let text = |path: &Path| {
            let text = path.to_str().context("a temporary folder's name is text");
            text.map(str::to_owned)
        };
        let certificate = text(&authority.hub.certificate)?;
        let key = text(&authority.hub.key)?;
        let file = text(&authority.file)?;
        let flags =
            [["--keyop-cert", &certificate], ["--keyop-key", &key], ["--keyop-client-ca", &file]];
        self.start(Kind::Keyop, &[], &[&flags.concat()[..], further].concat())
    }

    fn relay(&self, state: &Path, nodes: &[Node], protocol: Protocol) -> anyhow::Result<Command> {
        let keys = state.join("bench.json");
        let object = nodes.iter().map(|node| {
            (node.id.to_string(), serde_json::Value::from(node.public_key().to_string()))
        });
        let object: serde_json::Map<_, _> = object.collect();
        std::fs::write(&keys, serde_json::to_vec(&object)?)?;
        let mut command = Command::new(&self.relay);
        command.arg("serve").arg("--state-dir").arg(state).arg("--keys").arg(&keys);
        for flag in ["--udp-bind", "--admin-bind"] {
            command.args([flag, "127.0.0.1:0"]);
        }
        match protocol {
            Protocol::Pilot => command.args(["--wss-bind", "127.0.0.1:0"]),
            Protocol::Netbird => {
                let secret = state.join("netbird");
                std::fs::write(&secret, netbird::SECRET)?;
                command.args(["--netbird-bind", "127.0.0.1:0"]);
                command.args(["--netbird-exposed-address", netbird::EXPOSED]);
                command.arg("--netbird-auth-secret-file").arg(secret)
            }
            Protocol::Peerbus => {
                let tokens = state.join("tokens");
                std::fs::write(&tokens, format!("bench {}\n", peerbus::TOKEN))?;
                command.args(["--peerbus-bind", "127.0.0.1:0"]);
                command.arg("--peerbus-tokens-file").arg(tokens)
            }
            Protocol::Middleman => {
                let keys = state.join("services");
                std::fs::write(&keys, middleman::KEY)?;
                command.args(["--middleman-bind", "127.0.0.1:0"]);
                command.arg("--middleman-service-keys-file").arg(keys)
            }
            Protocol::Keyop => command.args(["--keyop-bind", "127.0.0.1:0"]),
        };
        for flag in ["--upgrade-rate", "--relay-rate", "--discover-rate"] {
            command.args([flag, "0"]);
        }
        command.args(["--trusted-proxy", "", "--log-format=text"]);
        Ok(command)
    }

    /// Starts Caddy with deploy/Caddyfile, and has peers of `relay` come through it.
    fn put_caddy_before(&self, relay: &mut Subject) -> anyhow::Result<()> {
        let folder = relay.state.path();
        let file = folder.join("Caddyfile");
        std::fs::write(&file, CADDYFILE)?;
        // Caddy does not name a port that the system chose.
        let address = free_port()?;
        let Certificate { certificate, key } = &self.certificate;
        let variables = [
            ("RELAY_HOST", NAME.to_owned()),
            ("RELAY_TLS", format!("{} {}", certificate.display(), key.display())),
            ("RELAY_LISTEN", address.ip().to_string()),
            ("RELAY_HTTPS_PORT", address.port().to_string()),
            ("RELAY_UPSTREAM", relay.wss.to_string()),
            ("RELAY_CADDY_ADMIN", "off".to_owned()),
        ];
        let mut command = Command::new("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&file).envs(variables);
        command.env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
        let (caddy, _) = Program::start(&command, "serving initial configuration")
            .context("Caddy is in Debian's package caddy, which `make setup` installs")?;
        relay.programs.push(caddy);
        relay.wss = address;
        Ok(())
    }
}

/// A folder that only this user may enter; it goes with its content when it is dropped.
fn temporary_folder() -> anyhow::Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("beacon-bench-").tempdir();
    folder.context("cannot make a temporary folder")
}

/// A running server, with what stands in front of it; it ends when this is dropped.
pub(super) struct Subject {
    pub(super) wss: SocketAddr,
    pub(super) udp: SocketAddr,
    pub(super) protocol: Protocol,
    /// How peers speak TLS with it, if they do.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// Where its metrics are; the floor has none.
    admin: Option<SocketAddr>,
    /// Where a floor waits for another.
    link: Option<SocketAddr>,
    programs: Vec<Program>,
    state: TempDir,
}

impl Subject {
    fn run(command: &Command, state: TempDir, protocol: Protocol) -> anyhow::Result<Self> {
        let (program, listening) = Program::start(command, "listening ")?;
        let address = |field: &str| {
            let words = listening.split_whitespace();
            words.filter_map(|word| word.strip_prefix(field)).find_map(|text| text.parse().ok())
        };
        let (wss, udp) = address("wss=").zip(address("udp=")).context("it names its addresses")?;
        let (admin, link) = (address("admin="), address("link="));
        let programs = vec![program];
        Ok(Self { wss, udp, protocol, tls: None, admin, link, programs, state })
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
        self.programs.iter().try_fold(Usage::default(), |sum, program| Ok(sum + program.usage()?))
    }
}

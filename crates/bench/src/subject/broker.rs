//! Servers of others that carry or keep messages, and a relay that is started again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use tempfile::TempDir;

use super::program::Program;
use super::{Kind, Servers, Subject, free_port, temporary_folder};
use crate::process::Usage;

/// Where `make setup` puts nats-server, from the folder of this program: Debian's does not know
/// `sync_interval`.
const NATS_SERVER: &str = "../tools/bin/nats-server";

/// Brokers of others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Brokers {
    /// NATS without JetStream: it keeps nothing.
    Core,
    /// NATS with JetStream, and its `sync_interval`.
    JetStream(&'static str),
    /// Redis with its log of commands, and its `appendfsync`.
    Redis(&'static str),
}

/// One of them; it ends when this is dropped.
pub(crate) struct Broker {
    pub(crate) address: SocketAddr,
    program: Program,
    _state: TempDir,
}

impl Broker {
    /// Starts it.
    pub(crate) fn start(which: Brokers) -> anyhow::Result<Self> {
        let state = temporary_folder()?;
        let address = free_port()?;
        let (command, ready) = match which {
            Brokers::JetStream(interval) => {
                let settings = state.path().join("nats.conf");
                let text = format!(
                    "listen: \"{address}\"\nmax_payload: 2MB\njetstream {{ store_dir: \"{}\", sync_interval: {interval} }}\n",
                    state.path().display(),
                );
                std::fs::write(&settings, text)?;
                let mut command = Command::new(nats_server()?);
                command.arg("--config").arg(settings);
                (command, "Server is ready")
            }
            Brokers::Core => {
                let mut command = Command::new(nats_server()?);
                command.args(["--addr", &address.ip().to_string()]);
                command.args(["--port", &address.port().to_string()]);
                (command, "Server is ready")
            }
            Brokers::Redis(fsync) => {
                let mut command = Command::new("redis-server");
                command.args(["--bind", &address.ip().to_string()]);
                command.args(["--port", &address.port().to_string()]);
                command.args(["--save", "", "--appendonly", "yes", "--appendfsync", fsync]);
                command.args(["--logfile", "/dev/stderr", "--dir"]).arg(state.path());
                (command, "Ready to accept connections")
            }
        };
        let (program, _) = Program::start(&command, ready)
            .context("`make setup` installs nats-server and redis-server")?;
        Ok(Self { address, program, _state: state })
    }

    /// What it has used so far.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        self.program.usage()
    }
}

/// The nats-server of scripts/tools.txt.
fn nats_server() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let folder = program.parent().context("a program is in a folder")?;
    let found = folder.join(NATS_SERVER);
    anyhow::ensure!(found.is_file(), "there is no {}; `make setup` installs it", found.display());
    Ok(found)
}

impl Servers {
    /// Ends a relay for peers of peerbus as a service manager does, and starts one with its state.
    pub(crate) fn start_again(&self, relay: Subject, further: &[&str]) -> anyhow::Result<Subject> {
        let Subject { programs, state, protocol, .. } = relay;
        programs.into_iter().try_for_each(Program::stop)?;
        let mut command = self.relay(state.path(), &[], Kind::Peerbus.protocol())?;
        command.args(further);
        Subject::run(&command, state, protocol)
    }
}

//! `beacon-relay demo`: carries a real file through a relay in all four cells of each protocol and
//! over its message bus, its topics and a channel, verifies each copy, and prints a table.
//!
//! The relay runs in this process; who starts it enrols [`Nodes`] in its directory, shows
//! it with [`show`], and keeps it up unless [`Args::once`].

mod access;
mod bus;
mod carry;
mod channel;
mod exchange;
mod netbird;
mod peer;
mod run;
mod state;
mod topics;
mod transfer;

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::builder::FalseyValueParser;

pub use access::Access;
pub use carry::{Cell, Nodes, Row, carry};
pub use channel::Hub;
pub use netbird::Site;
pub use peer::{Node, Transport};
pub use run::Demo;
pub use state::TemporaryState;

/// Time for one cell; the default file takes about 1.5 s.
const DEADLINE: Duration = Duration::from_secs(30);

/// How much of this program's own executable is the default file, in bytes.
const DEFAULT_BYTES: u64 = 4 << 20;

/// Largest file, in bytes: at 3,000 packets of 1,200 bytes a second it takes about 19 s.
const MAX_BYTES: u64 = 64 << 20;

/// What the demo is told, beside the flags of `serve`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The file to carry [default: the first 4 MiB of this program]
    #[arg(long, value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// Exit after the table: 0 if every copy is whole, 1 otherwise
    #[arg(long, env = "ONCE", value_parser = FalseyValueParser::new())]
    pub once: bool,
}

/// Where the relay that is shown listens.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// `ws://host:port` of its WebSocket listener.
    pub wss_url: String,
    /// Its UDP address, as a node on this machine dials it.
    pub udp: SocketAddr,
    /// Its HTTP for operators.
    pub admin: SocketAddr,
    /// Its listener for NetBird's clients, where it has the demo's.
    pub netbird: Option<Site>,
    /// Its message bus, where it has the demo's.
    pub bus: Option<Access>,
    /// Its topics, where it has the demo's.
    pub topics: Option<Access>,
    /// Its listener for peers of channels, where it has the demo's.
    pub hub: Option<Hub>,
}

/// Carries the file and prints the table to `out`; true if every copy is whole.
///
/// # Errors
/// A file that cannot be carried; an `out` that cannot be written.
pub async fn show(
    args: &Args,
    relay: &Addresses,
    nodes: &Nodes,
    out: &mut impl Write,
) -> anyhow::Result<bool> {
    let file = read(args)?;
    writeln!(out, "{}", Row::HEADER)?;
    let (mut whole, mut written) = (true, Ok(()));
    let mut report = |row: Row| {
        whole &= row.verdict.is_ok();
        if written.is_ok() {
            written = writeln!(out, "{row}").and_then(|()| out.flush());
        }
    };
    carry(relay, nodes, &file, DEADLINE, &mut report).await;
    if let Some(bus) = &relay.bus {
        bus::exchange(bus, &file, DEADLINE, &mut report).await;
    }
    if let Some(topics) = &relay.topics {
        topics::exchange(topics, &file, DEADLINE, &mut report).await;
    }
    if let Some(hub) = &relay.hub {
        channel::exchange(hub, &file, DEADLINE, &mut report).await;
    }
    written?;
    let admin = relay.admin;
    writeln!(out, "page:    http://{admin}/")?;
    writeln!(out, "metrics: http://{admin}/metrics")?;
    writeln!(out, "ready:   http://{admin}/readyz")?;
    writeln!(out, "status:  http://{admin}/status")?;
    Ok(whole)
}

fn read(args: &Args) -> anyhow::Result<Vec<u8>> {
    let (path, limit) = match &args.file {
        Some(path) => (path.clone(), MAX_BYTES + 1),
        None => (std::env::current_exe().context("cannot find this program")?, DEFAULT_BYTES),
    };
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(&path)?.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().with_context(|| format!("cannot read --file {}", path.display()))?;
    ensure!(
        !bytes.is_empty(),
        "--file {} is empty, there is nothing to carry; name another",
        path.display()
    );
    ensure!(
        bytes.len() as u64 <= MAX_BYTES,
        "--file {} is larger than the 64 MiB that the demo carries in its time",
        path.display()
    );
    Ok(bytes)
}

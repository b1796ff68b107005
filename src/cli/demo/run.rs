//! Starts the relay that the demo shows, in this process, and keeps it up.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, anyhow};

use super::access::SecretFile;
use super::{Addresses, Args, Nodes, TemporaryState, channel, netbird, show};
use crate::cli::serve::{self, Signals};
use crate::cli::{Exit, logging};
use crate::config::{Config, Flags, Layers, Surroundings};
use crate::doors::pilot::directory;
use crate::server::{Host, Server};

/// The demo, with the settings of the relay that it starts.
#[derive(Debug, clap::Args)]
pub struct Demo {
    #[command(flatten)]
    demo: Args,
    #[command(flatten)]
    flags: Flags,
}

impl Demo {
    /// Shows the relay at work; then it stays up until it is told to stop.
    ///
    /// # Errors
    /// The relay could not start, or a copy of the file was not whole.
    pub fn run(self) -> Result<(), Exit> {
        let Self { demo, mut flags } = self;
        let mut temporary = None;
        if !flags.has("trusted_proxy") {
            // The demo's own peers come without a proxy.
            flags.add("trusted_proxy", String::new());
        }
        if !flags.has("state_dir") {
            let state = TemporaryState::create().context("cannot make a temporary folder")?;
            flags.add("state_dir", state.path().display().to_string());
            temporary = Some(state);
        }
        let (config, guests) = with_doors(flags)?;
        if config.keys.is_some() || config.registry.is_some() {
            let reason = "the demo enrols its own nodes: leave --keys and --registry out";
            return Err(Exit::Usage(reason.to_owned()));
        }
        let _log = logging::start(&config.log_level, config.log_format)?;
        let nodes = Nodes::generate().context("no randomness for the nodes' keys")?;
        crate::config::create_state_dir(&config.state_dir)?;
        for node in nodes.iter() {
            directory::enroll(&config.state_dir, node.id, node.public_key())
                .context("cannot enrol the demo's nodes")?;
        }
        let whole = serve::run_to_end(present(&demo, config, &nodes, &guests))?;
        drop(temporary);
        if whole? { Ok(()) } else { Err(anyhow!("not every copy of the file is whole").into()) }
    }
}

/// The files of the doors that the demo adds.
#[derive(Default)]
struct Guests {
    netbird: Option<netbird::Files>,
    bus: Option<SecretFile>,
    topics: Option<SecretFile>,
    hub: Option<channel::Files>,
}

/// The settings, with a listener each for NetBird's clients, for peers of a message bus, for services
/// of topics and for peers of channels where they have none and there is no cluster: all its relays
/// would have to have them as well.
fn with_doors(mut flags: Flags) -> Result<(Config, Guests), Exit> {
    let read = |flags| {
        let layers = Layers::collect(flags, &Surroundings::of_this_process())?;
        Ok::<_, Exit>(Config::new(&layers)?)
    };
    let config = read(flags.clone())?;
    let mut guests = Guests::default();
    let mut settings = Vec::new();
    if config.netbird.is_none() && config.cluster.is_none() {
        let files = netbird::Files::create()?;
        settings.extend(files.settings());
        guests.netbird = Some(files);
    }
    if config.peerbus.is_none() && config.cluster.is_none() {
        let file = SecretFile::create()?;
        settings.extend(file.settings("peerbus_bind", "peerbus_tokens_file"));
        guests.bus = Some(file);
    }
    if config.middleman.is_none() && config.cluster.is_none() {
        let file = SecretFile::create()?;
        settings.extend(file.settings("middleman_bind", "middleman_service_keys_file"));
        guests.topics = Some(file);
    }
    if config.keyop.is_none() && config.cluster.is_none() {
        let files = channel::Files::create()?;
        settings.extend(files.settings());
        guests.hub = Some(files);
    }
    if settings.is_empty() {
        return Ok((config, guests));
    }
    for (key, text) in settings {
        flags.add(key, text);
    }
    // Without it, there would be none for nodes.
    if config.serves_wss_bind && !flags.has("wss_bind") {
        flags.add("wss_bind", config.wss_bind.to_string());
    }
    Ok((read(flags)?, guests))
}

async fn present(
    demo: &Args,
    config: Config,
    nodes: &Nodes,
    guests: &Guests,
) -> Result<bool, Exit> {
    let mut signals = Signals::new()?;
    let server = serve::start(Host::default(), config).await?;
    let addresses = addresses(&server, guests)?;
    let mut out = io::stdout();
    let whole = tokio::select! {
        shown = show(demo, &addresses, nodes, &mut out) => shown?,
        () = signals.stop() => return Ok(true),
    };
    if !demo.once {
        writeln!(out, "The relay stays up; end it with Ctrl-C.").context("cannot write")?;
        signals.stop().await;
    }
    server.shutdown().await;
    Ok(whole)
}

fn addresses(server: &Server, guests: &Guests) -> Result<Addresses, Exit> {
    let wss = server.wss_addr().ok_or_else(|| {
        Exit::Usage("the demo needs a TCP address: leave --wss-bind unix:… out".to_owned())
    })?;
    let netbird = guests.netbird.as_ref().zip(server.netbird_addr());
    let bus = guests.bus.as_ref().zip(server.peerbus_addr());
    let topics = guests.topics.as_ref().zip(server.middleman_addr());
    let hub = guests.hub.as_ref().zip(server.keyop_addr());
    Ok(Addresses {
        wss_url: format!("ws://{}", reachable(wss)),
        udp: reachable(server.udp_addr()),
        admin: reachable(server.admin_addr()),
        netbird: netbird.map(|(files, address)| files.site(address)),
        bus: bus.map(|(file, address)| file.access(address)),
        topics: topics.map(|(file, address)| file.access(address)),
        hub: hub.map(|(files, address)| files.hub(address)),
    })
}

/// The address as a program on this machine dials it.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        // A wildcard takes IPv4 as well, and not every machine has an IPv6 loopback.
        IpAddr::V6(ip) if ip == Ipv6Addr::UNSPECIFIED => Ipv4Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, address.port())
}

//! `doctor`: checks the whole chain as a peer would, and says what to do about each finding.
//!
//! A failure is what keeps a peer from using the URL, or the relay from starting with the settings;
//! everything else is at most a warning, and what the arguments do not let us check is skipped.

mod acme;
mod certificate;
mod client_address;
mod http;
mod http_proxy;
mod jetstream;
mod listeners;
mod machine;
mod messages;
mod middleman;
mod netbird;
mod probe;
mod proxy;
mod reach;
mod registry;
mod report;
mod session;
mod settings;
mod tls_files;
mod udp;
mod upgrade;

use std::path::PathBuf;
use std::time::Duration;

use super::{Exit, output};
use crate::client::{Proxy, Target};
use crate::config::Flags;
use crate::ids::NodeId;
use crate::net::resolve::Resolver;
use report::Report;

/// Longest wait for one step.
const PATIENCE: Duration = Duration::from_secs(10);

/// What `doctor` is told.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Where peers connect: `wss://host[:port][/path]`, or `rels://host[:port]` for a relay of
    /// NetBird's clients; without it, only this machine is checked
    url: Option<String>,
    /// Log in as this node, and use the session; a daemon of this node would be replaced
    #[arg(long, value_name = "N", requires = "key")]
    node_id: Option<NodeId>,
    /// File with the key of --node-id
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, requires = "node_id")]
    key: Option<PathBuf>,
    /// File with the secret of a relay of NetBird's clients: log in at the rel:// or rels:// URL, and
    /// use the session
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    secret_file: Option<PathBuf>,
    /// PEM file of the certificate authorities to trust instead of the system's
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    ca: Option<PathBuf>,
    /// HTTP proxy to go through to the URL, `http://[user:password@]host:port`, or `none`; without
    /// it, that of https_proxy or all_proxy, but for no_proxy
    #[arg(long, value_name = "URL")]
    proxy: Option<Proxy>,
    /// UDP address of the relay, to ask it how it sees this machine
    #[arg(long, value_name = "HOST:PORT")]
    udp: Option<String>,
    /// Caddyfile or nginx.conf of the proxy, or http://HOST:PORT of Caddy's own control port
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    proxy_config: Option<String>,
    /// Prints one line of JSON instead
    #[arg(long)]
    json: bool,
    /// The settings of `serve`: what the relay on this machine is told
    #[command(flatten)]
    flags: Flags,
}

/// Makes all checks that the arguments allow, and prints them.
pub(super) async fn run(args: Args) -> Result<(), Exit> {
    let mut report = Report::default();
    let json = args.json;
    check(args, &mut report).await?;
    output::print(&if json { report.json() } else { report.to_string() })?;
    report.end()
}

async fn check(args: Args, report: &mut Report) -> Result<(), Exit> {
    // Someone else's relay has other limits than this machine.
    let local = args.url.is_none() || args.flags.config().is_some() || args.flags.has("state_dir");
    if let Some(url) = &args.url {
        check_url(url, &args, report).await?;
    }
    match &args.udp {
        Some(address) => udp::check(address, report).await,
        None => report.skip("udp", "--udp HOST:PORT asks the relay for this machine's address"),
    }
    match &args.proxy_config {
        Some(source) => proxy::check(source, report).await,
        None => report.skip("proxy-reload", "--proxy-config FILE: Caddyfile or nginx.conf"),
    }
    let config = settings::read(args.flags, report);
    if local {
        if let Some(config) = &config {
            settings::check(config, report);
            machine::check_relay(config, report).await;
            messages::check(config, report).await;
            listeners::check(config, report).await;
            tls_files::check(config, report);
            middleman::check(config, report).await;
            acme::check(config, report).await;
        }
        machine::check_buffers(report);
    }
    registry::check(config.as_ref(), args.node_id, report).await;
    Ok(())
}

/// What a peer does, step by step and at each address; after a failure the steps that need it
/// are not tried.
async fn check_url(url: &str, args: &Args, report: &mut Report) -> Result<(), Exit> {
    if upgrade::is_netbird(url) {
        return netbird::check(url, args, report).await;
    }
    let login = session::Login::read(args)?;
    let target = match Target::parse(url) {
        Ok(target) => target,
        Err(error) => {
            report.fail("url", error.to_string(), "write wss://relay.example.org");
            return Ok(());
        }
    };
    let proxy = args.proxy.clone().unwrap_or_default();
    if let Some(variable) = proxy.passed_over(&target) {
        report.skip("http-proxy", format!("{variable} is passed over: it names no HTTP proxy"));
    }
    let proxy = match proxy.towards(&target) {
        Ok(proxy) => proxy,
        Err(error) => {
            report.fail("http-proxy", error.to_string(), "name another: --proxy URL, --proxy none");
            return Ok(());
        }
    };
    if let Some(proxy) = proxy {
        http_proxy::check(url, &target, proxy, args, login.as_ref(), report).await;
        return Ok(());
    }
    let Some(addresses) = reach::check_name(&target, report).await else { return Ok(()) };
    let probes = probe::check(addresses, &target, args, report).await;
    let usable = probes.iter().find(|probe| probe.usable);
    let Some(login) = session::may_log_in(login.as_ref(), usable.is_some(), report) else {
        return Ok(());
    };
    let Some(usable) = usable else { return Ok(()) };
    let resolver = Resolver::new(1, {
        let address = usable.address;
        move |_| Ok(vec![address])
    });
    let observed = session::check(url, &target, login, Proxy::None, resolver, report).await;
    if let (Some(observed), Some(local)) = (observed, usable.local) {
        client_address::check(observed, local, usable.address.ip(), target.tls, report);
    }
    Ok(())
}

//! The way of a client of NetBird or openZro: the upgrade, the login, packets to itself, and the
//! same over QUIC, without which clients are slower and not worse off.
//!
//! Without the relay's secret the login is that of NetBird's own health check, which every relay
//! refuses without a word.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::report::Report;
use super::{Args, Exit, PATIENCE, http_proxy, probe, reach};
use crate::client::netbird::{
    Client, ConnectError, Credential, Event, MAX_PAYLOAD, Options, PeerId, QuicError, SendError,
    Transport,
};
use crate::client::{ConnectError as DialError, Proxy, Target};
use crate::net::resolve::Resolver;
use crate::net::tls::Trust;

/// The payload that a packet of WireGuard at MTU 1,280 makes.
const WIREGUARD: usize = 1_312;

/// What a client is told, beside what carries its messages.
struct Visit<'a> {
    url: &'a str,
    target: &'a Target,
    /// Without it nobody is let in.
    secret: Option<String>,
    trust: Trust,
    proxy: Proxy,
    resolver: Resolver,
}

/// Makes all checks at a URL.
pub(super) async fn check(url: &str, args: &Args, report: &mut Report) -> Result<(), Exit> {
    let secret = args.secret_file.as_deref().map(read_secret).transpose()?;
    let target = match Target::parse_netbird(url) {
        Ok(target) => target,
        Err(error) => {
            report.fail("url", error.to_string(), "write rels://relay.example.org:443");
            return Ok(());
        }
    };
    let proxy = args.proxy.clone().unwrap_or_default();
    let proxy = match proxy.towards(&target) {
        Ok(proxy) => proxy,
        Err(error) => {
            report.fail("http-proxy", error.to_string(), "name another: --proxy URL, --proxy none");
            return Ok(());
        }
    };
    let trust = args.ca.clone().map_or(Trust::System, Trust::CaFile);
    let mut visit = Visit {
        url,
        target: &target,
        secret,
        trust,
        proxy: Proxy::None,
        resolver: Resolver::shared(),
    };
    if let Some(proxy) = proxy {
        let Some(stream) = http_proxy::open(&target, &proxy, args, report).await else {
            return Ok(());
        };
        let is_usable = probe::check_stream(stream, &target, args, report).await;
        visit.proxy = Proxy::Url(proxy);
        log_in(&visit, is_usable, Transport::WebSocket, report).await;
        report.skip("quic", "no HTTP proxy passes it on: clients use the WebSocket");
        return Ok(());
    }
    let Some(addresses) = reach::check_name(&target, report).await else { return Ok(()) };
    let probes = probe::check(addresses, &target, args, report).await;
    if let Some(usable) = probes.iter().find(|probe| probe.usable) {
        let address = usable.address;
        visit.resolver = Resolver::new(1, move |_| Ok(vec![address]));
    }
    let is_usable = probes.iter().any(|probe| probe.usable);
    log_in(&visit, is_usable, Transport::WebSocket, report).await;
    if target.tls {
        // Whoever serves QUIC may do so without TCP.
        log_in(&visit, true, Transport::Quic, report).await;
    } else {
        report.skip("quic", "rel:// has no TLS, and QUIC needs it: clients use the WebSocket");
    }
    Ok(())
}

/// The first secret of a file that has one a line.
fn read_secret(path: &Path) -> Result<String, Exit> {
    let usage = |why: &str| Exit::Usage(format!("--secret-file: {}: {why}", path.display()));
    let text = fs::read_to_string(path)
        .map_err(|error| usage(&format!("{error}; {}", crate::config::remedy(&error))))?;
    let mut secrets = text.lines().map(str::trim).filter(|line| !line.is_empty());
    secrets
        .next()
        .map(str::to_owned)
        .ok_or_else(|| usage("it holds no secret; write it into the first line"))
}

/// The names of the checks over each carrier.
struct Checks {
    login: &'static str,
    packet: &'static str,
}

const OVER_WEBSOCKET: Checks = Checks { login: "login", packet: "packet" };
const OVER_QUIC: Checks = Checks { login: "quic", packet: "quic-packet" };

/// Logs in, or tries to, and uses the session.
async fn log_in(visit: &Visit<'_>, is_usable: bool, transport: Transport, report: &mut Report) {
    let is_quic = transport == Transport::Quic;
    let checks = if is_quic { &OVER_QUIC } else { &OVER_WEBSOCKET };
    if !is_usable {
        report.skip(checks.login, "not tried after the failure above");
        return;
    }
    let peer = match &visit.secret {
        // Nobody has this name, and the next run has another.
        Some(_) => PeerId::of_name(&format!("doctor {}", getrandom::u64().unwrap_or_default())),
        None => PeerId::of_name("healthcheck-agent"),
    };
    let credential = match &visit.secret {
        Some(secret) => Credential::Secret(secret.clone()),
        None => Credential::Token([&[1; 1][..], &[0; 32], b"healthcheck"].concat()),
    };
    let mut options = Options::new(visit.url, peer, credential);
    options.transport = transport;
    options.trust = visit.trust.clone();
    options.proxy = visit.proxy.clone();
    options.resolver = visit.resolver.clone();

    let started = Instant::now();
    let connected = Client::connect(&options).await;
    let took = milliseconds(started.elapsed());
    match (connected, &visit.secret) {
        (Ok(client), _) => {
            report.ok(checks.login, format!("let in in {took:.0} ms"));
            use_session(client, peer, visit, checks, report).await;
        }
        (Err(ConnectError::Refused), None) => {
            let found = format!(
                "a wrong token is refused without a word, as relays do, in {took:.0} ms; \
                 --secret-file FILE logs in and uses the session"
            );
            report.ok(checks.login, found);
        }
        (Err(error), _) if is_quic => tell_quic(&error, visit, report),
        (Err(error), _) => report.fail(checks.login, error.to_string(), remedy(&error, visit)),
    }
}

/// Sends packets to itself: each goes to the relay and comes back.
async fn use_session(
    mut client: Client,
    peer: PeerId,
    visit: &Visit<'_>,
    checks: &Checks,
    report: &mut Report,
) {
    let is_quic = checks.packet == OVER_QUIC.packet;
    if !is_quic {
        tell_instance(client.instance(), visit.target, report);
        check_presence(&mut client, peer, report).await;
    }
    let sizes: &[usize] = if is_quic { &[WIREGUARD] } else { &[WIREGUARD, MAX_PAYLOAD] };
    let mut took = Duration::ZERO;
    for size in sizes {
        let started = Instant::now();
        if let Err(error) = come_back(&mut client, peer, *size).await {
            let found = format!("{size} bytes did not come back: {error}");
            let remedy = if is_quic {
                "the path carries no whole packet of WireGuard: NetBird's clients avoid QUIC there \
                 for 10 minutes and more; is its MTU below 1,400, or UDP limited?"
            } else {
                "does a proxy or a firewall bound messages, or the relay's rates?"
            };
            report.warn(checks.packet, found, remedy);
            return;
        }
        took = started.elapsed();
    }
    let listed: Vec<_> = sizes.iter().map(ToString::to_string).collect();
    let found = format!(
        "{} bytes went to the relay and came back, the last in {:.1} ms",
        listed.join(" and "),
        milliseconds(took)
    );
    report.ok(checks.packet, found);
    // The relay closes its side in any case.
    let _ = client.close().await;
}

async fn come_back(client: &mut Client, peer: PeerId, size: usize) -> Result<(), String> {
    let sent: Vec<u8> = (0..=u8::MAX).cycle().take(size).collect();
    let came_back = async {
        match client.send_to(peer, &sent).await {
            Ok(()) => {}
            Err(SendError::TooLarge { bytes, most }) => {
                return Err(format!("a datagram of {most} bytes fits, and {bytes} are needed"));
            }
            Err(error) => return Err(error.to_string()),
        }
        loop {
            match client.recv().await.map_err(|error| error.to_string())? {
                Some(Event::Packet { payload, .. }) if payload == sent => return Ok(()),
                Some(_) => {}
                None => return Err("the session is over".to_owned()),
            }
        }
    };
    timeout(PATIENCE, came_back).await.unwrap_or_else(|_| Err("not within 10 s".to_owned()))
}

async fn check_presence(client: &mut Client, peer: PeerId, report: &mut Report) {
    let told = async {
        client.subscribe(&[peer]).await.map_err(|error| error.to_string())?;
        loop {
            match client.recv().await.map_err(|error| error.to_string())? {
                Some(Event::Online(peers)) if peers.contains(&peer) => return Ok(()),
                Some(_) => {}
                None => return Err("the session is over".to_owned()),
            }
        }
    };
    match timeout(PATIENCE, told).await.unwrap_or_else(|_| Err("not within 10 s".to_owned())) {
        Ok(()) => report.ok("presence", "the relay tells who is online"),
        Err(error) => {
            let found = format!("the relay does not tell who is online: {error}");
            report.warn("presence", found, "clients find nobody through it: see its log");
        }
    }
}

/// Whether clients are told to come where this one has come.
fn tell_instance(instance: &str, dialled: &Target, report: &mut Report) {
    let found = format!("clients are told {instance}");
    let remedy = "peers of this relay's peers are sent there: does that lead to this relay? It is \
                  its --netbird-exposed-address";
    match Target::parse_netbird(instance) {
        Ok(told)
            if (&told.host, told.port, told.tls) == (&dialled.host, dialled.port, dialled.tls) =>
        {
            report.ok("instance", found);
        }
        Ok(_) => report.warn("instance", format!("{found}, and another was dialled"), remedy),
        Err(error) => report.warn("instance", format!("{found}: {error}"), remedy),
    }
}

fn remedy(error: &ConnectError, visit: &Visit<'_>) -> String {
    match error {
        ConnectError::Refused => {
            "is it the secret that the relay has (--netbird-auth-secret-file, NB_AUTH_SECRET), and \
             is this machine's clock right? A token is good for an hour; the relay's log at debug \
             says why"
                .to_owned()
        }
        ConnectError::Unexpected { .. } => {
            "something else than a relay answers: the proxy's upstream, the path".to_owned()
        }
        ConnectError::Dial(DialError::Status { status: 429 }) => {
            "too many upgrades from this address: wait, or raise --upgrade-burst".to_owned()
        }
        ConnectError::Dial(DialError::Timeout { step: "the login", .. }) => {
            "a server that says nothing is no relay, or one that hangs: see its log".to_owned()
        }
        ConnectError::Dial(_)
        | ConnectError::Quic(_)
        | ConnectError::Token { .. }
        | ConnectError::Transport(_)
        | _ => format!("{} answered a moment ago: try again", visit.target.host),
    }
}

/// What is wrong with QUIC: clients do without, so it is a warning.
fn tell_quic(error: &ConnectError, visit: &Visit<'_>, report: &mut Report) {
    let port = visit.target.port;
    let text = error.to_string();
    let remedy = match error {
        ConnectError::Quic(QuicError::NoAnswer(_)) => format!(
            "clients wait for it and use the WebSocket; for QUIC open UDP {port} in the relay's \
             firewall, and see whether a listener with TLS in process has the netbird door there: \
             a proxy in front does not pass it on"
        ),
        ConnectError::Quic(QuicError::OtherProtocol) => format!(
            "something else than a relay answers at UDP {port}, as HTTP/3 of a proxy: clients need \
             the protocol nb-quic there"
        ),
        ConnectError::Quic(QuicError::Handshake(_)) => {
            "the certificate over QUIC must be good for the name as well; for a CA of your own: \
             --ca FILE"
                .to_owned()
        }
        ConnectError::Quic(_) => format!("clients use the WebSocket; see UDP {port} of the relay"),
        ConnectError::Dial(_)
        | ConnectError::Refused
        | ConnectError::Token { .. }
        | ConnectError::Unexpected { .. }
        | ConnectError::Transport(_)
        | _ => remedy(error, visit),
    };
    report.warn("quic", text, remedy);
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

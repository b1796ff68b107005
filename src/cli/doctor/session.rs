//! A session as a daemon has it: login, ping, the largest frame there and back, and whom the
//! relay takes us for.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::http::HeaderValue;

use super::client_address::FORGED;
use super::report::Report;
use super::{Args, Exit, PATIENCE};
use crate::cli::way_out::of_failure;
use crate::client::{
    Client, ConnectError, LoginError, MAX_PAYLOAD, Options, Proxy, Target, read_key,
};
use crate::ids::{NodeId, PublicKey};
use crate::net::resolve::Resolver;
use crate::net::tls::Trust;

/// Round trips beyond this are worth a look.
const SLOW: Duration = Duration::from_secs(1);

/// As whom to log in.
pub(super) struct Login {
    node: NodeId,
    key: SigningKey,
    trust: Trust,
    relay_name: Option<String>,
}

impl Login {
    /// Reads the key, where one is named.
    ///
    /// # Errors
    /// The file has none: nothing can be said of the login.
    pub(super) fn read(args: &Args) -> Result<Option<Self>, Exit> {
        let (Some(node), Some(path)) = (args.node_id, &args.key) else { return Ok(None) };
        let file = read_key(path).map_err(|error| {
            let error = anyhow::Error::from(error);
            let way_out = of_failure(&error).unwrap_or("name another");
            Exit::Usage(format!("--key: {error}; {way_out}"))
        })?;
        let trust = args.ca.clone().map_or(Trust::System, Trust::CaFile);
        let relay_name = args.flags.text("relay_name").map(str::to_owned);
        Ok(Some(Self { node, key: file.key, trust, relay_name }))
    }
}

/// As whom to log in, after what was found before; says why not.
pub(super) fn may_log_in<'a>(
    login: Option<&'a Login>,
    usable: bool,
    report: &mut Report,
) -> Option<&'a Login> {
    if login.is_none() {
        report.skip("login", "--node-id N --key FILE log in and use the session");
    } else if !usable {
        report.skip("login", "not tried after the failure above");
        return None;
    }
    login
}

/// Logs in, and uses the session; the address that the relay takes this client to have.
pub(super) async fn check(
    url: &str,
    target: &Target,
    login: &Login,
    proxy: Proxy,
    resolver: Resolver,
    report: &mut Report,
) -> Option<IpAddr> {
    let mut options = Options::new(url, login.node, login.key.clone());
    options.trust = login.trust.clone();
    options.proxy = proxy;
    options.resolver = resolver;
    options.relay_name.clone_from(&login.relay_name);
    // Nobody may believe it: see client_address.
    options.headers.insert("x-forwarded-for", HeaderValue::from_static(FORGED));

    let started = Instant::now();
    let mut client = match Client::connect(&options).await {
        Ok(client) => client,
        Err(error) => {
            let remedy = remedy(&error, login, target);
            report.fail("login", error.to_string(), remedy);
            return None;
        }
    };
    let took = started.elapsed();
    report.ok("login", format!("as node {} in {:.0} ms", login.node, milliseconds(took)));
    check_ping(&mut client, report).await;
    let observed = client.discover().await.map(|address: SocketAddr| address.ip().to_canonical());
    if let Err(error) = &observed {
        let remedy = "is there something between that passes small frames only, or none?";
        report.warn("client-address", format!("no answer to Discover: {error}"), remedy);
    }
    check_largest(&mut client, login.node, report).await;
    // The relay closes its side in any case.
    let _ = client.bye().await;
    observed.ok()
}

async fn check_ping(client: &mut Client, report: &mut Report) {
    match client.ping().await {
        Ok(took) if took > SLOW => {
            let found = format!("there and back in {:.0} ms", milliseconds(took));
            report.warn("ping", found, "the way there, or a proxy that waits for more to send");
        }
        Ok(took) => report.ok("ping", format!("there and back in {:.1} ms", milliseconds(took))),
        Err(error) => report.warn("ping", error.to_string(), "does the proxy pass pings on?"),
    }
}

/// Sends the largest packet to ourselves: it crosses the proxy twice.
async fn check_largest(client: &mut Client, node: NodeId, report: &mut Report) {
    let payload: Vec<u8> = (0..=u8::MAX).cycle().take(MAX_PAYLOAD).collect();
    let came_back = async {
        client.send_to(node, &payload).await.map_err(|error| error.to_string())?;
        loop {
            match client.recv().await.map_err(|error| error.to_string())? {
                // Others may send to this node meanwhile.
                Some(delivery) if delivery.payload == payload => return Ok(()),
                Some(_) => {}
                None => return Err("the session is over".to_owned()),
            }
        }
    };
    let came_back: Result<(), String> =
        timeout(PATIENCE, came_back).await.unwrap_or_else(|_| Err("not within 10 s".to_owned()));
    match came_back {
        Ok(()) => report.ok("largest-frame", "65536 bytes went to the relay and came back"),
        Err(error) => {
            let found = format!("65536 bytes did not come back: {error}");
            let remedy = "does a proxy or a firewall bound messages? Raise it to 65536 bytes";
            report.warn("largest-frame", found, remedy);
        }
    }
}

fn remedy(error: &ConnectError, login: &Login, target: &Target) -> String {
    let node = login.node;
    match error {
        ConnectError::Login(LoginError::Refused { .. }) => {
            let key = PublicKey(login.key.verifying_key().to_bytes());
            format!(
                "at the relay: beacon-relay enroll {node} {key}, or there, where --keys or \
                     --registry have the keys; or --min-auth-generation is too high"
            )
        }
        ConnectError::Status { status: 429 } => {
            "too many upgrades from this address: wait, or raise --upgrade-burst".to_owned()
        }
        ConnectError::Login(_) | ConnectError::Status { .. } | ConnectError::Upgrade { .. } => {
            "the relay's log at debug says why".to_owned()
        }
        ConnectError::Url(_)
        | ConnectError::Trust(_)
        | ConnectError::Proxy(_)
        | ConnectError::Unreachable { .. }
        | ConnectError::Handshake { .. }
        | ConnectError::Timeout { .. }
        | _ => {
            format!("{} answered a moment ago: try again", target.host)
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

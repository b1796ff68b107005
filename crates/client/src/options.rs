//! What a client is told: where to dial, as whom, whom to trust, how long to wait.

use std::fmt;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use tokio_tungstenite::tungstenite::http::HeaderMap;

use super::dial::ConnectError;
use super::proxy::Proxy;
use super::setters::{setters, upgrade_setters};
use super::{Client, Reconnecting};
use crate::ids::NodeId;
use crate::net::resolve::Resolver;
use crate::net::tls::Trust;

/// Where and how to connect. What is not said is as [`Self::new`] has it.
///
/// ```no_run
/// # use beacon_client::{Options, SigningKey, net::tls::Trust};
/// # async fn example(key: SigningKey) -> Result<(), Box<dyn std::error::Error>> {
/// let relay = Options::new("wss://relay.example.net", "4242".parse()?, key)
///     .trust(Trust::CaFile("ca.pem".into()))
///     .relay_name("relay.example.net".to_owned())
///     .require_relay_name(true);
/// let mut client = relay.keep_connected()?;
/// client.connected().await?;
/// client.send_to("4243".parse()?, b"hello").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// `wss://host[:port][/path]` or `ws://…`; without a scheme `wss`, without a path `/v1/compat`.
    pub url: String,
    /// Who the node is.
    pub node: NodeId,
    /// The node's key; the relay's directory holds the public half.
    pub key: SigningKey,
    /// Which certificates are good for `wss://`.
    pub trust: Trust,
    /// The relay's public name, where it is not the host of the URL.
    pub relay_name: Option<String>,
    /// Refuses to log in to a relay that does not name itself in its challenge.
    ///
    /// Such a relay could be passing on the challenge of another one, and take the
    /// session there that the answer opens.
    pub require_relay_name: bool,
    /// Further headers of the upgrade, for a proxy that asks for some.
    pub headers: HeaderMap,
    /// Which HTTP proxy to go through: that of the environment, where nothing else is said.
    pub proxy: Proxy,
    /// How the name of the relay, or of the proxy, is resolved: by the system, where nothing else is said.
    pub resolver: Resolver,
    /// How often in a row a [`Reconnecting`] that was never let in may be refused for something that
    /// a person has to change ([`ConnectError::needs_attention`]), before it ends: 3 where nothing
    /// else is said, 0 for ever. A relay whose directory is away refuses as one that does not know
    /// the node (SPEC §4.4).
    pub refusals: u32,
    /// How long to wait for what.
    pub timeouts: Timeouts,
}

impl Options {
    /// Options with the platform's certificate authorities and the fleet's times.
    #[must_use]
    pub fn new(url: impl Into<String>, node: NodeId, key: SigningKey) -> Self {
        Self {
            url: url.into(),
            node,
            key,
            trust: Trust::System,
            relay_name: None,
            require_relay_name: false,
            headers: HeaderMap::new(),
            proxy: Proxy::default(),
            resolver: Resolver::shared(),
            refusals: 3,
            timeouts: Timeouts::default(),
        }
    }

    setters! {
        relay_name: Option<String>,
        require_relay_name: bool,
        refusals: u32,
    }

    upgrade_setters!();

    /// Dials and logs in: [`Client::connect`].
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect(&self) -> Result<Client, ConnectError> {
        Client::connect(self).await
    }

    /// Starts a client that is connected again whenever its session ends: [`Reconnecting::start`].
    ///
    /// # Errors
    /// As [`Reconnecting::start`].
    pub fn keep_connected(self) -> Result<Reconnecting, ConnectError> {
        Reconnecting::start(self)
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A header can hold a password.
        let Self {
            url,
            node,
            key: _,
            trust,
            relay_name,
            require_relay_name,
            headers: _,
            proxy,
            resolver: _,
            refusals,
            timeouts,
        } = self;
        f.debug_struct("Options")
            .field("url", url)
            .field("node", node)
            .field("trust", trust)
            .field("relay_name", relay_name)
            .field("require_relay_name", require_relay_name)
            .field("proxy", proxy)
            .field("refusals", refusals)
            .field("timeouts", timeouts)
            .finish_non_exhaustive()
    }
}

/// How long a client waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Timeouts {
    /// For the name, all its addresses, the proxy, TLS and the upgrade together.
    pub connect: Duration,
    /// From the upgrade to the acceptance. The relay waits 10 s for our reply by default; where
    /// sessions of the node replace each other, it accepts a login up to 10 s later.
    pub login: Duration,
    /// Between two pings.
    pub ping_interval: Duration,
    /// From a ping to a sign of life.
    pub pong: Duration,
    /// For the socket to take what is queued.
    pub write: Duration,
}

impl Timeouts {
    setters! {
        connect: Duration,
        login: Duration,
        ping_interval: Duration,
        pong: Duration,
        write: Duration,
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let ten = Duration::from_secs(10);
        let ping_interval = Duration::from_secs(30);
        let login = Duration::from_secs(25);
        Self { connect: ten, login, ping_interval, pong: ten, write: ten }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_and_password_are_not_in_the_debug_form() {
        let key = SigningKey::from_bytes(&[0xa5; 32]);
        let public = key.verifying_key();
        let mut options = Options::new("wss://relay.test", NodeId::new(7).unwrap(), key);
        options.proxy = "http://alice:secret@proxy.test".parse().unwrap();
        let text = format!("{options:?}");
        assert!(text.contains("proxy.test") && !text.contains("secret"), "{text}");
        assert!(!text.contains("165") && !text.to_lowercase().contains("a5a5"), "{text}");
        assert!(!text.contains(&format!("{public:?}")), "{text}");
    }
}

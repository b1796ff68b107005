//! What a client is told: where to dial, as whom, with what it proves itself and signs.

use std::fmt;
use std::time::Duration;

use tokio_tungstenite::tungstenite::http::HeaderMap;

use crate::net::resolve::Resolver;
use crate::net::tls::Trust;
use crate::proxy::Proxy;
use crate::setters::{setters, upgrade_setters};

/// What the adapters of the original call themselves.
const SOURCE: &str = "peer-bus";

/// Where and how to connect. What is not said is as [`Self::new`] has it.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// `ws://host[:port][/path]` or `wss://…`; without a scheme `wss`.
    pub url: String,
    /// The name of this peer.
    pub name: String,
    /// What lets it in.
    pub token: Token,
    /// What messages are signed with and held against, the same for all peers of a bus; without
    /// it, none is.
    pub secret: Option<Secret>,
    /// What kind of program this is, as others are told.
    pub source: String,
    /// Asks the broker to say of each message what became of it. The original knows no receipts:
    /// there, what is sent with this on waits for ever.
    pub receipts: bool,
    /// Which certificates are good for `wss://`.
    pub trust: Trust,
    /// Further headers of the upgrade, for a proxy that asks for some.
    pub headers: HeaderMap,
    /// Which HTTP proxy to go through: that of the environment, where nothing else is said.
    pub proxy: Proxy,
    /// How the name of the broker, or of the proxy, is resolved: by the system, where nothing else
    /// is said.
    pub resolver: Resolver,
    /// How long to wait for what.
    pub timeouts: Timeouts,
}

impl Options {
    /// Options with receipts, without a secret, with the platform's certificate authorities.
    #[must_use]
    pub fn new(url: impl Into<String>, name: impl Into<String>, token: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            name: name.into(),
            token: Token(token.into()),
            secret: None,
            source: SOURCE.to_owned(),
            receipts: true,
            trust: Trust::System,
            headers: HeaderMap::new(),
            proxy: Proxy::default(),
            resolver: Resolver::shared(),
            timeouts: Timeouts::default(),
        }
    }

    setters! {
        secret: Option<Secret>,
        source: String,
        receipts: bool,
    }

    upgrade_setters!();
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A header can hold a password.
        let Self {
            url,
            name,
            token,
            secret,
            source,
            receipts,
            trust,
            headers: _,
            proxy,
            resolver: _,
            timeouts,
        } = self;
        f.debug_struct("Options")
            .field("url", url)
            .field("name", name)
            .field("token", token)
            .field("secret", secret)
            .field("source", source)
            .field("receipts", receipts)
            .field("trust", trust)
            .field("proxy", proxy)
            .field("timeouts", timeouts)
            .finish_non_exhaustive()
    }
}

/// What lets a peer in.
#[derive(Clone)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// What messages are signed with.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Fewest bytes.
    pub const SHORTEST: usize = 32;

    /// Takes the bytes of a secret.
    ///
    /// # Errors
    /// There are too few, as every peer of the original finds.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, InvalidSecret> {
        let bytes = bytes.into();
        if bytes.len() < Self::SHORTEST {
            return Err(InvalidSecret { bytes: bytes.len() });
        }
        Ok(Self(bytes))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// A secret is too short.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a secret of {bytes} bytes is shorter than 32")]
pub struct InvalidSecret {
    /// Its length in bytes.
    pub bytes: usize,
}

/// How long a client waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Timeouts {
    /// For the name, its addresses, the proxy, TLS and the upgrade together.
    pub connect: Duration,
    /// For the answer to the registration, which a broker may hold back from names that replace
    /// each other.
    pub register: Duration,
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
        register: Duration,
        ping_interval: Duration,
        pong: Duration,
        write: Duration,
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let ten = Duration::from_secs(10);
        Self {
            connect: ten,
            register: Duration::from_secs(20),
            ping_interval: Duration::from_secs(30),
            pong: ten,
            // A message is up to 1 MiB.
            write: Duration::from_secs(30),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_secret_and_password_are_not_in_the_debug_form() {
        let mut options = Options::new("wss://relay.test", "alice", "hunter2");
        options.secret = Some(Secret::new("correct horse battery staple horse").unwrap());
        options.proxy = "http://alice:pass-word@proxy.test".parse().unwrap();
        let text = format!("{options:?}");
        assert!(text.contains("proxy.test") && text.contains("Token(***)"), "{text}");
        for secret in ["hunter2", "horse", "pass-word", "99, 111"] {
            assert!(!text.contains(secret), "{text}");
        }
    }

    #[test]
    fn secret_has_as_many_bytes_as_peers_of_the_original_want() {
        assert_eq!(Secret::new([7; 31]).unwrap_err(), InvalidSecret { bytes: 31 });
        assert!(Secret::new([7; 32]).is_ok());
    }
}

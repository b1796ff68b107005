//! What a client is told: where to dial, as whom, with what it proves itself, how long to wait.

use std::fmt;
use std::time::Duration;

use tokio_tungstenite::tungstenite::http::HeaderMap;

use crate::net::resolve::Resolver;
use crate::net::tls::Trust;
use crate::proxy::Proxy;
use crate::setters::{setters, upgrade_setters};
use crate::wire::netbird::PeerId;

/// Where and how to connect. What is not said is as [`Self::new`] has it.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// `rels://host[:port]` with TLS or `rel://…` without, `wss://` and `ws://` for the same;
    /// without a scheme `rels`, without a path `/relay`.
    pub url: String,
    /// Who the client is.
    pub peer: PeerId,
    /// What lets it in.
    pub credential: Credential,
    /// What carries its messages.
    pub transport: Transport,
    /// Which certificates are good for `rels://`.
    pub trust: Trust,
    /// Further headers of the upgrade, for a proxy that asks for some; not of QUIC.
    pub headers: HeaderMap,
    /// Which HTTP proxy to go through: that of the environment, where nothing else is said; not
    /// for QUIC.
    pub proxy: Proxy,
    /// How the name of the relay, or of the proxy, is resolved: by the system, where nothing else is said.
    pub resolver: Resolver,
    /// How long to wait for what.
    pub timeouts: Timeouts,
}

impl Options {
    /// Options for a WebSocket with the platform's certificate authorities and the times of
    /// NetBird's clients.
    #[must_use]
    pub fn new(url: impl Into<String>, peer: PeerId, credential: Credential) -> Self {
        Self {
            url: url.into(),
            peer,
            credential,
            transport: Transport::default(),
            trust: Trust::System,
            headers: HeaderMap::new(),
            proxy: Proxy::default(),
            resolver: Resolver::shared(),
            timeouts: Timeouts::default(),
        }
    }

    setters! {
        transport: Transport,
    }

    upgrade_setters!();
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A header can hold a password.
        let Self {
            url,
            peer,
            credential,
            transport,
            trust,
            headers: _,
            proxy,
            resolver: _,
            timeouts,
        } = self;
        f.debug_struct("Options")
            .field("url", url)
            .field("peer", peer)
            .field("credential", credential)
            .field("transport", transport)
            .field("trust", trust)
            .field("proxy", proxy)
            .field("timeouts", timeouts)
            .finish_non_exhaustive()
    }
}

/// What lets a client in.
#[derive(Clone)]
#[non_exhaustive]
pub enum Credential {
    /// A token, as the management server gives it out.
    Token(Vec<u8>),
    /// The secret that tokens are made with: each login makes one that is good for an hour.
    Secret(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token(***)",
            Self::Secret(_) => "Secret(***)",
        })
    }
}

/// What carries messages.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Transport {
    /// A WebSocket: one message each.
    #[default]
    WebSocket,
    /// QUIC: one datagram each, so that only messages can be sent that the path carries whole.
    #[cfg(feature = "quic")]
    Quic,
}

/// How long a client waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Timeouts {
    /// For the name, its addresses, the proxy, TLS and the upgrade together.
    pub connect: Duration,
    /// For the answer to the login.
    pub login: Duration,
    /// For the relay's next health check, which comes each 25 s.
    pub silence: Duration,
    /// For the socket to take what is queued.
    pub write: Duration,
}

impl Timeouts {
    setters! {
        connect: Duration,
        login: Duration,
        silence: Duration,
        write: Duration,
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let ten = Duration::from_secs(10);
        Self { connect: ten, login: ten, silence: Duration::from_secs(35), write: ten }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_and_token_are_not_in_the_debug_form() {
        for credential in
            [Credential::Secret("hunter2".to_owned()), Credential::Token(b"hunter2".to_vec())]
        {
            let mut options = Options::new("rel://relay.test", PeerId([7; 36]), credential);
            options.proxy = "http://alice:secret@proxy.test".parse().unwrap();
            let text = format!("{options:?}");
            assert!(text.contains("proxy.test") && text.contains("***"), "{text}");
            assert!(!text.contains("hunter2") && !text.contains("secret"), "{text}");
            assert!(!text.contains("104, 117"), "{text}");
        }
    }
}

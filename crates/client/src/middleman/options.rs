//! What a client is told: where to dial, with which key, whom to trust, how long to wait.

use std::fmt;
use std::time::Duration;

use tokio_tungstenite::tungstenite::http::HeaderMap;

use crate::net::resolve::Resolver;
use crate::net::tls::Trust;
use crate::proxy::Proxy;
use crate::setters::{setters, upgrade_setters};

/// Where and how to connect. What is not said is as [`Self::new`] has it.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// `ws://host[:port][/path]` or `wss://…`; without a scheme `wss`.
    pub url: String,
    /// What lets it in, and says whether it is a service or a client.
    pub key: Key,
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
    /// Options with the platform's certificate authorities.
    #[must_use]
    pub fn new(url: impl Into<String>, key: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            key: Key(key.into()),
            trust: Trust::System,
            headers: HeaderMap::new(),
            proxy: Proxy::default(),
            resolver: Resolver::shared(),
            timeouts: Timeouts::default(),
        }
    }

    upgrade_setters!();
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A header can hold a password.
        let Self { url, key, trust, headers: _, proxy, resolver: _, timeouts } = self;
        f.debug_struct("Options")
            .field("url", url)
            .field("key", key)
            .field("trust", trust)
            .field("proxy", proxy)
            .field("timeouts", timeouts)
            .finish_non_exhaustive()
    }
}

/// What lets a service or a client in.
#[derive(Clone)]
pub struct Key(pub String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(***)")
    }
}

/// How long a client waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Timeouts {
    /// For the name, its addresses, the proxy, TLS and the upgrade together.
    pub connect: Duration,
    /// For the answer to the key.
    pub login: Duration,
    /// For the answer to a request, from the call on, with the wait for a session.
    pub request: Duration,
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
        request: Duration,
        ping_interval: Duration,
        pong: Duration,
        write: Duration,
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let ten = Duration::from_secs(10);
        let thirty = Duration::from_secs(30);
        Self {
            connect: ten,
            login: ten,
            // The broker itself fails a request after 30 s.
            request: Duration::from_secs(35),
            ping_interval: thirty,
            pong: ten,
            write: thirty,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_and_password_are_not_in_the_debug_form() {
        let mut options = Options::new("wss://relay.test", "hunter2");
        options.proxy = "http://alice:pass-word@proxy.test".parse().unwrap();
        let text = format!("{options:?}");
        assert!(text.contains("proxy.test") && text.contains("Key(***)"), "{text}");
        assert!(!text.contains("hunter2") && !text.contains("pass-word"), "{text}");
    }
}

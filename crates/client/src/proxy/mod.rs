//! HTTP proxies: which one a client goes through, if any.
//!
//! A network that blocks UDP often lets its machines out through an HTTP proxy only. The
//! client asks it for a tunnel (`CONNECT`) and goes on inside as it does without one. The
//! name of the relay is the proxy's to resolve.

mod environment;
mod tunnel;
mod url;

use std::fmt;
use std::str::FromStr;

use super::Target;

pub use tunnel::{ProxyError, Tunnel};
pub use url::{InvalidProxy, ProxyUrl};

/// Which HTTP proxy a client goes through.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Proxy {
    /// The one that the environment names for the relay, as curl reads it: `https_proxy`,
    /// for `ws://` `http_proxy`, else `all_proxy` (passed over where it is for SOCKS), unless `no_proxy` has the host. Upper
    /// case is read as well, but for `http_proxy`. None for this machine itself.
    #[default]
    Environment,
    /// None, whatever the environment says.
    None,
    /// This one, whatever the environment says.
    Url(ProxyUrl),
}

impl Proxy {
    /// The proxy on the way to `target`.
    ///
    /// # Errors
    /// The environment names one that is of no use.
    pub fn towards(&self, target: &Target) -> Result<Option<ProxyUrl>, ProxyError> {
        match self {
            Self::Environment => Ok(of_environment(target)?.proxy),
            Self::None => Ok(None),
            Self::Url(url) => Ok(Some(url.clone())),
        }
    }

    /// The variable of the environment that is passed over, since it names a proxy of another
    /// kind for all programs: worth a warning.
    #[must_use]
    pub fn passed_over(&self, target: &Target) -> Option<&'static str> {
        match self {
            Self::Environment => of_environment(target).ok()?.passed_over,
            Self::None | Self::Url(_) => None,
        }
    }
}

fn of_environment(target: &Target) -> Result<environment::Named, ProxyError> {
    environment::proxy(|name| std::env::var(name).ok(), target)
}

impl FromStr for Proxy {
    type Err = InvalidProxy;

    /// Reads `none`, or the URL of a proxy.
    fn from_str(text: &str) -> Result<Self, InvalidProxy> {
        if text == "none" { Ok(Self::None) } else { text.parse().map(Self::Url) }
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("that of the environment"),
            Self::None => f.write_str("none"),
            Self::Url(url) => url.fmt(f),
        }
    }
}

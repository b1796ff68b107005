//! The URL of an HTTP proxy: `http://[user:password@]host[:port]`.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::ServerName;

use crate::wire::percent::percent_decoded;

/// Where an HTTP proxy is, and how to log in there. Neither `Debug` nor `Display` shows the
/// user or the password.
#[derive(Clone, Eq, PartialEq)]
pub struct ProxyUrl {
    pub(super) tls: bool,
    /// Without the brackets of an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
    /// `user:password` in Base64, for Basic authentication (RFC 7617).
    pub(super) credentials: Option<String>,
}

/// Why a text is not the URL of a proxy; shows no part of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidProxy {
    /// Not a URL of a proxy.
    #[error("not of the form http://[user:password@]host[:port]")]
    Form,
    /// Another scheme than `http` and `https`.
    #[error("the scheme of a proxy must be http or https")]
    Scheme,
    /// A user name with a colon, or bytes that are no text.
    #[error("user and password are no text when decoded, or the user has a colon")]
    Credentials,
}

impl FromStr for ProxyUrl {
    type Err = InvalidProxy;

    /// Without a scheme it is `http`; without a port 80, of `https` 443.
    fn from_str(text: &str) -> Result<Self, InvalidProxy> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let tls = match &*scheme.to_ascii_lowercase() {
            "http" => false,
            "https" => true,
            _ => return Err(InvalidProxy::Scheme),
        };
        let (user, authority) =
            rest.rsplit_once('@').map_or((None, rest), |(user, host)| (Some(user), host));
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = host_and_port(authority).ok_or(InvalidProxy::Form)?;
        let port = port.unwrap_or(if tls { 443 } else { 80 });
        let credentials = user.map(credentials).transpose()?;
        Ok(Self { tls, host: host.to_owned(), port, credentials })
    }
}

fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        let port = if after.is_empty() { None } else { Some(after.strip_prefix(':')?) };
        (host, port)
    } else {
        let parts = authority.split_once(':');
        parts.map_or((authority, None), |(host, port)| (host, Some(port)))
    };
    ServerName::try_from(host).ok()?;
    let port = match port {
        Some(port) => Some(port.parse().ok().filter(|port| *port > 0)?),
        None => None,
    };
    Some((host, port))
}

fn credentials(userinfo: &str) -> Result<String, InvalidProxy> {
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let [user, password] = [user, password].map(percent_decoded);
    let (Some(user), Some(password)) = (user, password) else {
        return Err(InvalidProxy::Credentials);
    };
    if user.contains(':') {
        return Err(InvalidProxy::Credentials);
    }
    Ok(STANDARD.encode(format!("{user}:{password}")))
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let Self { host, port, .. } = self;
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxyUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read_with_the_defaults_of_their_scheme() {
        for (text, shown) in [
            ("http://proxy.test:3128", "http://proxy.test:3128"),
            ("proxy.test", "http://proxy.test:80"),
            ("192.0.2.1:8080", "http://192.0.2.1:8080"),
            ("HTTPS://proxy.test/", "https://proxy.test:443"),
            (" http://[2001:db8::1]:3128 ", "http://[2001:db8::1]:3128"),
            ("http://[::1]", "http://[::1]:80"),
        ] {
            assert_eq!(text.parse::<ProxyUrl>().unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn useless_proxies_are_refused_with_the_reason() {
        for (text, reason) in [
            ("socks5://proxy.test", InvalidProxy::Scheme),
            ("", InvalidProxy::Form),
            ("http://", InvalidProxy::Form),
            ("http://proxy.test:", InvalidProxy::Form),
            ("http://proxy.test:0", InvalidProxy::Form),
            ("http://proxy.test:99999", InvalidProxy::Form),
            ("http://proxy.test/path", InvalidProxy::Form),
            ("http://proxy test", InvalidProxy::Form),
            ("http://a\r\nb", InvalidProxy::Form),
            ("http://[::1", InvalidProxy::Form),
            ("http://::1", InvalidProxy::Form),
            ("http://a%3ab:c@proxy.test", InvalidProxy::Credentials),
            ("http://a:%ff@proxy.test", InvalidProxy::Credentials),
        ] {
            assert_eq!(text.parse::<ProxyUrl>().unwrap_err(), reason, "{text}");
        }
    }

    #[test]
    fn user_and_password_are_decoded_and_shown_nowhere() {
        let url: ProxyUrl = "http://alice:s%40cret@proxy.test:1".parse().unwrap();
        assert_eq!(url.credentials.as_deref(), Some(&*STANDARD.encode("alice:s@cret")));
        let text = format!("{url} {url:?}");
        for part in ["alice", "cret", url.credentials.as_deref().unwrap()] {
            assert!(!text.contains(part), "{text}");
        }
        let lone: ProxyUrl = "http://alice@proxy.test".parse().unwrap();
        assert_eq!(lone.credentials.as_deref(), Some(&*STANDARD.encode("alice:")));
    }
}

//! The URLs of relays.

use std::net::Ipv6Addr;

use tokio_tungstenite::tungstenite::http::Uri;

/// The path that the relay serves.
const PATH: &str = "/v1/compat";

/// The one path of NetBird's relay.
const NETBIRD_PATH: &str = "/relay";

/// Any path is a broker's, and a hub's.
const ANY_PATH: &str = "/";

/// The URL of a relay, taken apart.
#[derive(Clone, Debug)]
pub struct Target {
    /// Whether it is `wss://`.
    pub tls: bool,
    /// The host, without the brackets of an IPv6 address.
    pub host: String,
    /// The port, that of the scheme where the URL has none.
    pub port: u16,
    /// The whole, with the path that is asked for.
    pub uri: Uri,
}

impl Target {
    /// Reads `wss://host[:port][/path]`, as [`Options::url`](super::Options::url) describes it.
    ///
    /// # Errors
    /// What is not of this form.
    pub fn parse(url: &str) -> Result<Self, InvalidUrl> {
        let url = if url.contains("://") { url.to_owned() } else { format!("wss://{url}") };
        Self::with_path(&url, PATH)
    }

    /// Reads the URL of a NetBird relay: `rels://host[:port]` with TLS, `rel://…` without, and the
    /// same as `wss://` and `ws://`; without a scheme `rels`, without a path `/relay`.
    ///
    /// # Errors
    /// What is not of this form.
    pub fn parse_netbird(url: &str) -> Result<Self, InvalidUrl> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("rels", url));
        let scheme = match scheme {
            "rels" | "wss" => "wss",
            "rel" | "ws" => "ws",
            _ => return Err(InvalidUrl::NetbirdScheme),
        };
        Self::with_path(&format!("{scheme}://{rest}"), NETBIRD_PATH)
    }

    /// Reads the URL of a peerbus broker: `wss://host[:port][/path]` or `ws://…`; without a scheme
    /// `wss`.
    ///
    /// # Errors
    /// What is not of this form.
    pub fn parse_peerbus(url: &str) -> Result<Self, InvalidUrl> {
        let url = if url.contains("://") { url.to_owned() } else { format!("wss://{url}") };
        Self::with_path(&url, ANY_PATH)
    }

    /// Reads the address of a keyop hub: `host:port`.
    ///
    /// # Errors
    /// What is not of this form.
    pub fn parse_keyop(address: &str) -> Result<Self, InvalidUrl> {
        let target = Self::with_path(&format!("wss://{address}"), ANY_PATH)?;
        let is_whole = target.uri.path() == ANY_PATH && target.uri.query().is_none();
        let authority = target.uri.authority().map(|authority| authority.as_str());
        if is_whole && authority == Some(address) { Ok(target) } else { Err(InvalidUrl::Address) }
    }

    fn with_path(url: &str, path: &'static str) -> Result<Self, InvalidUrl> {
        let mut uri: Uri = url.parse().map_err(|_| InvalidUrl::Form)?;
        let tls = match uri.scheme_str() {
            Some("wss") => true,
            Some("ws") => false,
            _ => return Err(InvalidUrl::Scheme),
        };
        let authority = uri.authority().ok_or(InvalidUrl::Host)?;
        if authority.as_str().contains('@') {
            return Err(InvalidUrl::Credentials);
        }
        let host = authority.host();
        // `port_u16` would take a port that is no number for none.
        let port = match authority.as_str().strip_prefix(host).unwrap_or_default() {
            "" => {
                if tls {
                    443
                } else {
                    80
                }
            }
            port => {
                let port = port.strip_prefix(':').ok_or(InvalidUrl::Form)?;
                port.parse().map_err(|_| InvalidUrl::Form)?
            }
        };
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match address {
            Some(address) => address.parse::<Ipv6Addr>().map_err(|_| InvalidUrl::Host)?.to_string(),
            None if host.is_empty() => return Err(InvalidUrl::Host),
            None => host.to_owned(),
        };
        if uri.path_and_query().is_none_or(|path| path == "/") {
            let mut parts = uri.into_parts();
            parts.path_and_query = path.parse().ok();
            uri = Uri::from_parts(parts).map_err(|_| InvalidUrl::Form)?;
        }
        Ok(Self { tls, host, port, uri })
    }
}

/// Why a text is not the URL of a relay.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidUrl {
    /// Not a URL.
    #[error("not of the form wss://host[:port][/path]")]
    Form,
    /// Another scheme than `ws` and `wss`.
    #[error("the scheme must be wss or ws")]
    Scheme,
    /// Another scheme than those of NetBird's relays.
    #[error("the scheme must be rels, rel, wss or ws")]
    NetbirdScheme,
    /// No host, or one that cannot be a name in a certificate.
    #[error("the host is no name or address")]
    Host,
    /// Something behind the host and the port, where only these belong.
    #[error("not of the form host:port")]
    Address,
    /// The transport needs a feature that this build lacks.
    #[error("this build speaks no gRPC: it lacks the feature `grpc`")]
    Grpc,
    /// A user name or password: relays know nodes by their keys.
    #[error("a relay takes no user name or password")]
    Credentials,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_without_a_path_gets_the_relays() {
        for (url, expected) in [
            ("wss://relay.test", "wss://relay.test/v1/compat"),
            ("ws://relay.test:8443/", "ws://relay.test:8443/v1/compat"),
            ("relay.test:8443", "wss://relay.test:8443/v1/compat"),
            ("wss://relay.test/other?x=1", "wss://relay.test/other?x=1"),
        ] {
            assert_eq!(Target::parse(url).unwrap().uri.to_string(), expected, "{url}");
        }
    }

    #[test]
    fn netbirds_schemes_are_those_of_websockets() {
        for (url, expected, tls, port) in [
            ("rels://relay.test", "wss://relay.test/relay", true, 443),
            ("rel://relay.test:33080/", "ws://relay.test:33080/relay", false, 33_080),
            ("relay.test:8443", "wss://relay.test:8443/relay", true, 8_443),
            ("wss://relay.test/other", "wss://relay.test/other", true, 443),
            ("ws://[::1]:80", "ws://[::1]:80/relay", false, 80),
        ] {
            let target = Target::parse_netbird(url).unwrap();
            assert_eq!(target.uri.to_string(), expected, "{url}");
            assert_eq!((target.tls, target.port), (tls, port), "{url}");
        }
        let refused = Target::parse_netbird("https://relay.test").unwrap_err();
        assert_eq!(refused, InvalidUrl::NetbirdScheme);
        assert_eq!(Target::parse("rels://relay.test").unwrap_err(), InvalidUrl::Scheme);
    }

    #[test]
    fn peerbus_has_any_path() {
        for (url, expected) in [
            ("ws://127.0.0.1:47821", "ws://127.0.0.1:47821/"),
            ("bus.test", "wss://bus.test/"),
            ("wss://bus.test/agents?x=1", "wss://bus.test/agents?x=1"),
        ] {
            assert_eq!(Target::parse_peerbus(url).unwrap().uri.to_string(), expected, "{url}");
        }
        assert_eq!(Target::parse_peerbus("http://bus.test").unwrap_err(), InvalidUrl::Scheme);
    }

    #[test]
    fn hubs_of_keyop_have_an_address_and_no_url() {
        let target = Target::parse_keyop("hub.test:7740").unwrap();
        assert_eq!((target.tls, &*target.host, target.port), (true, "hub.test", 7_740));
        assert_eq!(Target::parse_keyop("[::1]:7740").unwrap().host, "::1");
        for url in ["hub.test:7740/x", "hub.test:7740?x=1", "hub.test:7740/"] {
            assert_eq!(Target::parse_keyop(url).unwrap_err(), InvalidUrl::Address, "{url}");
        }
        for url in ["wss://hub.test", "", "hub.test:x", "a@hub.test"] {
            Target::parse_keyop(url).unwrap_err();
        }
    }

    #[test]
    fn host_and_port_are_what_is_dialled() {
        for (url, tls, host, port) in [
            ("wss://relay.test", true, "relay.test", 443),
            ("ws://relay.test", false, "relay.test", 80),
            ("ws://[::1]:8443/v1/compat", false, "::1", 8443),
            ("192.0.2.7", true, "192.0.2.7", 443),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!((target.tls, target.host.as_str(), target.port), (tls, host, port), "{url}");
        }
    }

    #[test]
    fn useless_urls_are_refused_with_the_reason() {
        for (url, reason) in [
            ("https://relay.test", InvalidUrl::Scheme),
            ("wss://me:secret@relay.test", InvalidUrl::Credentials),
            ("wss://[relay]", InvalidUrl::Host),
            ("wss://relay.test:99999", InvalidUrl::Form),
            ("wss://relay.test:", InvalidUrl::Form),
            ("wss://[::1]8443", InvalidUrl::Form),
            ("wss://", InvalidUrl::Form),
            ("", InvalidUrl::Form),
        ] {
            assert_eq!(Target::parse(url).unwrap_err(), reason, "{url}");
        }
    }
}

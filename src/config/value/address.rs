//! Addresses to bind to and addresses to dial.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use super::Invalid;
use super::name::is_host_name;

/// Longest path of a Unix socket, in bytes.
///
/// 107 = 108 (`sun_path` on Linux) - 1 (its final zero).
const MAX_UNIX_PATH: usize = 107;

/// Reads an address to bind to; the deployed spelling `:9001` means every address.
pub(super) fn bind(text: &str) -> Result<SocketAddr, Invalid> {
    if let Some(port) = text.strip_prefix(':')
        && let Ok(port) = port.parse()
    {
        return Ok((Ipv6Addr::UNSPECIFIED, port).into());
    }
    text.parse().map_err(|_| "not IP:PORT, such as 127.0.0.1:9000, [::]:9000 or :9000".into())
}

/// Where the WebSocket listener waits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum WssBind {
    /// On a TCP address.
    Tcp(SocketAddr),
    /// On a Unix socket, where nobody else on the machine can pretend to be the proxy.
    Unix(PathBuf),
}

impl WssBind {
    /// Whether only programs on this machine can connect.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for WssBind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for WssBind {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let Some(path) = text.strip_prefix("unix:") else {
            return bind(text).map(Self::Tcp).map_err(|Invalid(reason)| {
                format!("{reason}; for a Unix socket, write unix:/path").into()
            });
        };
        if !path.starts_with('/') {
            return Err(
                "a Unix socket needs a path from the root, such as unix:/run/relay.sock".into()
            );
        }
        if path.len() > MAX_UNIX_PATH {
            return Err(format!(
                "the path of a Unix socket has at most {MAX_UNIX_PATH} bytes, this has {}",
                path.len()
            )
            .into());
        }
        Ok(Self::Unix(path.into()))
    }
}

/// A host, by name or address, and a port: what we dial or tell others to dial.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// The name or the address; an IPv6 address is without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, never 0.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl FromStr for HostPort {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (host, port) =
            text.rsplit_once(':').ok_or("not HOST:PORT: the port is missing; write it")?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) if inner.parse::<Ipv6Addr>().is_ok() => inner,
            Some(_) => {
                return Err("not HOST:PORT: no IPv6 address between the brackets; write one".into());
            }
            None if host.contains(':') => {
                return Err(
                    "not HOST:PORT: an IPv6 address needs brackets, as in [::1]:9000".into()
                );
            }
            None if is_host_name(host) => host,
            None => {
                return Err(
                    "not HOST:PORT: no host name or address before the colon; write one".into()
                );
            }
        };
        let port = port.parse().ok().filter(|port| *port != 0);
        let port = port.ok_or("not HOST:PORT: the port is none; write a number from 1 to 65535")?;
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deployed_spelling_binds_every_address() {
        assert_eq!(bind(":9001").unwrap(), "[::]:9001".parse().unwrap());
        assert_eq!(bind("127.0.0.1:0").unwrap(), "127.0.0.1:0".parse().unwrap());
        for text in ["", ":", "9001", "localhost:9001", ":99999", "127.0.0.1"] {
            assert!(bind(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn local_binds_are_loopback_and_unix_sockets() {
        for (text, local) in [
            ("127.0.0.1:8443", true),
            ("[::1]:8443", true),
            ("[::ffff:127.0.0.1]:8443", true),
            ("unix:/run/relay.sock", true),
            (":8443", false),
            ("192.0.2.1:8443", false),
        ] {
            assert_eq!(text.parse::<WssBind>().unwrap().is_local(), local, "{text}");
        }
    }

    #[test]
    fn unix_socket_needs_a_short_path_from_the_root() {
        let longest = format!("unix:/{}", "a".repeat(MAX_UNIX_PATH - 1));
        assert_eq!(longest.parse::<WssBind>().unwrap().to_string(), longest);
        assert!(format!("{longest}a").parse::<WssBind>().is_err());
        assert!("unix:relay.sock".parse::<WssBind>().is_err());
    }

    #[test]
    fn host_and_port_round_trip() {
        for text in ["relay.example.net:9001", "192.0.2.1:1", "[2001:db8::1]:65535"] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
        assert_eq!("Relay.Example:9".parse::<HostPort>().unwrap().host(), "relay.example");
    }

    #[test]
    fn other_texts_are_no_host_and_port() {
        for text in
            ["", "a", ":9001", "a:", "a:0", "a:65536", "::1:9000", "[a]:1", "a b:1", "[::1]"]
        {
            assert!(text.parse::<HostPort>().is_err(), "{text:?}");
        }
    }
}

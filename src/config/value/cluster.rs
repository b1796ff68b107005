//! The cluster's values: its name, the name that all relays share, and NATS servers.

use std::fmt;
use std::str::FromStr;

use super::address::HostPort;
use super::name::is_host_name;
use super::{Invalid, Text};
use crate::config::hidden::{HIDDEN, hidden};
use crate::ids::RelayId;

/// Longest name of a cluster, in bytes.
const MAX_CLUSTER_NAME: usize = 64;

/// The port of NATS servers, where a URL has none.
const NATS_PORT: u16 = 4_222;

/// What tells clusters apart that share a network or a NATS server.
///
/// It is a token of NATS subjects: letters, digits, `-` and `_`, 1 to 64 of them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClusterName(String);

impl ClusterName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let is_token = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if is_token && (1..=MAX_CLUSTER_NAME).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err("not a name; write 1 to 64 letters, digits, - and _".into())
        }
    }
}

/// A name whose addresses are those of all relays, and their port where it is not ours.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::config) struct SharedName {
    name: String,
    port: Option<u16>,
}

impl SharedName {
    /// The name with its port; with `port` where it has none.
    pub(in crate::config) fn or_port(self, port: u16) -> Result<HostPort, Invalid> {
        let Self { name, port: own } = self;
        format!("{name}:{}", own.unwrap_or(port)).parse()
    }
}

impl FromStr for SharedName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        };
        let port = port.map(|port| port.parse().ok().filter(|port| *port != 0));
        match port {
            _ if !is_host_name(name) => {
                Err("not NAME or NAME:PORT, such as relays.example.net".into())
            }
            Some(None) => {
                Err("not NAME:PORT: the port is no number; write one from 1 to 65535".into())
            }
            port => Ok(Self { name: name.to_ascii_lowercase(), port: port.flatten() }),
        }
    }
}

/// NATS servers of one system, by their URLs, which may hold a user and a password.
///
/// Shown, it has neither.
#[derive(Clone, Eq, PartialEq)]
pub struct NatsServers(Vec<String>);

impl NatsServers {
    /// The URLs with what they hold, for the connection alone; at least one.
    pub fn expose(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl fmt::Display for NatsServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<_> = self.expose().map(hidden).collect();
        f.write_str(&urls.join(","))
    }
}

impl fmt::Debug for NatsServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NatsServers({self})")
    }
}

impl FromStr for NatsServers {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        text.split(',').map(|url| nats_url(url.trim())).collect::<Result<_, _>>().map(Self)
    }
}

/// Checks a URL, and writes its port out; the reason against it quotes nothing of it.
fn nats_url(url: &str) -> Result<String, Invalid> {
    let Some((scheme @ ("nats" | "tls"), rest)) = url.split_once("://") else {
        return Err("not a URL of nats:// or tls://, such as nats://nats:4222".into());
    };
    let (user, host) = match rest.split_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, rest),
    };
    let host = host.strip_suffix('/').unwrap_or(host);
    let has_port = host.rsplit_once(':').is_some_and(|(_, after)| !after.contains(']'));
    let host: HostPort =
        if has_port { host.parse() } else { format!("{host}:{NATS_PORT}").parse() }.map_err(
            |_| "not a URL of one host and port behind the scheme, such as nats://nats:4222",
        )?;
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+%:".contains(&b);
    match user {
        None => Ok(format!("{scheme}://{host}")),
        Some(HIDDEN) => {
            Err("not with *** in it, which stands for a user and a password; write those".into())
        }
        Some(user) if !user.is_empty() && user.bytes().all(is_plain) => {
            Ok(format!("{scheme}://{user}@{host}"))
        }
        Some(_) => Err("not a URL: write the special characters of user and password as %XX, \
             or use a credentials file"
            .into()),
    }
}

impl Text for RelayId {
    fn parse(text: &str) -> Result<Self, Invalid> {
        let id: Option<Self> = text.parse().ok();
        // A key of small order would let anybody sign for it.
        id.filter(|id| {
            let key = ed25519_dalek::VerifyingKey::from_bytes(&id.0.0);
            key.is_ok_and(|key| !key.is_weak())
        })
        .ok_or_else(|| "not a relay's id; write the 64 hex digits that `cluster-id` prints".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_name_is_a_token_of_a_subject() {
        let longest = "a".repeat(64);
        for text in ["beacon", "eu-1_b", &longest] {
            assert_eq!(text.parse::<ClusterName>().unwrap().as_str(), text);
        }
        for text in ["", "a.b", "*", ">", "a b", "ä", &format!("{longest}a")] {
            assert!(text.parse::<ClusterName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn shared_name_has_its_own_port_or_ours() {
        for (text, expected) in [("Relays.example.net", "relays.example.net:7"), ("a:9", "a:9")] {
            let name: SharedName = text.parse().unwrap();
            assert_eq!(name.or_port(7).unwrap().to_string(), expected);
        }
        assert!("a".parse::<SharedName>().unwrap().or_port(0).is_err());
        for text in ["", ":7", "a:", "a:0", "a:65536", "a b", "a:7:8", "[::1]:7"] {
            assert!(text.parse::<SharedName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn nats_servers_are_urls_with_ports() {
        for (text, expected) in [
            ("nats://nats", "nats://nats:4222"),
            ("tls://NATS.example.net:443/", "tls://nats.example.net:443"),
            ("nats://[::1]", "nats://[::1]:4222"),
            ("nats://[::1]:1", "nats://[::1]:1"),
            ("nats://a, tls://u:p%40@b:1", "nats://a:4222 tls://u:p%40@b:1"),
        ] {
            let servers: NatsServers = text.parse().unwrap();
            assert_eq!(servers.expose().collect::<Vec<_>>().join(" "), expected);
        }
    }

    #[test]
    fn password_is_in_no_form_of_nats_servers() {
        let servers: NatsServers = "nats://user:hunter2@a,tls://hunter2@b".parse().unwrap();
        assert_eq!(servers.to_string(), "nats://***@a:4222,tls://***@b:4222");
        assert_eq!(format!("{servers:?}"), format!("NatsServers({servers})"));
        for text in
            ["nats://u:hun@ter2@a", "nats://u:hun/ter2@a", "u:hunter2@a", "nats://u:hun,er2@a"]
        {
            let Invalid(reason) = text.parse::<NatsServers>().unwrap_err();
            assert!(!reason.contains("hun") && !reason.contains("er2"), "{reason}");
        }
    }

    #[test]
    fn other_texts_are_no_nats_servers() {
        for text in [
            "",
            "nats",
            "nats:4222",
            "nats://",
            "http://a",
            "nats://a:0",
            "nats://a/b",
            "nats://a,",
            "nats://@a",
            "nats://::1",
            "nats://***@a",
        ] {
            assert!(text.parse::<NatsServers>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn relay_is_a_key_that_can_sign() {
        let key = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";
        let id = RelayId::parse(key).unwrap();
        assert_eq!(RelayId::parse(&id.to_string()), Ok(id));
        // The identity of the curve has order 1, and 2 is the y of no point.
        for text in
            ["", "03a1", &format!("01{}", "00".repeat(31)), &format!("02{}", "00".repeat(31))]
        {
            assert!(RelayId::parse(text).is_err(), "{text}");
        }
    }
}

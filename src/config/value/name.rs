//! Names: the relay's own, a browser's origin, and a certificate by its fingerprint.

use std::fmt;
use std::str::FromStr;

use super::{Invalid, Text};
use crate::wire::certificate::MAX_COMMON_NAME;

/// Longest host name, in bytes (RFC 1035 §2.3.4).
const MAX_HOST_NAME: usize = 253;

/// Whether `text` can be a host name or an IPv4 address.
pub(super) fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    text.len() <= MAX_HOST_NAME && text.split('.').all(is_label)
}

/// The public name of this relay, which third-generation logins sign; in lower case.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RelayName(String);

impl RelayName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RelayName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        // A colon would also make the signed text `compat_auth:…` ambiguous.
        if !is_host_name(text) {
            return Err(
                "not a host name; write it without scheme and port, as in relay.example.net".into(),
            );
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

/// Where clients of a relay find it: a host, a port, and whether they speak TLS, if that is said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExposedAddress {
    tls: Option<bool>,
    address: String,
}

impl ExposedAddress {
    /// The URL, with TLS if that is said, or if `has_tls` where nothing is.
    #[must_use]
    pub fn url(&self, has_tls: impl FnOnce() -> bool) -> String {
        let scheme = if self.tls.unwrap_or_else(has_tls) { "rels" } else { "rel" };
        format!("{scheme}://{}", self.address)
    }
}

impl fmt::Display for ExposedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tls {
            Some(tls) => f.write_str(&self.url(|| tls)),
            None => f.write_str(&self.address),
        }
    }
}

impl FromStr for ExposedAddress {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (tls, address) = if let Some(address) = text.strip_prefix("rels://") {
            (Some(true), address)
        } else if let Some(address) = text.strip_prefix("rel://") {
            (Some(false), address)
        } else {
            (None, text)
        };
        let example = "write HOST:PORT, as in rels://relay.example.net:443";
        let (host, port) = address.rsplit_once(':').ok_or(example)?;
        let is_v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match is_v6 {
            Some(host) => host.parse::<std::net::Ipv6Addr>().is_ok(),
            None => is_host_name(host),
        };
        if !is_host
            || port.parse::<u16>().is_ok_and(|port| port == 0)
            || port.parse::<u16>().is_err()
        {
            return Err(example.into());
        }
        Ok(Self { tls, address: address.to_ascii_lowercase() })
    }
}

/// A host as a `Host` header names it, without a port; in lower case.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostName(String);

impl HostName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if !is_host_name(text) {
            return Err("not a host name; write it without port, as in relay1.internal".into());
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

/// An `Origin` that browsers may send, such as `https://app.example.net`; in lower case.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WebOrigin(String);

impl WebOrigin {
    /// The origin.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for WebOrigin {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let is_origin = text.split_once("://").is_some_and(|(scheme, host)| {
            let is_host = |b: u8| b.is_ascii_alphanumeric() || b"-_.:[]".contains(&b);
            let is_scheme = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
            !scheme.is_empty()
                && scheme.bytes().all(is_scheme)
                && !host.is_empty()
                && host.bytes().all(is_host)
        });
        if is_origin {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err("not an origin; write scheme://host without a path, such as https://app.example.net"
                .into())
        }
    }
}

/// The SHA-256 of a certificate in its DER form.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Fingerprint {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let digits: Option<Vec<u8>> = text
            .chars()
            .filter(|c| *c != ':')
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect();
        let digits = digits.ok_or("not a SHA-256 fingerprint: only hex digits and colons")?;
        let bytes: Vec<u8> = digits
            .chunks_exact(2)
            .map(|pair| pair.iter().fold(0, |byte, d| byte << 4 | d))
            .collect();
        let whole = digits.len() == 64;
        bytes.try_into().ok().filter(|_| whole).map(Self).ok_or_else(|| {
            format!(
                "not a SHA-256 fingerprint; write its 64 hex digits, and this has {}",
                digits.len()
            )
            .into()
        })
    }
}

/// The name of a hub, as the common name of a certificate has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HubName(String);

impl HubName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Text for HubName {
    fn parse(text: &str) -> Result<Self, Invalid> {
        let is_name = !text.is_empty()
            && text.len() <= MAX_COMMON_NAME
            && !text.chars().any(char::is_control);
        let wanted = || format!("no name; write 1 to {MAX_COMMON_NAME} bytes of plain text");
        is_name.then(|| Self(text.to_owned())).ok_or_else(|| wanted().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposed_address_is_a_host_and_a_port_with_a_scheme_or_without() {
        for (text, plain, with_tls) in [
            ("Relay.test:443", "rel://relay.test:443", "rels://relay.test:443"),
            ("rel://10.0.0.1:80", "rel://10.0.0.1:80", "rel://10.0.0.1:80"),
            ("rels://[::1]:1", "rels://[::1]:1", "rels://[::1]:1"),
        ] {
            let address: ExposedAddress = text.parse().unwrap();
            assert_eq!(
                (address.url(|| false), address.url(|| true)),
                (plain.into(), with_tls.into())
            );
            assert_eq!(address.to_string().to_ascii_lowercase(), text.to_ascii_lowercase());
        }
        for text in
            ["", "relay.test", "relay.test:0", "relay.test:99999", "http://a:1", "::1:1", "a b:1"]
        {
            assert!(text.parse::<ExposedAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn relay_name_is_lower_case() {
        assert_eq!("Relay.Example.NET".parse::<RelayName>().unwrap().as_str(), "relay.example.net");
        let too_long = format!("{}.net", "a.".repeat(125));
        for text in ["", "a b", "a:1", "https://a", "a..b", ".", "ä.example", too_long.as_str()] {
            assert!(text.parse::<RelayName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn host_is_a_name_without_a_port() {
        assert_eq!("Relay1.internal".parse::<HostName>().unwrap().as_str(), "relay1.internal");
        for text in ["", "*", "relay:9464", "http://relay", "a b"] {
            assert!(text.parse::<HostName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn origin_is_scheme_and_host() {
        for text in ["https://app.example.net", "http://[::1]:3000", "pilot-app://host"] {
            assert_eq!(text.parse::<WebOrigin>().unwrap().as_str(), text);
        }
        for text in ["", "*", "app.example.net", "https://", "https://a/", "https://a b", "://a"] {
            assert!(text.parse::<WebOrigin>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn fingerprint_is_read_with_and_without_colons() {
        let plain = "00ff".repeat(16);
        let fingerprint: Fingerprint = plain.parse().unwrap();
        assert_eq!(fingerprint.to_string(), plain);
        assert_eq!(format!("00:FF{}", ":00:ff".repeat(15)).parse(), Ok(fingerprint));
        for text in ["", "00ff", &plain[1..], &format!("{plain}0"), &plain.replace('f', "g")] {
            assert!(text.parse::<Fingerprint>().is_err(), "{text:?}");
        }
    }
}

//! What certificates are ordered with by ACME: names, contacts, and the authority's directory.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use super::Invalid;

/// Longest DNS name, in bytes (RFC 1035 §2.3.4).
const MAX_NAME: usize = 253;

/// Longest label of a DNS name, in bytes.
const MAX_LABEL: usize = 63;

/// Longest contact and longest URL, in bytes.
const MAX_TEXT: usize = 512;

/// A name that an authority can check by TLS-ALPN-01: a DNS name, in lower case.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AcmeName(String);

impl AcmeName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AcmeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AcmeName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.contains('*') {
            return Err("a wildcard, which TLS-ALPN-01 cannot prove; write each name, or get the \
                        certificate elsewhere and name it by --wss-tls-cert or tls"
                .into());
        }
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        // The resolver takes "1.2" and "127.1" for addresses as well.
        let ends_in_number =
            text.rsplit('.').next().is_some_and(|last| last.parse::<u32>().is_ok());
        if bare.parse::<IpAddr>().is_ok() || bare.parse::<Ipv4Addr>().is_ok() || ends_in_number {
            return Err("an IP address; write the DNS name that leads to it".into());
        }
        let is_label = |label: &str| {
            let is_edge_good = !label.starts_with('-') && !label.ends_with('-');
            let is_inside_good = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            (1..=MAX_LABEL).contains(&label.len()) && is_edge_good && is_inside_good
        };
        if text.len() > MAX_NAME || !text.split('.').all(is_label) {
            return Err(
                "not a DNS name; write it without scheme, port and final dot, others than \
                        ASCII as xn--, as in relay.example.org"
                    .into(),
            );
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

/// Where the authority may write to: a `mailto:` URL of one address.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct AcmeContact(String);

impl AcmeContact {
    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AcmeContact {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        // RFC 8555 §7.3 allows neither header fields nor several addresses.
        let is_allowed = |b: u8| b.is_ascii_graphic() && !b",?<>\"".contains(&b);
        let is_contact = text.strip_prefix("mailto:").is_some_and(|address| {
            address.split_once('@').is_some_and(|(user, host)| {
                !user.is_empty() && !host.is_empty() && !host.contains('@')
            })
        });
        if !is_contact || text.len() > MAX_TEXT || !text.bytes().all(is_allowed) {
            return Err("not a contact; write mailto: and one address, as in \
                        mailto:admin@example.org"
                .into());
        }
        Ok(Self(text.to_owned()))
    }
}

/// The URL of an authority's directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AcmeDirectory(String);

impl AcmeDirectory {
    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AcmeDirectory {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let is_url = text.strip_prefix("https://").is_some_and(|rest| {
            let host = rest.split(['/', '?']).next().unwrap_or_default();
            !host.is_empty() && !host.starts_with(':') && !host.contains('@')
        });
        let is_allowed = |b: u8| b.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&b);
        if !is_url || text.len() > MAX_TEXT || !text.bytes().all(is_allowed) {
            return Err("not a directory; write its URL with https:// and no password, as in \
                        https://acme-staging-v02.api.letsencrypt.org/directory"
                .into());
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_one_that_the_challenge_can_prove() {
        let name: AcmeName = "Relay.example.ORG".parse().unwrap();
        assert_eq!(name.as_str(), "relay.example.org");
        for text in ["localhost", "xn--bcher-kva.example", "a-1.b2", &"a".repeat(63)] {
            assert!(text.parse::<AcmeName>().is_ok(), "{text}");
        }
        for (text, reason) in [
            ("*.example.org", "a wildcard"),
            ("192.0.2.1", "an IP address"),
            ("2001:db8::1", "an IP address"),
            ("[::1]", "an IP address"),
            ("127.1", "an IP address"),
            ("", "not a DNS name"),
            ("relay.example.org.", "not a DNS name"),
            ("relay.example.org:443", "not a DNS name"),
            ("https://relay.example.org", "not a DNS name"),
            ("a b", "not a DNS name"),
            ("a_b.example.org", "not a DNS name"),
            ("-a.example.org", "not a DNS name"),
            ("bücher.example", "not a DNS name"),
            (&"a".repeat(64), "not a DNS name"),
            (&"a.".repeat(127), "not a DNS name"),
        ] {
            let Invalid(refusal) = text.parse::<AcmeName>().unwrap_err();
            assert!(refusal.starts_with(reason), "{text}: {refusal}");
        }
    }

    #[test]
    fn contact_is_one_address_of_mail() {
        assert!("mailto:admin@example.org".parse::<AcmeContact>().is_ok());
        for text in [
            "",
            "admin@example.org",
            "mailto:",
            "mailto:@a",
            "mailto:a@",
            "mailto:a@b,c@d",
            "mailto:a@b?cc=c",
        ] {
            assert!(text.parse::<AcmeContact>().is_err(), "{text}");
        }
    }

    #[test]
    fn directory_is_reached_over_tls_alone() {
        for text in ["https://127.0.0.1:14000/dir", "https://ca.internal/acme/acme/directory"] {
            assert!(text.parse::<AcmeDirectory>().is_ok(), "{text}");
        }
        for text in [
            "",
            "http://ca/dir",
            "ca/dir",
            "https://",
            "https:///dir",
            "https://a:b@c/",
            "https://a b/",
        ] {
            assert!(text.parse::<AcmeDirectory>().is_err(), "{text}");
        }
    }
}

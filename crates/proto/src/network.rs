//! What an address counts as, where there is a bound for each client or for each network.
//!
//! Clients that reach the relay over IPv4 through a translator have addresses of one IPv6 prefix.
//! The IPv4 address that is embedded in theirs is what counts, or all of them would be one client.

use std::net::{IpAddr, Ipv6Addr};

use super::translators::Translators;

/// Whom a limit for each client counts: an IPv4 address, or an IPv6 /64, which is what one
/// customer of a provider has.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Client(IpAddr);

impl Client {
    /// The client of an address, where these translators are known.
    #[must_use]
    #[inline]
    pub fn of(ip: IpAddr, translators: &Translators) -> Self {
        match translators.translated(ip) {
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                Self(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
            ip @ IpAddr::V4(_) => Self(ip),
        }
    }

    /// The IPv4 address, or the first of the /64.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        self.0
    }
}

/// An IPv4 /24, an IPv6 /56, or somebody whose address is not known yet.
///
/// An opaque key: whoever compares two of them learns nothing but whether they are the same.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Network(u64);

/// Marks an IPv6 /56, whose bits take the lower 56.
const IPV6: u64 = 1 << 63;

/// Marks a number that stands for no network.
const ALONE: u64 = 1 << 62;

impl Network {
    /// The network of an address, where these translators are known.
    #[must_use]
    #[inline]
    pub fn of(ip: IpAddr, translators: &Translators) -> Self {
        match translators.translated(ip) {
            IpAddr::V4(ip) => Self(u64::from(u32::from(ip) >> 8)),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                let high = [a, b, c, d].iter().fold(0, |n, part| n << 16 | u64::from(*part));
                Self(high >> 8 | IPV6)
            }
        }
    }

    /// A network of its own for somebody whose address only a proxy knows, told from others
    /// by a number below 2^62.
    #[must_use]
    pub const fn alone(number: u64) -> Self {
        Self(number & (ALONE - 1) | ALONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Client {
        Client::of(text.parse().unwrap(), &Translators::default())
    }

    fn network(text: &str) -> Network {
        Network::of(text.parse().unwrap(), &Translators::default())
    }

    #[test]
    fn client_is_an_ipv4_address_or_an_ipv6_64() {
        assert_eq!(client("198.51.100.1"), client("::ffff:198.51.100.1"));
        assert_ne!(client("198.51.100.1"), client("198.51.100.2"));
        assert_eq!(client("2001:db8:0:1::1"), client("2001:db8:0:1:ffff::2"));
        assert_ne!(client("2001:db8:0:1::1"), client("2001:db8:0:2::1"));
    }

    #[test]
    fn clients_behind_one_translator_count_as_the_ipv4_addresses_that_they_have() {
        assert_eq!(client("64:ff9b::198.51.100.1"), client("198.51.100.1"));
        assert_ne!(client("64:ff9b::198.51.100.1"), client("64:ff9b::198.51.100.2"));
        assert_eq!(network("64:ff9b::198.51.100.1"), network("198.51.100.9"));
        assert_ne!(network("64:ff9b::198.51.100.1"), network("64:ff9b::198.51.101.1"));
        // Of a /96 only: the rest of the block is no prefix of translators.
        assert_eq!(client("64:ff9b:0:0:1::1"), client("64:ff9b:0:0:2::2"));
        assert_eq!(client("64:ff9b:1::1"), client("64:ff9b:1::2"));
    }

    #[test]
    fn networks_are_24_and_56_bits() {
        assert_eq!(network("192.0.2.1"), network("192.0.2.255"));
        assert_ne!(network("192.0.2.1"), network("192.0.3.1"));
        assert_eq!(network("::ffff:192.0.2.9"), network("192.0.2.1"));
        assert_eq!(network("2001:db8:0:11::1"), network("2001:db8:0:ff::2"));
        assert_ne!(network("2001:db8:0:11::1"), network("2001:db8:0:111::1"));
    }

    #[test]
    fn who_is_alone_is_in_no_network_of_others() {
        assert_ne!(Network::alone(1), Network::alone(2));
        assert_ne!(Network::alone(0xc0_0002), network("192.0.2.1"));
        assert_ne!(Network::alone(0), network("::"));
    }
}

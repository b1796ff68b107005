//! Networks in CIDR form, and the list of who may punch without limits.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::{Invalid, Kind, Value, split};

/// Addresses that share their first bits; one address alone shares all of them.
///
/// IPv4-mapped IPv6 addresses count as IPv4.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IpNet {
    address: IpAddr,
    prefix: u8,
}

impl IpNet {
    /// 127.0.0.0/8 and ::1, the two networks that never leave the machine.
    pub const LOOPBACK: [Self; 2] = [
        Self { address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix: 8 },
        Self { address: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 },
    ];

    /// Whether `address` is one of these.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.address.is_ipv4() == address.is_ipv4() && masked(address, self.prefix) == self.address
    }
}

/// `address` with every bit after the first `prefix` cleared.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix.into())).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

impl fmt::Display for IpNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for IpNet {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let written: IpAddr = address
            .parse()
            .map_err(|_| "not an address or network, such as 192.0.2.1 or 10.0.0.0/8")?;
        let address = written.to_canonical();
        let bits = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits(address),
            Some(prefix) => prefix
                .parse::<u8>()
                .ok()
                .filter(|prefix| *prefix <= bits(written))
                // 96 bits of a mapped address say that it is one.
                .and_then(|prefix| prefix.checked_sub(bits(written) - bits(address)))
                .ok_or_else(|| format!("not a network: /{prefix} is no prefix length of it"))?,
        };
        let first = masked(address, prefix);
        if first != address {
            return Err(
                format!("not a network: it has host bits set; write {first}/{prefix}").into()
            );
        }
        Ok(Self { address, prefix })
    }
}

/// Whose punches pass the global limit and the limit for each address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PunchAllow {
    /// `*`: everyone's.
    Everyone,
    /// Those that come from these networks.
    List(Vec<IpNet>),
}

impl PunchAllow {
    /// Whether an address passes the limits.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match self {
            Self::Everyone => true,
            Self::List(networks) => networks.iter().any(|network| network.contains(ip)),
        }
    }
}

impl Value for PunchAllow {
    const KIND: Kind = Kind::List;

    fn read(items: &[String]) -> Result<Self, Invalid> {
        if split(items).eq(["*"]) { Ok(Self::Everyone) } else { Vec::read(items).map(Self::List) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn network_contains_what_shares_its_prefix() {
        for (network, address, inside) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "203.0.113.9", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::1", "::1", true),
        ] {
            assert_eq!(
                net(network).contains(address.parse().unwrap()),
                inside,
                "{network} {address}"
            );
        }
    }

    #[test]
    fn mapped_network_is_ipv4() {
        assert_eq!(net("::ffff:10.0.0.0/104"), net("10.0.0.0/8"));
        assert_eq!(net("::ffff:192.0.2.1"), net("192.0.2.1/32"));
        assert!("::ffff:10.0.0.0/95".parse::<IpNet>().is_err());
    }

    #[test]
    fn loopback_is_as_it_would_be_written() {
        assert_eq!(IpNet::LOOPBACK.map(|net| net.to_string()), ["127.0.0.0/8", "::1/128"]);
        assert_eq!(IpNet::LOOPBACK, [net("127.0.0.0/8"), net("::1")]);
    }

    #[test]
    fn host_bits_are_refused_with_the_network_to_write() {
        let Invalid(reason) = "10.1.0.0/8".parse::<IpNet>().unwrap_err();
        assert!(reason.ends_with("write 10.0.0.0/8"), "{reason}");
    }

    #[test]
    fn other_texts_are_no_networks() {
        for text in ["", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "::/129", "relay", "10.0.0/8"] {
            assert!(text.parse::<IpNet>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn star_alone_allows_everyone() {
        let read = |text: &str| PunchAllow::read(&[text.to_owned()]);
        assert_eq!(read("*"), Ok(PunchAllow::Everyone));
        assert_eq!(read(""), Ok(PunchAllow::List(vec![])));
        assert_eq!(read("192.0.2.1"), Ok(PunchAllow::List(vec![net("192.0.2.1")])));
        assert!(read("*,192.0.2.1").is_err());
    }
}

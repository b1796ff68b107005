//! Prefixes of translators between IPv6 and IPv4 (NAT64, SIIT), and the IPv4 address that an
//! address of such a prefix embeds (RFC 6052 §2.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Bits of an IPv6 address.
const BITS: u8 = 128;

/// Bits 64 to 71 of an address, the "u" octet: zero, and no part of what is embedded.
const U_OCTET: u128 = 0xff << 56;

/// A prefix whose addresses embed IPv4 addresses.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Prefix {
    // First, since the longest prefix that an address has is the one that it is of.
    length: u8,
    bits: u128,
}

/// Why an address and a length are not the prefix of a translator.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PrefixError {
    /// IPv4 addresses are embedded behind so many bits nowhere.
    #[error("/{0} is no length of such a prefix; write 32, 40, 48, 56, 64 or 96")]
    Length(u8),
    /// Something is set behind the prefix.
    #[error("it has host bits set; write {first}/{length}")]
    HostBits {
        /// The first address of the prefix.
        first: Ipv6Addr,
        /// Its length.
        length: u8,
    },
    /// A /96 has something in the octet that is zero in all addresses.
    #[error("bits 64 to 71 have to be zero in it (RFC 6052)")]
    UOctet,
}

impl Prefix {
    /// The well-known prefix of RFC 6052, 64:ff9b::/96.
    pub const WELL_KNOWN: Self = Self { length: 96, bits: 0x0064_ff9b << 96 };

    /// The prefix of this length that begins with `first`.
    ///
    /// # Errors
    /// Why there is none.
    pub fn new(first: Ipv6Addr, length: u8) -> Result<Self, PrefixError> {
        if !matches!(length, 32 | 40 | 48 | 56 | 64 | 96) {
            return Err(PrefixError::Length(length));
        }
        let bits = first.to_bits();
        let behind = BITS - length;
        let masked = bits >> behind << behind;
        if masked != bits {
            return Err(PrefixError::HostBits { first: Ipv6Addr::from_bits(masked), length });
        }
        if bits & U_OCTET != 0 {
            return Err(PrefixError::UOctet);
        }
        Ok(Self { length, bits })
    }

    /// The IPv4 address that an address of this prefix embeds; `None` for one of another, or
    /// whose "u" octet is not zero. What stands behind the IPv4 address says nothing.
    fn embedded(self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        let bits = address.to_bits();
        let is_inside = (bits ^ self.bits) >> (BITS - self.length) == 0;
        if !is_inside || bits & U_OCTET != 0 {
            return None;
        }
        // Without the "u" octet, which can stand between them, the four octets are one number.
        let joined = (bits >> 64) << 56 | bits & u128::from(u64::MAX);
        let behind = match self.length {
            96 => 0,
            length => BITS - 8 - length - 32,
        };
        #[allow(clippy::cast_possible_truncation)] // the lowest 32 bits are what is meant
        let embedded = (joined >> behind) as u32;
        Some(Ipv4Addr::from_bits(embedded))
    }
}

/// One prefix too many.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0} prefixes are too many; write {most} at most", most = Translators::MOST)]
pub struct TooMany(usize);

/// The prefixes of all translators that clients are known to come through, the well-known one
/// among them. By default that one alone; cheap to clone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Translators(Arc<[Prefix]>);

impl Translators {
    /// Most prefixes beside the well-known one: each is compared with each IPv6 address that is
    /// counted.
    pub const MOST: usize = 16;

    /// These prefixes, and the well-known one.
    ///
    /// # Errors
    /// They are too many.
    pub fn new(mut prefixes: Vec<Prefix>) -> Result<Self, TooMany> {
        if prefixes.len() > Self::MOST {
            return Err(TooMany(prefixes.len()));
        }
        prefixes.push(Prefix::WELL_KNOWN);
        // Of prefixes within each other, the longest is the one that a translator has.
        prefixes.sort_unstable_by(|a, b| b.cmp(a));
        prefixes.dedup();
        Ok(Self(prefixes.into()))
    }

    /// The IPv4 address that an IPv6 address stands for, where it is mapped or a translator's;
    /// else the address.
    #[must_use]
    #[inline]
    pub fn translated(&self, address: IpAddr) -> IpAddr {
        match address.to_canonical() {
            IpAddr::V6(address) => self
                .0
                .iter()
                .find_map(|prefix| prefix.embedded(address))
                .map_or(IpAddr::V6(address), IpAddr::V4),
            address @ IpAddr::V4(_) => address,
        }
    }
}

impl Default for Translators {
    fn default() -> Self {
        Self(Arc::from([Prefix::WELL_KNOWN]))
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A translator that has 2001:db8:64::/96, beside the well-known ones.
    pub(crate) fn translators() -> Translators {
        let prefix = Prefix { length: 96, bits: 0x2001_0db8_0064 << 80 };
        Translators::new(vec![prefix]).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Result<Prefix, PrefixError> {
        let (first, length) = text.split_once('/').unwrap();
        Prefix::new(first.parse().unwrap(), length.parse().unwrap())
    }

    fn translators(prefixes: &[&str]) -> Translators {
        Translators::new(prefixes.iter().map(|text| prefix(text).unwrap()).collect()).unwrap()
    }

    fn translated(translators: &Translators, address: &str) -> String {
        translators.translated(address.parse().unwrap()).to_string()
    }

    #[test]
    fn rfc_6052_2_4_addresses_of_every_length_embed_192_0_2_33() {
        for (prefix, address) in [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
            ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
        ] {
            assert_eq!(translated(&translators(&[prefix]), address), "192.0.2.33", "{prefix}");
            let unknown = translated(&Translators::default(), address);
            assert_eq!(unknown == "192.0.2.33", prefix == "64:ff9b::/96", "{prefix}");
        }
    }

    #[test]
    fn highest_and_lowest_bits_of_every_length_are_found() {
        for (prefix, address) in [
            ("2001:db8::/32", "2001:db8:ff00:ff::"),
            ("2001:db8:100::/40", "2001:db8:1ff:0:ff::"),
            ("2001:db8:122::/48", "2001:db8:122:ff00:0:ff00::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3ff:0:ff::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:ff:0:ff00::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::255.0.0.255"),
        ] {
            assert_eq!(translated(&translators(&[prefix]), address), "255.0.0.255", "{prefix}");
        }
    }

    #[test]
    fn suffix_makes_no_other_client() {
        let translators = translators(&["2001:db8:122::/48", "2001:db8:122:344::/64"]);
        for address in ["2001:db8:122:c000:2:21ff:ffff:ffff", "2001:db8:122:344:c0:2:21ff:ffff"] {
            assert_eq!(translated(&translators, address), "192.0.2.33", "{address}");
        }
    }

    #[test]
    fn address_with_something_in_the_u_octet_or_beside_the_prefix_is_itself() {
        let translators = translators(&["2001:db8:122::/48", "2001:db8:64::/96"]);
        for address in [
            "2001:db8:122:c000:102:2100::",
            "2001:db8:123:c000:2:2100::",
            "2001:db8:64::1:c000:221",
            "64:ff9b:1::c000:221",
            "192.0.2.1",
        ] {
            assert_eq!(translated(&translators, address), address);
        }
        assert_eq!(translated(&translators, "::ffff:192.0.2.33"), "192.0.2.33");
    }

    #[test]
    fn longest_prefix_of_an_address_counts_in_whatever_order_they_stand() {
        let address = "2001:db8:122:344::192.0.2.33";
        let prefixes = ["2001:db8::/32", "2001:db8:122:344::/96"];
        for prefixes in [prefixes, [prefixes[1], prefixes[0]]] {
            assert_eq!(translated(&translators(&prefixes), address), "192.0.2.33");
        }
        let twice = ["2001:db8::/32", "64:ff9b::/96", "2001:db8::/32"];
        assert_eq!(translators(&twice), translators(&["2001:db8::/32"]));
        assert_eq!(testing::translators(), translators(&["2001:db8:64::/96"]));
    }

    #[test]
    fn what_is_no_prefix_of_a_translator_is_refused_with_the_reason() {
        for (text, reason) in [
            ("2001:db8::/0", "/0 is no length"),
            ("2001:db8::/33", "/33 is no length"),
            ("2001:db8::/72", "/72 is no length"),
            ("2001:db8::/128", "/128 is no length"),
            ("2001:db8:1::/32", "write 2001:db8::/32"),
            ("2001:db8::1/96", "write 2001:db8::/96"),
            ("2001:db8:0:0:ff::/64", "write 2001:db8::/64"),
            ("2001:db8:0:0:100::/96", "bits 64 to 71"),
        ] {
            let error = prefix(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let many = |count| Translators::new(vec![Prefix::WELL_KNOWN; count]);
        assert!(many(Translators::MOST).is_ok());
        assert_eq!(many(Translators::MOST + 1), Err(TooMany(17)));
    }
}

//! Prefixes of translators, as an operator writes them.

use std::net::Ipv6Addr;

use super::{Invalid, Kind, Text, Value};
use crate::proto::translators::{Prefix, Translators};

impl Text for Prefix {
    fn parse(text: &str) -> Result<Self, Invalid> {
        let parts = text.split_once('/').and_then(|(first, length)| {
            Some((first.parse::<Ipv6Addr>().ok()?, length.parse::<u8>().ok()?))
        });
        let (first, length) = parts.ok_or("not an IPv6 prefix, such as 2001:db8:64::/96")?;
        Self::new(first, length)
            .map_err(|error| format!("not a prefix of a translator: {error}").into())
    }
}

impl Value for Translators {
    const KIND: Kind = Kind::List;

    fn read(items: &[String]) -> Result<Self, Invalid> {
        Self::new(Vec::read(items)?).map_err(|error| error.to_string().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::translators;

    fn read(text: &str) -> Result<Translators, String> {
        Translators::read(&[text.to_owned()]).map_err(|Invalid(reason)| reason)
    }

    #[test]
    fn well_known_prefix_is_always_among_them() {
        assert_eq!(read(""), Ok(Translators::default()));
        assert_eq!(read("64:ff9b::/96"), Ok(Translators::default()));
        assert_eq!(read("2001:db8:64::/96"), Ok(translators()));
    }

    #[test]
    fn wrong_prefix_is_named_with_the_reason() {
        for (text, reason) in [
            ("2001:db8::", "`2001:db8::` is not an IPv6 prefix, such as 2001:db8:64::/96"),
            ("10.0.0.0/32", "`10.0.0.0/32` is not an IPv6 prefix"),
            ("2001:db8::/x", "`2001:db8::/x` is not an IPv6 prefix"),
            ("2001:db8::/32,2001:db8::/44", "`2001:db8::/44` is not a prefix of a translator: /44"),
            ("2001:db8::1/96", "it has host bits set; write 2001:db8::/96"),
            ("2001:db8:0:0:100::/96", "bits 64 to 71 have to be zero"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(reason), "{text}: {refused}");
        }
        let many = ["2001:db8::/32"; 17].join(",");
        assert_eq!(read(&many).unwrap_err(), "17 prefixes are too many; write 16 at most");
    }
}

//! Addresses as people read them.

use std::fmt;
use std::net::SocketAddr;

/// An address whose port may not be known, as of a client that a proxy named without one: then the
/// port, which is 0, is not shown.
#[derive(Clone, Copy, Debug)]
pub struct Shown(pub SocketAddr);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(address) = self;
        if address.port() == 0 { address.ip().fmt(f) } else { address.fmt(f) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_that_is_not_known_was_shown_as_0() {
        for (address, shown) in [
            ("192.0.2.1:0", "192.0.2.1"),
            ("[2001:db8::1]:0", "2001:db8::1"),
            ("192.0.2.1:7", "192.0.2.1:7"),
            ("[2001:db8::1]:7", "[2001:db8::1]:7"),
        ] {
            assert_eq!(Shown(address.parse().unwrap()).to_string(), shown);
        }
    }
}

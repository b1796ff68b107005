//! Which inherited socket is for what.
//!
//! UDP sockets are all inherited or all our own: one that nobody reads would swallow the flows
//! that the kernel gives to it. The listeners may be the one or the other, each for itself.

use std::net::SocketAddr;

use socket2::Socket;

use crate::net::inherited::{InheritError, Inherited, Kind, take};

/// The sockets that the relay has inherited; by default none.
#[derive(Debug, Default)]
pub struct Sockets {
    pub(super) wss: Option<Inherited>,
    pub(super) admin: Option<Socket>,
    /// One for each receiving thread, all on one address; empty where we open our own.
    pub(super) udp: Vec<Socket>,
}

/// Why the inherited sockets are of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketsError {
    /// They cannot be taken over.
    #[error(transparent)]
    Inherit(#[from] InheritError),
    /// Nothing says what a socket is for.
    #[error(
        "nothing says what the inherited socket {0:?} is for: give it FileDescriptorName=wss or admin"
    )]
    Nameless(String),
    /// Two are for the same.
    #[error(
        "two inherited sockets are for {0}: give each its own FileDescriptorName=, wss or admin"
    )]
    Twice(&'static str),
    /// One has the name of another kind.
    #[error("the inherited socket {name:?} is not {expected}")]
    Kind {
        /// Its name.
        name: String,
        /// What a socket of that name is.
        expected: &'static str,
    },
    /// The public listener is open to others than this machine, and nobody allowed that.
    #[error(
        "the inherited socket for WebSocket peers, {0}, is open to others than this machine, \
         without TLS; bind it to loopback, or add --public-plaintext"
    )]
    Public(SocketAddr),
    /// The UDP sockets do not share one address.
    #[error(
        "the inherited UDP sockets are on {0} and on {1}: write the same ListenDatagram= for each, \
         with ReusePort=yes"
    )]
    Addresses(SocketAddr, SocketAddr),
}

impl Sockets {
    /// Takes those that are meant for this process. To be called once, and before the process
    /// opens anything.
    ///
    /// # Errors
    /// They are of no use, or nothing says what one is for.
    pub fn inherit() -> Result<Self, SocketsError> {
        Self::sort(take()?)
    }

    /// Refuses a public listener that anybody can reach, unless that is `allowed`.
    pub(super) fn check_public(&self, allowed: bool) -> Result<(), SocketsError> {
        let address = self.wss.as_ref().and_then(|one| one.socket.local_addr().ok()?.as_socket());
        match address {
            Some(address) if !allowed && !address.ip().to_canonical().is_loopback() => {
                Err(SocketsError::Public(address))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.wss.is_none() && self.admin.is_none() && self.udp.is_empty()
    }

    /// Datagrams are UDP's; of the listeners, the name says which, and one alone is the public
    /// one.
    fn sort(inherited: Vec<Inherited>) -> Result<Self, SocketsError> {
        let mut sockets = Self::default();
        let mut unnamed = Vec::new();
        for one in inherited {
            let wrong = |name, expected| Err(SocketsError::Kind { name, expected });
            match (&*one.name, one.kind) {
                ("wss", Kind::Udp) => return wrong(one.name, "a listening socket"),
                ("admin", Kind::Udp | Kind::Unix) => return wrong(one.name, "a TCP socket"),
                ("udp", Kind::Tcp | Kind::Unix) => return wrong(one.name, "a UDP socket"),
                (_, Kind::Udp) => sockets.udp.push(one.socket),
                ("admin", Kind::Tcp) => {
                    if sockets.admin.replace(one.socket).is_some() {
                        return Err(SocketsError::Twice("admin"));
                    }
                }
                ("wss", Kind::Tcp | Kind::Unix) => {
                    if sockets.wss.replace(one).is_some() {
                        return Err(SocketsError::Twice("wss"));
                    }
                }
                (_, Kind::Tcp | Kind::Unix) => unnamed.push(one),
            }
        }
        match (unnamed.pop(), &sockets.wss) {
            (Some(one), None) if unnamed.is_empty() => sockets.wss = Some(one),
            (Some(one), _) => return Err(SocketsError::Nameless(one.name)),
            (None, _) => {}
        }
        one_address(&sockets.udp)?;
        Ok(sockets)
    }
}

/// Refuses UDP sockets that do not share one address.
fn one_address(sockets: &[Socket]) -> Result<(), SocketsError> {
    let address = |socket: &Socket| socket.local_addr().ok()?.as_socket();
    let mut addresses = sockets.iter().filter_map(address);
    let Some(first) = addresses.next() else { return Ok(()) };
    match addresses.find(|address| *address != first) {
        Some(other) => Err(SocketsError::Addresses(first, other)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Type};

    use super::*;

    fn inherited(name: &str, kind: Kind) -> Inherited {
        let (domain, socket_type) = match kind {
            Kind::Tcp => (Domain::IPV4, Type::STREAM),
            Kind::Unix => (Domain::UNIX, Type::STREAM),
            Kind::Udp => (Domain::IPV4, Type::DGRAM),
        };
        let socket = Socket::new(domain, socket_type, None).unwrap();
        Inherited { name: name.to_owned(), kind, socket }
    }

    fn sorted(named: &[(&str, Kind)]) -> Result<(bool, bool, usize), String> {
        let all = named.iter().map(|(name, kind)| inherited(name, *kind)).collect();
        let sockets = Sockets::sort(all).map_err(|error| error.to_string())?;
        Ok((sockets.wss.is_some(), sockets.admin.is_some(), sockets.udp.len()))
    }

    #[test]
    fn names_and_kinds_say_what_a_socket_is_for() {
        for (named, expected) in [
            (&[][..], (false, false, 0)),
            (&[("wss", Kind::Unix), ("admin", Kind::Tcp), ("udp", Kind::Udp)], (true, true, 1)),
            (&[("beacon-relay.socket", Kind::Tcp)], (true, false, 0)),
            (&[("", Kind::Unix), ("admin", Kind::Tcp)], (true, true, 0)),
            (&[("any", Kind::Udp), ("any", Kind::Udp)], (false, false, 2)),
        ] {
            assert_eq!(sorted(named), Ok(expected), "{named:?}");
        }
    }

    #[test]
    fn socket_that_nobody_would_serve_is_refused() {
        for (named, reason) in [
            (&[("a", Kind::Tcp), ("b", Kind::Tcp)][..], "FileDescriptorName=wss or admin"),
            (&[("wss", Kind::Tcp), ("b", Kind::Unix)], "what the inherited socket \"b\" is for"),
            (&[("wss", Kind::Tcp), ("wss", Kind::Unix)], "two inherited sockets are for wss"),
            (&[("admin", Kind::Tcp), ("admin", Kind::Tcp)], "are for admin"),
            (&[("admin", Kind::Unix)], "\"admin\" is not a TCP socket"),
            (&[("wss", Kind::Udp)], "\"wss\" is not a listening socket"),
            (&[("udp", Kind::Tcp)], "\"udp\" is not a UDP socket"),
        ] {
            let error = sorted(named).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn udp_sockets_on_several_addresses_are_refused() {
        let bound = |reuse| {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
            socket.set_reuse_port(reuse).unwrap();
            socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
            socket
        };
        let error = one_address(&[bound(true), bound(true)]).unwrap_err().to_string();
        assert!(error.contains("ReusePort=yes"), "{error}");
    }

    #[test]
    fn public_listener_has_to_be_allowed() {
        let wss = inherited("wss", Kind::Tcp);
        let anywhere = SocketAddr::from(([0, 0, 0, 0], 0));
        wss.socket.bind(&anywhere.into()).unwrap();
        let sockets = Sockets { wss: Some(wss), ..Sockets::default() };
        assert!(matches!(sockets.check_public(false), Err(SocketsError::Public(_))));
        assert!(
            sockets.check_public(true).is_ok() && Sockets::default().check_public(false).is_ok()
        );
    }
}

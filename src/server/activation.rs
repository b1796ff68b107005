//! Which inherited socket is for what.
//!
//! UDP sockets are all inherited or all our own: one that nobody reads would swallow the flows
//! that the kernel gives to it. The listeners may be the one or the other, each for itself: a
//! socket that has the name of a `[[listener]]` takes the place of its `bind`.

use std::net::SocketAddr;

use socket2::Socket;

use crate::config::{Config, Listener, ListenerName};
use crate::net::inherited::{InheritError, Inherited, Kind, take};

/// What the socket of `wss_bind` is called.
const WSS: &str = "wss";

/// What the socket of `netbird_bind` is called.
const NETBIRD: &str = "netbird";

/// What the socket of `peerbus_bind` is called.
const PEERBUS: &str = "peerbus";

/// What the socket of `middleman_bind` is called.
const MIDDLEMAN: &str = "middleman";

/// The sockets that the relay has inherited; by default none.
#[derive(Debug, Default)]
pub struct Sockets {
    pub(super) wss: Option<Inherited>,
    pub(super) admin: Option<Socket>,
    /// One for each receiving thread, all on one address; empty where we open our own.
    pub(super) udp: Vec<Socket>,
    /// UDP sockets, until it is known which are for QUIC.
    datagrams: Vec<Inherited>,
    /// One for each listener of its name that is reached by QUIC.
    quic: Vec<Inherited>,
    /// Listening ones of other names, each for the `[[listener]]` of its name once that is known.
    others: Vec<Inherited>,
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
        "nothing says what the inherited socket {0:?} is for: give it FileDescriptorName=wss or admin, \
         or the name of a [[listener]]"
    )]
    Nameless(String),
    /// Two are for the same.
    #[error(
        "two inherited sockets are for {0}: give each its own FileDescriptorName=, wss or admin, or \
         the name of a [[listener]]"
    )]
    Twice(String),
    /// One has the name of another kind.
    #[error("the inherited socket {name:?} is not {expected}")]
    Kind {
        /// Its name.
        name: String,
        /// What a socket of that name is.
        expected: &'static str,
    },
    /// A listener is open to others than this machine, and nobody allowed that.
    #[error(
        "the inherited socket {name:?}, {address}, is open to others than this machine, without \
         TLS; {way_out}"
    )]
    Public {
        /// Its name.
        name: String,
        /// Where it listens.
        address: SocketAddr,
        /// What to do about it.
        way_out: &'static str,
    },
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

    /// The listeners of the configuration, once it is clear which socket is for which: a name
    /// says that, and one socket that has the name of none is that of `wss_bind`. That listener
    /// is there if it has a socket, whatever the configuration says.
    ///
    /// # Errors
    /// Nothing says what a socket is for, or others can reach it although nobody allowed that.
    pub(super) fn settle(&mut self, config: &Config) -> Result<Vec<Listener>, SocketsError> {
        let of_tables = config.listeners.iter().filter_map(|table| table.name.as_ref());
        let mut named: Vec<&str> = of_tables.map(ListenerName::as_str).collect();
        named.extend(config.names_of_flag_listeners());
        let mut unnamed: Vec<_> =
            self.others.extract_if(.., |one| !named.contains(&&*one.name)).collect();
        match (unnamed.pop(), &self.wss) {
            (Some(one), None) if unnamed.is_empty() => self.wss = Some(one),
            (Some(one), _) => return Err(SocketsError::Nameless(one.name)),
            (None, _) => {}
        }
        let listeners = config.all_listeners(self.wss.is_some());
        listeners.iter().try_for_each(|listener| self.check(listener))?;
        self.settle_datagrams(&listeners)?;
        Ok(listeners)
    }

    /// Tells UDP sockets for QUIC, which have the name of their listener, from those for nodes.
    fn settle_datagrams(&mut self, listeners: &[Listener]) -> Result<(), SocketsError> {
        for one in std::mem::take(&mut self.datagrams) {
            let named = |listener: &&Listener| listener.name.as_ref() == Some(&one.name);
            match listeners.iter().find(named) {
                Some(listener) if !listener.quic_protocols().is_empty() => {
                    if self.quic.iter().any(|other| other.name == one.name) {
                        return Err(SocketsError::Twice(one.name));
                    }
                    self.quic.push(one);
                }
                None if ![NETBIRD, PEERBUS, MIDDLEMAN].contains(&&*one.name) => {
                    self.udp.push(one.socket);
                }
                Some(_) | None => {
                    let expected = "a listening socket";
                    return Err(SocketsError::Kind { name: one.name, expected });
                }
            }
        }
        one_address(&self.udp)
    }

    /// Takes the UDP socket for a listener, where there is one.
    pub(super) fn take_quic_for(&mut self, listener: &Listener) -> Option<Socket> {
        let name = listener.name.as_deref()?;
        let one = self.quic.extract_if(.., |one| one.name == name).next();
        one.map(|one| one.socket)
    }

    /// Refuses two sockets for one listener, and one that anybody can reach unless that is allowed.
    fn check(&self, listener: &Listener) -> Result<(), SocketsError> {
        let Some(name) = listener.name.as_deref() else { return Ok(()) };
        let mut its_own = self
            .wss
            .iter()
            .filter(|_| name == WSS)
            .chain(self.others.iter().filter(|one| one.name == name));
        let Some(one) = its_own.next() else { return Ok(()) };
        if its_own.next().is_some() {
            return Err(SocketsError::Twice(name.to_owned()));
        }
        let address = one.socket.local_addr().ok().and_then(|address| address.as_socket());
        match address {
            Some(address)
                if !listener.speaks_tls()
                    && !listener.public_plaintext
                    && !address.ip().to_canonical().is_loopback() =>
            {
                let (name, way_out) = (name.to_owned(), listener.way_out());
                Err(SocketsError::Public { name, address, way_out })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Takes the socket for a listener, where there is one.
    pub(super) fn take_for(&mut self, listener: &Listener) -> Option<Inherited> {
        let name = listener.name.as_deref()?;
        if name == WSS {
            return self.wss.take();
        }
        self.others.extract_if(.., |one| one.name == name).next()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.wss.is_none()
            && self.admin.is_none()
            && self.udp.is_empty()
            && self.others.is_empty()
            && self.datagrams.is_empty()
            && self.quic.is_empty()
    }

    /// Those for `[[listener]]` tables.
    pub(super) const fn of_tables(&self) -> usize {
        self.others.len()
    }

    /// Datagrams are UDP's; of the listeners, the name says which.
    fn sort(inherited: Vec<Inherited>) -> Result<Self, SocketsError> {
        let mut sockets = Self::default();
        for one in inherited {
            let wrong = |name, expected| Err(SocketsError::Kind { name, expected });
            match (&*one.name, one.kind) {
                (WSS, Kind::Udp) => return wrong(one.name, "a listening socket"),
                ("admin", Kind::Udp | Kind::Unix) => return wrong(one.name, "a TCP socket"),
                ("udp", Kind::Tcp | Kind::Unix) => return wrong(one.name, "a UDP socket"),
                (_, Kind::Udp) => sockets.datagrams.push(one),
                ("admin", Kind::Tcp) => {
                    if sockets.admin.replace(one.socket).is_some() {
                        return Err(SocketsError::Twice("admin".to_owned()));
                    }
                }
                (WSS, Kind::Tcp | Kind::Unix) => {
                    if sockets.wss.replace(one).is_some() {
                        return Err(SocketsError::Twice(WSS.to_owned()));
                    }
                }
                (_, Kind::Tcp | Kind::Unix) => sockets.others.push(one),
            }
        }
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
    use crate::config::{Flags, Layers, Surroundings};

    fn inherited(name: &str, kind: Kind) -> Inherited {
        let (domain, socket_type) = match kind {
            Kind::Tcp => (Domain::IPV4, Type::STREAM),
            Kind::Unix => (Domain::UNIX, Type::STREAM),
            Kind::Udp => (Domain::IPV4, Type::DGRAM),
        };
        let socket = Socket::new(domain, socket_type, None).unwrap();
        if kind == Kind::Tcp {
            socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        }
        Inherited { name: name.to_owned(), kind, socket }
    }

    /// The configuration of this file, whose path is that of nothing.
    fn config(file: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.toml");
        std::fs::write(&path, file).unwrap();
        let mut surroundings = Surroundings::of_this_process();
        let variables = [("BEACON_RELAY_CONFIG", path.as_os_str()), ("HOME", "/home/a".as_ref())];
        surroundings.variables =
            variables.map(|(name, value)| (name.into(), value.to_owned())).into();
        Config::new(&Layers::collect(Flags::default(), &surroundings).unwrap()).unwrap()
    }

    fn settled(named: &[(&str, Kind)], file: &str) -> Result<(Sockets, Vec<Listener>), String> {
        let all = named.iter().map(|(name, kind)| inherited(name, *kind)).collect();
        let mut sockets = Sockets::sort(all).map_err(|error| error.to_string())?;
        let listeners = sockets.settle(&config(file)).map_err(|error| error.to_string())?;
        Ok((sockets, listeners))
    }

    fn sorted(named: &[(&str, Kind)]) -> Result<(bool, bool, usize), String> {
        let (sockets, _) = settled(named, "")?;
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
            (&[("netbird", Kind::Udp)], "\"netbird\" is not a listening socket"),
            (&[("udp", Kind::Tcp)], "\"udp\" is not a UDP socket"),
        ] {
            let error = sorted(named).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn udp_socket_of_a_listener_s_name_is_its_port_for_quic() {
        let folder = tempfile::tempdir().unwrap();
        let path = |file: &str| {
            let path = folder.path().join(file);
            std::fs::write(&path, "a secret\n").unwrap();
            path.to_str().unwrap().to_owned()
        };
        let file = |more: &str| {
            format!(
                "netbird_auth_secret_file = \"{}\"\nnetbird_exposed_address = \"a:1\"\n\
                 [[listener]]\nname = \"nb\"\nbind = \"[::1]:1\"\ndoors = [\"netbird\"]\n{more}",
                path("secrets")
            )
        };
        let with_tls = file("acme = [\"relay.example.org\"]\n");
        let handed = &[("nb", Kind::Tcp), ("nb", Kind::Udp), ("any", Kind::Udp)];

        let (mut sockets, listeners) = settled(handed, &with_tls).unwrap();
        assert_eq!(sockets.udp.len(), 1, "that for nodes");
        let nb = listeners.iter().find(|listener| listener.label() == "nb").unwrap();
        assert!(sockets.take_quic_for(nb).is_some() && sockets.take_quic_for(nb).is_none());

        let twice = &[("nb", Kind::Udp), ("nb", Kind::Udp)];
        let error = settled(twice, &with_tls).map(drop).unwrap_err();
        assert!(error.contains("two inherited sockets are for nb"), "{error}");
        let error = settled(handed, &file("")).map(drop).unwrap_err();
        assert!(error.contains("\"nb\" is not a listening socket"), "no TLS, no QUIC: {error}");
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
        let settle = |name: &str, file: &str| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::from(([0, 0, 0, 0], 0)).into()).unwrap();
            let one = Inherited { name: name.to_owned(), kind: Kind::Tcp, socket };
            Sockets::sort(vec![one]).unwrap().settle(&config(file)).map(drop)
        };
        assert!(matches!(settle("wss", ""), Err(SocketsError::Public { .. })));
        assert!(settle("wss", "public_plaintext = true").is_ok());
        let refused = settle("lan", LAN).unwrap_err().to_string();
        assert!(refused.contains("\"lan\", 0.0.0.0:"), "{refused}");
        assert!(settle("lan", &format!("{LAN}public_plaintext = true")).is_ok());
    }

    /// A table that has a name.
    const LAN: &str = "[[listener]]\nname = \"lan\"\nbind = \"[::1]:1\"\ndoors = [\"pilot\"]\n";

    #[test]
    fn socket_takes_the_place_of_the_table_of_its_name() {
        let two = &[("lan", Kind::Unix), ("wss", Kind::Tcp)];
        let (mut sockets, listeners) = settled(two, LAN).unwrap();
        let settings: Vec<_> = listeners.iter().map(|listener| &*listener.setting).collect();
        // It is open, whether or not the configuration wants it.
        assert_eq!(settings, ["wss-bind", "listener[1].bind"]);
        assert_eq!(sockets.of_tables(), 1);
        let kinds = listeners.iter().map(|listener| sockets.take_for(listener).map(|one| one.kind));
        assert_eq!(kinds.collect::<Vec<_>>(), [Some(Kind::Tcp), Some(Kind::Unix)]);
        assert!(sockets.is_empty());

        let (mut sockets, listeners) = settled(&[("lan", Kind::Tcp)], LAN).unwrap();
        let [lan] = &*listeners else { panic!("{listeners:?}") };
        assert!(sockets.take_for(lan).is_some());
        // Without a socket it is bound by the relay.
        assert!(sockets.take_for(lan).is_none());
        // One that has no name is that of wss_bind, as ever.
        let (_, listeners) = settled(&[("", Kind::Tcp), ("lan", Kind::Tcp)], LAN).unwrap();
        assert_eq!(listeners.len(), 2);
        for (named, reason) in [
            (&[("lan", Kind::Tcp), ("lan", Kind::Unix)][..], "two inherited sockets are for lan"),
            (&[("wss", Kind::Tcp), ("lam", Kind::Tcp)], "inherited socket \"lam\" is for"),
        ] {
            let error = settled(named, LAN).map(drop).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}

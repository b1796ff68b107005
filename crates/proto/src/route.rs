//! Chooses the way to a node: its WebSocket session, then its UDP endpoint, then the beacon
//! that serves it (SPEC §7).

/// What kind of neighbour a packet came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum From {
    /// A peer of this relay.
    Peer,
    /// A beacon of the fleet.
    Beacon,
    /// Another relay of the cluster.
    Relay,
}

/// The ways there are to a node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ways {
    /// It has a WebSocket session here.
    pub session: bool,
    /// It has a UDP endpoint here.
    pub endpoint: bool,
    /// A beacon serves it.
    pub beacon: bool,
}

/// The way that a packet takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// Over the node's WebSocket session.
    Session,
    /// To its UDP endpoint.
    Endpoint,
    /// To the beacon that serves it.
    Beacon,
    /// Only back to the kind it came from, where it could go in circles.
    Loop,
    /// Nobody has the node.
    Unknown,
}

/// Chooses the way of a packet that came from `from`.
#[must_use]
#[inline]
pub const fn choose(from: From, ways: Ways) -> Way {
    match (ways, from) {
        (Ways { session: true, .. }, _) => Way::Session,
        (Ways { endpoint: true, .. }, _) => Way::Endpoint,
        (Ways { beacon: true, .. }, From::Peer | From::Relay) => Way::Beacon,
        (Ways { beacon: true, .. }, From::Beacon) => Way::Loop,
        _ => Way::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_goes_before_endpoint_and_endpoint_before_beacon() {
        let way =
            |session, endpoint, beacon| choose(From::Peer, Ways { session, endpoint, beacon });
        assert_eq!(way(true, true, true), Way::Session);
        assert_eq!(way(false, true, true), Way::Endpoint);
        assert_eq!(way(false, false, true), Way::Beacon);
        assert_eq!(way(false, false, false), Way::Unknown);
    }

    #[test]
    fn packet_from_a_beacon_never_goes_back_to_one() {
        let ways = Ways { session: false, endpoint: false, beacon: true };
        assert_eq!(choose(From::Beacon, ways), Way::Loop);
        let local = Ways { endpoint: true, ..ways };
        assert_eq!(choose(From::Beacon, local), Way::Endpoint);
        assert_eq!(choose(From::Relay, ways), Way::Beacon);
    }
}

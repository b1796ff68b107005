//! Who may claim which UDP endpoint (SPEC §6).
//!
//! Senders over UDP are not authenticated, so a claim is followed only where it can do
//! little harm: never against a WebSocket session, never to an address that is not a
//! node's, and at most once in 30 seconds.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// A node that was silent for so long is forgotten: nine lost heartbeats of 60 s.
pub const FORGET_AFTER: Duration = Duration::from_secs(600);

/// How often silent nodes are looked for.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// An endpoint moves at most once in this time, its registration included.
pub const MOVE_INTERVAL: Duration = Duration::from_secs(30);

/// For so long after a WebSocket session its node's endpoint can be neither made nor moved:
/// as long as a daemon may be silent before it counts as gone.
pub const HOLD_AFTER_SESSION: Duration = Duration::from_secs(90);

/// An endpoint that was silent for two heartbeats gets at most [`QUIET_RATE`].
pub const QUIET_AFTER: Duration = Duration::from_secs(120);

/// Packets a second towards an address that has been silent for [`QUIET_AFTER`]: enough for
/// a node that comes back, too few to be worth aiming the relay at somebody.
pub const QUIET_RATE: u64 = 10;

/// What is known of the node that an endpoint is claimed for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// Its endpoint, and when that was registered or last moved.
    pub endpoint: Option<(SocketAddr, Instant)>,
    /// Whether it has a WebSocket session.
    pub has_session: bool,
    /// When its last WebSocket session ended.
    pub session_ended: Option<Instant>,
    /// When its endpoint was given up, since the node is at another relay.
    pub left: Option<Instant>,
}

/// What becomes of a claim.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Claim {
    /// The node's first endpoint.
    Register,
    /// A heartbeat from the known endpoint.
    Refresh,
    /// The endpoint moves.
    Move,
    /// The endpoint moved too recently, here or to another relay: answer, but keep it.
    Keep,
    /// The node has, or just had, a WebSocket session: drop the packet.
    HeldBySession,
}

/// Judges the claim of `from` to be a node's endpoint.
#[must_use]
pub fn judge(known: &Known, from: SocketAddr, now: Instant) -> Claim {
    if known.has_session {
        return Claim::HeldBySession;
    }
    if let Some((endpoint, _)) = known.endpoint
        && endpoint == from
    {
        return Claim::Refresh;
    }
    if known.session_ended.is_some_and(|ended| now < ended + HOLD_AFTER_SESSION) {
        return Claim::HeldBySession;
    }
    match known.endpoint {
        // Or whoever repeats the claim would have the endpoint for as long as it takes to
        // hear, each time, that it is not its own.
        None if known.left.is_some_and(|left| now < left + MOVE_INTERVAL) => Claim::Keep,
        None => Claim::Register,
        Some((_, moved)) if now < moved + MOVE_INTERVAL => Claim::Keep,
        Some(_) => Claim::Move,
    }
}

/// Whether an address can be a node's at all.
///
/// Loopback counts only where the relay itself is reachable there. Addresses of the relay
/// and of beacons are the caller's to refuse: which they are changes.
#[must_use]
pub fn is_possible(address: SocketAddr, loopback: bool) -> bool {
    let ip = address.ip().to_canonical();
    let broadcast = ip == IpAddr::from([255, 255, 255, 255]);
    address.port() != 0
        && !ip.is_unspecified()
        && !ip.is_multicast()
        && !broadcast
        && (loopback || !ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn endpoint_moves_once_in_thirty_seconds_from_its_registration() {
        let t0 = Instant::now();
        let known = Known { endpoint: Some((at("192.0.2.1:1000"), t0)), ..Known::default() };
        let elsewhere = at("192.0.2.1:1001");
        assert_eq!(judge(&known, at("192.0.2.1:1000"), t0), Claim::Refresh);
        let almost = t0 + MOVE_INTERVAL - Duration::from_millis(1);
        assert_eq!(judge(&known, elsewhere, almost), Claim::Keep);
        assert_eq!(judge(&known, elsewhere, t0 + MOVE_INTERVAL), Claim::Move);
        assert_eq!(judge(&Known::default(), elsewhere, t0), Claim::Register);
    }

    #[test]
    fn nobody_claims_a_node_with_a_session_nor_another_address_just_after() {
        let t0 = Instant::now();
        let endpoint = at("192.0.2.1:1000");
        let during = Known {
            endpoint: Some((endpoint, t0 - MOVE_INTERVAL)),
            has_session: true,
            session_ended: None,
            left: None,
        };
        assert_eq!(judge(&during, endpoint, t0), Claim::HeldBySession);
        let after = Known { has_session: false, session_ended: Some(t0), ..during };
        assert_eq!(judge(&after, endpoint, t0), Claim::Refresh);
        assert_eq!(judge(&after, at("192.0.2.2:1000"), t0), Claim::HeldBySession);
        let without = Known { endpoint: None, ..after };
        assert_eq!(judge(&without, endpoint, t0), Claim::HeldBySession);
        assert_eq!(judge(&without, endpoint, t0 + HOLD_AFTER_SESSION), Claim::Register);
    }

    #[test]
    fn addresses_that_no_node_has_are_impossible() {
        for text in [
            "0.0.0.0:9",
            "[::]:9",
            "224.0.0.1:9",
            "[ff02::1]:9",
            "255.255.255.255:9",
            "192.0.2.1:0",
            "127.0.0.1:9",
            "[::1]:9",
            "[::ffff:127.0.0.1]:9",
            "[::ffff:0.0.0.0]:9",
            "[::ffff:224.0.0.1]:9",
        ] {
            assert!(!is_possible(at(text), false), "{text}");
        }
        assert!(is_possible(at("127.0.0.1:9"), true));
        assert!(is_possible(at("[2001:db8::1]:9"), false));
    }
}

//! Who may claim which endpoint: the address at which a peer without a session takes datagrams.
//!
//! Senders of datagrams are not authenticated, so a claim is followed only where it can do
//! little harm: never against a session, never to an address that can be no peer's, and at most
//! once in 30 seconds. Doors whose datagrams prove nothing share these rules.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// A peer that was silent for so long is forgotten: nine lost heartbeats of 60 s.
pub const FORGET_AFTER: Duration = Duration::from_secs(600);

/// How often silent peers are looked for.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// An endpoint moves at most once in this time, its registration included.
pub const MOVE_INTERVAL: Duration = Duration::from_secs(30);

/// For so long after a session was lost nobody else can make or move its peer's
/// endpoint: as long as a peer may be silent before its session counts as gone.
pub const HOLD_AFTER_SESSION: Duration = Duration::from_secs(90);

/// An endpoint that was silent for two heartbeats gets at most [`QUIET_RATE`].
pub const QUIET_AFTER: Duration = Duration::from_secs(120);

/// Packets a second towards an address that has been silent for [`QUIET_AFTER`]: enough for
/// a peer that comes back, too few to be worth aiming the relay at somebody.
pub const QUIET_RATE: u64 = 10;

/// What is known of the peer that an endpoint is claimed for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// Its endpoint, and when that was registered or last moved.
    pub endpoint: Option<(SocketAddr, Instant)>,
    /// Whether it has a session.
    pub has_session: bool,
    /// Its last session, once that has ended.
    pub last_session: Option<LastSession>,
    /// When its endpoint was given up, since the peer is at another relay.
    pub left: Option<Instant>,
}

/// A session that has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LastSession {
    /// When it ended.
    pub ended: Instant,
    /// The client's address.
    pub client: IpAddr,
    /// Who may claim the peer's endpoint after it.
    pub hold: Hold,
}

/// Who may claim the endpoint of a peer whose session has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hold {
    /// The session was lost: only who claims from the address that it came from.
    ClientOnly,
    /// The peer ended it: whoever comes first, and at once.
    First,
    /// Somebody came first: the usual rules.
    Over,
}

impl LastSession {
    #[inline]
    fn is_of(&self, from: SocketAddr) -> bool {
        self.client.to_canonical() == from.ip().to_canonical()
    }
}

/// What becomes of a claim.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Claim {
    /// The peer's first endpoint.
    Register,
    /// A heartbeat from the known endpoint.
    Refresh,
    /// The endpoint moves.
    Move,
    /// The endpoint moved too recently, here or to another relay: answer, but keep it.
    Keep,
    /// The peer has a session, or has just lost one, and the claim comes from
    /// elsewhere: answer, but change nothing.
    HeldBySession,
}

/// Judges the claim of `from` to be a peer's endpoint.
#[must_use]
#[inline]
pub fn judge(known: &Known, from: SocketAddr, now: Instant) -> Claim {
    if known.has_session {
        return Claim::HeldBySession;
    }
    if let Some((endpoint, _)) = known.endpoint
        && endpoint == from
    {
        return Claim::Refresh;
    }
    let recent = known.last_session.filter(|last| now < last.ended + HOLD_AFTER_SESSION);
    if let Some(last) = recent {
        let is_client = last.is_of(from);
        let is_elsewhere = |endpoint: SocketAddr| !last.is_of(endpoint);
        match (known.endpoint, last.hold) {
            (None, Hold::First) => return Claim::Register,
            (Some(_), Hold::First) => return Claim::Move,
            // It was the peer that had proved itself from there: whoever came before it, or
            // first, has to wait for no 30 s to pass against it.
            (Some((endpoint, _)), _) if is_client && is_elsewhere(endpoint) => return Claim::Move,
            (_, Hold::ClientOnly) if !is_client => return Claim::HeldBySession,
            (_, Hold::ClientOnly | Hold::Over) => {}
        }
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

/// Whether an address can be a peer's at all.
///
/// Loopback counts only where the relay itself is reachable there. Addresses of the relay
/// and of other servers are the caller's to refuse: which they are changes.
#[must_use]
#[inline]
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

    /// A session from 192.0.2.9 that ended so.
    fn ended(ended: Instant, hold: Hold) -> Option<LastSession> {
        Some(LastSession { ended, client: at("192.0.2.9:443").ip(), hold })
    }

    fn lost(at: Instant) -> Option<LastSession> {
        ended(at, Hold::ClientOnly)
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
    fn nobody_claims_a_peer_with_a_session_nor_another_address_just_after() {
        let t0 = Instant::now();
        let endpoint = at("192.0.2.1:1000");
        let during = Known {
            endpoint: Some((endpoint, t0 - MOVE_INTERVAL)),
            has_session: true,
            last_session: None,
            left: None,
        };
        assert_eq!(judge(&during, endpoint, t0), Claim::HeldBySession);
        let after = Known { has_session: false, last_session: lost(t0), ..during };
        assert_eq!(judge(&after, endpoint, t0), Claim::Refresh);
        assert_eq!(judge(&after, at("192.0.2.2:1000"), t0), Claim::HeldBySession);
        let without = Known { endpoint: None, ..after };
        assert_eq!(judge(&without, endpoint, t0), Claim::HeldBySession);
        assert_eq!(judge(&without, endpoint, t0 + HOLD_AFTER_SESSION), Claim::Register);
    }

    #[test]
    fn peer_that_ended_its_session_is_not_dark_until_the_hold_is_over() {
        let t0 = Instant::now();
        let elsewhere = at("192.0.2.2:1000");
        let left = Known { last_session: ended(t0, Hold::First), ..Known::default() };
        assert_eq!(judge(&left, elsewhere, t0), Claim::Register);
        let stale = Known { endpoint: Some((at("192.0.2.1:1000"), t0)), ..left };
        assert_eq!(judge(&stale, elsewhere, t0), Claim::Move, "at once, though it just moved");
        let given_up = Known { left: Some(t0), ..left };
        assert_eq!(judge(&given_up, elsewhere, t0), Claim::Register);

        // The first one who comes is the last one to whom that applies.
        let hold = ended(t0, Hold::Over);
        let taken = Known { endpoint: Some((elsewhere, t0)), last_session: hold, ..left };
        assert_eq!(judge(&taken, at("192.0.2.3:1000"), t0), Claim::Keep);
        assert_eq!(judge(&taken, at("192.0.2.3:1000"), t0 + MOVE_INTERVAL), Claim::Move);
    }

    #[test]
    fn client_of_a_lost_session_lifts_the_hold_for_itself_alone() {
        let t0 = Instant::now();
        let (client, mapped) = (at("192.0.2.9:1000"), at("[::ffff:192.0.2.9]:1000"));
        let held = Known { last_session: lost(t0), ..Known::default() };
        assert_eq!(judge(&held, client, t0), Claim::Register);
        assert_eq!(judge(&held, mapped, t0), Claim::Register);
        assert_eq!(judge(&held, at("192.0.2.2:1000"), t0), Claim::HeldBySession);

        let registered = Known { endpoint: Some((client, t0)), ..held };
        let later = t0 + MOVE_INTERVAL;
        assert_eq!(judge(&registered, at("192.0.2.9:1001"), t0), Claim::Keep);
        assert_eq!(judge(&registered, at("192.0.2.9:1001"), later), Claim::Move);
        assert_eq!(judge(&registered, at("192.0.2.2:1000"), later), Claim::HeldBySession);
    }

    #[test]
    fn who_comes_first_after_a_session_gives_way_to_its_client() {
        let t0 = Instant::now();
        let stranger = Some((at("192.0.2.2:1000"), t0));
        for hold in [Hold::ClientOnly, Hold::Over] {
            let last_session = ended(t0, hold);
            let taken = Known { endpoint: stranger, last_session, ..Known::default() };
            assert_eq!(judge(&taken, at("192.0.2.9:1000"), t0), Claim::Move, "{hold:?}");
            let over = t0 + HOLD_AFTER_SESSION;
            let taken = Known { endpoint: Some((at("192.0.2.2:1000"), over)), ..taken };
            assert_eq!(judge(&taken, at("192.0.2.9:1000"), over), Claim::Keep, "{hold:?}");
        }
    }

    #[test]
    fn addresses_that_no_peer_has_are_impossible() {
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

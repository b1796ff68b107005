//! What beacons say of the nodes that they serve (SPEC §7).

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use beacon_wire::ids::NodeId;
use foldhash::fast::RandomState;

use super::network::Client;
use super::newcomers::Newcomers;
use super::translators::Translators;

/// How often a Sync goes to each peer beacon.
pub const SYNC_INTERVAL: Duration = Duration::from_secs(10);

/// A source that was silent for so long is dropped: nine Syncs.
pub const SOURCE_TIMEOUT: Duration = Duration::from_secs(90);

/// Most sources at a time. With open gossip anybody can be one: 64 of 16,375 nodes each
/// bound what is learnt to a million nodes.
pub const MAX_SOURCES: usize = 64;

/// Most sources of one host that are not listed with their port: a beacon sends from one port,
/// and from another one after a restart behind a NAT. Whoever forges a beacon's address takes
/// no more places than these, and once they are taken a new port has to come back for one.
pub const MAX_PORTS: usize = 4;

/// Most of them that nobody else takes the place of: one is left to be contended for, or those
/// that came first would shut out all others.
const MAX_SETTLED: usize = MAX_PORTS - 1;

/// A source is listened to at most once in this time: a tenth of its interval, so that a
/// flood of Syncs costs no more than ten of them. A host gets a new port as seldom.
pub const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// A source that comes back after this time is settled: half an interval, since who sends
/// twice at once has not come back.
const SETTLES_AFTER: Duration = Duration::from_secs(5);

/// A settled source that missed two Syncs, and the time of a third, is settled no more.
const SETTLED_FOR: Duration = Duration::from_secs(30);

/// Why a Sync is not taken in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refused {
    /// Too soon after the last of the source, or after another new port of its host.
    TooSoon,
    /// One source too many.
    TooMany,
}

/// What a Sync changed.
#[derive(Debug, Eq, PartialEq)]
pub struct Taken<'a> {
    /// A source that was forgotten to make room, with what it had published.
    pub evicted: Option<(SocketAddr, Vec<NodeId>)>,
    /// The nodes that the source no longer publishes.
    pub gone: Vec<NodeId>,
    /// Those that it does.
    pub nodes: &'a [NodeId],
}

/// The sources and the nodes that each has published.
#[derive(Debug, Default)]
pub struct Gossip<S = RandomState> {
    sources: HashMap<SocketAddr, Source, S>,
    /// Who found no place, for each host that has one: so there are as few as there are sources.
    newcomers: HashMap<Client, Newcomers, S>,
    translators: Translators,
}

/// A place for a new source.
#[derive(Debug)]
struct Place {
    /// Whose it was, where there was no free one.
    evicts: Option<SocketAddr>,
    /// Since when the new source has been heard.
    since: Instant,
}

#[derive(Debug)]
struct Source {
    host: Client,
    /// Its address and port are configured or registered.
    is_listed: bool,
    since: Instant,
    /// When it got its place.
    placed: Instant,
    heard: Instant,
    nodes: Vec<NodeId>,
}

impl Source {
    /// Whether it keeps coming back.
    fn is_settled(&self, now: Instant) -> bool {
        self.heard >= self.since + SETTLES_AFTER && now < self.heard + SETTLED_FOR
    }
}

impl<S: Default> Gossip<S> {
    /// No source yet; they may come through these translators.
    #[must_use]
    pub fn new(translators: Translators) -> Self {
        Self { sources: HashMap::default(), newcomers: HashMap::default(), translators }
    }
}

impl<S: BuildHasher> Gossip<S> {
    /// Takes in a Sync, which replaces all that its source published before. `is_listed` says
    /// that the very address and port are a beacon's: such a source takes the place of others,
    /// and never loses its own.
    ///
    /// # Errors
    /// Why it is ignored.
    pub fn receive(
        &mut self,
        source: SocketAddr,
        is_listed: bool,
        nodes: impl Iterator<Item = NodeId>,
        now: Instant,
    ) -> Result<Taken<'_>, Refused> {
        let host = Client::of(source.ip(), &self.translators);
        let place = match self.sources.get(&source) {
            Some(known) if now < known.heard + MIN_INTERVAL => return Err(Refused::TooSoon),
            Some(_) => Place { evicts: None, since: now },
            None if is_listed => self.place_of_listed(now)?,
            None => self.place_of_stranger(host, source.port(), now)?,
        };
        let evicted = place
            .evicts
            .and_then(|evicted| self.sources.remove_entry(&evicted))
            .map(|(address, source)| (address, source.nodes));
        let mut nodes: Vec<_> = nodes.collect();
        nodes.sort_unstable();
        nodes.dedup();
        let known = self.sources.entry(source).or_insert_with(|| Source {
            host,
            is_listed,
            since: place.since,
            placed: now,
            heard: now,
            nodes: Vec::new(),
        });
        known.is_listed = is_listed;
        known.heard = now;
        let before = std::mem::replace(&mut known.nodes, nodes);
        let gone = before.into_iter().filter(|node| known.nodes.binary_search(node).is_err());
        Ok(Taken { evicted, gone: gone.collect(), nodes: &known.nodes })
    }

    /// Finds a place for a new source that is listed with its port.
    fn place_of_listed(&self, now: Instant) -> Result<Place, Refused> {
        if self.sources.len() < MAX_SOURCES {
            return Ok(Place { evicts: None, since: now });
        }
        // Who keeps coming back goes last.
        let stranger = self.longest_silent(|address, source| !self.stays(address, source, now));
        let victim = stranger.or_else(|| self.longest_silent(|_, source| !source.is_listed));
        let victim = victim.ok_or(Refused::TooMany)?;
        Ok(Place { evicts: Some(victim), since: now })
    }

    /// Finds a place for a new source that is not: a free one at once, that of another source
    /// of its host when it has come back. Or whoever forges a beacon's address would push it out
    /// by a flood of ports that are never heard again.
    fn place_of_stranger(
        &mut self,
        host: Client,
        port: u16,
        now: Instant,
    ) -> Result<Place, Refused> {
        let own = self.ports(host);
        let was_placed = |source: &Source| !source.is_listed && now < source.placed + MIN_INTERVAL;
        let is_soon = self.sources.values().any(|source| source.host == host && was_placed(source));
        if !is_soon && own < MAX_PORTS {
            if self.sources.len() < MAX_SOURCES {
                return Ok(Place { evicts: None, since: now });
            }
            // The host with the most gives one to a host that has fewer even then.
            if let Some(largest) = self.largest(now).filter(|host| self.ports(*host) >= own + 2) {
                let victim = self.leaving(largest, now);
                return Ok(Place { evicts: victim, since: now });
            }
        }
        if own == 0 {
            return Err(Refused::TooMany);
        }
        if self.newcomers.len() >= MAX_SOURCES {
            self.expire_newcomers(now);
        }
        let newcomers = self.newcomers.entry(host).or_insert_with(|| Newcomers::new(now));
        let since = newcomers.note(port, now);
        if is_soon {
            return Err(Refused::TooSoon);
        }
        let since = since.ok_or(Refused::TooMany)?;
        let victim = self.leaving(host, now).ok_or(Refused::TooMany)?;
        if let Some(newcomers) = self.newcomers.get_mut(&host) {
            newcomers.forget(port);
        }
        Ok(Place { evicts: Some(victim), since })
    }

    /// Whether no stranger takes the place of a source: it is listed, or among the first of its
    /// host that keep coming back.
    fn stays(&self, address: &SocketAddr, source: &Source, now: Instant) -> bool {
        if source.is_listed {
            return true;
        }
        let is_before = |(other_address, other): (&SocketAddr, &Source)| {
            other.host == source.host
                && !other.is_listed
                && other.is_settled(now)
                && (other.since, other_address) < (source.since, address)
        };
        source.is_settled(now)
            && self.sources.iter().filter(|other| is_before(*other)).count() < MAX_SETTLED
    }

    /// The source of a host that goes first, where one may.
    fn leaving(&self, host: Client, now: Instant) -> Option<SocketAddr> {
        self.longest_silent(|address, source| {
            source.host == host && !self.stays(address, source, now)
        })
    }

    /// The host with the most sources, of those with one that may go.
    fn largest(&self, now: Instant) -> Option<Client> {
        let may_go =
            self.sources.iter().filter(|(address, source)| !self.stays(address, source, now));
        may_go.map(|(_, source)| source.host).max_by_key(|host| self.ports(*host))
    }

    /// How many sources of a host are not listed.
    fn ports(&self, host: Client) -> usize {
        self.sources.values().filter(|source| source.host == host && !source.is_listed).count()
    }

    fn longest_silent(&self, may_go: impl Fn(&SocketAddr, &Source) -> bool) -> Option<SocketAddr> {
        let sources = self.sources.iter().filter(|(address, source)| may_go(address, source));
        sources.min_by_key(|(_, source)| source.heard).map(|(address, _)| *address)
    }

    /// Forgets the newcomers of hosts that have no source, and those that nobody came after.
    fn expire_newcomers(&mut self, now: Instant) {
        let sources = &self.sources;
        self.newcomers.retain(|host, newcomers| {
            let mut of_host = sources.values().filter(|source| source.host == *host);
            !newcomers.is_over(now) && of_host.any(|source| !source.is_listed)
        });
    }

    /// Drops the sources that have been silent for too long; returns each with its nodes.
    pub fn expire(&mut self, now: Instant) -> Vec<(SocketAddr, Vec<NodeId>)> {
        let silent = |_: &SocketAddr, source: &mut Source| now >= source.heard + SOURCE_TIMEOUT;
        let expired = self.sources.extract_if(silent);
        let expired = expired.map(|(address, source)| (address, source.nodes)).collect();
        self.expire_newcomers(now);
        expired
    }

    /// How many sources there are.
    #[must_use]
    pub fn sources(&self) -> usize {
        self.sources.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translators::testing::translators;

    fn ids(numbers: &[u32]) -> Vec<NodeId> {
        numbers.iter().map(|n| NodeId::new(*n).unwrap()).collect()
    }

    fn source(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn sync_replaces_what_its_source_published_before() {
        let t0 = Instant::now();
        let mut gossip: Gossip = Gossip::default();
        let mut gone = |port, nodes: &[u32], now| {
            let taken = gossip.receive(source(port), false, ids(nodes).into_iter(), now);
            taken.map(|taken| taken.gone)
        };
        assert_eq!(gone(1, &[1, 2, 3], t0), Ok(ids(&[])));
        let later = t0 + SYNC_INTERVAL;
        assert_eq!(gone(1, &[3, 4, 3], later), Ok(ids(&[1, 2])));
        assert_eq!(gone(2, &[9], later), Ok(ids(&[])));
    }

    #[test]
    fn silent_source_is_dropped_after_ninety_seconds() {
        let t0 = Instant::now();
        let mut gossip: Gossip = Gossip::default();
        receive(&mut gossip, source(1), false, t0).unwrap();
        receive(&mut gossip, source(2), false, t0 + SYNC_INTERVAL).unwrap();
        assert_eq!(gossip.expire(t0 + SOURCE_TIMEOUT - SYNC_INTERVAL), []);
        assert_eq!(gossip.expire(t0 + SOURCE_TIMEOUT), [(source(1), ids(&[1]))]);
        assert_eq!(gossip.sources(), 1);
    }

    /// A Sync of node 1; the source that was evicted for it.
    fn receive(
        gossip: &mut Gossip,
        from: SocketAddr,
        is_listed: bool,
        now: Instant,
    ) -> Result<Option<SocketAddr>, Refused> {
        let taken = gossip.receive(from, is_listed, ids(&[1]).into_iter(), now)?;
        Ok(taken.evicted.map(|(address, nodes)| {
            assert_eq!(nodes, ids(&[1]));
            address
        }))
    }

    /// Some address of each of many hosts.
    fn host(number: u8) -> SocketAddr {
        SocketAddr::from(([198, 51, 100, number], 9001))
    }

    #[test]
    fn forged_ports_of_a_listed_address_shut_no_beacon_out() {
        let t0 = Instant::now();
        let mut gossip: Gossip = Gossip::default();
        let settled = source(9_002);
        receive(&mut gossip, settled, false, t0).unwrap();
        let mut now = t0 + SYNC_INTERVAL;
        receive(&mut gossip, settled, false, now).unwrap();
        for port in 1..=64 {
            now += MIN_INTERVAL;
            // Three places beside the one that keeps coming back, and no more.
            let expected = if port <= 3 { Ok(None) } else { Err(Refused::TooMany) };
            assert_eq!(receive(&mut gossip, source(port), false, now), expected, "{port}");
            if port % 10 == 0 {
                receive(&mut gossip, settled, false, now).unwrap();
            }
        }
        assert_eq!(gossip.sources(), MAX_PORTS);
        assert_eq!(receive(&mut gossip, source(9_001), true, now), Ok(None), "the listed port");
        assert_eq!(receive(&mut gossip, host(1), false, now), Ok(None), "another beacon");
    }

    #[test]
    fn beacon_finds_a_place_among_forged_ports_that_keep_coming_back() {
        let t0 = Instant::now();
        let mut gossip: Gossip = Gossip::default();
        let (beacon, mut heard) = (source(9_001), 0);
        for second in 0..600 {
            let now = t0 + MIN_INTERVAL * second;
            // Four ports, each again every 10 s.
            if second % 10 < 4 {
                let forged = source(u16::try_from(second % 10).unwrap() + 1);
                let _refused = receive(&mut gossip, forged, false, now);
            }
            if second > 30 && second % 10 == 6 {
                let _refused = receive(&mut gossip, beacon, false, now);
            }
            heard += u32::from(gossip.sources.contains_key(&beacon));
            assert!(gossip.sources() <= MAX_PORTS);
        }
        // Those five have four places, three of which are the first ones'.
        assert!(heard > 200, "{heard} of 570 s");
    }

    #[test]
    fn beacon_finds_a_place_in_a_flood_of_forged_ports_and_keeps_it() {
        let t0 = Instant::now();
        let mut gossip: Gossip = Gossip::default();
        let beacon = source(65_000);
        let mut forged = 0;
        for tenth in 0..1_200 {
            let now = t0 + MIN_INTERVAL / 10 * tenth;
            // Ten new ports a second, from before the beacon's first Sync on.
            forged += 1;
            let _refused = receive(&mut gossip, source(forged), false, now);
            // The beacon's at 5 s, and then every 10 s.
            if tenth % 100 == 50 {
                let taken = receive(&mut gossip, beacon, false, now);
                assert_eq!(taken.is_err(), tenth == 50, "{tenth}: {taken:?}");
            }
            let has_place = gossip.sources.contains_key(&beacon);
            assert_eq!(has_place, tenth >= 150, "{tenth}");
        }
        assert_eq!(gossip.newcomers.len(), 1);
    }

    #[test]
    fn newcomers_are_forgotten_with_the_last_source_of_their_host() {
        let t0 = Instant::now();
        let mut gossip: Gossip = Gossip::default();
        for port in 1..=5 {
            let now = t0 + MIN_INTERVAL * u32::from(port);
            let _refused = receive(&mut gossip, source(port), false, now);
        }
        assert_eq!(gossip.newcomers.len(), 1);
        gossip.expire(t0 + SOURCE_TIMEOUT * 2);
        assert_eq!((gossip.sources(), gossip.newcomers.len()), (0, 0));
    }

    #[test]
    fn host_gets_a_new_port_once_a_second_and_a_listed_one_at_once() {
        let t0 = Instant::now();
        let mut gossip: Gossip = Gossip::default();
        receive(&mut gossip, source(1), false, t0).unwrap();
        assert_eq!(receive(&mut gossip, source(2), false, t0), Err(Refused::TooSoon));
        assert_eq!(receive(&mut gossip, source(2), true, t0), Ok(None));
        assert_eq!(receive(&mut gossip, source(3), false, t0 + MIN_INTERVAL), Ok(None));
    }

    #[test]
    fn beacons_behind_one_translator_are_hosts_of_their_own() {
        let t0 = Instant::now();
        let mut gossip: Gossip = Gossip::new(translators());
        for number in 1..=8 {
            let from = format!("[2001:db8:64::198.51.100.{number}]:9001").parse().unwrap();
            assert_eq!(receive(&mut gossip, from, false, t0), Ok(None), "{number}");
        }
        let unknown = |number| format!("[2001:db8:65::198.51.100.{number}]:9001").parse().unwrap();
        assert_eq!(receive(&mut gossip, unknown(1), false, t0), Ok(None));
        assert_eq!(receive(&mut gossip, unknown(2), false, t0), Err(Refused::TooSoon));
    }

    #[test]
    fn full_gossip_has_a_place_for_each_host_that_has_none() {
        let t0 = Instant::now();
        let mut gossip: Gossip = Gossip::default();
        // Forgers have all places of 16 listed addresses, and keep coming back with some.
        for port in 0..4u16 {
            let now = t0 + MIN_INTERVAL * u32::from(port);
            for number in 0..16 {
                let from = SocketAddr::new(host(number).ip(), port + 1);
                assert_eq!(receive(&mut gossip, from, false, now), Ok(None));
            }
        }
        let now = t0 + SYNC_INTERVAL;
        for number in 0..16 {
            let from = SocketAddr::new(host(number).ip(), 1);
            receive(&mut gossip, from, false, now).unwrap();
        }
        for number in 16..48 {
            let evicted = receive(&mut gossip, host(number), false, now).unwrap();
            assert!(evicted.is_some_and(|evicted| evicted.port() > 1), "{evicted:?}");
        }
        assert_eq!(gossip.sources(), MAX_SOURCES);
        // Those that are left keep coming back, or are alone: only a listed one takes a place.
        let later = now + SETTLES_AFTER;
        for number in 16..48 {
            receive(&mut gossip, host(number), false, later).unwrap();
        }
        assert!(receive(&mut gossip, host(99), true, later).unwrap().is_some());
        assert_eq!(gossip.sources(), MAX_SOURCES);
    }

    #[test]
    fn flood_of_syncs_and_of_sources_is_bounded() {
        let t0 = Instant::now();
        let mut gossip: Gossip = Gossip::default();
        receive(&mut gossip, host(1), false, t0).unwrap();
        assert_eq!(receive(&mut gossip, host(1), false, t0), Err(Refused::TooSoon));
        for number in 2..=64 {
            receive(&mut gossip, host(number), false, t0).unwrap();
        }
        assert_eq!(receive(&mut gossip, host(65), false, t0), Err(Refused::TooMany));
        for port in 1..=64u16 {
            let listed = SocketAddr::new(host(66).ip(), port);
            assert!(receive(&mut gossip, listed, true, t0).unwrap().is_some());
        }
        assert_eq!(receive(&mut gossip, host(67), true, t0), Err(Refused::TooMany));
        assert_eq!(gossip.sources(), MAX_SOURCES);
    }
}

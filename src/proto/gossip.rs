//! What beacons say of the nodes that they serve (SPEC §7).

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use crate::ids::NodeId;

/// How often a Sync goes to each peer beacon.
pub const SYNC_INTERVAL: Duration = Duration::from_secs(10);

/// A source that was silent for so long is dropped: nine Syncs.
pub const SOURCE_TIMEOUT: Duration = Duration::from_secs(90);

/// Most sources at a time. With open gossip anybody can be one: 64 of 16,375 nodes each
/// bound what is learnt to a million nodes.
pub const MAX_SOURCES: usize = 64;

/// A source is listened to at most once in this time: a tenth of its interval, so that a
/// flood of Syncs costs no more than ten of them.
pub const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// Why a Sync is not taken in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refused {
    /// Too soon after the last.
    TooSoon,
    /// One source too many.
    TooMany,
}

/// The sources and the nodes that each has published.
#[derive(Debug, Default)]
pub struct Gossip<S = RandomState> {
    sources: HashMap<SocketAddr, Source, S>,
}

#[derive(Debug)]
struct Source {
    heard: Instant,
    nodes: Vec<NodeId>,
}

impl<S: BuildHasher> Gossip<S> {
    /// Takes in a Sync, which replaces all that its source published before; returns the
    /// nodes that the source no longer publishes, and those that it does.
    ///
    /// # Errors
    /// Why it is ignored.
    pub fn receive(
        &mut self,
        source: SocketAddr,
        nodes: impl Iterator<Item = NodeId>,
        now: Instant,
    ) -> Result<(Vec<NodeId>, &[NodeId]), Refused> {
        match self.sources.get(&source) {
            Some(known) if now < known.heard + MIN_INTERVAL => return Err(Refused::TooSoon),
            None if self.sources.len() >= MAX_SOURCES => return Err(Refused::TooMany),
            Some(_) | None => {}
        }
        let mut nodes: Vec<_> = nodes.collect();
        nodes.sort_unstable();
        nodes.dedup();
        let known = self.sources.entry(source).or_insert(Source { heard: now, nodes: Vec::new() });
        known.heard = now;
        let before = std::mem::replace(&mut known.nodes, nodes);
        let gone = before.into_iter().filter(|node| known.nodes.binary_search(node).is_err());
        Ok((gone.collect(), &known.nodes))
    }

    /// Drops the sources that have been silent for too long; returns each with its nodes.
    pub fn expire(&mut self, now: Instant) -> Vec<(SocketAddr, Vec<NodeId>)> {
        let silent = |_: &SocketAddr, source: &mut Source| now >= source.heard + SOURCE_TIMEOUT;
        self.sources.extract_if(silent).map(|(address, source)| (address, source.nodes)).collect()
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
            gossip.receive(source(port), ids(nodes).into_iter(), now).map(|(gone, _)| gone)
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
        gossip.receive(source(1), ids(&[1]).into_iter(), t0).unwrap();
        gossip.receive(source(2), ids(&[2]).into_iter(), t0 + SYNC_INTERVAL).unwrap();
        assert_eq!(gossip.expire(t0 + SOURCE_TIMEOUT - SYNC_INTERVAL), []);
        assert_eq!(gossip.expire(t0 + SOURCE_TIMEOUT), [(source(1), ids(&[1]))]);
        assert_eq!(gossip.sources(), 1);
    }

    #[test]
    fn flood_of_syncs_and_of_sources_is_bounded() {
        let t0 = Instant::now();
        let mut gossip: Gossip = Gossip::default();
        gossip.receive(source(1), ids(&[1]).into_iter(), t0).unwrap();
        assert_eq!(gossip.receive(source(1), ids(&[2]).into_iter(), t0), Err(Refused::TooSoon));
        for port in 2..=64 {
            gossip.receive(source(port), ids(&[1]).into_iter(), t0).unwrap();
        }
        assert_eq!(gossip.receive(source(65), ids(&[1]).into_iter(), t0), Err(Refused::TooMany));
    }
}

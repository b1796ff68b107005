//! The nodes of the simulated cluster: where each is connected, and when it dials again.

use std::collections::BTreeMap;

use beacon_wire::ids::NodeId;
use beacon_wire::name::Name;

/// Where a node is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Location {
    /// It dials, or waits to.
    Away,
    /// It has this connection of a relay, since that millisecond.
    At { relay: usize, serial: u64, since: u64 },
}

/// All nodes, by their number from 0 on.
pub(super) struct Nodes {
    locations: Vec<Location>,
    /// Which nodes dial at which millisecond.
    dials: BTreeMap<u64, Vec<u32>>,
}

impl Nodes {
    /// So many nodes, which log in evenly over this time.
    pub(super) fn new(count: u32, over_ms: u64) -> Self {
        let mut nodes =
            Self { locations: vec![Location::Away; count as usize], dials: BTreeMap::new() };
        for node in 0..count {
            nodes.dial_at(node, u64::from(node) * over_ms / u64::from(count));
        }
        nodes
    }

    pub(super) fn count(&self) -> u64 {
        self.locations.len() as u64
    }

    pub(super) fn location(&self, node: u32) -> Location {
        self.locations[node as usize]
    }

    pub(super) fn connect(&mut self, node: u32, relay: usize, serial: u64, now: u64) {
        self.locations[node as usize] = Location::At { relay, serial, since: now };
    }

    /// The node loses its connection, and dials again at that millisecond.
    pub(super) fn leave(&mut self, node: u32, dials_at: u64) {
        self.locations[node as usize] = Location::Away;
        self.dial_at(node, dials_at);
    }

    pub(super) fn dial_at(&mut self, node: u32, at: u64) {
        self.dials.entry(at).or_default().push(node);
    }

    /// The nodes that dial now or should have before.
    pub(super) fn due(&mut self, now: u64) -> Vec<u32> {
        let later = self.dials.split_off(&(now + 1));
        std::mem::replace(&mut self.dials, later).into_values().flatten().collect()
    }

    /// The nodes that are connected to a relay, with the serials of their connections.
    pub(super) fn of(&self, relay: usize) -> Vec<(u32, u64)> {
        let all = (0..).zip(&self.locations);
        let here = all.filter_map(|(node, location)| match *location {
            Location::At { relay: at, serial, .. } if at == relay => Some((node, serial)),
            Location::At { .. } | Location::Away => None,
        });
        here.collect()
    }
}

/// What a node is called.
pub(super) fn name(node: u32) -> Name {
    NodeId::new(node + 1).expect("nodes count from 1 on").into()
}

/// The number of the node of that name.
pub(super) fn number(name: Name) -> u32 {
    name.node_id().expect("all are nodes of Pilot").number() - 1
}

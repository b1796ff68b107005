//! What holds at any time, and what holds at rest.

use beacon_wire::cluster::Ownership;

use super::world::World;
use super::{NODES, name, relay_id, usual_ownership};

impl World {
    /// No table grows beyond its bound.
    pub(super) fn check_bounds(&self) {
        for relay in &self.relays {
            let stats = relay.presence.stats();
            assert!(stats.entries <= self.room, "{} entries", stats.entries);
            assert!(stats.tombstones <= self.room, "{} tombstones", stats.tombstones);
            assert!(stats.locals <= NODES, "{} locals", stats.locals);
            // A claim for each local at each member; the rest has its room.
            let claims = NODES * (self.relays.len() + 1);
            assert!(stats.outstanding <= self.room + claims, "{} statements", stats.outstanding);
            assert!(stats.lookups <= NODES, "{} look-ups", stats.lookups);
            assert!(stats.watched <= NODES, "{} watched", stats.watched);
        }
    }

    /// Everybody knows the same, and nothing is left to be said.
    pub(super) fn check(&mut self) {
        for _ in 0..4 {
            if self.relays.iter().any(|relay| relay.presence.stats().outstanding > 0) {
                self.pass(500);
            }
        }
        for (index, relay) in self.relays.iter().enumerate() {
            let stats = relay.presence.stats();
            assert_eq!((stats.outstanding, stats.lookups), (0, 0), "relay {index}");
            assert_eq!(stats.locals, relay.table.len(), "relay {index}");
            assert!(relay.table.keys().all(|id| relay.presence.is_here(*id)), "relay {index}");
        }
        for node in 1..=NODES {
            let owners = self.owners(name(node));
            let proved = usual_ownership(node) != Ownership::Gateway;
            assert!(!proved || owners.len() <= 1, "node {node} is at {owners:?}");
            let homes = self.relays[0].presence.homes(name(node));
            for relay in &self.relays {
                assert_eq!(relay.presence.homes(name(node)), homes, "homes of node {node}");
            }
        }
        self.check_found();
        self.pass(1_500);
        self.check_watches();
    }

    /// Who watches a node knows whether another relay has it.
    fn check_watches(&self) {
        for (index, relay) in self.relays.iter().enumerate() {
            let watched =
                (1..=NODES).filter_map(|node| Some((node, relay.watched.get(&name(node))?)));
            for (node, told) in watched.filter(|(n, _)| usual_ownership(*n) != Ownership::Gateway) {
                let owners = self.owners(name(node));
                let is_elsewhere = owners.iter().any(|owner| *owner != relay_id(index));
                assert_eq!(*told, is_elsewhere, "relay {index} of node {node}, at {owners:?}");
            }
        }
    }

    /// Every relay finds every node, the second time at the latest.
    fn check_found(&mut self) {
        let nodes = (1..=NODES).filter(|node| usual_ownership(*node) != Ownership::Gateway);
        let count = self.relays.len();
        let mut open: Vec<_> =
            nodes.flat_map(|node| (0..count).map(move |at| (at, node))).collect();
        open.retain(|(at, node)| !self.relays[*at].table.contains_key(&name(*node)));
        for last in [false, true] {
            for (at, node) in &open {
                self.look_up(*at, name(*node));
            }
            self.pass(1_500);
            let mut wrong = Vec::new();
            for (at, node) in open {
                let owner = self.owners(name(node)).first().copied();
                let answer = self.relays[at].answers.get(&name(node)).copied().flatten();
                if answer == owner {
                    continue;
                }
                assert!(!last, "relay {at} finds node {node} at {answer:?}, not {owner:?}");
                let mistaken = (0..count).find(|index| Some(relay_id(*index)) == answer);
                if let Some(mistaken) = mistaken {
                    self.packets_find_nobody(name(node), mistaken);
                }
                wrong.push((at, node));
            }
            open = wrong;
        }
    }
}

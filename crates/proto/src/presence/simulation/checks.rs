//! What holds when a simulation has come to rest.

use beacon_wire::cluster::Ownership;

use super::relay::Relay;
use super::world::World;
use super::{NODES, node, relay_id, usual_ownership};
use crate::presence::members::Slot;

/// Logins that are closer to each other than this may change places on their way, in
/// microseconds: 120 ms of delay, and 100 ms to which the age of a request is known.
const CLOSE: u64 = 220_000;

/// After how long all relays are members of each other, in microseconds, and all peers
/// claimed that came before.
const JOINED: u64 = 5_000_000;

impl World {
    pub(super) fn check(&mut self) {
        // A gateway's claim that rested, or what a home hands over, may be under way just now.
        for _ in 0..4 {
            if self.relays.iter().any(|relay| relay.presence.stats().outstanding > 0) {
                self.run_for(500_000);
            }
        }
        self.relays.iter().for_each(|relay| relay.assert_quiet());
        for number in (1..=NODES).filter(|number| usual_ownership(*number) != Ownership::Gateway) {
            let owners = self.owners(node(number));
            assert!(owners.len() <= 1, "node {number} is at {owners:?}");
            self.check_newest(number);
            self.check_kept(number);
        }
        self.check_found();
        // Nor does it need what anybody remembers: a location that only one home still believes
        // in, while all caches have a better one, is mended by the first who asks there.
        self.relays.iter_mut().for_each(|relay| relay.cache.clear());
        self.check_found();
        (1..=NODES).for_each(|number| self.check_homes(number));
        let proved = |number: &usize| usual_ownership(*number) != Ownership::Gateway;
        (1..=NODES).filter(proved).for_each(|number| self.check_watches(number));
        self.relays.iter().for_each(|relay| self.check_watchers(relay));
    }

    /// Of clocks that agree, the newest login wins.
    fn check_newest(&self, number: usize) {
        let logins = &self.logins[number];
        let Some((newest, before)) = logins.split_last() else { return };
        let clear = before.last().is_none_or(|last| last.at + CLOSE <= newest.at);
        let proved = usual_ownership(number) == Ownership::Session;
        if self.agreed && !self.slows && clear && proved && !newest.over {
            let here = self.relays[newest.relay].table.get(&node(number));
            let serial = here.map(|(serial, _)| *serial);
            assert_eq!(serial, Some(newest.serial), "newest login of node {number}: {logins:?}");
        }
    }

    /// While all see the same members and none is slow, a session gives way to none but
    /// another that stays: if none has ended, one of them is there.
    fn check_kept(&self, number: usize) {
        let logins = &self.logins[number];
        let joined = logins.first().is_some_and(|first| first.at > JOINED);
        let kept = logins.iter().all(|login| !login.over);
        let proved = usual_ownership(number) == Ownership::Session;
        if self.calm && !self.slows && joined && kept && proved {
            assert_eq!(self.owners(node(number)).len(), 1, "node {number} lost of {logins:?}");
        }
    }

    /// Who watches a peer knows whether another relay has it, if a home of it can tell.
    fn check_watches(&self, number: usize) {
        let id = node(number);
        let owners = self.owners(id);
        for relay in self.relays.iter().filter(|relay| relay.alive) {
            let Some((_, told)) = relay.watched.get(&id) else { continue };
            let homes = relay.presence.members.watching_homes(&id);
            let can_tell = homes.iter().any(|home| *home != Slot::NONE);
            let is_elsewhere = owners.iter().any(|owner| *owner != relay.index);
            let at = relay.index;
            assert_eq!(*told, is_elsewhere && can_tell, "relay {at} of {number}, at {owners:?}");
        }
    }

    /// Homes keep a watch for each relay that has one, and no other.
    fn check_watchers(&self, home: &Relay) {
        let all = self.relays.iter().filter(|relay| relay.alive && !relay.old);
        let mut count = 0;
        for relay in all {
            let slot = home.presence.members.slot(relay_id(relay.index));
            let slot = slot.expect("all are members of each other");
            for id in relay.watched.keys() {
                let members = &relay.presence.members;
                let of_relay = members.slot(relay_id(home.index)).expect("as above");
                if members.watching_homes(id).contains(&of_relay) {
                    assert!(home.presence.watchers.nonce(slot, *id).is_some(), "{id}");
                    count += 1;
                }
            }
        }
        assert_eq!(home.presence.watchers.len(), count, "watches at relay {}", home.index);
    }

    /// Every relay reaches every peer that is anywhere, with one retry after a NACK.
    fn check_found(&mut self) {
        let from_to = (0..self.relays.len()).flat_map(|from| (1..=NODES).map(move |to| (from, to)));
        let mut open: Vec<_> = from_to.collect();
        for _ in 0..2 {
            let sent: Vec<_> =
                open.iter().map(|(from, to)| ((*from, *to), self.send(*from, *to))).collect();
            self.run_for(1_500_000);
            open.clear();
            for ((from, to), packet) in sent {
                let at = self.delivered.get(&packet).copied();
                let owners = self.owners(node(to));
                match at {
                    Some(at) => assert!(owners.contains(&at), "node {to} got a packet at {at}"),
                    None => open.push((from, to)),
                }
            }
        }
        for (from, to) in open {
            let owners = self.owners(node(to));
            let proved = usual_ownership(to) != Ownership::Gateway;
            assert!(!proved || owners.is_empty(), "relay {from} misses node {to}, at {owners:?}");
        }
    }

    /// Home and spare know who has a peer, under the epoch that the owner has too.
    fn check_homes(&self, number: usize) {
        let id = node(number);
        let owners = self.owners(id);
        for relay in &self.relays {
            let presence = &relay.presence;
            if !presence.members.homes(&id).contains(&Slot::ME) {
                continue;
            }
            let location = presence.registry.find(id).and_then(|_| presence.location(id));
            if usual_ownership(number) == Ownership::Gateway {
                // Of several gateways the homes may know different ones.
                if presence.members.homes(&id)[0] != Slot::ME {
                    continue;
                }
                let known = location.is_none_or(|location| {
                    owners.iter().any(|owner| relay_id(*owner) == location.owner)
                });
                assert!(known, "relay {} has {location:?} of {number}", relay.index);
                continue;
            }
            let there = owners
                .first()
                .map(|owner| (relay_id(*owner), self.relays[*owner].presence.epoch(id).unwrap()));
            let known = location.map(|location| (location.owner, location.epoch));
            assert_eq!(known, there, "relay {} as a home of node {number}", relay.index);
        }
    }
}

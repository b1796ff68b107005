//! The members of the cluster, and which two of them are the homes of an id.
//!
//! A relay is the home of an id by rendezvous hashing: of all members that do not drain (of
//! all members, if every one drains), the one of the highest weight is the home and the second
//! is the spare; of equal weights the higher relay id goes first. All integers wrap:
//!
//! - `weight(relay, id) = mix(seed(relay) ^ hash(id))`;
//! - `seed(relay)` is the first 8 bytes of the SHA-256 of the relay's 32 bytes, big-endian;
//! - `hash(id)` is FNV-1a of 64 bits (offset 0xcbf29ce484222325, prime 0x100000001b3) over
//!   the realm u8, the length u8 and the bytes of the id, as on the wire;
//! - `mix(x)` is the finalizer of SplitMix64: `x ^= x >> 30; x *= 0xbf58476d1ce4e5b9;
//!   x ^= x >> 27; x *= 0x94d049bb133111eb; x ^= x >> 31`.

use beacon_wire::cluster::{MAX_ID, Name};
use beacon_wire::ids::RelayId;
use sha2::{Digest as _, Sha256};

/// A member for as long as its link is up: one that comes back has another slot, so that
/// nothing said before is taken for said since.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Slot(u16);

impl Slot {
    /// This relay itself.
    pub(super) const ME: Self = Self(0);
    /// Nobody.
    pub(super) const NONE: Self = Self(u16::MAX);
}

/// The home and the spare of an id; [`Slot::NONE`] where there are not as many members.
pub(super) type Homes = [Slot; 2];

/// Who is there; this relay is the first.
#[derive(Debug)]
pub(super) struct Members {
    members: Vec<Member>,
    last: Slot,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    slot: Slot,
    relay: RelayId,
    seed: u64,
    draining: bool,
    /// Whether it answers watches.
    watches: bool,
}

impl Member {
    fn new(slot: Slot, relay: RelayId) -> Self {
        Self { slot, relay, seed: seed(relay), draining: false, watches: slot == Slot::ME }
    }
}

impl Members {
    pub(super) fn new(me: RelayId) -> Self {
        Self { members: vec![Member::new(Slot::ME, me)], last: Slot::ME }
    }

    /// Adds a relay; false if it is a member already.
    pub(super) fn add(&mut self, relay: RelayId) -> bool {
        if self.slot(relay).is_some() {
            return false;
        }
        loop {
            self.last.0 = if self.last.0 + 1 == Slot::NONE.0 { 1 } else { self.last.0 + 1 };
            if self.relay(self.last).is_none() {
                break;
            }
        }
        self.members.push(Member::new(self.last, relay));
        true
    }

    /// Takes a relay out, but not this one; returns the slot that it had.
    pub(super) fn remove(&mut self, relay: RelayId) -> Option<Slot> {
        let at = self.members.iter().skip(1).position(|member| member.relay == relay)?;
        Some(self.members.remove(at + 1).slot)
    }

    /// A relay drains; false if that changes nothing.
    pub(super) fn drain(&mut self, relay: RelayId) -> bool {
        let member = self.members.iter_mut().find(|member| member.relay == relay);
        member.is_some_and(|member| !std::mem::replace(&mut member.draining, true))
    }

    pub(super) fn drains(&self, relay: RelayId) -> bool {
        self.members.iter().any(|member| member.relay == relay && member.draining)
    }

    /// A relay answers watches; false if that is known.
    pub(super) fn answers_watches(&mut self, relay: RelayId) -> bool {
        let member = self.members.iter_mut().find(|member| member.relay == relay);
        member.is_some_and(|member| !std::mem::replace(&mut member.watches, true))
    }

    /// The homes of an id that answer watches.
    pub(super) fn watching_homes<I: Name>(&self, id: &I) -> Homes {
        let watches = |slot: Slot| self.members.iter().any(|m| m.slot == slot && m.watches);
        self.homes(id).map(|home| if watches(home) { home } else { Slot::NONE })
    }

    pub(super) fn slot(&self, relay: RelayId) -> Option<Slot> {
        Some(self.members.iter().find(|member| member.relay == relay)?.slot)
    }

    pub(super) fn relay(&self, slot: Slot) -> Option<RelayId> {
        Some(self.members.iter().find(|member| member.slot == slot)?.relay)
    }

    /// Everybody, this relay first.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        self.members.iter().map(|member| member.slot).collect::<Vec<_>>().into_iter()
    }

    /// The home and the spare of an id.
    pub(super) fn homes<I: Name>(&self, id: &I) -> Homes {
        let hash = hash(id);
        let all = self.members.iter().all(|member| member.draining);
        let (mut first, mut second) = (None, None);
        for member in self.members.iter().filter(|member| all || !member.draining) {
            let weighed = Some((mix(member.seed ^ hash), member.relay, member.slot));
            if weighed > first {
                (first, second) = (weighed, first);
            } else if weighed > second {
                second = weighed;
            }
        }
        [first, second].map(|weighed| weighed.map_or(Slot::NONE, |(_, _, slot)| slot))
    }
}

fn seed(relay: RelayId) -> u64 {
    let digest = Sha256::digest(relay.0.0);
    digest.iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}

fn hash<I: Name>(id: &I) -> u64 {
    let mut name = Vec::with_capacity(MAX_ID);
    id.write(&mut name);
    let length = u8::try_from(name.len()).expect("an id has 64 bytes at most");
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    [id.realm(), length].into_iter().chain(name).fold(0xcbf2_9ce4_8422_2325, fnv)
}

const fn mix(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
mod tests {
    use beacon_wire::ids::{NodeId, PublicKey};

    use super::*;

    fn relay(byte: u8) -> RelayId {
        RelayId(PublicKey([byte; 32]))
    }

    fn node(number: u32) -> NodeId {
        NodeId::new(number).unwrap()
    }

    #[test]
    fn published_weights() {
        assert_eq!(mix(1), 0x5692_161d_100b_05e5);
        assert_eq!(hash(&node(0x0102_0304)), 0x167e_5047_e7f7_1e81);
        assert_eq!(seed(relay(1)), 0x72cd_6e84_22c4_07fb);
        assert_eq!(mix(seed(relay(1)) ^ hash(&node(0x0102_0304))), 0x9b73_cf31_1e87_15e6);
    }

    #[test]
    fn every_relay_sees_the_same_homes_and_a_change_moves_only_what_it_must() {
        let views = [[1, 2, 3, 4], [3, 1, 4, 2]].map(|order| {
            let mut members = Members::new(relay(order[0]));
            order[1..].iter().for_each(|byte| assert!(members.add(relay(*byte))));
            members
        });
        let named = |members: &Members, number| {
            members.homes(&node(number)).map(|slot| members.relay(slot).unwrap())
        };
        let mut fewer = Members::new(relay(1));
        assert!(fewer.add(relay(2)) && fewer.add(relay(3)) && !fewer.add(relay(3)));
        let mut moved = 0;
        for number in 1..10_000 {
            let homes = named(&views[0], number);
            assert_eq!(homes, named(&views[1], number));
            if !homes.contains(&relay(4)) {
                assert_eq!(homes, named(&fewer, number));
            }
            moved += usize::from(homes[0] == relay(4));
        }
        assert!((2_300..2_700).contains(&moved), "{moved}");
    }

    #[test]
    fn who_drains_is_no_home_unless_everybody_drains() {
        let mut members = Members::new(relay(1));
        assert_eq!(members.homes(&node(1)), [Slot::ME, Slot::NONE]);
        assert!(members.add(relay(2)) && members.drain(relay(1)) && !members.drain(relay(1)));
        let other = members.slot(relay(2)).unwrap();
        assert!((1..100).all(|number| members.homes(&node(number)) == [other, Slot::NONE]));
        assert!(members.drain(relay(2)));
        assert!((1..100).all(|number| !members.homes(&node(number)).contains(&Slot::NONE)));
    }

    #[test]
    fn relay_that_comes_back_has_another_slot() {
        let mut members = Members::new(relay(1));
        assert!(members.add(relay(2)));
        let before = members.remove(relay(2));
        assert!(before.is_some() && members.remove(relay(2)).is_none() && members.add(relay(2)));
        assert_ne!(members.slot(relay(2)), before);
        assert_eq!(members.remove(relay(1)), None);
    }
}

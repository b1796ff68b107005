//! Presence as a list of operations on several relays, played to its end.
//!
//! The input chooses how many relays there are, and what happens: nodes log in, leave and are
//! looked up, messages come in any order or are lost, links break, relays crash and drain.
//! Then the faults end, and what the simulation of `beacon-proto` checks at rest has to hold.
//! In an input of the hostile sort members also say anything at all; then only the bounds
//! hold, and nothing panics.

mod checks;
mod relay;
mod world;

use beacon_wire::cluster::Ownership;
use beacon_wire::ids::{NodeId, PublicKey, RelayId};
use beacon_wire::name::Name;
use world::World;

/// How many nodes there are.
const NODES: usize = 8;

/// The most operations of an input.
const MAX_OPERATIONS: usize = 400;

/// Takes the number of relays and the sort from the first byte, then three bytes for each
/// operation.
///
/// # Panics
/// Where the cluster comes to no rest, or to a wrong one.
pub fn run(input: &[u8]) {
    let Some((&setting, mut rest)) = input.split_first() else { return };
    let is_hostile = setting & 0x80 != 0;
    let mut world = World::new(2 + usize::from(setting & 3), setting & 4 != 0, is_hostile);
    for _ in 0..MAX_OPERATIONS {
        let Some((&[operation, one, other], after)) = rest.split_first_chunk() else { break };
        rest = after;
        if operation & 0xf == 0xf && is_hostile {
            let (said, after) = rest.split_at(usize::from(one & 0x7f).min(rest.len()));
            rest = after;
            world.say_anything(one >> 7, other, said);
        } else {
            world.act(operation & 0xf, usize::from(one), usize::from(other));
        }
        world.check_bounds();
    }
    world.settle();
    if !is_hostile {
        world.check();
    }
}

fn name(node: usize) -> Name {
    let number = u32::try_from(node).ok().and_then(NodeId::new);
    number.expect("nodes count from 1 on").into()
}

fn relay_id(index: usize) -> RelayId {
    RelayId(PublicKey([u8::try_from(index + 1).expect("five relays at most"); 32]))
}

/// What a node is by its number: most prove who they are.
const fn usual_ownership(node: usize) -> Ownership {
    match node % 6 {
        0 => Ownership::Gateway,
        1 | 2 => Ownership::Endpoint,
        _ => Ownership::Session,
    }
}

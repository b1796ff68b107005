//! One relay of the simulated cluster: its presence and its clock.

use std::time::{Duration, Instant};

use beacon_proto::presence::{Here, MAX_ENTRIES, Now, Presence};
use beacon_wire::cluster::{Ownership, Takeover};
use beacon_wire::ids::{PublicKey, RelayId};
use beacon_wire::name::Name;

/// When the simulation begins, in milliseconds since 1970.
const BEGIN_UNIX_MS: u64 = 1_800_000_000_000;

/// A relay, from its start to its end.
pub(super) struct Relay {
    pub(super) presence: Presence<Name>,
    /// Whether it sends its nodes away.
    pub(super) drains: bool,
    /// Counts its connections.
    serial: u64,
}

impl Relay {
    pub(super) fn new(index: usize, start: Instant) -> Self {
        let presence = Presence::new(id(index), MAX_ENTRIES, start);
        Self { presence, drains: false, serial: 0 }
    }

    /// A node logs in here: the serial of its connection.
    pub(super) fn connect(&mut self, node: Name, now: Now) -> u64 {
        self.serial += 1;
        let here = Here {
            serial: self.serial,
            ownership: Ownership::Session,
            takeover: Takeover::Always,
            credential: 0,
            since: None,
        };
        self.presence.arrived(node, here, now);
        self.serial
    }
}

/// The time so many milliseconds after the start; all clocks agree.
pub(super) fn at(start: Instant, ms: u64) -> Now {
    Now { at: start + Duration::from_millis(ms), unix_ms: BEGIN_UNIX_MS + ms }
}

/// The id of a relay: its number, and bytes that spread as those of a key do.
pub(super) fn id(index: usize) -> RelayId {
    let mut bytes = [0; 32];
    for (part, chunk) in (0..).zip(bytes.chunks_exact_mut(8)) {
        chunk.copy_from_slice(&mixed(index as u64 * 4 + part).to_be_bytes());
    }
    let number = u16::try_from(index).expect("there are fewer relays").to_be_bytes();
    bytes[..2].copy_from_slice(&number);
    RelayId(PublicKey(bytes))
}

/// The number of the relay that has this id.
pub(super) fn index(id: RelayId) -> usize {
    usize::from(u16::from_be_bytes([id.0.0[0], id.0.0[1]]))
}

/// A number of which every bit depends on every bit of `x` (SplitMix64).
pub(super) const fn mixed(x: u64) -> u64 {
    let x = x.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

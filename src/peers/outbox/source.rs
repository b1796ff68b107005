//! Who put a record into an outbox.

use std::hash::BuildHasher as _;
use std::net::SocketAddr;
use std::sync::LazyLock;

use foldhash::fast::RandomState;

use crate::wire::name::Name;

/// Seeded, so that nobody chooses to share a number with another.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// Identifies a source of packets within an outbox. Two kinds never meet in one number.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Source {
    /// A session here, by its generation.
    Session(u64),
    /// A peer whose packets another relay sends, by the hash of its name.
    Remote(u64),
    /// A UDP address, by its hash: not the sender that it claims, or one address could pass
    /// for many.
    Address(u64),
    /// The relay itself, or who embeds it.
    Ours,
    /// The relay itself, of a record that nothing pushes out.
    Kept,
}

impl Source {
    /// A UDP address.
    #[must_use]
    pub fn address(address: SocketAddr) -> Self {
        Self::Address(HASHER.hash_one(address))
    }

    /// A peer whose packets another relay sends.
    #[must_use]
    pub fn remote(peer: Name) -> Self {
        Self::Remote(HASHER.hash_one(peer))
    }
}

//! Who put a record into an outbox.

use crate::wire::name::Name;

/// Identifies a source of packets within an outbox. Two kinds never meet in one number.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Source {
    /// A session here, by its generation.
    Session(u64),
    /// A peer whose packets another relay sends.
    Remote(Name),
    /// A UDP address, by its hash: not the sender that it claims, or one address could pass
    /// for many.
    Address(u64),
    /// The relay itself, or who embeds it.
    Ours,
}

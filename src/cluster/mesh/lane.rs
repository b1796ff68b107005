//! The streams of a link.

/// Streams in each direction.
pub(super) const LANES: u8 = 2;

/// What a stream carries; its first byte.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Lane {
    /// Words of presence. They go first where both wait.
    Words = 0,
    /// Packets.
    Packets = 1,
}

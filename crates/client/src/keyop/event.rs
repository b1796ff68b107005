//! What a hub says, over either transport.

use bytes::Bytes;

/// What a hub says.
#[derive(Debug)]
pub(super) enum Event {
    /// The oldest batch that was published without an acknowledgement has one.
    Acknowledged {
        /// Whether it names a record.
        is_new: bool,
    },
    /// Records.
    Batch(Vec<Bytes>),
    /// It is there.
    Alive,
}

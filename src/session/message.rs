//! Messages of a WebSocket, as doors take them.

use crate::wire::Frames;

/// Whether a message is text.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Kind {
    /// It is not.
    #[default]
    Binary,
    /// It is, and nobody has looked whether it is UTF-8.
    Text,
}

/// Messages of one kind that came one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Messages<'a> {
    /// Which.
    pub kind: Kind,
    /// Their bytes.
    pub frames: Frames<'a>,
}

//! The calls of one session, where its door is spoken as methods of gRPC.

use std::borrow::Cow;

/// A call among those of one session.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CallId(pub u32);

/// How a peer ended its side of a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CallEnd {
    /// It has said everything, and waits for the end of the answer.
    Finished,
    /// It has given the call up.
    Cancelled,
}

/// How a call ends, in the words of gRPC.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Status {
    /// The code; 0 is success.
    pub code: u32,
    /// The message, as the header has it: percent-encoded.
    pub message: Cow<'static, str>,
}

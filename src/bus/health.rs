//! Whether the bus takes messages.

use std::fmt;

/// Whether the bus takes messages.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Health {
    /// It does.
    #[default]
    Serving,
    /// The disk has only what acknowledgements and logins need: new messages wait or are refused.
    Full,
    /// The store takes nothing, for this reason; everything waits.
    Unavailable(String),
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serving => f.write_str("serving"),
            Self::Full => f.write_str("full: new messages wait or are refused"),
            Self::Unavailable(reason) => f.write_str(reason),
        }
    }
}

//! What is wrong with a configuration: one line with the key, the value and the reason.

use std::fmt::{self, Write as _};
use std::path::PathBuf;

/// Why the configuration is refused.
///
/// The message is one line: the key as the operator wrote it, the value, the reason and
/// the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting has a value that it cannot have, alone or beside the others.
    #[error("{place} = {value:?}: {}", OneLine(reason))]
    Setting {
        /// Who said it.
        place: Place,
        /// What was said; the items of a list are joined by commas.
        value: String,
        /// Why not, and what to write instead.
        reason: String,
    },
    /// A file or folder that a setting names is missing, unreadable or holds nonsense.
    #[error("{place} = {path:?}: {}", OneLine(reason))]
    File {
        /// Who named it.
        place: Place,
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The configuration file is no TOML.
    #[error("{}: line {line}: {}", OneLine(path.display()), OneLine(reason))]
    Syntax {
        /// The configuration file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser expected.
        reason: String,
    },
}

impl Error {
    /// Whether a file is to blame, rather than the command line or the environment.
    #[must_use]
    pub const fn is_about_a_file(&self) -> bool {
        match self {
            Self::Setting { place, .. } => matches!(place.origin, Origin::File { .. }),
            Self::File { .. } | Self::Syntax { .. } => true,
        }
    }
}

/// Who gave a setting its value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    /// Nobody: it is the default.
    Default,
    /// A line of the configuration file.
    File {
        /// The configuration file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A `BEACON_RELAY_…` variable.
    Environment,
    /// The command line.
    Flag,
}

/// A setting, in the spelling of the place where it was said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// The key as the configuration file spells it, such as `outbox_age`.
    pub key: String,
    /// Where it was said.
    pub origin: Origin,
}

impl Place {
    /// The setting `key` on the command line.
    #[must_use]
    pub fn flag(key: &str) -> Self {
        Self { key: key.to_owned(), origin: Origin::Flag }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, origin } = self;
        match origin {
            Origin::Default | Origin::Flag => write!(f, "--{}", key.replace('_', "-")),
            Origin::Environment => f.write_str(&variable(key)),
            Origin::File { path, line } => {
                write!(f, "{}: line {line}: {}", OneLine(path.display()), OneLine(key))
            }
        }
    }
}

/// A text on one line, with escapes for line breaks and other control characters: an operator
/// may have written them into a key or a value.
pub(super) struct OneLine<T>(pub(super) T);

impl<T: fmt::Display> fmt::Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.to_string().chars().try_for_each(|char| {
            if char.is_control() {
                write!(f, "{}", char.escape_debug())
            } else {
                f.write_char(char)
            }
        })
    }
}

/// The environment variable of the setting `key`.
pub(super) fn variable(key: &str) -> String {
    format!("BEACON_RELAY_{}", key.to_ascii_uppercase())
}

/// Why a text is not a value of a setting, and what to write instead.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub(super) String);

impl From<&str> for Invalid {
    fn from(reason: &str) -> Self {
        Self(reason.to_owned())
    }
}

impl From<String> for Invalid {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

//! What is wrong with a configuration: one line with the key, the value and the reason.

use std::fmt::{self, Write as _};
use std::path::PathBuf;

/// Why the configuration is refused.
///
/// The message is one line: the key as the operator wrote it, the value, the reason and
/// the way out.
#[derive(Clone, Debug, thiserror::Error)]
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
    /// Several of these at once: two or more, each another, none of them several itself.
    #[error("{}", Numbered(.0))]
    Several(Vec<Self>),
}

impl Error {
    /// Whether a file is to blame, rather than the command line or the environment.
    #[must_use]
    pub fn is_about_a_file(&self) -> bool {
        match self {
            Self::Setting { place, .. } => matches!(place.origin, Origin::File { .. }),
            Self::File { .. } | Self::Syntax { .. } => true,
            Self::Several(mistakes) => mistakes.iter().all(Self::is_about_a_file),
        }
    }

    /// Each mistake for itself, in the order in which they were found.
    #[must_use]
    pub fn each(&self) -> &[Self] {
        match self {
            Self::Several(mistakes) => mistakes,
            Self::Setting { .. } | Self::File { .. } | Self::Syntax { .. } => {
                std::slice::from_ref(self)
            }
        }
    }
}

/// Several mistakes on one line.
struct Numbered<'a>(&'a [Error]);

impl fmt::Display for Numbered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} mistakes", self.0.len())?;
        self.0.iter().zip(1..).try_for_each(|(mistake, number)| write!(f, "; ({number}) {mistake}"))
    }
}

/// Collects what is wrong, so that an operator hears of all of it at once.
#[derive(Debug, Default)]
pub(super) struct Mistakes(Vec<Error>);

impl Mistakes {
    /// What was read; `None` where that was a mistake, which is kept.
    pub(super) fn take<T>(&mut self, read: Result<T, Error>) -> Option<T> {
        read.map_err(|error| self.add(error)).ok()
    }

    /// Keeps a mistake, unless it is known: settings are read by several who need them.
    pub(super) fn add(&mut self, error: Error) {
        let each = match error {
            Error::Several(mistakes) => mistakes,
            one @ (Error::Setting { .. } | Error::File { .. } | Error::Syntax { .. }) => vec![one],
        };
        for mistake in each {
            let text = mistake.to_string();
            if self.0.iter().all(|known| known.to_string() != text) {
                self.0.push(mistake);
            }
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same without the mistakes that do not matter to whoever asks.
    pub(super) fn end_unless(mut self, is_allowed: impl Fn(&Error) -> bool) -> Result<(), Error> {
        self.0.retain(|mistake| !is_allowed(mistake));
        self.end()
    }

    /// Nothing, or all that is wrong.
    pub(super) fn end(mut self) -> Result<(), Error> {
        match self.0.len() {
            0 => Ok(()),
            1 => Err(self.0.remove(0)),
            _ => Err(Error::Several(self.0)),
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
            Origin::Environment => write!(f, "{}", OneLine(variable(key))),
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

/// What the variables of all settings begin with.
pub(super) const PREFIX: &str = "BEACON_RELAY_";

/// The environment variable of the setting `key`.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase())
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

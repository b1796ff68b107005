//! The lines of a configuration that was translated.

use std::fmt::Write as _;

/// Lines of a configuration, each with what it was made of.
#[derive(Debug)]
pub(super) struct Lines(pub(super) String);

impl Lines {
    /// Adds a setting, and the place of what it was made of.
    pub(super) fn add(&mut self, key: &str, value: impl Into<toml::Value>, place: &str) {
        let value = value.into();
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{key} = {value} # {place}");
    }
}

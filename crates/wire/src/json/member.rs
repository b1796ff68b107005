//! Members of objects that shall be strings.

use std::borrow::Cow;

use super::{Literal, Malformed, Reader};

/// A member that shall be a string.
#[derive(Clone, Copy, Default)]
pub(crate) enum Text<'a> {
    /// It was not there, or `null`.
    #[default]
    Absent,
    /// The last that was there.
    String(Literal<'a>),
    /// One that was there is no string, which is wrong where the frame has such a member at all.
    Wrong,
}

impl<'a> Text<'a> {
    /// What it says, nothing where it was not there.
    pub(crate) fn text(self) -> Result<Cow<'a, str>, Malformed> {
        match self {
            Self::Absent => Ok(Cow::Borrowed("")),
            Self::String(literal) => Ok(literal.text()),
            Self::Wrong => Err(Malformed),
        }
    }

    pub(crate) fn read(&mut self, reader: &mut Reader<'a>) -> Result<(), Malformed> {
        match reader.peek() {
            Some(b'"') => {
                let literal = reader.string()?;
                if !matches!(self, Self::Wrong) {
                    *self = Self::String(literal);
                }
            }
            _ => {
                // `null` changes nothing.
                if reader.span()? != b"null" {
                    *self = Self::Wrong;
                }
            }
        }
        Ok(())
    }
}

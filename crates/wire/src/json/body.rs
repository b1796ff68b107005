//! A whole value in compact form.

use std::borrow::Cow;

use super::read::Sink;
use super::{Malformed, Reader};

/// A value as Go writes a raw one: without white space between its parts, `<`, `>`, `&`, U+2028 and
/// U+2029 as escapes; the rest to the byte as its author wrote it.
///
/// Its bytes are UTF-8 only where those of its author were.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Body<'a>(Cow<'a, [u8]>);

impl<'a> Body<'a> {
    /// The value of those who send none.
    pub const NULL: Body<'static> = Body(Cow::Borrowed(b"null"));

    /// Reads one value, with nothing but white space around it.
    ///
    /// # Errors
    /// The text is no JSON.
    pub fn parse(json: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(json);
        let body = Self::read(&mut reader)?;
        reader.end()?;
        Ok(body)
    }

    /// Takes the next value. Nothing is copied where it is compact already.
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        // White space in front is no part of it.
        reader.peek();
        let begin = reader.at();
        let mut compact = Compact { kept: begin, bytes: Vec::new() };
        reader.value(&mut compact)?;
        let whole = reader.since(begin);
        if compact.kept == begin {
            return Ok(Self(Cow::Borrowed(whole)));
        }
        compact.keep(reader.text(), reader.at());
        Ok(Self(Cow::Owned(compact.bytes)))
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same, as its own owner.
    #[must_use]
    pub fn into_owned(self) -> Body<'static> {
        Body(Cow::Owned(self.0.into_owned()))
    }
}

/// Copies what is kept of a text.
struct Compact {
    /// Up to where the text is dealt with.
    kept: usize,
    bytes: Vec<u8>,
}

impl Compact {
    fn keep(&mut self, text: &[u8], to: usize) {
        self.bytes.extend_from_slice(text.get(self.kept..to).unwrap_or_default());
    }
}

impl Sink for Compact {
    const LISTENS: bool = true;

    fn space(&mut self, text: &[u8], from: usize, to: usize) {
        self.keep(text, from);
        self.kept = to;
    }

    fn escape(&mut self, text: &[u8], from: usize, to: usize, escape: &'static [u8]) {
        self.keep(text, from);
        self.bytes.extend_from_slice(escape);
        self.kept = to;
    }
}

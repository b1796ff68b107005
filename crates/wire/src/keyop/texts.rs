//! Lists of strings in JSON.

use std::borrow::Cow;

use crate::json::{Malformed, Reader};

/// An array of strings, as it was written: routes, and channels that a peer asks for.
///
/// It is checked, and read anew each time that somebody looks: a long list costs no memory.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Texts<'a> {
    /// The array with its brackets; empty is an empty list.
    json: &'a [u8],
    count: usize,
}

impl<'a> Texts<'a> {
    /// Takes the next value, which is an array or `null`; an element that is `null` is an empty
    /// string, as with Go.
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let json = reader.span()?;
        if json == b"null" {
            return Ok(Self::default());
        }
        let mut elements = Reader::new(json);
        elements.expect(b'[')?;
        if elements.take(b']') {
            return Ok(Self::default());
        }
        let mut count = 0;
        loop {
            element(&mut elements)?;
            count += 1;
            if !elements.take(b',') {
                elements.expect(b']')?;
                return Ok(Self { json, count });
            }
        }
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The strings, in order.
    pub fn iter(&self) -> impl Iterator<Item = Cow<'a, str>> + use<'a> {
        let mut elements = Reader::new(self.json);
        (0..self.count).map(move |_| {
            // The bracket, or the comma.
            let is_between = elements.take(b'[') || elements.take(b',');
            debug_assert!(is_between, "the list was checked");
            element(&mut elements).expect("the list was checked")
        })
    }

    /// Whether this string is one of them.
    #[must_use]
    pub fn contains(&self, text: &str) -> bool {
        self.iter().any(|element| element == text)
    }
}

fn element<'a>(elements: &mut Reader<'a>) -> Result<Cow<'a, str>, Malformed> {
    if elements.peek() == Some(b'"') {
        return Ok(elements.string()?.text());
    }
    if elements.span()? == b"null" { Ok(Cow::Borrowed("")) } else { Err(Malformed) }
}

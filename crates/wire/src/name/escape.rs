//! The names of peers as one word of one line: peers choose them, and logs, terminals and tables
//! show them.

use std::borrow::Cow;
use std::fmt;

/// Writes on without what would not show, or would end the word.
pub(super) struct Escaped<'a, 'b>(pub(super) &'a mut fmt::Formatter<'b>);

impl fmt::Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '\\' => self.0.write_str(r"\\")?,
                c if is_plain(c) => self.0.write_char(c)?,
                c => fmt::Display::fmt(&c.escape_unicode(), self.0)?,
            }
        }
        Ok(())
    }
}

fn is_plain(c: char) -> bool {
    // What the standard library escapes has several characters.
    if c.is_ascii() { c.is_ascii_graphic() } else { c.escape_debug().len() == 1 }
}

/// The text that [`Escaped`] has written; `None` where it writes no such text.
pub(super) fn unescape(text: &str) -> Option<Cow<'_, str>> {
    let mut rest = text;
    let mut plain = String::new();
    while let Some((before, escape)) = rest.split_once('\\') {
        plain.push_str(before);
        rest = if let Some(rest) = escape.strip_prefix('\\') {
            plain.push('\\');
            rest
        } else {
            let (number, rest) = escape.strip_prefix("u{")?.split_once('}')?;
            plain.push(char::from_u32(u32::from_str_radix(number, 16).ok()?)?);
            rest
        };
    }
    if plain.is_empty() && rest.len() == text.len() {
        return Some(Cow::Borrowed(text));
    }
    plain.push_str(rest);
    Some(Cow::Owned(plain))
}

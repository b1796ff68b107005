//! Strings: what they stand for, and whether they are the name of a member.

use std::borrow::Cow;

/// A string as it was written, without its quotes; its escapes are well-formed.
#[derive(Clone, Copy)]
pub(crate) struct Literal<'a> {
    pub(super) raw: &'a [u8],
    pub(super) has_escapes: bool,
}

impl<'a> Literal<'a> {
    /// What it stands for. U+FFFD stands for each byte that is not of UTF-8 and for each escape of
    /// half a surrogate pair, as with Go.
    pub(crate) fn text(self) -> Cow<'a, str> {
        if self.has_escapes {
            return Cow::Owned(unescaped(self.raw));
        }
        match str::from_utf8(self.raw) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => Cow::Owned(unescaped(self.raw)),
        }
    }
}

fn unescaped(raw: &[u8]) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        let (plain, escape) = rest.split_at(at);
        push_lossy(&mut text, plain);
        let (character, length) = escaped(escape);
        text.push(character);
        rest = escape.get(length..).unwrap_or_default();
    }
    push_lossy(&mut text, rest);
    text
}

fn push_lossy(text: &mut String, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
}

/// The character of the escape that `text` begins with, and the length of the escape.
fn escaped(text: &[u8]) -> (char, usize) {
    match text {
        [_, b'b', ..] => ('\u{8}', 2),
        [_, b'f', ..] => ('\u{c}', 2),
        [_, b'n', ..] => ('\n', 2),
        [_, b'r', ..] => ('\r', 2),
        [_, b't', ..] => ('\t', 2),
        [_, b'u', ..] => {
            let unit = unit(text).expect("the reader has seen four digits");
            let pair = [unit, text.get(6..).and_then(self::unit).unwrap_or_default()];
            match char::decode_utf16(pair).next() {
                Some(Ok(character)) => (character, 6 * character.len_utf16()),
                Some(Err(_)) | None => (char::REPLACEMENT_CHARACTER, 6),
            }
        }
        [_, itself, ..] => (char::from(*itself), 2),
        [_] | [] => unreachable!("the reader has seen what follows"),
    }
}

/// The number of the escape `\uXXXX` that `text` begins with.
fn unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.first_chunk::<4>()?;
    u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

/// The name of a member as far as case does not matter, in lower case; short ones only.
#[derive(Default)]
pub(crate) struct MemberName {
    bytes: [u8; Self::LONGEST],
    length: usize,
}

impl MemberName {
    /// Of the longest that is known, `protocol_version`.
    const LONGEST: usize = 16;

    /// The name in lower case; `None` for one that is no known one in any case.
    pub(crate) fn of(literal: Literal<'_>) -> Option<Self> {
        let mut name = Self::default();
        if !literal.has_escapes && literal.raw.is_ascii() {
            let bytes = name.bytes.get_mut(..literal.raw.len())?;
            bytes.copy_from_slice(literal.raw);
            bytes.make_ascii_lowercase();
            name.length = literal.raw.len();
            return Some(name);
        }
        // No character is written with more than six bytes.
        if literal.raw.len() > 6 * Self::LONGEST {
            return None;
        }
        for character in literal.text().chars() {
            // These two differ from their letter only in case.
            let character = match character {
                '\u{17f}' => 's',
                '\u{212a}' => 'k',
                other => other.to_ascii_lowercase(),
            };
            let byte = u8::try_from(character).ok().filter(u8::is_ascii)?;
            *name.bytes.get_mut(name.length)? = byte;
            name.length += 1;
        }
        Some(name)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

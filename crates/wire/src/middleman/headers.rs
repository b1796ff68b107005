//! Header lines.

use super::{Malformed, split_line};

/// The headers of a message, in order, as their sender spelled them.
///
/// At most [`Self::MOST`], of at most [`Self::MOST_BYTES`] together. A name may be repeated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a> {
    /// Checked lines, each with its end.
    lines: &'a str,
}

/// A header.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// Its name, as its sender spelled it; see [`Self::push_name`].
    pub name: &'a str,
    /// Its value, without spaces and tabs around it.
    pub value: &'a str,
}

impl<'a> Headers<'a> {
    /// Most headers of a message.
    pub const MOST: usize = 128;

    /// Most bytes of the headers of a message, with the ends of lines.
    pub const MOST_BYTES: usize = 32_768;

    /// Reads header lines and the empty line behind them; also returns what follows that.
    pub(super) fn parse(text: &'a str) -> Result<(Self, &'a str), Malformed> {
        let mut rest = text;
        let mut count = 0;
        loop {
            let (line, behind) = split_line(rest).ok_or(Malformed::NoBlankLine)?;
            if line.is_empty() {
                let lines = &text[..text.len() - rest.len()];
                return Ok((Self { lines }, behind));
            }
            count += 1;
            if count > Self::MOST {
                return Err(Malformed::TooManyHeaders);
            }
            if text.len() - behind.len() > Self::MOST_BYTES {
                return Err(Malformed::HeadersTooLong);
            }
            Header::parse(line)?;
            rest = behind;
        }
    }

    /// Each header.
    pub fn iter(&self) -> impl Iterator<Item = Header<'a>> + use<'a> {
        let mut rest = self.lines;
        std::iter::from_fn(move || {
            let (line, behind) = split_line(rest)?;
            rest = behind;
            Some(Header::split(line).expect("the line was checked"))
        })
    }

    /// The first header of this name, in any case.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Header<'a>> {
        self.iter().find(|header| header.is(name))
    }
}

impl PartialEq for Headers<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers<'_> {}

impl<'a> Header<'a> {
    /// Reads a line that is not empty.
    fn parse(line: &'a str) -> Result<Self, Malformed> {
        if line.starts_with([' ', '\t']) {
            return Err(Malformed::LeadingSpace);
        }
        let header = Self::split(line).ok_or(Malformed::NoColon)?;
        let is_name = |byte: u8| byte == b' ' || is_token(byte);
        if header.name.is_empty() || !header.name.bytes().all(is_name) {
            return Err(Malformed::HeaderName);
        }
        if header.value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
            return Err(Malformed::HeaderValue);
        }
        Ok(header)
    }

    /// The parts of a line that has a colon.
    fn split(line: &'a str) -> Option<Self> {
        let (name, value) = line.split_once(':')?;
        Some(Self { name, value: value.trim_matches([' ', '\t']) })
    }

    /// Whether the header has this name, in any case.
    #[must_use]
    pub const fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// Appends the name in canonical case: the first letter and those behind a `-` are upper case,
    /// the others lower. A name with a space in it stays as it is.
    pub fn push_name(&self, out: &mut Vec<u8>) {
        if self.name.contains(' ') {
            return out.extend_from_slice(self.name.as_bytes());
        }
        let mut is_first = true;
        out.extend(self.name.bytes().map(|byte| {
            let cased =
                if is_first { byte.to_ascii_uppercase() } else { byte.to_ascii_lowercase() };
            is_first = byte == b'-';
            cased
        }));
    }
}

impl PartialEq for Header<'_> {
    /// Names with a space in them are equal in the same case only.
    fn eq(&self, other: &Self) -> bool {
        let is_same_name = match self.name.contains(' ') {
            true => self.name == other.name,
            false => self.is(other.name),
        };
        is_same_name && self.value == other.value
    }
}

impl Eq for Header<'_> {}

/// Whether a byte may stand in a token (RFC 9110 §5.6.2).
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

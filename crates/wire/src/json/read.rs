//! A reader that passes over values, and checks on the way that they are JSON (RFC 8259).

use super::plain::plain;
use super::{Literal, MAX_DEPTH, Malformed};

/// What a reader finds on its way through a value that is written anew in compact form.
///
/// Places are those of the text that the reader reads.
pub(crate) trait Sink {
    /// Whether anybody wants to know.
    const LISTENS: bool;

    /// White space from `from` up to `to`.
    fn space(&mut self, text: &[u8], from: usize, to: usize);

    /// What is written as `escape` from `from` up to `to`.
    fn escape(&mut self, text: &[u8], from: usize, to: usize, escape: &'static [u8]);
}

/// Nobody wants to know.
pub(crate) struct Nobody;

impl Sink for Nobody {
    const LISTENS: bool = false;

    fn space(&mut self, _text: &[u8], _from: usize, _to: usize) {}

    fn escape(&mut self, _text: &[u8], _from: usize, _to: usize, _escape: &'static [u8]) {}
}

/// How Go writes `<`, `>`, `&`, U+2028 and U+2029, where `text` begins with one of them, and how
/// many bytes of it that is.
pub(super) fn rewritten(text: &[u8]) -> Option<(&'static [u8], usize)> {
    match text {
        [b'<', ..] => Some((b"\\u003c", 1)),
        [b'>', ..] => Some((b"\\u003e", 1)),
        [b'&', ..] => Some((b"\\u0026", 1)),
        [0xe2, 0x80, 0xa8, ..] => Some((b"\\u2028", 3)),
        [0xe2, 0x80, 0xa9, ..] => Some((b"\\u2029", 3)),
        _ => None,
    }
}

/// The objects and arrays around a place, the innermost last: a bit each, so that the deepest text
/// costs 1.25 KB and no recursion.
#[derive(Default)]
struct Nest {
    /// The innermost 64; 1 stands for an object.
    innermost: u64,
    /// The rest, 64 each.
    outer: Vec<u64>,
    depth: usize,
}

impl Nest {
    fn enter(&mut self, is_object: bool) -> Result<(), Malformed> {
        // What is read here is a member of an object already.
        if self.depth + 1 == MAX_DEPTH {
            return Err(Malformed);
        }
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.innermost);
        }
        self.innermost = (self.innermost << 1) | u64::from(is_object);
        self.depth += 1;
        Ok(())
    }

    fn leave(&mut self) {
        self.depth -= 1;
        self.innermost >>= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.innermost = self.outer.pop().expect("as many were pushed on the way in");
        }
    }

    const fn is_outside(&self) -> bool {
        self.depth == 0
    }

    const fn is_object(&self) -> bool {
        self.innermost & 1 == 1
    }
}

/// A place in a text.
pub(crate) struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// The next byte that is no white space.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        self.space(&mut Nobody);
        self.text.get(self.at).copied()
    }

    /// Takes the next byte that is no white space, if it is this one.
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Takes this byte, in front of which there may be white space.
    pub(crate) fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.take(byte) { Ok(()) } else { Err(Malformed) }
    }

    /// Nothing but white space may follow.
    pub(crate) fn end(&mut self) -> Result<(), Malformed> {
        if self.peek().is_none() { Ok(()) } else { Err(Malformed) }
    }

    /// Takes a string.
    pub(crate) fn string(&mut self) -> Result<Literal<'a>, Malformed> {
        self.expect(b'"')?;
        self.literal(&mut Nobody)
    }

    /// Takes a value, whatever it is: its bytes.
    pub(crate) fn span(&mut self) -> Result<&'a [u8], Malformed> {
        self.space(&mut Nobody);
        let from = self.at;
        self.value(&mut Nobody)?;
        Ok(self.since(from))
    }

    /// What was taken since `from`.
    pub(super) fn since(&self, from: usize) -> &'a [u8] {
        self.text.get(from..self.at).unwrap_or_default()
    }

    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    pub(super) const fn text(&self) -> &'a [u8] {
        self.text
    }

    /// Takes a value.
    pub(super) fn value(&mut self, sink: &mut impl Sink) -> Result<(), Malformed> {
        let mut nest = Nest::default();
        loop {
            self.space(sink);
            match self.byte()? {
                b'"' => drop(self.literal(sink)?),
                b'{' => {
                    nest.enter(true)?;
                    self.space(sink);
                    if !self.skip(b'}') {
                        self.name(sink)?;
                        continue;
                    }
                    nest.leave();
                }
                b'[' => {
                    nest.enter(false)?;
                    self.space(sink);
                    if !self.skip(b']') {
                        continue;
                    }
                    nest.leave();
                }
                first @ (b'-' | b'0'..=b'9') => self.number(first)?,
                b't' => self.word(b"rue")?,
                b'f' => self.word(b"alse")?,
                b'n' => self.word(b"ull")?,
                _ => return Err(Malformed),
            }
            // A value has ended: what is around it goes on, or ends as well.
            loop {
                if nest.is_outside() {
                    return Ok(());
                }
                self.space(sink);
                match (self.byte()?, nest.is_object()) {
                    (b',', false) => break,
                    (b',', true) => {
                        self.space(sink);
                        self.name(sink)?;
                        break;
                    }
                    (b'}', true) | (b']', false) => nest.leave(),
                    _ => return Err(Malformed),
                }
            }
        }
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        let byte = self.text.get(self.at).copied().ok_or(Malformed)?;
        self.at += 1;
        Ok(byte)
    }

    fn skip(&mut self, byte: u8) -> bool {
        let is_next = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn space(&mut self, sink: &mut impl Sink) {
        let from = self.at;
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.text.get(self.at) {
            self.at += 1;
        }
        if self.at > from {
            sink.space(self.text, from, self.at);
        }
    }

    /// The name of a member and the colon behind it.
    fn name(&mut self, sink: &mut impl Sink) -> Result<(), Malformed> {
        if self.byte()? != b'"' {
            return Err(Malformed);
        }
        self.literal(sink)?;
        self.space(sink);
        if self.byte()? == b':' { Ok(()) } else { Err(Malformed) }
    }

    fn word(&mut self, rest: &[u8]) -> Result<(), Malformed> {
        if !self.rest().starts_with(rest) {
            return Err(Malformed);
        }
        self.at += rest.len();
        Ok(())
    }

    fn number(&mut self, first: u8) -> Result<(), Malformed> {
        let first = if first == b'-' { self.byte()? } else { first };
        match first {
            // No other digit follows a leading zero.
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return Err(Malformed),
        }
        if self.skip(b'.') {
            self.some_digits()?;
        }
        if self.skip(b'e') || self.skip(b'E') {
            let _has_sign = self.skip(b'+') || self.skip(b'-');
            self.some_digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) {
        self.at += self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
    }

    fn some_digits(&mut self) -> Result<(), Malformed> {
        let from = self.at;
        self.digits();
        if self.at > from { Ok(()) } else { Err(Malformed) }
    }

    /// What is behind the quote that begins a string, up to the one that ends it.
    fn literal<S: Sink>(&mut self, sink: &mut S) -> Result<Literal<'a>, Malformed> {
        let from = self.at;
        let mut has_escapes = false;
        loop {
            self.at += plain(self.rest());
            let begin = self.at;
            match self.byte()? {
                b'"' => {
                    let raw = self.text.get(from..begin).unwrap_or_default();
                    return Ok(Literal { raw, has_escapes });
                }
                b'\\' => {
                    has_escapes = true;
                    self.escape()?;
                }
                // Stands only in escapes.
                ..0x20 => return Err(Malformed),
                _ if S::LISTENS => {
                    let found = self.text.get(begin..).and_then(rewritten);
                    if let Some((escape, length)) = found {
                        self.at = begin + length;
                        sink.escape(self.text, begin, self.at, escape);
                    }
                }
                _ => {}
            }
        }
    }

    /// What is behind a backslash.
    fn escape(&mut self) -> Result<(), Malformed> {
        match self.byte()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => {
                let digits = self.rest().first_chunk::<4>().ok_or(Malformed)?;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(Malformed);
                }
                self.at += digits.len();
                Ok(())
            }
            _ => Err(Malformed),
        }
    }
}

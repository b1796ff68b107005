//! Bodies: lines up to a line that is a dot.

use std::borrow::Cow;

/// The body of a message: lines, of which the last may be empty.
///
/// A body without lines and a body with one empty line are the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct Body<'a> {
    /// Lines, without the end of the last.
    lines: &'a str,
    form: Form,
}

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Form {
    /// As in a frame and as in a text: no line begins with a dot or ends with CR before its LF.
    #[default]
    Plain,
    /// As in a frame: a line may end with CRLF, and one that begins with two dots has one too many.
    Framed,
    /// As in a text.
    Text,
}

impl<'a> Body<'a> {
    /// The body whose lines are those of this text.
    #[must_use]
    pub const fn of(text: &'a str) -> Self {
        Self { lines: text, form: Form::Text }
    }

    /// Reads lines up to one that is a dot; `None` if no line is.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let mut form = Form::Plain;
        let mut rest = text;
        // Where the last line ends, and whether it ended with CRLF.
        let mut end = 0;
        let mut ends_with_cr = false;
        loop {
            let (line, behind) = rest.split_once('\n')?;
            if line == "." || line == ".\r" {
                return Some(Self { lines: &text[..end], form });
            }
            // The line before this one is not the last.
            if ends_with_cr || line.starts_with('.') {
                form = Form::Framed;
            }
            ends_with_cr = line.ends_with('\r');
            end = text.len() - behind.len() - if ends_with_cr { 2 } else { 1 };
            rest = behind;
        }
    }

    /// Each line, without its end. There is one at least.
    pub fn lines(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let is_framed = self.form == Form::Framed;
        let mut lines = self.lines.split('\n').peekable();
        std::iter::from_fn(move || {
            let line = lines.next()?;
            if !is_framed {
                return Some(line);
            }
            // The end of the last line is gone.
            let is_last = lines.peek().is_none();
            let line = if is_last { line } else { line.strip_suffix('\r').unwrap_or(line) };
            Some(if line.starts_with("..") { &line[1..] } else { line })
        })
    }

    /// The lines as a text, with LF between them.
    #[must_use]
    pub fn text(&self) -> Cow<'a, str> {
        if self.form != Form::Framed {
            return Cow::Borrowed(self.lines);
        }
        let mut text = String::with_capacity(self.lines.len());
        for (index, line) in self.lines().enumerate() {
            if index > 0 {
                text.push('\n');
            }
            text.push_str(line);
        }
        Cow::Owned(text)
    }

    /// How many bytes the lines take in the frame or text that they are from.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether the only line is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Appends the lines, the end of the last, and the line that is a dot.
    pub(super) fn push(&self, out: &mut Vec<u8>) {
        if self.form == Form::Plain {
            out.extend_from_slice(self.lines.as_bytes());
        } else {
            let mut lines = self.lines().peekable();
            while let Some(line) = lines.next() {
                if line == "." || line.starts_with("..") {
                    out.push(b'.');
                }
                out.extend_from_slice(line.as_bytes());
                if lines.peek().is_some() {
                    // Else the CR would be taken for one of the line's end.
                    let end: &[u8] = if line.ends_with('\r') { b"\r\n" } else { b"\n" };
                    out.extend_from_slice(end);
                }
            }
        }
        out.extend_from_slice(b"\r\n.\r\n");
    }
}

impl PartialEq for Body<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.lines().eq(other.lines())
    }
}

impl Eq for Body<'_> {}

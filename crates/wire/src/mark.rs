//! The byte order mark that some editors write at the beginning of a text file.

/// The mark, in UTF-8.
pub const MARK: &str = "\u{feff}";

/// The text without the mark at its beginning.
#[must_use]
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix(MARK).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mark_at_the_beginning_is_left_out() {
        assert_eq!(without_mark("\u{feff}a\u{feff}"), "a\u{feff}");
        assert_eq!(without_mark("a"), "a");
        assert_eq!(MARK.as_bytes(), [0xef, 0xbb, 0xbf]);
    }
}

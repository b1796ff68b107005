//! Texts in the language of manual pages.

/// A text that roff shows as it is.
pub(super) fn plain(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('`', "");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_roff_would_obey_is_shown() {
        assert_eq!(plain(".SH x"), "\\&.SH x");
        assert_eq!(plain("a\\b --c"), "a\\eb \\-\\-c");
    }
}

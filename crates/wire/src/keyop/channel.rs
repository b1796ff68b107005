//! Names of channels.

/// Longest name, in bytes: the original makes folders of them.
pub const MAX_NAME: usize = 255;

/// What the name of a channel of dead letters ends with.
const DEAD_LETTER: &str = ".dead-letter";

/// Whether a channel may have this name: 1 to [`MAX_NAME`] of `A-Z a-z 0-9 . _ -`, and not only dots.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let is_of_names = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    text.len() <= MAX_NAME && text.bytes().all(is_of_names) && text.bytes().any(|byte| byte != b'.')
}

/// Whether records that nobody could deliver are kept here: peers do not publish to it.
#[must_use]
pub fn is_dead_letter(name: &str) -> bool {
    name.ends_with(DEAD_LETTER)
}

/// The channel that takes dead letters of this one.
#[must_use]
pub fn dead_letter(name: &str) -> String {
    format!("{name}{DEAD_LETTER}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_have_names_that_folders_may_have() {
        let longest = "a".repeat(MAX_NAME);
        for good in ["orders", "a", "Ab.c_d-9", "..a", ".a", "orders.dead-letter", &longest] {
            assert!(is_name(good), "{good}");
        }
        let longer = "a".repeat(MAX_NAME + 1);
        for bad in ["", ".", "..", "...", "a/b", "../x", "a b", "ä", "a\0", "a\n", &longer] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn channels_of_dead_letters_are_known_by_their_names() {
        assert!(is_dead_letter("orders.dead-letter"));
        assert!(is_dead_letter(&dead_letter("orders")));
        assert!(!is_dead_letter("dead-letter"));
        assert!(!is_dead_letter("orders.dead-letters"));
    }
}

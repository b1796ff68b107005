//! Topics of a door, as operators see them.

use std::fmt::Write as _;

use serde::Serialize;

/// What there is of a topic here.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Topic {
    /// Its name, as [`one_line`] writes it.
    pub name: String,
    /// Sessions that subscribe to it.
    pub subscribers: usize,
    /// Whether clients may publish to it,
    pub clients_publish: bool,
    /// and subscribe.
    pub clients_subscribe: bool,
    /// Sessions that answer its requests.
    pub responders: usize,
    /// Requests that they work on at a time, all together.
    pub workers: usize,
    /// Requests that they have not answered.
    pub outstanding: usize,
}

/// In which order topics are listed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TopicOrder {
    /// Of their names.
    Name,
    /// Those with the most requests that wait first, then those with the most subscribers.
    Busiest,
}

/// Some of a door's topics.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Topics {
    /// How many there are, listed or not.
    pub total: usize,
    /// The first of them.
    pub topics: Vec<Topic>,
}

/// A name that peers have chosen as one line, for terminals and tables: what would not show, or would
/// turn the direction of what does, is `\u{…}`, and a backslash is two.
#[must_use]
pub fn one_line(name: &str) -> String {
    let mut line = String::with_capacity(name.len());
    for character in name.chars() {
        let written = match character {
            ' ' | '"' | '\'' => line.write_char(character),
            // What the standard library escapes has several characters.
            shown if shown.escape_debug().len() == 1 => line.write_char(shown),
            '\\' => line.write_str("\\\\"),
            hidden => write!(line, "{}", hidden.escape_unicode()),
        };
        written.expect("a string takes all");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_one_line_that_shows_all_of_it() {
        for name in ["Chat", "a b", "it's \"so\"", "caf\u{e9} \u{1f980}"] {
            assert_eq!(one_line(name), name);
        }
        let hostile = "a\u{1b}[2J\tb\rc\u{202e}d\\u{7}\u{200b}";
        let shown = r"a\u{1b}[2J\u{9}b\u{d}c\u{202e}d\\u{7}\u{200b}";
        assert_eq!(one_line(hostile), shown);
    }
}

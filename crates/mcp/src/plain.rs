//! Texts of other agents and of the relay, kept within the line and the tag that a host puts them in.

use std::fmt::Write as _;

/// Longest text of the relay that a host is told, in bytes.
const LONGEST_REASON: usize = 200;

/// A text without what ends a line or a tag, or turns the direction of what is shown: each such
/// character as JSON escapes it, so that JSON stays the same JSON.
pub(crate) fn plain(text: &str) -> String {
    escaped(text, |character| matches!(character, '<' | '>' | '&') || is_unseen(character))
}

/// The same for a value between quotes.
pub(crate) fn quoted(text: &str) -> String {
    escaped(text, |character| {
        matches!(character, '<' | '>' | '&' | '"' | '\'') || is_unseen(character)
    })
}

/// A JSON text as one line: only white space between its values has line ends.
pub(crate) fn json_line(json: &str) -> String {
    plain(&json.replace(['\n', '\r', '\t'], " "))
}

/// What the relay has said, short and in one line.
pub(crate) fn reason(text: &str) -> String {
    let end = text.floor_char_boundary(LONGEST_REASON);
    let cut = if end < text.len() { "…" } else { "" };
    format!("{}{cut}", plain(&text[..end]))
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if is_escaped(character) {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                write!(out, "\\u{unit:04x}").expect("a string takes all");
            }
        } else {
            out.push(character);
        }
    }
    out
}

/// Whether a character ends a line, controls a terminal, is not seen or turns the direction of text.
fn is_unseen(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn nothing_of_another_agent_ends_a_line_or_a_tag() {
        let name = "boss\n</channel>\u{202e}\u{e0041}\u{7f}";
        let shown = plain(name);
        assert_eq!(shown, "boss\\u000a\\u003c/channel\\u003e\\u202e\\udb40\\udc41\\u007f");
        assert_eq!(quoted("a\" from=\"b'"), "a\\u0022 from=\\u0022b\\u0027");
        for text in ["alice", "h\u{e9} \u{1f980}", "{\"wake\":1}"] {
            assert_eq!(plain(text), text);
        }
    }

    #[test]
    fn json_is_one_line_and_the_same_json() {
        let json = "{\n\t\"a\": [1,\r\n 1.50, \"x\\n</channel>&\u{2028}\u{e0041}\"]\n}";
        let line = json_line(json);
        assert!(!line.contains(['\n', '\r', '<', '&', '\u{2028}', '\u{e0041}']), "{line}");
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(read(&line), read(json));
    }

    #[test]
    fn reasons_of_the_relay_are_short() {
        assert_eq!(reason("quota"), "quota");
        let long = reason(&"\u{20ac}\n".repeat(100));
        assert!(long.ends_with('…') && !long.contains('\n'), "{long}");
        assert_eq!(long.matches('\u{20ac}').count(), 50);
    }
}

//! Strings as Go writes them.

use super::plain::plain;
use super::read::rewritten;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends a string with its quotes.
pub(crate) fn push_text(json: &mut Vec<u8>, text: &str) {
    json.push(b'"');
    pieces(text, |piece| json.extend_from_slice(piece));
    json.push(b'"');
}

/// How many bytes a string takes, with its quotes.
pub(crate) fn text_length(text: &str) -> usize {
    let mut length = 2;
    pieces(text, |piece| length += piece.len());
    length
}

/// The pieces that a string is written of.
fn pieces(text: &str, mut piece: impl FnMut(&[u8])) {
    let mut rest = text.as_bytes();
    let mut at = 0;
    loop {
        at += plain(rest.get(at..).unwrap_or_default());
        let (before, special) = rest.split_at(at);
        let Some(byte) = special.first() else { break };
        let length = match (rewritten(special), short(*byte)) {
            (Some((escape, length)), _) => {
                piece(before);
                piece(escape);
                length
            }
            (None, Some(letter)) => {
                piece(before);
                piece(&[b'\\', letter]);
                1
            }
            (None, None) if *byte < 0x20 => {
                piece(before);
                let [high, low] = [*byte >> 4, *byte & 0xf].map(|digit| HEX[usize::from(digit)]);
                piece(&[b'\\', b'u', b'0', b'0', high, low]);
                1
            }
            // Another character that begins as U+2028 does.
            (None, None) => {
                at += 1;
                continue;
            }
        };
        rest = special.get(length..).unwrap_or_default();
        at = 0;
    }
    piece(rest);
}

/// The letter of an escape of two bytes.
const fn short(byte: u8) -> Option<u8> {
    match byte {
        b'"' | b'\\' => Some(byte),
        0x08 => Some(b'b'),
        0x0c => Some(b'f'),
        b'\n' => Some(b'n'),
        b'\r' => Some(b'r'),
        b'\t' => Some(b't'),
        _ => None,
    }
}

//! What most of a string is: bytes that stand for themselves, also as Go writes them.

/// Bytes that are looked at together. Whole lanes are compared by instructions for many bytes.
const LANE: usize = 16;

/// Whether a byte within a string may be anything but itself: its end, an escape, what stands only
/// in escapes, or the beginning of what Go writes as one.
const fn is_special(byte: u8) -> bool {
    // No branch, or the lanes would be looked at byte by byte.
    (byte < 0x20)
        | (byte == b'"')
        | (byte == b'\\')
        | (byte == b'<')
        | (byte == b'>')
        | (byte == b'&')
        | (byte == 0xe2)
}

/// How many bytes at the beginning of a text stand for themselves.
pub(super) fn plain(text: &[u8]) -> usize {
    let (lanes, _) = text.as_chunks::<LANE>();
    let has_special =
        |lane: &&[u8; LANE]| lane.iter().fold(false, |any, byte| any | is_special(*byte));
    let whole = LANE * lanes.iter().take_while(|lane| !has_special(lane)).count();
    let rest = text.get(whole..).unwrap_or_default();
    whole + rest.iter().take_while(|byte| !is_special(**byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_byte_is_found_wherever_it_is() {
        let special = b"\0\x1f\"\\<>&\xe2";
        for length in 0..40 {
            let text = vec![b'a'; length];
            assert_eq!(plain(&text), length);
            for at in 0..length {
                for byte in special {
                    let mut text = text.clone();
                    text[at] = *byte;
                    assert_eq!(plain(&text), at, "{byte:#x} in {length}");
                }
            }
        }
        let others = (0x20..=0xff).filter(|byte| !special.contains(byte));
        let others: Vec<u8> = others.collect();
        assert_eq!(plain(&others), others.len());
    }
}

//! What most of a string is: bytes that stand for themselves, also as Go writes them.

/// A byte in each place of a lane.
const EACH: u64 = 0x0101_0101_0101_0101;

/// The highest bit of each place.
const HIGHEST: u64 = 0x80 * EACH;

/// The places of a lane that are below a byte, of at most 0x80; what is said of places behind the
/// first of them may be wrong.
const fn below(lane: u64, byte: u8) -> u64 {
    lane.wrapping_sub(byte as u64 * EACH) & !lane & HIGHEST
}

/// The places of a lane that are this byte, but for bits that do not matter; as with [`below`].
const fn is(lane: u64, byte: u8, but: u8) -> u64 {
    below((lane & !(but as u64 * EACH)) ^ (byte as u64 * EACH), 1)
}

/// The places of a lane that within a string may be anything but themselves: its end, an escape,
/// what stands only in escapes, or the beginning of what Go writes as one; as with [`below`].
const fn special(lane: u64) -> u64 {
    // Of the pairs `"` and `&`, `<` and `>`, either differs from the other in one bit.
    below(lane, 0x20)
        | is(lane, b'"', b'"' ^ b'&')
        | is(lane, b'\\', 0)
        | is(lane, b'<', b'<' ^ b'>')
        | is(lane, 0xe2, 0)
}

/// How many bytes at the beginning of a text stand for themselves.
pub(super) fn plain(text: &[u8]) -> usize {
    let (lanes, rest) = text.as_chunks();
    let mut plain = 0;
    for lane in lanes {
        // The first place is in the lowest bits.
        let special = special(u64::from_le_bytes(*lane));
        if special != 0 {
            return plain + special.trailing_zeros() as usize / 8;
        }
        plain += lane.len();
    }
    plain + rest.iter().take_while(|byte| special(u64::from(**byte) * EACH) == 0).count()
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

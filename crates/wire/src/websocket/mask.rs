//! Masking: exclusive or with a repeating key of four bytes (RFC 6455 §5.3).

/// Masks or unmasks `bytes` in place; `mask` is aligned to their first byte.
#[inline]
pub fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) {
    let wide = u128::from_ne_bytes([mask; 4].as_flattened().try_into().expect("4 times 4 is 16"));
    let (chunks, rest) = bytes.as_chunks_mut::<16>();
    for chunk in chunks {
        *chunk = (u128::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_byte_by_byte_definition_at_every_length() {
        let mask = [0x12, 0x34, 0x56, 0x78];
        for length in 0..100u8 {
            let plain: Vec<u8> = (0..length).collect();
            let expected: Vec<u8> =
                plain.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]).collect();
            let mut masked = plain.clone();
            apply_mask(&mut masked, mask);
            assert_eq!(masked, expected);
            apply_mask(&mut masked, mask);
            assert_eq!(masked, plain);
        }
    }
}

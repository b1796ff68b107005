//! Sizes such as `256KiB`: a whole number of bytes, or of a unit.

/// The units, with their lengths in bytes.
const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// How a size is written.
pub(in crate::config) const HOW: &str = "not a whole number of bytes, nor one with a unit, such as \
                                         256KiB; the units are KiB, MiB, GiB, TiB, kB, MB, GB, TB";

/// The number of bytes that a text with a unit means; `None` where it has none, or is no size.
pub(in crate::config) fn in_bytes(text: &str) -> Option<String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, length) = UNITS.iter().find(|(name, _)| *name == unit)?;
    Some(number.parse::<u64>().ok()?.checked_mul(*length)?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_with_a_unit_is_so_many_bytes() {
        for (text, bytes) in [
            ("256KiB", "262144"),
            ("1MiB", "1048576"),
            ("2GiB", "2147483648"),
            ("1TiB", "1099511627776"),
            ("64kB", "64000"),
            ("1GB", "1000000000"),
            ("7B", "7"),
        ] {
            assert_eq!(in_bytes(text).as_deref(), Some(bytes));
        }
        for text in ["", "1", "KiB", "-1KiB", "1.5MiB", "1 MiB", "1kib", "1K", "99999999999TiB"] {
            assert_eq!(in_bytes(text), None, "{text:?}");
        }
    }
}

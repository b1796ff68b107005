//! A file of keys, one a line: of each only its SHA-256 is kept.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::small_file::contents;

/// Most keys of a file: a login is compared with all of them.
const MOST_KEYS: usize = 1_024;

/// Longest key, in bytes.
pub const LONGEST_KEY: usize = 4_096;

/// The keys of a file.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Keys(Arc<[KeyDigest]>);

/// The SHA-256 of a key, which is not shown.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct KeyDigest(pub [u8; 32]);

impl KeyDigest {
    /// That of a key.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Whether two are the same, in a time that does not say where they differ.
    fn is(&self, other: &Self) -> bool {
        let difference = self.0.iter().zip(&other.0).fold(0, |sum, (one, two)| sum | one ^ two);
        std::hint::black_box(difference) == 0
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest(…)")
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

impl Keys {
    /// Reads a file, and checks each line.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let text = contents(path)?;
        Self::parse(&text)
    }

    /// The keys of a text. What is wrong is told with the number of its line, and never with what
    /// stands there.
    ///
    /// # Errors
    /// It has none, or too many; one is too long, or stands there twice.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut keys: Vec<(KeyDigest, usize)> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let key = line.trim();
            if key.is_empty() || key.starts_with('#') {
                continue;
            }
            let number = index + 1;
            if key.len() > LONGEST_KEY {
                return Err(format!(
                    "line {number}: its key has more than {LONGEST_KEY} bytes; write a shorter one"
                ));
            }
            let digest = KeyDigest::of(key.as_bytes());
            if let Some((_, before)) = keys.iter().find(|(known, _)| *known == digest) {
                return Err(format!(
                    "line {number}: its key stands on line {before} already; remove one"
                ));
            }
            if keys.len() == MOST_KEYS {
                return Err(format!("line {number}: more than {MOST_KEYS} keys; remove some"));
            }
            keys.push((digest, number));
        }
        if keys.is_empty() {
            return Err("no key in it; write one a line".to_owned());
        }
        Ok(Self(keys.into_iter().map(|(digest, _)| digest).collect()))
    }

    /// Whether this is one of them, in a time that does not depend on how much of it is right.
    #[must_use]
    pub fn has(&self, digest: &KeyDigest) -> bool {
        self.0.iter().fold(false, |found, key| found | key.is(digest))
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether one of them is among others as well.
    pub(super) fn meets(&self, others: &Self) -> bool {
        self.0.iter().any(|key| others.0.contains(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_a_key_and_all_of_them_are_valid() {
        let keys = Keys::parse("# services\n\nxyzzy\n  two words \n#plugh\n").unwrap();
        for known in [&b"xyzzy"[..], b"two words"] {
            assert!(keys.has(&KeyDigest::of(known)), "{known:?}");
        }
        for unknown in [&b""[..], b"xyzz", b"xyzzy\n", b"plugh", b"#plugh", b"two"] {
            assert!(!keys.has(&KeyDigest::of(unknown)), "{unknown:?}");
        }
        assert!(keys.meets(&Keys::parse("plugh\nxyzzy").unwrap()));
        assert!(!keys.meets(&Keys::parse("plugh").unwrap()));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_nothing_of_a_key_is_shown() {
        for (text, reason) in [
            ("", "no key in it"),
            ("# hunter2", "no key in it"),
            ("hunter2\nother\nhunter2", "line 3: its key stands on line 1 already"),
        ] {
            let error = Keys::parse(text).unwrap_err();
            assert!(error.starts_with(reason), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let long = "x".repeat(LONGEST_KEY + 1);
        assert!(Keys::parse(&long).unwrap_err().starts_with("line 1: its key has more"));
        let many: String = (0..=MOST_KEYS).map(|number| format!("{number}\n")).collect();
        assert_eq!(Keys::parse(&many).unwrap_err(), "line 1025: more than 1024 keys; remove some");
        let shown = format!("{:?} {:?}", Keys::parse("hunter2"), KeyDigest::of(b"hunter2"));
        assert_eq!(shown, "Ok(Keys(1)) KeyDigest(…)");
    }
}

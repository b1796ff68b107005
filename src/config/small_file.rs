//! Files that a setting names and that are read whole: the configuration, secrets, fingerprints.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::unreadable::remedy;
use crate::wire::mark::MARK;

/// Largest file that a setting can name and that is read here, in bytes.
const MAX_FILE: u64 = 1_048_576;

/// Reads a whole file of at most [`MAX_FILE`] bytes, and no endless one; why it cannot be read, and
/// what to do.
pub(super) fn contents(path: &Path) -> Result<String, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}; {}", remedy(&error));
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    let length = file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
    if length as u64 > MAX_FILE {
        return Err(format!("it has more than {MAX_FILE} bytes; name another file"));
    }
    if text.starts_with(MARK) {
        text.drain(..MARK.len());
    }
    Ok(text)
}

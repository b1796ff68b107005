//! Files that a setting names and that are read whole: the configuration, secrets, fingerprints.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use crate::wire::mark::MARK;

/// Largest file that a setting can name and that is read here, in bytes.
const MAX_FILE: u64 = 1_048_576;

/// Reads a whole file of at most [`MAX_FILE`] bytes, and no endless one.
pub(super) fn contents(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    if File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)? as u64 > MAX_FILE {
        return Err(io::Error::other(format!("it has more than {MAX_FILE} bytes")));
    }
    if text.starts_with(MARK) {
        text.drain(..MARK.len());
    }
    Ok(text)
}

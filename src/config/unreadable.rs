//! What to do about a file or folder that the system refuses.

use std::io::{Error, ErrorKind};

/// What to do about a file that cannot be read or written, in a few words.
#[must_use]
#[expect(clippy::wildcard_enum_match_arm, reason = "the others are of the disk, or of no file")]
pub fn remedy(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "name one that is there, or make it",
        ErrorKind::AlreadyExists => "name another, or move that one away",
        ErrorKind::PermissionDenied => {
            "give the user who runs this the right to, by chown or chmod"
        }
        ErrorKind::IsADirectory => "that is a folder: name a file",
        ErrorKind::NotADirectory => "a part of its path is a file: name another",
        ErrorKind::InvalidData => "name a text in UTF-8",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room on its disk",
        ErrorKind::ReadOnlyFilesystem => "name one on a disk that can be written to",
        _ => "look at its disk (dmesg)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_file_is_to_be_named_or_made_and_a_forbidden_one_to_be_given() {
        assert_eq!(remedy(&ErrorKind::NotFound.into()), "name one that is there, or make it");
        assert!(remedy(&ErrorKind::PermissionDenied.into()).starts_with("give the user"));
        assert!(remedy(&Error::other("broken")).contains("dmesg"));
    }
}

//! What a command prints for whoever called it.

use std::io::{self, ErrorKind, Write as _};

use anyhow::Context as _;

use super::Exit;

/// Writes `text` to stdout; a reader that has seen enough, such as `head`, is no error.
pub(super) fn print(text: &str) -> Result<(), Exit> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("stdout cannot be written").map_err(Exit::from)
        }
        _ => Ok(()),
    }
}

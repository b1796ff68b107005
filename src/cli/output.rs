//! What a command prints for whoever called it.

use std::io::{self, ErrorKind, Write as _};
use std::sync::mpsc;
use std::thread;

use anyhow::Context as _;

use super::Exit;
use super::logging::LAST_LINES_TIME;

/// Writes `text` to stdout; a reader that has seen enough, such as `head`, is no error.
pub(super) fn print(text: &str) -> Result<(), Exit> {
    goes_on(text).map(drop)
}

/// Writes `text` to stdout; whether somebody still reads there.
pub(super) fn goes_on(text: &str) -> Result<bool, Exit> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("stdout cannot be written").map_err(Exit::from),
    }
}

/// Says on stderr what the caller should know besides what was asked for.
pub(super) fn warn(text: impl std::fmt::Display) {
    // The exit code tells all to whoever has closed stderr.
    let _ = writeln!(io::stderr(), "beacon-relay: {text}");
}

/// Writes the last line to stderr; a reader that takes nothing keeps nobody from ending.
pub(super) fn say_last(line: String) {
    let (done, written) = mpsc::channel::<()>();
    let writing = thread::Builder::new().spawn(move || {
        // Nobody is left to tell that stderr is closed.
        let _ = io::stderr().write_all(line.as_bytes());
        drop(done);
    });
    if writing.is_ok() {
        // Closed once the line is written.
        let _ = written.recv_timeout(LAST_LINES_TIME);
    }
}

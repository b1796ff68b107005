//! The other side of the control socket: asks the relay of a state folder. Blocks.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::{Action, socket_file};

/// Longest wait for an answer: longer than any action takes.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// Nobody listens there.
    #[error("no relay answers at {}: {source}", path.display())]
    NoRelay {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody listens there, and says nothing.
    #[error("no answer from the relay at {} within {} s: is it stopped, or very busy?", path.display(), patience.as_secs_f64())]
    Silent {
        /// The socket.
        path: PathBuf,
        /// How long was waited.
        patience: Duration,
    },
    /// The relay did not answer, or something else did.
    #[error("no answer from the relay at {}: {reason}", path.display())]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The relay did not do it, for this reason.
    #[error("{0}")]
    Refused(String),
}

#[derive(Deserialize)]
struct Reply {
    ok: bool,
    #[serde(default)]
    result: Value,
    #[serde(default)]
    error: String,
}

/// Has the relay of a state folder do something; its answer, which is waited for as long as
/// `patience`.
///
/// # Errors
/// No relay runs there, it does not answer, or it refuses.
pub fn ask(state_dir: &Path, action: &Action, patience: Duration) -> Result<Value, AskError> {
    let path = socket_file(state_dir);
    let stream = UnixStream::connect(&path);
    let mut stream = stream.map_err(|source| AskError::NoRelay { path: path.clone(), source })?;
    let no_answer = |reason: String| AskError::NoAnswer { path: path.clone(), reason };
    let mut line = serde_json::to_vec(action).map_err(|error| no_answer(error.to_string()))?;
    line.push(b'\n');
    let mut text = String::new();
    let asked = stream
        .set_read_timeout(Some(patience))
        .and_then(|()| stream.set_write_timeout(Some(patience)))
        .and_then(|()| stream.write_all(&line))
        .and_then(|()| stream.shutdown(Shutdown::Write))
        .and_then(|()| stream.read_to_string(&mut text));
    asked.map_err(|error| match error.kind() == io::ErrorKind::WouldBlock {
        true => AskError::Silent { path: path.clone(), patience },
        false => no_answer(error.to_string()),
    })?;
    let reply: Reply = serde_json::from_str(&text).map_err(|error| no_answer(error.to_string()))?;
    if reply.ok { Ok(reply.result) } else { Err(AskError::Refused(reply.error)) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn relay_that_hangs_is_told_from_one_that_refuses() {
        let folder = tempfile::tempdir().unwrap();
        // The kernel takes the connection; nobody accepts it, as while a relay is stopped.
        let _stopped = UnixListener::bind(socket_file(folder.path())).unwrap();
        let asked = ask(folder.path(), &Action::Status {}, Duration::from_millis(1));
        let error = asked.unwrap_err();
        assert!(matches!(error, AskError::Silent { .. }), "{error}");
        let text = error.to_string();
        assert!(text.ends_with("within 0.001 s: is it stopped, or very busy?"), "{text}");
    }
}

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
const PATIENCE: Duration = Duration::from_secs(90);

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

/// Has the relay of a state folder do something; its answer.
///
/// # Errors
/// No relay runs there, or it refuses.
pub fn ask(state_dir: &Path, action: &Action) -> Result<Value, AskError> {
    let path = socket_file(state_dir);
    let stream = UnixStream::connect(&path);
    let mut stream = stream.map_err(|source| AskError::NoRelay { path: path.clone(), source })?;
    let no_answer = |reason: String| AskError::NoAnswer { path: path.clone(), reason };
    let mut line = serde_json::to_vec(action).map_err(|error| no_answer(error.to_string()))?;
    line.push(b'\n');
    let mut text = String::new();
    let asked = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.write_all(&line))
        .and_then(|()| stream.shutdown(Shutdown::Write))
        .and_then(|()| stream.read_to_string(&mut text));
    asked.map_err(|error| no_answer(error.to_string()))?;
    let reply: Reply = serde_json::from_str(&text).map_err(|error| no_answer(error.to_string()))?;
    if reply.ok { Ok(reply.result) } else { Err(AskError::Refused(reply.error)) }
}

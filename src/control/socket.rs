//! The Unix socket for operators of this machine: a line of JSON in, a line of JSON out.
//!
//! The socket is for its owner alone, from its first moment under its name; root may as well.
//! Connections are few, each with a time: the oldest gives way to a new one, so that nobody
//! who says nothing keeps an operator out.

use std::collections::VecDeque;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as Probe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::geteuid;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::{Action, Actions, MAX_REQUEST, Reject, reply};

/// Connections at once.
const CONNECTIONS: usize = 8;

/// Time for a request to come.
const READ_TIME: Duration = Duration::from_secs(5);

/// Time for an answer to be taken.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// Wait after a connection could not be accepted, most often for want of descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Where the socket of a state folder is.
#[must_use]
pub fn socket_file(state_dir: &Path) -> PathBuf {
    state_dir.join("control.sock")
}

/// The socket; its file goes with it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode, to tell our file from another of that name.
    file: (u64, u64),
}

impl Socket {
    /// Makes the socket of a state folder, in place of one that nobody listens on. Must be
    /// called within the runtime.
    ///
    /// # Errors
    /// What the system says; `AddrInUse` where another relay answers there, `AlreadyExists`
    /// where the name is something else's.
    pub fn bind(state_dir: &Path) -> io::Result<Self> {
        let path = socket_file(state_dir);
        match fs::symlink_metadata(&path) {
            Ok(file) if !file.file_type().is_socket() => {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            Ok(_) if Probe::connect(&path).is_ok() => return Err(io::ErrorKind::AddrInUse.into()),
            Ok(_) | Err(_) => {}
        }
        // Under another name until nobody else may connect.
        let draft = state_dir.join(format!("control.{:08x}.new", getrandom::u32()?));
        let listener = UnixListener::bind(&draft)?;
        let placed = fs::set_permissions(&draft, Permissions::from_mode(0o600))
            .and_then(|()| fs::symlink_metadata(&draft))
            .and_then(|file| fs::rename(&draft, &path).map(|()| (file.dev(), file.ino())));
        if placed.is_err() {
            // What is in the way is told; a draft more is no harm.
            let _ = fs::remove_file(&draft);
        }
        Ok(Self { listener, path, file: placed? })
    }

    /// Answers requests, for ever.
    pub async fn serve(self, actions: Arc<Actions>) {
        let mut connections = JoinSet::new();
        let mut oldest: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    while connections.try_join_next().is_some() {}
                    oldest.retain(|connection| !connection.is_finished());
                    if oldest.len() >= CONNECTIONS
                        && let Some(connection) = oldest.pop_front()
                    {
                        actions.rejects.of(Reject::CrowdedOut).increment();
                        connection.abort();
                    }
                    let connection = serve(stream, Arc::clone(&actions));
                    oldest.push_back(connections.spawn(connection));
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept on the control socket");
                    sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let is_ours = |file: fs::Metadata| (file.dev(), file.ino()) == self.file;
        if fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            // Somebody else may have removed it, which is what we want.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Answers the one request of a connection.
async fn serve(mut stream: UnixStream, actions: Arc<Actions>) {
    let Ok(uid) = stream.peer_cred().map(|peer| peer.uid()) else { return };
    let result = match request(&mut stream, uid).await {
        Ok(action) => {
            let result = actions.run(action, format!("uid {uid}")).await;
            result.map_err(|refused| refused.to_string())
        }
        Err((reject, error)) => {
            actions.rejects.of(reject).increment();
            Err(error)
        }
    };
    let reply = reply(&result);
    let answer = async {
        stream.write_all(reply.as_bytes()).await?;
        stream.shutdown().await
    };
    // Who asked may be gone, or read nothing.
    let _ = timeout(WRITE_TIME, answer).await;
}

/// Reads the request of a user.
async fn request(stream: &mut UnixStream, uid: u32) -> Result<Action, (Reject, String)> {
    if uid != 0 && uid != geteuid().as_raw() {
        return Err((Reject::OtherUser, "only the relay's own user and root may ask".to_owned()));
    }
    let mut line = Vec::new();
    let mut limited = BufReader::new(stream).take(MAX_REQUEST as u64 + 1);
    match timeout(READ_TIME, limited.read_until(b'\n', &mut line)).await {
        Ok(Ok(_)) if line.len() > MAX_REQUEST => {
            Err((Reject::TooLarge, format!("a request has {MAX_REQUEST} bytes at most")))
        }
        Ok(Ok(_)) => serde_json::from_slice(&line)
            .map_err(|error| (Reject::Malformed, format!("not a request: {error}"))),
        Ok(Err(error)) => Err((Reject::Malformed, error.to_string())),
        Err(_) => Err((Reject::Slow, format!("no request within {} s", READ_TIME.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn socket_is_its_owners_alone_and_goes_with_its_relay() {
        let folder = tempfile::tempdir().unwrap();
        let socket = Socket::bind(folder.path()).unwrap();
        assert_eq!(mode(&socket_file(folder.path())), 0o600);
        let again = Socket::bind(folder.path()).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
        drop(socket);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "a file stayed");
    }

    #[tokio::test]
    async fn socket_that_nobody_listens_on_is_replaced_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = socket_file(folder.path());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        drop(Socket::bind(folder.path()).unwrap());
        fs::write(&path, "mine").unwrap();
        let refused = Socket::bind(folder.path()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[tokio::test]
    async fn socket_of_another_relay_outlives_ours() {
        let folder = tempfile::tempdir().unwrap();
        let ours = Socket::bind(folder.path()).unwrap();
        fs::remove_file(socket_file(folder.path())).unwrap();
        let _theirs = Socket::bind(folder.path()).unwrap();
        drop(ours);
        assert!(Probe::connect(socket_file(folder.path())).is_ok());
    }
}

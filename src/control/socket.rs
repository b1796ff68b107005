//! The Unix socket for operators of this machine: a line of JSON in, a line of JSON out.
//!
//! The socket is for its owner alone, from its first moment under its name; root may as well.
//! Connections are few, each with a time. Of those that have not asked yet the oldest gives
//! way to a new one, so that nobody who says nothing keeps an operator out; whose action runs
//! is left alone, and who asks when there are too many of them is told so.

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
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

use super::{Action, Actions, BadRequest, MAX_REQUEST, reply};
use crate::config::create_state_dir;

/// Connections that have not asked yet, and those that have: so many of each at once.
const CONNECTIONS: usize = 8;

/// Time for a request to come.
const READ_TIME: Duration = Duration::from_secs(5);

/// Time for an answer to be taken.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// Wait after a connection could not be accepted, most often for want of descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// How often is looked whether the socket's file is still there.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// Wait after the socket could not be made.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

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

    /// Waits until the file is no longer there, or another's.
    async fn gone(&self) {
        loop {
            sleep(LOOK_PAUSE).await;
            let (path, ours) = (self.path.clone(), self.file);
            // The folder's disk may not answer, and then nobody waits for it but this.
            let is_there = spawn_blocking(move || is_at(&path, ours));
            if matches!(is_there.await, Ok(false)) {
                return;
            }
        }
    }
}

/// Answers requests at the socket of a state folder, for ever. One that could not be made, or
/// whose file has gone, is made again.
pub async fn keep(first: io::Result<Socket>, state_dir: PathBuf, actions: Arc<Actions>) {
    let health = Arc::clone(actions.health());
    let mut connections = Connections::default();
    let mut was_made = false;
    let mut was_told = false;
    let mut made = first;
    loop {
        match made {
            Ok(socket) => {
                health.set_socket(None);
                if was_made {
                    health.socket_was_made_again();
                    tracing::warn!("the control socket was made again: its file had gone");
                } else if was_told {
                    tracing::info!("the control socket is there");
                }
                was_made = true;
                was_told = false;
                tokio::select! {
                    () = connections.serve(&socket.listener, &actions) => {}
                    () = socket.gone() => {}
                }
                health.set_socket(Some("its file has gone".to_owned()));
            }
            Err(error) => {
                health.set_socket(Some(error.to_string()));
                // Packets do not wait for it.
                if !std::mem::replace(&mut was_told, true) {
                    tracing::warn!(%error, "no control socket: `status`, `kick` and others fail");
                }
                sleep(RETRY_PAUSE).await;
            }
        }
        let folder = state_dir.clone();
        let again = spawn_blocking(move || {
            create_state_dir(&folder).map_err(io::Error::other)?;
            Socket::bind(&folder)
        });
        made = again.await.unwrap_or_else(|_| Err(io::Error::other("a bug of the relay")));
    }
}

/// The connections to the socket.
struct Connections {
    running: JoinSet<()>,
    places: Arc<Semaphore>,
    /// Those that have not asked, the oldest first; who has asked, or is gone, has closed its
    /// end.
    reading: VecDeque<oneshot::Sender<Evicted>>,
}

impl Default for Connections {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        Self { running: JoinSet::new(), places, reading: VecDeque::new() }
    }
}

impl Connections {
    /// Answers requests, for ever.
    async fn serve(&mut self, listener: &UnixListener, actions: &Arc<Actions>) {
        let Self { running, places, reading } = self;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    while running.try_join_next().is_some() {}
                    reading.retain(|connection| !connection.is_closed());
                    if reading.len() >= CONNECTIONS
                        && let Some(connection) = reading.pop_front()
                    {
                        // It may have asked just now, and stays.
                        let _ = connection.send(Evicted);
                    }
                    let (evict, evicted) = oneshot::channel();
                    reading.push_back(evict);
                    let (actions, places) = (Arc::clone(actions), Arc::clone(places));
                    running.spawn(serve(stream, actions, places, evicted));
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept on the control socket");
                    sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }
}

/// Whether the file of this device and inode is at `path`. Blocks.
fn is_at(path: &Path, file: (u64, u64)) -> bool {
    fs::symlink_metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == file)
}

impl Drop for Socket {
    fn drop(&mut self) {
        if is_at(&self.path, self.file) {
            // Somebody else may have removed it, which is what we want.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Tells a connection that it gives way.
#[derive(Debug)]
struct Evicted;

/// Answers the one request of a connection, unless it is evicted before it has asked.
async fn serve(
    mut stream: UnixStream,
    actions: Arc<Actions>,
    places: Arc<Semaphore>,
    evicted: oneshot::Receiver<Evicted>,
) {
    let Ok(uid) = stream.peer_cred().map(|peer| peer.uid()) else { return };
    let asked = tokio::select! {
        biased;
        asked = request(&mut stream, uid) => asked,
        Ok(Evicted) = evicted => return actions.bad_requests.of(BadRequest::CrowdedOut).increment(),
    };
    // The place is kept until the answer is taken: that may be long, and takes memory.
    let (result, _place) = match asked.map(|action| (action, places.try_acquire())) {
        Ok((action, Ok(place))) => {
            let result = actions.run(action, format!("uid {uid}")).await;
            (result.map_err(|refused| refused.to_string()), Some(place))
        }
        Ok((_, Err(_))) => {
            actions.bad_requests.of(BadRequest::Busy).increment();
            let error = format!("busy: {CONNECTIONS} other requests are not done yet; ask again");
            (Err(error), None)
        }
        Err((bad, error)) => {
            actions.bad_requests.of(bad).increment();
            (Err(error), None)
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
async fn request(stream: &mut UnixStream, uid: u32) -> Result<Action, (BadRequest, String)> {
    if uid != 0 && uid != geteuid().as_raw() {
        return Err((
            BadRequest::OtherUser,
            "only the relay's own user and root may ask".to_owned(),
        ));
    }
    let mut line = Vec::new();
    let mut limited = BufReader::new(stream).take(MAX_REQUEST as u64 + 1);
    match timeout(READ_TIME, limited.read_until(b'\n', &mut line)).await {
        Ok(Ok(_)) if line.len() > MAX_REQUEST => {
            Err((BadRequest::TooLarge, format!("a request has {MAX_REQUEST} bytes at most")))
        }
        Ok(Ok(_)) => serde_json::from_slice(&line)
            .map_err(|error| (BadRequest::Malformed, format!("not a request: {error}"))),
        Ok(Err(error)) => Err((BadRequest::Malformed, error.to_string())),
        Err(_) => Err((BadRequest::Slow, format!("no request within {} s", READ_TIME.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::control::testing;

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

    /// Sends a line and reads all that comes back.
    async fn ask(path: PathBuf, line: &'static str) -> String {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(line.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn action_that_runs_gives_way_to_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let (parts, mut ordered) = testing::parts(folder.path());
        let actions = Actions::start(parts, folder.path()).unwrap();
        let socket = Socket::bind(folder.path()).unwrap();
        let path = socket_file(folder.path());
        let serving = {
            let actions = Arc::clone(&actions);
            tokio::spawn(async move {
                Connections::default().serve(&socket.listener, &actions).await;
            })
        };

        // Nobody carries them out yet.
        let mut asked = JoinSet::new();
        for _ in 0..=CONNECTIONS {
            asked.spawn(ask(path.clone(), "{\"action\":\"reload\"}\n"));
            // By the answer the one before has asked as well.
            assert!(ask(path.clone(), "?\n").await.contains("not a request"));
        }
        let refused = asked.join_next().await.unwrap().unwrap();
        assert!(refused.contains("\"error\":\"busy: "), "{refused}");

        let silent: Vec<_> = (0..2 * CONNECTIONS).map(|_| Probe::connect(&path).unwrap()).collect();
        assert!(ask(path.clone(), "?\n").await.contains("not a request"));
        for _ in 0..CONNECTIONS {
            let order = timeout(WRITE_TIME, ordered.recv()).await.expect("all of them run");
            order.unwrap().answer(Ok(Value::Null));
        }
        for answer in asked.join_all().await {
            assert_eq!(answer, "{\"ok\":true,\"result\":null}\n");
        }
        let bad_requests = [BadRequest::Busy, BadRequest::CrowdedOut]
            .map(|why| actions.bad_requests.of(why).value());
        assert_eq!(bad_requests[0], 1);
        assert!(bad_requests[1] >= CONNECTIONS as u64, "{bad_requests:?}");
        drop(silent);
        serving.abort();
    }
}

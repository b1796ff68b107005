//! Listening sockets for streams, TCP or Unix.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::bind::{FreeBind, bind};
use super::entrance::{Entrance, Origin};
use super::options::Wish;

/// Unsent bytes that the kernel may hold for one peer, in bytes.
///
/// The kernel is part of the queue: without this a reader that never reads hides 4 MB of
/// stale packets there, and a few hundred such readers use up the machine's TCP memory.
/// 65_536 = one flush.
const NOTSENT_LOWAT: u32 = 65_536;

/// Bytes that the kernel may hold of one peer that sends faster than it is read; the kernel
/// adds as much for its own bookkeeping.
///
/// 524_288 = eight reads. Left to itself the kernel grows a buffer to `tcp_rmem`'s largest,
/// 6 MB by default, for each peer that floods. Over a proxy on this machine, whose round
/// trip is nothing, it costs no throughput.
const RECEIVE_BUFFER: usize = 524_288;

/// Connections that the kernel completes before we accept them.
const BACKLOG: i32 = 4_096;

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket; a file of ours is removed when the listener goes.
    Unix(UnixListener, Option<SocketFile>),
}

/// An accepted connection.
#[derive(Debug)]
pub enum Accepted {
    /// Over TCP, from this address.
    Tcp(TcpStream, SocketAddr),
    /// Over a Unix socket, by a process of this machine.
    Unix(UnixStream),
}

/// Removes the file of a Unix socket when dropped.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody else may have removed it, which is what we want.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Accepted {
    /// Where the connection comes from.
    ///
    /// # Errors
    /// What the system says, where the other side has gone already.
    pub fn origin(&self) -> io::Result<Origin> {
        match self {
            Self::Tcp(_, remote) => Ok((*remote).into()),
            Self::Unix(stream) => Ok(SockRef::from(stream).peer_addr()?.into()),
        }
    }
}

impl Listener {
    /// Listens on a TCP address; port 0 takes a free one. Must be called within the runtime.
    ///
    /// # Errors
    /// What the kernel says, `AddrInUse` among it.
    pub fn tcp(address: SocketAddr) -> io::Result<Self> {
        Self::tcp_at(address, FreeBind::Off)
    }

    /// The same at an address that may come later.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn tcp_at(address: SocketAddr, free: FreeBind) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        Wish::ReuseAddress.settle(socket.set_reuse_address(true));
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        bind(&socket, address, free)?;
        Self::adopt_tcp(socket)
    }

    /// Takes over a TCP socket that is bound, and may listen already. Must be called within the
    /// runtime.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn adopt_tcp(socket: Socket) -> io::Result<Self> {
        // Accepted sockets inherit these.
        Wish::ReceiveBuffer.settle(socket.set_recv_buffer_size(RECEIVE_BUFFER));
        Wish::NoDelay.settle(socket.set_tcp_nodelay(true));
        Wish::NotSentLowAt.settle(socket.set_tcp_notsent_lowat(NOTSENT_LOWAT));
        socket.set_nonblocking(true)?;
        // Again, where it listens already: that makes the backlog ours.
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into()).map(Self::Tcp)
    }

    /// Takes over a Unix socket that listens; its file is somebody else's.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn adopt_unix(socket: Socket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.listen(BACKLOG)?;
        Ok(Self::Unix(UnixListener::from_std(socket.into())?, None))
    }

    /// Listens on a Unix socket, which the owner and the group may connect to.
    ///
    /// A file that a process which is gone left behind is replaced.
    ///
    /// # Errors
    /// What the kernel says; `AddrInUse` when somebody listens there.
    pub fn unix(path: &Path) -> io::Result<Self> {
        // The kernel refuses a connection to an ordinary file as well, which is not ours.
        let is_socket =
            std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
        if is_socket
            && std::os::unix::net::UnixStream::connect(path)
                .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        let file = SocketFile(path.to_owned());
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        Ok(Self::Unix(listener, Some(file)))
    }

    /// The address that was bound, with its real port; `None` for a Unix socket.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    /// The way in from this process.
    ///
    /// # Errors
    /// What the system says.
    pub fn entrance(&self) -> io::Result<Entrance> {
        match self {
            Self::Tcp(listener) => {
                let bound = listener.local_addr()?;
                let only_v6 = bound.is_ipv6() && SockRef::from(listener).only_v6()?;
                Ok(Entrance::tcp(bound, only_v6))
            }
            Self::Unix(listener, _) => Ok(Entrance::Unix(SockRef::from(listener).local_addr()?)),
        }
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// What the kernel says; after `EMFILE` the caller should wait before the next call.
    pub async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, remote) = listener.accept().await?;
                Ok(Accepted::Tcp(stream, remote))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok(Accepted::Unix(stream))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use socket2::SockAddr;

    use super::*;

    #[tokio::test]
    async fn accepted_connection_inherits_the_bounds_of_its_listener() {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let _peer = TcpStream::connect(listener.address().unwrap()).await.unwrap();
        let Accepted::Tcp(stream, _) = listener.accept().await.unwrap() else { panic!("TCP") };
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), NOTSENT_LOWAT);
        assert_eq!(socket.recv_buffer_size().unwrap(), 2 * RECEIVE_BUFFER);
    }

    #[tokio::test]
    async fn listener_without_the_options_of_tcp_listens() {
        let folder = tempfile::tempdir().unwrap();
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::unix(folder.path().join("socket")).unwrap()).unwrap();
        assert!(socket.set_tcp_nodelay(true).is_err(), "a Unix socket has none of them");

        Listener::adopt_tcp(socket).unwrap();
    }

    #[tokio::test]
    async fn file_that_is_no_socket_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        std::fs::write(&path, "{}").unwrap();
        assert_eq!(Listener::unix(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{}");
    }

    #[tokio::test]
    async fn socket_that_nobody_listens_on_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listening = Listener::unix(&path).unwrap();
        assert_eq!(Listener::unix(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listening);
        assert!(!path.exists());
    }
}

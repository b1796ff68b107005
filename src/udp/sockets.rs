//! The sockets of a UDP way in: opened here or inherited, all at one address.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::{Domain, Type};
use tracing::warn;

use crate::net::bind::{FreeBind, bind};
use crate::net::udp::{self, BUFFER_SIZE, Datagrams};

#[cfg(target_os = "linux")]
type Socket = udp::BatchSocket;
#[cfg(not(target_os = "linux"))]
type Socket = udp::PortableSocket;

/// Opens `count` sockets on one address, which may come later where that is allowed; port 0
/// takes a free one for all of them.
///
/// # Errors
/// What the kernel says; `AddrInUse` also where only another program's sockets would share
/// the port with ours, and take a part of its packets.
pub fn open(
    address: SocketAddr,
    count: usize,
    free: FreeBind,
) -> io::Result<Vec<Arc<dyn Datagrams>>> {
    // A socket that shares its port binds beside any other that does; one that does not,
    // only where nobody is.
    let alone = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    bind(&alone, address, free)?;
    let address = alone.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
    drop(alone);
    let opened: io::Result<Vec<_>> =
        (0..count.max(1)).map(|_| udp::open_at(address, free)).collect();
    receiving(opened?)
}

/// Takes over inherited sockets, which share one address.
///
/// # Errors
/// What the kernel says.
pub fn adopt(sockets: Vec<socket2::Socket>) -> io::Result<Vec<Arc<dyn Datagrams>>> {
    sockets.iter().try_for_each(udp::prepare)?;
    receiving(sockets)
}

fn receiving(sockets: Vec<socket2::Socket>) -> io::Result<Vec<Arc<dyn Datagrams>>> {
    if let Some(first) = sockets.first() {
        warn_of_small_buffers(first)?;
    }
    let each = sockets
        .into_iter()
        .map(|socket| -> io::Result<Arc<dyn Datagrams>> { Ok(Arc::new(Socket::new(socket)?)) });
    each.collect()
}

fn warn_of_small_buffers(socket: &socket2::Socket) -> io::Result<()> {
    let (receive, send) = udp::buffer_sizes(socket)?;
    for (given, setting) in [(receive, "net.core.rmem_max"), (send, "net.core.wmem_max")] {
        if given < BUFFER_SIZE {
            warn!(
                bytes = given,
                wanted = BUFFER_SIZE,
                "the kernel gives UDP sockets small buffers, which drop bursts; \
                 set: sysctl -w {setting}={BUFFER_SIZE}"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_of_another_program_is_not_shared() {
        let other = udp::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = other.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(open(address, 2, FreeBind::Off).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn all_sockets_have_the_same_port() {
        let sockets = open("127.0.0.1:0".parse().unwrap(), 3, FreeBind::Off).unwrap();
        let ports: Vec<_> = sockets.iter().map(|socket| socket.address().port()).collect();
        assert_ne!(ports[0], 0);
        assert_eq!(ports, vec![ports[0]; 3]);
    }
}

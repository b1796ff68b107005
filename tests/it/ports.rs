//! Ports for servers that must be told theirs before they start.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports that the kernel gives to whoever asks for any, so that nobody gets one while
/// its owner is away.
const FIRST: u16 = 20_000;

/// A port that nobody has, neither over TCP nor over UDP, and that no other test gets.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Others may run the same tests on this machine.
    let own = u16::try_from(std::process::id() % 100).unwrap() * 100;
    loop {
        let port = FIRST + own + NEXT.fetch_add(1, Ordering::Relaxed);
        let everywhere = (Ipv4Addr::UNSPECIFIED, port);
        if TcpListener::bind(everywhere).is_ok() && UdpSocket::bind(everywhere).is_ok() {
            return port;
        }
    }
}

/// Such a port on loopback.
pub(crate) fn free_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

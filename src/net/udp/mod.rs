//! Datagram sockets that receive and send in batches.
//!
//! What is particular to Linux sits in `sys`, behind [`Datagrams`]; `portable` does the
//! same with one call a datagram, and the tests run both.

#[cfg(target_os = "linux")]
mod pieces;
mod portable;
mod refusals;
#[cfg(target_os = "linux")]
mod sys;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::bind::{FreeBind, bind};
use super::local::LocalAddresses;

pub use portable::PortableSocket;
pub use refusals::{Retry, retries};
#[cfg(target_os = "linux")]
pub use sys::BatchSocket;

/// Most datagrams that one call receives.
///
/// 64 = what a read of 64 KiB over WSS holds at 1,000 bytes a packet; more only adds to the
/// time that the first of them waits.
pub const BATCH: usize = 64;

/// Room for one datagram, in bytes: the longest UDP payload over IPv6 without jumbograms.
const SLOT: usize = 65_536;

/// Longest packet that is sent in a run with segmentation, in bytes.
///
/// 1_452 = 1_500 (Ethernet) - 40 (IPv6 header) - 8 (UDP header); longer packets need IP
/// fragmentation, which the kernel does not do for segments.
pub const MAX_SEGMENT: usize = 1_452;

/// Most bytes of one run: the longest UDP payload over IPv4.
pub const MAX_RUN: usize = 65_507;

/// Most packets of one run, as Linux allows it (UDP_MAX_SEGMENTS).
pub const MAX_RUN_PACKETS: usize = 64;

/// How long a receive waits before it gives its thread a chance to stop.
const RECEIVE_TIMEOUT: Duration = Duration::from_millis(100);

/// Size that both buffers of a socket are asked to have, in bytes.
///
/// 4 MiB hold 3,000 packets of 1,200 bytes: 100 ms of 30,000 packets a second.
pub const BUFFER_SIZE: usize = 4 << 20;

/// Datagrams as they were received.
#[derive(Debug)]
pub struct Received {
    buffer: Vec<u8>,
    datagrams: Vec<Datagram>,
    /// Datagrams that the kernel has dropped since the socket was opened, for want of room.
    pub kernel_dropped: u32,
}

/// One received datagram.
#[derive(Clone, Copy, Debug)]
pub struct Datagram {
    /// Where it came from; an IPv4-mapped address is given as IPv4.
    pub from: SocketAddr,
    /// The address of ours that it was sent to, where the socket is bound to all of them.
    pub to: Option<IpAddr>,
    start: usize,
    length: usize,
}

impl Received {
    /// Room for one batch: 4 MiB, of which the kernel touches only what it fills.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buffer: vec![0; BATCH * SLOT],
            datagrams: Vec::with_capacity(BATCH),
            kernel_dropped: 0,
        }
    }

    /// The datagrams of the last call, in the order in which they came, with their bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&Datagram, &[u8])> {
        self.datagrams.iter().map(|datagram| (datagram, self.bytes(datagram)))
    }

    /// Forgets the datagrams of the last call that are not to be kept.
    pub fn retain(&mut self, mut keep: impl FnMut(&Datagram, &[u8]) -> bool) {
        let Self { buffer, datagrams, .. } = self;
        datagrams.retain(|datagram| keep(datagram, bytes_of(buffer, datagram)));
    }

    /// The bytes of one datagram of the last call.
    ///
    /// # Panics
    /// Beyond the last datagram.
    #[must_use]
    pub fn packet(&self, index: usize) -> &[u8] {
        self.bytes(self.datagrams.get(index).expect("the index of a datagram of this call"))
    }

    fn bytes(&self, datagram: &Datagram) -> &[u8] {
        bytes_of(&self.buffer, datagram)
    }
}

fn bytes_of<'a>(buffer: &'a [u8], datagram: &Datagram) -> &'a [u8] {
    let place = datagram.start..datagram.start + datagram.length;
    buffer.get(place).expect("a datagram lies inside of its slot")
}

impl Received {
    /// What a socket of another kind has received: for tests and benchmarks, from addresses
    /// that no socket of the machine has.
    #[must_use]
    pub fn of(datagrams: &[(SocketAddr, &[u8])]) -> Self {
        let mut received = Self { buffer: Vec::new(), datagrams: Vec::new(), kernel_dropped: 0 };
        for (from, bytes) in datagrams {
            let (start, length) = (received.buffer.len(), bytes.len());
            received.buffer.extend_from_slice(bytes);
            received.datagrams.push(Datagram { from: *from, to: None, start, length });
        }
        received
    }
}

impl Default for Received {
    fn default() -> Self {
        Self::new()
    }
}

/// Packets of equal size to one destination, the last of which may be shorter.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Where the packets go.
    pub to: SocketAddr,
    /// Our address that they leave from; the kernel's choice where there is none, or where it
    /// is gone.
    pub from: Option<IpAddr>,
    /// The packets, one behind the other.
    pub bytes: &'a [u8],
    /// The size of each packet but the last, in bytes; at least 1 unless `bytes` is empty.
    pub segment: usize,
}

impl Run<'_> {
    /// How many packets the run holds.
    #[must_use]
    pub fn packets(&self) -> usize {
        self.bytes.len().div_ceil(self.segment.max(1)).max(1)
    }
}

/// A UDP socket that receives and sends in batches.
pub trait Datagrams: fmt::Debug + Send + Sync + 'static {
    /// Waits for datagrams and takes all that are there, [`BATCH`] at most; none after a
    /// while without any.
    ///
    /// # Errors
    /// What the kernel says of the socket, not of a datagram.
    fn receive(&self, received: &mut Received) -> io::Result<()>;

    /// Sends runs without waiting; `sent` is told of each run, or of each packet of a run that
    /// had to be sent singly, how many packets it is about and what became of them. What comes
    /// behind a packet for which the send buffer had no room is not tried.
    fn send(&self, runs: &[Run<'_>], sent: &mut dyn FnMut(usize, usize, Result<(), SendError>));

    /// The address that the socket is bound to.
    fn address(&self) -> SocketAddr;

    /// Has the socket know which addresses the machine has, where it sends from a chosen one.
    fn use_local(&self, _: &Arc<LocalAddresses>) {}
}

/// Why the kernel did not take a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SendError {
    /// The socket's send buffer is full.
    Full,
    /// Anything else: no route, a firewall, an address of another family.
    Refused,
}

impl From<&io::Error> for SendError {
    fn from(error: &io::Error) -> Self {
        // ENOBUFS is what a full queue of the network device looks like.
        let no_buffers = error.raw_os_error() == Some(libc::ENOBUFS);
        if error.kind() == io::ErrorKind::WouldBlock || no_buffers {
            Self::Full
        } else {
            Self::Refused
        }
    }
}

/// Opens one UDP socket that shares its port with others (SO_REUSEPORT); with port 0, which
/// takes a free one, it shares with nobody.
///
/// An IPv6 wildcard takes IPv4 as well. The receive waits at most 100 ms.
///
/// # Errors
/// What the kernel says, `AddrInUse` among it.
pub fn open(address: SocketAddr) -> io::Result<Socket> {
    open_at(address, FreeBind::Off)
}

/// The same at an address that may come later.
///
/// # Errors
/// What the kernel says.
pub fn open_at(address: SocketAddr, free: FreeBind) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Choosing a port, the kernel takes those of sockets that share theirs for free.
    if address.port() != 0 {
        socket.set_reuse_port(true)?;
    }
    bind(&socket, address, free)?;
    prepare(&socket)?;
    Ok(socket)
}

/// Gives a bound socket, which may be inherited, its buffers and its waits.
///
/// # Errors
/// What the kernel says.
pub fn prepare(socket: &Socket) -> io::Result<()> {
    // The kernel gives what it is allowed to; `buffer_sizes` says what that was.
    let _ = socket.set_recv_buffer_size(BUFFER_SIZE);
    let _ = socket.set_send_buffer_size(BUFFER_SIZE);
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(RECEIVE_TIMEOUT))
}

/// The sizes that the kernel gave the receive and the send buffer, in bytes of payload.
///
/// # Errors
/// What the kernel says.
pub fn buffer_sizes(socket: &Socket) -> io::Result<(usize, usize)> {
    // Linux reports twice what it was asked for: the other half is its own bookkeeping.
    Ok((socket.recv_buffer_size()? / 2, socket.send_buffer_size()? / 2))
}

/// The address with an IPv4-mapped IPv6 address turned into IPv4.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), v6.port()),
            // The scope of a link-local address is part of it, the flow label is not.
            None => SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into(),
        },
        SocketAddr::V4(_) => address,
    }
}

/// Whether a failed receive says nothing of the socket: the timeout, a signal, or an ICMP
/// error about a datagram that was sent earlier.
fn passes(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::TimedOut
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionRefused
    )
}

/// The address as a socket of the family of `local` wants it.
fn for_family(address: SocketAddr, local: SocketAddr) -> SocketAddr {
    match (address, local) {
        (SocketAddr::V4(v4), SocketAddr::V6(_)) => {
            SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
        }
        (address, _) => address,
    }
}

#[cfg(test)]
mod tests;

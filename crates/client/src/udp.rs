//! A node that uses UDP: tells the relay its address by Discover, sends Relay packets, and
//! takes deliveries. Who is no node yet asks for its address alone.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::Delivery;
use crate::ids::{NodeId, PublicKey};
use crate::net::options::Wish;
use crate::wire::beacon::{self, MAX_UDP_PACKET, Packet, RELAY_HEADER};

/// Time between two heartbeats of a daemon (SPEC §2.1).
pub const HEARTBEAT: Duration = Duration::from_secs(60);

/// Longest payload of [`Peer::send_to`], in bytes.
///
/// 65_498 = 65_507 (largest datagram) - 9 (header of a Relay packet).
pub const MAX_PAYLOAD: usize = MAX_UDP_PACKET - RELAY_HEADER;

/// What we ask of the kernel for arriving datagrams, in bytes; it gives `rmem_max` at most.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Discovers are lost as any datagram may be: so many are sent,
const ATTEMPTS: u32 = 5;

/// each with this time for its answer.
const ANSWER: Duration = Duration::from_secs(1);

/// Why what is received is there.
const IN_BUFFER: &str = "a socket writes no more than the buffer holds";

/// A node with a UDP socket of its own, known to one relay.
#[derive(Debug)]
pub struct Peer {
    socket: UdpSocket,
    node: NodeId,
    key: Option<PublicKey>,
    extended: bool,
    observed: SocketAddr,
    buffer: Vec<u8>,
}

impl Peer {
    /// Binds a socket and makes the node known to the relay, for 5 s at most. With `extended`
    /// the relay delivers in packets that name the destination (0x09 instead of 0x06).
    ///
    /// # Errors
    /// A socket that cannot be made; a relay that does not answer (`TimedOut`).
    pub async fn connect(
        relay: SocketAddr,
        node: NodeId,
        key: Option<PublicKey>,
        extended: bool,
    ) -> io::Result<Self> {
        let socket = bind(relay)?;
        socket.connect(relay).await?;
        let mut discover = Vec::new();
        beacon::encode_discover(node, key.as_ref(), extended, &mut discover);
        let mut buffer = vec![0; MAX_UDP_PACKET];
        let observed = ask(&socket, relay, &discover, &mut buffer).await?;
        Ok(Self { socket, node, key, extended, observed, buffer })
    }

    /// The address that the relay saw.
    #[must_use]
    pub fn observed(&self) -> SocketAddr {
        self.observed
    }

    /// Repeats the Discover, without waiting for the answer; due each [`HEARTBEAT`].
    ///
    /// # Errors
    /// What the socket says.
    pub async fn heartbeat(&self) -> io::Result<()> {
        let mut packet = Vec::new();
        beacon::encode_discover(self.node, self.key.as_ref(), self.extended, &mut packet);
        self.send_packet(&packet).await
    }

    /// Sends a payload of at most [`MAX_PAYLOAD`] bytes to another node.
    ///
    /// # Errors
    /// What the socket says; a datagram that is too large.
    pub async fn send_to(&self, dest: NodeId, payload: &[u8]) -> io::Result<()> {
        let mut packet = Vec::with_capacity(RELAY_HEADER + payload.len());
        beacon::encode_relay(self.node, dest, payload, &mut packet);
        self.send_packet(&packet).await
    }

    /// Sends any bytes to the relay as one datagram.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn send_packet(&self, packet: &[u8]) -> io::Result<()> {
        self.socket.send(packet).await.map(|_| ())
    }

    /// Waits for the next delivery; other packets are passed over. Cancel-safe.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn recv(&mut self) -> io::Result<Delivery> {
        loop {
            let length = self.socket.recv(&mut self.buffer).await?;
            let packet = self.buffer.get(..length).expect(IN_BUFFER);
            if let Ok(Packet::Deliver(deliver)) = beacon::decode(packet) {
                let payload = Bytes::copy_from_slice(deliver.payload);
                return Ok(Delivery { sender: deliver.sender, payload });
            }
        }
    }
}

/// Asks a relay at which address it sees this machine, for 5 s at most, and becomes known to it
/// by no id (SPEC §2.1).
///
/// # Errors
/// A socket that cannot be made; a relay that does not answer (`TimedOut`), as those do not that
/// drop id 0 in a Discover.
pub async fn observed_address(relay: SocketAddr) -> io::Result<SocketAddr> {
    let socket = bind(relay)?;
    socket.connect(relay).await?;
    let mut question = Vec::new();
    beacon::encode_address_question(&mut question);
    ask(&socket, relay, &question, &mut vec![0; MAX_UDP_PACKET]).await
}

/// Sends a Discover until it is answered, a few times at most.
async fn ask(
    socket: &UdpSocket,
    relay: SocketAddr,
    discover: &[u8],
    buffer: &mut [u8],
) -> io::Result<SocketAddr> {
    for _ in 0..ATTEMPTS {
        socket.send(discover).await?;
        if let Ok(observed) = timeout(ANSWER, discover_reply(socket, buffer)).await {
            return observed;
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer from the relay {relay}")))
}

async fn discover_reply(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<SocketAddr> {
    loop {
        let length = socket.recv(buffer).await?;
        let packet = buffer.get(..length).expect(IN_BUFFER);
        if let Ok(Packet::DiscoverReply(observed)) = beacon::decode(packet) {
            return Ok(observed);
        }
    }
}

fn bind(relay: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match relay {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = Socket::new(Domain::for_address(relay), Type::DGRAM, Some(Protocol::UDP))?;
    Wish::ReceiveBuffer.settle(socket.set_recv_buffer_size(RECEIVE_BUFFER));
    socket.set_nonblocking(true)?;
    socket.bind(&any.into())?;
    UdpSocket::from_std(socket.into())
}

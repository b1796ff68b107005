//! The relay's own client at its own UDP sockets: asks for its address and sends itself a
//! packet, as a node would.
//!
//! Each attempt is from a port of its own, which the kernel may give to another thread: a
//! datagram may be lost, and a thread that hangs is seen by its [turns](super::Turns).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::ids::NodeId;
use crate::relay::{self, Relay};
use crate::wire::beacon::{self, Packet};

/// The id that its packet has. It takes it from nobody: nothing is registered.
const NODE: NodeId = NodeId::new(u32::MAX).expect("not 0");

/// Time for one attempt; a flight has several.
const ATTEMPT: Duration = Duration::from_millis(500);

/// Longest answer, in bytes: more than either has.
const LONGEST: usize = 128;

/// Why a canary was not served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CanaryError {
    /// There is no way to the sockets, or no descriptor or randomness for it.
    #[error("cannot send to the UDP sockets: {0}")]
    Send(#[source] io::Error),
    /// Not done in time.
    #[error("not back over UDP within {0:?}")]
    Late(Duration),
}

/// Makes flights; one at a time.
#[derive(Debug)]
pub struct Canary {
    relay: Arc<Relay>,
    /// Where the sockets are reached, in the order in which that is tried.
    ways: Vec<SocketAddr>,
}

impl Canary {
    /// The canary of this relay's sockets, whoever has opened them.
    #[must_use]
    pub fn new(relay: &Arc<Relay>) -> Self {
        let bound = relay.udp_address();
        let ip = bound.ip();
        let ips: &[IpAddr] = match ip {
            IpAddr::V4(ip) if ip.is_unspecified() => &[IpAddr::V4(Ipv4Addr::LOCALHOST)],
            // It takes IPv4 as well, unless somebody else has made it; and not every machine
            // has an IPv6 loopback.
            IpAddr::V6(ip) if ip.is_unspecified() => {
                &[IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
            }
            IpAddr::V4(_) | IpAddr::V6(_) => std::slice::from_ref(&ip),
        };
        let at = |ip: &IpAddr| {
            let mut address = bound;
            address.set_ip(*ip);
            address
        };
        Self { relay: Arc::clone(relay), ways: ips.iter().map(at).collect() }
    }

    /// Does all that a node does, within `limit`; the time that it took when it went well.
    ///
    /// # Errors
    /// It was not served.
    pub async fn there_and_back(&self, limit: Duration) -> Result<Duration, CanaryError> {
        let end = Instant::now() + limit;
        let mut refused = None;
        for way in self.ways.iter().cycle() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let began = Instant::now();
            match timeout(left.min(ATTEMPT), self.attempt(*way)).await {
                Ok(Ok(())) => return Ok(began.elapsed()),
                Ok(Err(error)) => {
                    refused = Some(error);
                    // At once is no better.
                    tokio::time::sleep(left.min(ATTEMPT)).await;
                }
                Err(_) => refused = None,
            }
        }
        Err(refused.map_or(CanaryError::Late(limit), CanaryError::Send))
    }

    async fn attempt(&self, way: SocketAddr) -> io::Result<()> {
        let socket = UdpSocket::bind(SocketAddr::new(way.ip(), 0)).await?;
        let address = socket.local_addr()?;
        let mut secret = [0; relay::CANARY_SECRET];
        getrandom::fill(&mut secret)?;
        let canary = relay::Canary { address, secret };
        self.relay.expect_canary(canary, Instant::now());

        let mut question = Vec::new();
        // Nobody's: or a thread that comes to it much later would make a node of it.
        beacon::encode_address_question(&mut question);
        question.extend_from_slice(&secret);
        let mut expected = Vec::new();
        beacon::encode_discover_reply(address, &mut expected);
        exchange(&socket, way, &question, &expected).await?;

        let mut packet = Vec::new();
        beacon::encode_relay(NODE, NODE, &secret, &mut packet);
        let mut delivered = beacon::deliver_header(NODE).to_vec();
        delivered.extend_from_slice(&secret);
        exchange(&socket, way, &packet, &delivered).await?;
        self.relay.dismiss_canary(&canary, Instant::now());
        Ok(())
    }
}

/// Sends a packet and waits for this answer, among whatever else comes.
async fn exchange(
    socket: &UdpSocket,
    way: SocketAddr,
    packet: &[u8],
    expected: &[u8],
) -> io::Result<()> {
    debug_assert!(!matches!(beacon::decode(packet), Ok(Packet::Deliver(_)) | Err(_)));
    socket.send_to(packet, way).await?;
    let mut buffer = [0; LONGEST];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await?;
        if from == way && buffer.get(..length) == Some(expected) {
            return Ok(());
        }
    }
}

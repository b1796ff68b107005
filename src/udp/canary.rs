//! The relay's own client at its own UDP sockets: says what a client of their sink would say.
//!
//! Each attempt is from a port of its own, which the kernel may give to another thread: a
//! datagram may be lost, and a thread that hangs is seen by its [turns](super::Turns).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::expected::{Caller, Exchange};
use super::threads::{Shared, Threads};
use crate::net::bind::is_missing;

/// Bytes of the secret that is in each packet of one attempt.
pub const SECRET: usize = 32;

/// What a client says from an address, one packet after the other, and what it is answered; each
/// packet holds the secret. Those that a thread comes to late go to the sink like anybody's: they
/// must change nothing there.
pub type Script = fn(SocketAddr, &[u8; SECRET]) -> Vec<Exchange>;

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
    /// Not done in time, while the kernel dropped datagrams for want of room: so does a flood,
    /// and nobody knows more of the relay by it.
    #[error("not back over UDP within {limit:?}, in which the kernel dropped {dropped} datagrams")]
    Crowded {
        /// The time that it had.
        limit: Duration,
        /// What was dropped meanwhile.
        dropped: u64,
    },
    /// The address of the sockets is not this machine's, which they allow.
    #[error("the address is not here: {0}")]
    AddressNotHere(#[source] io::Error),
    /// It never came back over sockets that somebody else has opened, wherever that was.
    #[error("{0}; the sockets were handed over, maybe from another network namespace")]
    Elsewhere(#[source] Box<Self>),
}

impl CanaryError {
    /// Whether it shows no fault of the relay.
    #[must_use]
    pub const fn is_excused(&self) -> bool {
        match self {
            Self::Send(_) | Self::Late(_) => false,
            Self::Crowded { .. } | Self::AddressNotHere(_) | Self::Elsewhere(_) => true,
        }
    }
}

/// Where the sockets come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sockets {
    /// The relay has opened them, at an address of this machine.
    Opened,
    /// The relay has opened them, at an address that may be this machine's later.
    OpenedFreely,
    /// Somebody else has opened them.
    HandedOver,
}

/// Makes flights; one at a time.
#[derive(Debug)]
pub struct Canary {
    shared: Arc<Shared>,
    script: Script,
    /// Where the sockets are reached, in the order in which that is tried.
    ways: Vec<SocketAddr>,
    sockets: Sockets,
    /// Whether the address may move to this machine and away from it.
    may_be_away: bool,
    /// Whether it ever came back.
    has_come_back: AtomicBool,
}

impl Canary {
    /// The canary of the sockets that these threads receive from.
    #[must_use]
    pub fn new(threads: &Threads, sockets: Sockets, script: Script) -> Self {
        let bound = threads.address();
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
        let ways = ips.iter().map(at).collect();
        Self {
            shared: Arc::clone(threads.shared()),
            script,
            ways,
            sockets,
            may_be_away: sockets != Sockets::Opened && !ip.is_unspecified(),
            has_come_back: AtomicBool::new(false),
        }
    }

    /// Does all that a client does, within `limit`; the time that it took when it went well.
    ///
    /// # Errors
    /// It was not served.
    pub async fn there_and_back(&self, limit: Duration) -> Result<Duration, CanaryError> {
        let dropped_before = self.shared.kernel_dropped();
        let error = match self.attempts(limit).await {
            Ok(took) => {
                self.has_come_back.store(true, Ordering::Relaxed);
                return Ok(took);
            }
            Err(error) => error,
        };
        let has_come_back = self.has_come_back.load(Ordering::Relaxed);
        let circumstances = Circumstances {
            dropped: self.shared.kernel_dropped().saturating_sub(dropped_before),
            may_be_away: self.may_be_away,
            may_be_elsewhere: self.sockets == Sockets::HandedOver && !has_come_back,
        };
        Err(circumstances.judge(error))
    }

    async fn attempts(&self, limit: Duration) -> Result<Duration, CanaryError> {
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
                // Not waited for: the start waits for this flight.
                Ok(Err(error)) if self.may_be_away && is_missing(&error) => {
                    return Err(CanaryError::Send(error));
                }
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
        let mut secret = [0; SECRET];
        getrandom::fill(&mut secret)?;
        let caller = Arc::new(Caller { address, exchanges: (self.script)(address, &secret) });
        self.shared.canaries.expect(&caller, Instant::now());
        for Exchange { packet, answer } in &caller.exchanges {
            exchange(&socket, way, packet, answer).await?;
        }
        self.shared.canaries.dismiss(&caller, Instant::now());
        Ok(())
    }
}

/// What a flight went wrong in.
#[derive(Clone, Copy, Debug)]
struct Circumstances {
    /// Datagrams that the kernel dropped meanwhile.
    dropped: u64,
    may_be_away: bool,
    /// Whether the sockets may be in another network namespace.
    may_be_elsewhere: bool,
}

impl Circumstances {
    /// What an error comes to in them.
    fn judge(self, error: CanaryError) -> CanaryError {
        if let CanaryError::Late(limit) = error
            && self.dropped > 0
        {
            return CanaryError::Crowded { limit, dropped: self.dropped };
        }
        let is_away = matches!(&error, CanaryError::Send(error) if is_missing(error));
        if self.may_be_away
            && is_away
            && let CanaryError::Send(error) = error
        {
            return CanaryError::AddressNotHere(error);
        }
        if self.may_be_elsewhere {
            return CanaryError::Elsewhere(Box::new(error));
        }
        error
    }
}

/// Sends a packet and waits for this answer, among whatever else comes.
async fn exchange(
    socket: &UdpSocket,
    way: SocketAddr,
    packet: &[u8],
    expected: &[u8],
) -> io::Result<()> {
    socket.send_to(packet, way).await?;
    let mut buffer = [0; LONGEST];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await?;
        if from == way && buffer.get(..length) == Some(expected) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canary_lost_in_a_flood_or_sent_where_its_address_is_not_shows_no_fault() {
        let here = Circumstances { dropped: 0, may_be_away: false, may_be_elsewhere: false };
        let late = || CanaryError::Late(ATTEMPT);
        let missing = || CanaryError::Send(io::ErrorKind::AddrNotAvailable.into());
        let forbidden = || CanaryError::Send(io::ErrorKind::PermissionDenied.into());
        for (circumstances, error, is_excused) in [
            (here, late(), false),
            (here, missing(), false),
            (here, forbidden(), false),
            (Circumstances { dropped: 1, ..here }, late(), true),
            // No flood keeps it from being sent.
            (Circumstances { dropped: 1, ..here }, forbidden(), false),
            (Circumstances { may_be_away: true, ..here }, missing(), true),
            (Circumstances { may_be_away: true, ..here }, forbidden(), false),
            (Circumstances { may_be_away: true, ..here }, late(), false),
            (Circumstances { may_be_elsewhere: true, ..here }, late(), true),
            (Circumstances { may_be_elsewhere: true, ..here }, forbidden(), true),
        ] {
            let said = format!("{circumstances:?}, {error:?}");
            assert_eq!(circumstances.judge(error).is_excused(), is_excused, "{said}");
        }
    }
}

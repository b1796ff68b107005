//! TCP connections to names: "happy eyeballs" (RFC 8305), so that one dead address of a name
//! does not keep us from the others.
//!
//! The addresses of both families alternate, and each is tried 250 ms after the one before,
//! or as soon as that one has failed. Attempts go on side by side; the first connection wins.
//! A TCP connection decides, as in the RFC. An address that took one and was of no use beyond
//! it, say to TLS, is tried last from then on: [`Destination::demote`].

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::options::Wish;
use super::resolve::Resolver;

/// Time between the starts of two attempts (RFC 8305, section 5).
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Longest attempt at one address; the callers' own limits are often shorter.
pub const LONGEST_ATTEMPT: Duration = Duration::from_secs(10);

/// Addresses of a name that are tried at most.
pub const MAX_ADDRESSES: usize = 16;

/// A host and a port that are dialled again and again.
#[derive(Debug)]
pub struct Destination {
    host: String,
    port: u16,
    resolver: Resolver,
    /// Addresses that were of no use, the latest last; at most [`MAX_ADDRESSES`].
    demoted: Mutex<Vec<SocketAddr>>,
}

impl Destination {
    /// A host by name or address, an IPv6 address with brackets or without.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16, resolver: Resolver) -> Self {
        Self { host: host.into(), port, resolver, demoted: Mutex::default() }
    }

    /// Resolves the name and connects, with TCP_NODELAY. Cancel-safe; the caller bounds the
    /// time.
    ///
    /// # Errors
    /// The name does not resolve, or none of its addresses answers: the text names each.
    pub async fn connect(&self) -> io::Result<TcpStream> {
        let mut addresses = interleaved(self.resolver.resolve(&self.host, self.port).await?);
        let demoted = self.demoted.lock().clone();
        // The sort is stable: those that were never demoted stay as they are, before the others.
        addresses.sort_by_key(|address| demoted.iter().position(|one| one == address));
        addresses.truncate(MAX_ADDRESSES);
        let stream = first_to_answer(addresses).await.map_err(|failures| one_error(&failures))?;
        Wish::NoDelay.settle(stream.set_nodelay(true));
        Ok(stream)
    }

    /// Has this address tried after all others, from here on.
    pub fn demote(&self, address: SocketAddr) {
        let mut demoted = self.demoted.lock();
        demoted.retain(|one| *one != address);
        if demoted.len() == MAX_ADDRESSES {
            demoted.remove(0);
        }
        demoted.push(address);
    }
}

/// Connects to the first of `addresses` that answers; what each said, where none does.
async fn first_to_answer(
    addresses: Vec<SocketAddr>,
) -> Result<TcpStream, Vec<(SocketAddr, io::Error)>> {
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failures = Vec::new();
    let mut next_attempt = std::pin::pin!(sleep(Duration::ZERO));
    loop {
        tokio::select! {
            Some((address, ended)) = attempts.next() => match ended {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    failures.push((address, error));
                    next_attempt.as_mut().reset(Instant::now());
                }
            },
            () = &mut next_attempt, if waiting.len() > 0 => {
                if let Some(address) = waiting.next() {
                    attempts.push(async move { (address, attempt(address).await) });
                }
                next_attempt.as_mut().reset(Instant::now() + ATTEMPT_DELAY);
            }
            else => return Err(failures),
        }
    }
}

/// Connects to one address, for [`LONGEST_ATTEMPT`] at most.
async fn attempt(address: SocketAddr) -> io::Result<TcpStream> {
    let connecting = TcpStream::connect(address);
    timeout(LONGEST_ATTEMPT, connecting).await.unwrap_or_else(|_| {
        let text = format!("no answer within {LONGEST_ATTEMPT:?}");
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    })
}

/// Addresses of both families by turns, beginning with that of the first; the system has
/// sorted them by preference (RFC 6724).
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let count = addresses.len();
    let begins_with_ipv6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == begins_with_ipv6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut interleaved = Vec::with_capacity(count);
    while interleaved.len() < count {
        interleaved.extend(first.next());
        interleaved.extend(second.next());
    }
    interleaved
}

/// What each address said as one error; of a single address, its own.
fn one_error(failures: &[(SocketAddr, io::Error)]) -> io::Error {
    if let [(_, error)] = failures {
        return io::Error::new(error.kind(), error.to_string());
    }
    let mut text = String::new();
    for (address, error) in failures {
        let separator = if text.is_empty() { "" } else { "; " };
        write!(text, "{separator}{address}: {error}").expect("a String takes everything");
    }
    let kind = failures.first().map_or(io::ErrorKind::NotFound, |(_, error)| error.kind());
    io::Error::new(kind, text)
}

#[cfg(test)]
pub(crate) mod testing {
    use std::net::{SocketAddr, TcpStream};

    use socket2::{Domain, Socket, Type};

    /// An address that answers no SYN: that of a listener whose backlog is full, which nobody
    /// empties.
    #[derive(Debug)]
    pub(crate) struct Blackhole {
        pub(crate) address: SocketAddr,
        _listener: Socket,
        _waiting: TcpStream,
    }

    impl Blackhole {
        pub(crate) fn new(ip: &str) -> Self {
            let ip: std::net::IpAddr = ip.parse().unwrap();
            let any = SocketAddr::new(ip, 0);
            let listener = Socket::new(Domain::for_address(any), Type::STREAM, None).unwrap();
            listener.bind(&any.into()).unwrap();
            listener.listen(0).unwrap();
            let address = listener.local_addr().unwrap().as_socket().unwrap();
            // The kernel takes one more than it was told, and drops the SYNs from then on.
            let waiting = TcpStream::connect(address).unwrap();
            Self { address, _listener: listener, _waiting: waiting }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use tokio::net::TcpListener;

    use super::testing::Blackhole;
    use super::*;

    /// A name with these addresses; the port is that of the destination.
    fn destination(ips: &[&str], port: u16) -> Destination {
        let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        let addresses = ips.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect::<Vec<_>>();
        Destination::new("relay.test", port, Resolver::new(1, move |_| Ok(addresses.clone())))
    }

    async fn listening(address: SocketAddr) -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn name_whose_first_address_is_dead_is_reached_at_the_second() {
        let dead = Blackhole::new("127.0.0.1");
        let port = dead.address.port();
        let (_listener, good) = listening(([127, 0, 0, 2], port).into()).await;
        let destination = destination(&["127.0.0.1", "127.0.0.2"], port);

        let started = Instant::now();
        let stream = destination.connect().await.unwrap();

        assert_eq!(stream.peer_addr().unwrap(), good);
        assert!(stream.nodelay().unwrap());
        assert!(started.elapsed() >= ATTEMPT_DELAY, "the first address has its time");
    }

    #[tokio::test]
    async fn address_that_answers_late_wins_over_dead_ones_that_began_later() {
        let dead = Blackhole::new("127.0.0.3");
        let (_listener, good) = listening(([127, 0, 0, 1], 0).into()).await;
        let stream = first_to_answer(vec![good, dead.address]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
    }

    #[tokio::test]
    async fn refusal_starts_the_next_attempt_at_once_and_all_are_named() {
        let (listener, refused) = listening(([127, 0, 0, 1], 0).into()).await;
        drop(listener);
        let port = refused.port();
        let destination = destination(&["127.0.0.1", "127.0.0.2", "127.0.0.3"], port);
        let error = destination.connect().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        for ip in ["127.0.0.1", "127.0.0.2", "127.0.0.3"] {
            assert!(error.to_string().contains(&format!("{ip}:{port}: ")), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn attempt_is_given_up_after_its_time() {
        let dead = Blackhole::new("127.0.0.1");
        let error = attempt(dead.address).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(first_to_answer(Vec::new()).await.unwrap_err().is_empty());
    }

    #[tokio::test]
    async fn address_that_was_of_no_use_is_tried_last() {
        let (_one, first) = listening(([127, 0, 0, 1], 0).into()).await;
        let (_two, second) = listening(([127, 0, 0, 2], first.port()).into()).await;
        let destination = destination(&["127.0.0.1", "127.0.0.2"], first.port());
        let reached = async || destination.connect().await.unwrap().peer_addr().unwrap();

        assert_eq!(reached().await, first);
        destination.demote(first);
        assert_eq!(reached().await, second);
        destination.demote(second);
        assert_eq!(reached().await, first, "all are tried by turns");
    }

    #[test]
    fn families_take_turns() {
        let addresses = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 1)).collect()
        };
        for (given, expected) in [
            (&["::1", "::2", "::3", "1.1.1.1"][..], &["::1", "1.1.1.1", "::2", "::3"][..]),
            (&["1.1.1.1", "::1", "::2"], &["1.1.1.1", "::1", "::2"]),
            (&["::1", "1.1.1.1", "1.1.1.2"], &["::1", "1.1.1.1", "1.1.1.2"]),
            (&["1.1.1.1"], &["1.1.1.1"]),
            (&[], &[]),
        ] {
            assert_eq!(interleaved(addresses(given)), addresses(expected));
        }
    }
}

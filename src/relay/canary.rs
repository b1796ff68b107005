//! Answers the relay's own client over UDP, which is no node.
//!
//! A datagram is the canary's if it comes from the canary's address and has its secret: the
//! address is one of this machine, so that nobody else can have it, and the secret is new for
//! each attempt. It is answered by the thread that received it, on the socket that it came to;
//! no table, limit, count or other relay learns of it. The id that it uses is anybody's.
//!
//! A thread that is behind may come to a datagram when nobody waits for its answer any more: it
//! is still known for [`REMEMBERED`]. Nothing in it registers a node even after that.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::Relay;
use super::udp::Worker;
use crate::net::udp::{Datagram, Run};
use crate::wire::beacon::{self, Packet};

/// How long a canary's datagrams are known, unless all of them were answered before.
pub(super) const REMEMBERED: Duration = Duration::from_secs(10);

/// Most canaries that are known at a time: two a second are sent at most.
const MOST: usize = 24;

/// Bytes of a secret: a Discover has room for as many, where nodes have their key.
pub const SECRET: usize = 32;

/// What tells the canary's datagrams from all others.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Canary {
    /// Where they come from.
    pub address: SocketAddr,
    /// What is in each of them.
    pub secret: [u8; SECRET],
}

impl std::fmt::Debug for Canary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Canary").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The canaries whose datagrams may still come: none most of the time.
#[derive(Debug, Default)]
pub(super) struct Canaries(ArcSwap<Vec<Expected>>);

#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    canary: Canary,
    until: Instant,
}

impl Canaries {
    /// Those at this moment.
    pub(super) fn load(&self) -> arc_swap::Guard<Arc<Vec<Expected>>> {
        self.0.load()
    }

    fn change(&self, now: Instant, change: impl Fn(&mut Vec<Expected>)) {
        self.0.rcu(|known| {
            let mut known: Vec<_> = known.iter().filter(|one| now < one.until).copied().collect();
            change(&mut known);
            known
        });
    }
}

impl Relay {
    /// Expects this canary from the next batch on.
    pub fn expect_canary(&self, canary: Canary, now: Instant) {
        self.canaries.change(now, |known| {
            if known.len() >= MOST {
                known.remove(0);
            }
            known.push(Expected { canary, until: now + REMEMBERED });
        });
    }

    /// Expects nothing more of this canary: all its datagrams were answered.
    pub fn dismiss_canary(&self, canary: &Canary, now: Instant) {
        self.canaries.change(now, |known| known.retain(|one| one.canary != *canary));
    }

    /// Datagrams that the kernel dropped so far before a thread read them.
    #[must_use]
    pub fn kernel_dropped(&self) -> u64 {
        self.traffic.packets_kernel_dropped()
    }

    /// Where the UDP sockets are bound.
    #[must_use]
    pub fn udp_address(&self) -> SocketAddr {
        self.socket_of(0).address()
    }
}

impl Expected {
    /// Answers a datagram of the canary as one of a node would be; whether it was the canary's.
    pub(super) fn answer(
        &self,
        worker: &Worker,
        datagram: &Datagram,
        packet: &[u8],
        now: Instant,
    ) -> bool {
        let Canary { address, secret } = &self.canary;
        if datagram.from != *address || now >= self.until {
            return false;
        }
        let mut answer = Vec::new();
        match beacon::decode(packet) {
            Ok(Packet::Discover(question)) if question.key == Some(secret) => {
                beacon::encode_discover_reply(datagram.from, &mut answer);
            }
            Ok(Packet::Relay(relay)) if relay.payload == secret => {
                answer.extend_from_slice(&beacon::deliver_header(relay.sender));
                answer.extend_from_slice(relay.payload);
            }
            Ok(_) | Err(_) => return false,
        }
        let segment = answer.len();
        let run = Run { to: datagram.from, from: datagram.to, bytes: &answer, segment };
        // What the kernel does not take is missed by whoever waits for it.
        worker.send(&run);
        true
    }
}

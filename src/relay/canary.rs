//! Answers the relay's own client over UDP, which is no node.
//!
//! A datagram is the canary's if it comes from the canary's address and has its secret: the
//! address is one of this machine, so that nobody else can have it, and the secret is new for
//! each attempt. It is answered by the thread that received it, on the socket that it came to;
//! no table, limit, count or other relay learns of it. The id that it uses is anybody's.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Relay;
use super::udp::Worker;
use crate::net::udp::{Datagram, Run};
use crate::wire::beacon::{self, Packet};

/// Bytes of a secret: a Discover has room for as many, where nodes have their key.
pub const SECRET: usize = 32;

/// What tells the canary's datagrams from all others.
#[derive(Clone, Eq, PartialEq)]
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

impl Relay {
    /// Expects this canary from the next batch on, or none.
    pub fn expect_canary(&self, canary: Option<Canary>) {
        self.canary.store(canary.map(Arc::new));
    }

    /// Where the UDP sockets are bound.
    #[must_use]
    pub fn udp_address(&self) -> SocketAddr {
        self.socket_of(0).address()
    }
}

impl Canary {
    /// Answers a datagram of the canary as one of a node would be; whether it was the canary's.
    pub(super) fn answer(&self, worker: &Worker, datagram: &Datagram, packet: &[u8]) -> bool {
        if datagram.from != self.address {
            return false;
        }
        let mut answer = Vec::new();
        match beacon::decode(packet) {
            Ok(Packet::Discover(discover)) if discover.key == Some(&self.secret) => {
                beacon::encode_discover_reply(datagram.from, &mut answer);
            }
            Ok(Packet::Relay(relay)) if relay.payload == self.secret => {
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

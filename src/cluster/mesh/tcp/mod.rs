//! The lane of packets over TLS and TCP, beside that of the QUIC connection.
//!
//! TCP does in the kernel, and for 64 KiB at a time, what QUIC does here for each datagram: a
//! packet through two relays costs a third. So where the relay that has dialled a link reaches
//! the other over TCP at the same address, packets go there, over one connection for each
//! direction. Both sides prove the same keys as on the link, and the connection is bound to it
//! (`hello`). QUIC carries everything else, decides who is a member, and carries the packets
//! wherever TCP is blocked, refused or lost; no packet overtakes another on the way from one to
//! the other (`turns`).

mod connection;
mod dial;
mod hello;
mod listen;
mod read;
#[cfg(test)]
pub(super) mod testing;
mod turns;
mod write;

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::{ClientConfig, ServerConfig};
use tokio::sync::Notify;
use tokio_util::sync::DropGuard;

use super::hello::Role;
use connection::Connection;
pub(super) use dial::keep;
pub(super) use hello::{EXPORTER_LABEL, LinkSecret, Way};
pub(super) use listen::{Port, serve};
pub(super) use read::read;
pub(super) use turns::Turns;
pub(super) use write::{Over, write};

/// The protocol of lanes, which both sides must offer.
pub(super) const ALPN: &[u8] = b"beacon-cluster/1-lane";

/// TLS of the lanes.
#[derive(Clone, Debug)]
pub(super) struct Configs {
    /// Of those that we dial.
    pub(super) client: Arc<ClientConfig>,
    /// Of those that others dial.
    pub(super) server: Arc<ServerConfig>,
}

/// The lanes over TCP of one link.
#[derive(Debug)]
pub(super) struct Lanes {
    role: Role,
    secret: LinkSecret,
    /// Connections that are ready for our packets.
    pub(super) outgoing: Mailbox,
    /// Connections that are ready for the other side's.
    pub(super) incoming: Mailbox,
    /// When those may be read.
    pub(super) turns: Turns,
}

impl Lanes {
    /// None yet, for a link with this secret.
    pub(super) fn new(role: Role, secret: LinkSecret) -> Self {
        let (outgoing, incoming) = (Mailbox::default(), Mailbox::default());
        Self { role, secret, outgoing, incoming, turns: Turns::new() }
    }

    /// Which side of the link we are.
    pub(super) const fn role(&self) -> Role {
        self.role
    }

    /// Hands over a connection on which packets go this way.
    fn attach(&self, way: Way, lane: Lane) {
        let is_ours = (way == Way::Forth) == (self.role == Role::Dial);
        if is_ours { self.outgoing.put(lane) } else { self.incoming.put(lane) }
    }
}

/// A connection that is ready.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) connection: Connection,
    /// Tells the dialler that it is over.
    pub(super) over: Option<DropGuard>,
}

/// Where a lane waits for whoever uses it; a newer one takes its place.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    lane: Mutex<Option<Lane>>,
    filled: Notify,
}

impl Mailbox {
    fn put(&self, lane: Lane) {
        // The older is dropped, and closed with it, behind the lock.
        let _older = self.lane.lock().replace(lane);
        self.filled.notify_one();
    }

    /// Waits for a lane. Cancel-safe.
    pub(super) async fn next(&self) -> Lane {
        loop {
            self.filled().await;
            if let Some(lane) = self.lane.lock().take() {
                return lane;
            }
        }
    }

    /// Waits until there is a lane, and leaves it there. Cancel-safe.
    pub(super) async fn filled(&self) {
        while self.lane.lock().is_none() {
            self.filled.notified().await;
        }
    }
}

//! Socket options that a relay or node works without: what the kernel refuses of them is a warning.
//!
//! Sandboxes and other kernels refuse options that Linux has. Those that decide what a socket
//! is (its address, its family, whether a call waits) are errors of their callers.

use std::io;

use parking_lot::Mutex;

/// Whose warnings they are in a log: operators have this name in their filters.
const TARGET: &str = "beacon_relay::net::options";

/// An option, and what is lost without it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wish {
    /// A size of the receive buffer.
    ReceiveBuffer,
    /// A size of the send buffer.
    SendBuffer,
    /// TCP_NODELAY.
    NoDelay,
    /// TCP_NOTSENT_LOWAT.
    NotSentLowAt,
    /// SO_KEEPALIVE and its times.
    KeepAlive,
    /// SO_REUSEADDR.
    ReuseAddress,
    /// SO_RXQ_OVFL.
    DropCounter,
    /// IP_MTU_DISCOVER, IPV6_MTU_DISCOVER.
    Fragmentation,
    /// IP_PKTINFO, IPV6_RECVPKTINFO.
    PacketInfo,
}

impl Wish {
    const fn option(self) -> &'static str {
        match self {
            Self::ReceiveBuffer => "SO_RCVBUF",
            Self::SendBuffer => "SO_SNDBUF",
            Self::NoDelay => "TCP_NODELAY",
            Self::NotSentLowAt => "TCP_NOTSENT_LOWAT",
            Self::KeepAlive => "SO_KEEPALIVE",
            Self::ReuseAddress => "SO_REUSEADDR",
            Self::DropCounter => "SO_RXQ_OVFL",
            Self::Fragmentation => "MTU_DISCOVER",
            Self::PacketInfo => "PKTINFO",
        }
    }

    const fn without(self) -> &'static str {
        match self {
            Self::ReceiveBuffer | Self::SendBuffer => "the buffer has the kernel's own size",
            Self::NoDelay => "small packets over TCP may wait for an acknowledgement",
            Self::NotSentLowAt => "the kernel queues more for a slow reader",
            Self::KeepAlive => "a dead connection is noticed later",
            Self::ReuseAddress => "a restart may find its address in use for a minute",
            Self::DropCounter => "datagrams that the kernel drops are not counted",
            Self::Fragmentation => "datagrams longer than the path's MTU may be lost",
            Self::PacketInfo => {
                "with several addresses, replies may leave from another one than was asked"
            }
        }
    }

    /// Goes on, whatever became of the option; a refusal is a warning for each option, once.
    pub fn settle(self, result: io::Result<()>) {
        static REFUSED: Mutex<Vec<Wish>> = Mutex::new(Vec::new());
        let Err(error) = result else { return };
        let mut refused = REFUSED.lock();
        if refused.contains(&self) {
            return;
        }
        refused.push(self);
        let option = self.option();
        let without = self.without();
        tracing::warn!(target: TARGET, option, %error, without, "the kernel refuses a socket option");
    }
}

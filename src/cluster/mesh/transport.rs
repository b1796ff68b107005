//! How QUIC is set up below the links: the socket, windows and timeouts.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Endpoint, EndpointConfig, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};

use super::lane::LANES;
use crate::cluster::DEAD_AFTER;
use crate::net::bind::{FreeBind, bind};

/// What one lane may have under way, in bytes: 800 Mbit/s at a round trip of 20 ms. More
/// waits in the outbox, where it has an age.
const LANE_WINDOW: u32 = 2 << 20;

/// What a link may have under way: a full lane of packets leaves room for words.
const LINK_WINDOW: u32 = LANE_WINDOW + (1 << 20);

/// What a connection that is no link yet may have under way to us, in bytes: a hello many
/// times over, and little memory for a crowd of strangers.
const GREETING_WINDOW: u32 = 16 << 10;

/// Socket buffers, in bytes, as far as the system gives them: a window's worth in each
/// direction.
const SOCKET_BUFFER: usize = 4 << 20;

/// An endpoint that dials and will take connections once it has a server's configuration.
///
/// # Errors
/// The address cannot be bound, or there is no runtime.
pub(super) fn open(address: SocketAddr, free: FreeBind) -> io::Result<Endpoint> {
    let runtime = quinn::default_runtime()
        .ok_or_else(|| io::Error::other("a mesh is bound on the runtime that it runs on"))?;
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A smaller buffer costs speed under load, and is no reason to fail.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    bind(&socket, address, free)?;
    Endpoint::new(EndpointConfig::default(), None, socket.into(), runtime)
}

/// Windows and timeouts of a connection whose signs of life are `keepalive` apart; what comes
/// is held small until it is a [`link`].
///
/// The signs of life are words, from above, so QUIC makes none of its own. Its idle time is
/// longer than the silence after which the cluster gives a member up: it only ends what the
/// cluster has no part in.
pub(super) fn config(keepalive: Duration) -> Arc<TransportConfig> {
    let idle = keepalive.saturating_mul(DEAD_AFTER) + Duration::from_secs(1);
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(idle.try_into().ok())
        .keep_alive_interval(None)
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(LANES.into()))
        .stream_receive_window(VarInt::from_u32(LANE_WINDOW))
        .receive_window(VarInt::from_u32(GREETING_WINDOW))
        .send_window(LINK_WINDOW.into())
        .datagram_receive_buffer_size(None);
    Arc::new(config)
}

/// Gives a connection the window of a link.
pub(super) fn link(connection: &Connection) {
    connection.set_receive_window(VarInt::from_u32(LINK_WINDOW));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_runtime_is_an_error_and_no_panic() {
        let error = open(([127, 0, 0, 1], 0).into(), FreeBind::Off).unwrap_err();
        assert!(error.to_string().contains("runtime"), "{error}");
    }
}

//! Peers of NetBird's protocol over WebSocket: the same load for the relay's door and its floor.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, bail};
use beacon_relay::client::netbird::token;
use beacon_wire::netbird::{FromRelay, PeerId, auth, transport_header};
use beacon_wire::websocket::Opcode;

use crate::peer::{Node, connect, push_frame, upgrade};

/// The secret of all tokens.
pub(super) const SECRET: &str = "a secret for as long as a measurement lasts";

/// Where the servers say that they are.
pub(super) const EXPOSED: &str = "rel://127.0.0.1:33080";

/// When tokens end, in Unix seconds: far from now.
const EXPIRY: u64 = 9_999_999_999;

/// The payload that a packet of WireGuard makes at MTU 1,280, in bytes.
pub(super) const PAYLOAD: usize = 1_312;

/// The id of a node of the load.
pub(super) fn id(node: &Node) -> PeerId {
    PeerId::of_name(&node.id.to_string())
}

/// What a sender says to have `size` bytes delivered to a node.
pub(super) fn packet(to: &Node, size: usize) -> Vec<u8> {
    [&transport_header(id(to))[..], &vec![0xa5; size]].concat()
}

/// Logs a node in, which then has its place at the server.
pub(super) fn log_in(server: SocketAddr, node: &Node) -> anyhow::Result<TcpStream> {
    let mut reader = BufReader::with_capacity(2_048, connect(server)?);
    upgrade(
        &mut reader,
        "GET /relay HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )?;
    let mut frame = Vec::new();
    let login = auth(id(node), &token(SECRET, EXPIRY));
    push_frame(Opcode::Binary, &login, [1, 2, 3, 4], &mut frame);
    reader.get_mut().write_all(&frame)?;
    let mut head = [0; 2];
    reader.read_exact(&mut head).context("the server refuses the login")?;
    let mut answer = vec![0; usize::from(head[1])];
    reader.read_exact(&mut answer)?;
    match FromRelay::decode(&answer) {
        Ok(FromRelay::AuthResponse(EXPOSED)) if head[0] == 0x82 => {}
        other => bail!("not logged in: {other:?}"),
    }
    let stream = reader.into_inner();
    stream.set_read_timeout(None)?;
    Ok(stream)
}

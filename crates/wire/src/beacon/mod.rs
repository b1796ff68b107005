//! Beacon packets 0x01 to 0x0a (SPEC §2): one UDP datagram or one binary WebSocket
//! frame is one packet.
//!
//! Decoding borrows from the packet; encoding appends to a buffer or, for the headers of
//! relayed packets, returns a small array that goes in front of the payload.

use std::net::{IpAddr, SocketAddr};

use crate::ids::{BeaconId, NodeId, PublicKey};

const DISCOVER: u8 = 0x01;
const DISCOVER_REPLY: u8 = 0x02;
const PUNCH_REQUEST: u8 = 0x03;
const PUNCH_COMMAND: u8 = 0x04;
const RELAY: u8 = 0x05;
const RELAY_DELIVER: u8 = 0x06;
const SYNC: u8 = 0x07;
const DISCOVER_EX: u8 = 0x08;
const RELAY_DELIVER_DEST: u8 = 0x09;
const NOTIFY: u8 = 0x0a;

/// Kind of a Notify that says: a handshake waits at the registry, poll now (SPEC §2.8).
pub const NOTIFY_POLL: u8 = 1;

/// Largest packet in one WebSocket frame, in bytes (SPEC §3.6).
pub const MAX_WSS_PACKET: usize = 65_536;

/// Largest packet in one UDP datagram over IPv4, in bytes (SPEC §2).
///
/// 65_507 = 65_535 (IPv4 total length) - 20 (IPv4 header) - 8 (UDP header).
pub const MAX_UDP_PACKET: usize = 65_507;

/// Bytes in front of the payload of a Relay packet: type, sender, destination.
pub const RELAY_HEADER: usize = 9;

/// Bytes in front of the payload of a RelayDeliver packet: type, sender.
pub const DELIVER_HEADER: usize = 5;

/// Most node ids that one Sync can hold (SPEC §2.7).
///
/// 16_375 = (65_507 (largest datagram) - 1 (type) - 4 (beacon) - 2 (count)) / 4.
pub const MAX_SYNC_NODES: usize = (MAX_UDP_PACKET - 7) / 4;

/// Length of a probe for a direct way.
const DIRECT_PROBE: usize = 70;

/// Length of a punch grant: expiry u64 and a 64-byte signature.
pub const GRANT_LENGTH: usize = 72;

/// Why bytes are not a beacon packet.
///
/// Exhaustive: the relay counts each of them under a reason, and shall not build without one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// There is no byte at all.
    #[error("the packet is empty")]
    Empty,
    /// The type byte is not in the table of SPEC §2.
    #[error("unknown packet type {0:#04x}")]
    UnknownType(u8),
    /// The packet ends before its fixed part does.
    #[error("the packet needs {need} bytes and has {got}")]
    Truncated {
        /// Length of the fixed part, type byte included.
        need: usize,
        /// Length of the packet.
        got: usize,
    },
    /// A node id is 0 where the packet must name a node.
    #[error("node id 0 where a node is named")]
    ZeroId,
    /// An address is neither 4 nor 16 bytes long.
    #[error("an address of {0} bytes")]
    AddressLength(u8),
}

/// A decoded packet that borrows from its bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Packet<'a> {
    /// 0x01 and 0x08: a node asks for its address, which is its heartbeat as well.
    Discover(Discover<'a>),
    /// 0x02: the address that a beacon observed.
    DiscoverReply(SocketAddr),
    /// 0x03: a node asks for a punch towards another.
    PunchRequest(PunchRequest),
    /// 0x04: send a packet to this address.
    PunchCommand(SocketAddr),
    /// 0x05: a payload on its way to a node.
    Relay(Relay<'a>),
    /// 0x06 and 0x09: a payload at its destination.
    Deliver(Deliver<'a>),
    /// 0x07: the nodes that a beacon serves.
    Sync(Sync<'a>),
    /// 0x0a: something has happened, of this kind; [`NOTIFY_POLL`] is the only one known.
    Notify(u8),
}

/// A Discover (0x01) or DiscoverEx (0x08) packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Discover<'a> {
    /// The node that asks; 0 on the wire is nobody's: an address question (SPEC §2.1).
    pub node: Option<NodeId>,
    /// The 32 bytes after the node id, where there are so many; not checked to be a key.
    pub key: Option<&'a [u8; 32]>,
    /// Whether the node wants its deliveries as 0x09 from then on.
    pub extended: bool,
}

/// A PunchRequest (0x03) packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PunchRequest {
    /// The node that asks.
    pub requester: NodeId,
    /// The node that it wants to reach.
    pub target: NodeId,
    /// The target's permission, where the packet carries one.
    pub grant: Option<Grant>,
}

/// The target's permission to be punched, not verified yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Grant {
    /// Until when the grant holds, in Unix seconds.
    pub expiry: u64,
    /// The target's Ed25519 signature over [`Grant::signed_text`].
    pub signature: [u8; 64],
}

impl Grant {
    /// The text that the target signs (SPEC §2.4).
    #[must_use]
    pub fn signed_text(requester: NodeId, target: NodeId, expiry: u64) -> String {
        format!("punch-grant:{requester}:{target}:{expiry}")
    }
}

/// A Relay (0x05) packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Relay<'a> {
    /// The node that says it sent the packet.
    pub sender: NodeId,
    /// The node that it is for.
    pub dest: NodeId,
    /// What is carried; opaque.
    pub payload: &'a [u8],
}

/// A RelayDeliver (0x06) or RelayDeliverDest (0x09) packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Deliver<'a> {
    /// The node that sent the packet.
    pub sender: NodeId,
    /// The node that it is for; only 0x09 says.
    pub dest: Option<NodeId>,
    /// What is carried; opaque.
    pub payload: &'a [u8],
}

/// A Sync (0x07) packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sync<'a> {
    /// The beacon that serves the nodes.
    pub beacon: BeaconId,
    ids: &'a [u8],
}

impl<'a> Sync<'a> {
    /// The nodes that the beacon serves; an id of 0 is left out.
    #[inline]
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<'a> {
        let (ids, _) = self.ids.as_chunks::<4>();
        ids.iter().filter_map(|id| NodeId::new(u32::from_be_bytes(*id)))
    }
}

/// Whether bytes are no packet but a probe of the overlay's own, with which a daemon looks
/// for a direct way to another: 70 bytes, `PIL` and a letter first (SPEC §5.2).
#[must_use]
#[inline]
pub const fn is_direct_probe(packet: &[u8]) -> bool {
    packet.len() == DIRECT_PROBE
        && matches!(packet, [b'P', b'I', b'L', letter, ..] if letter.is_ascii_alphabetic())
}

/// Decodes one packet.
///
/// # Errors
/// An empty packet, an unknown type, one shorter than its fixed part, a node id of 0 in
/// another than a Discover.
#[inline]
pub fn decode(packet: &[u8]) -> Result<Packet<'_>, DecodeError> {
    let (&kind, body) = packet.split_first().ok_or(DecodeError::Empty)?;
    match kind {
        RELAY => decode_relay(body).map(Packet::Relay),
        DISCOVER | DISCOVER_EX => decode_discover(body, kind == DISCOVER_EX).map(Packet::Discover),
        DISCOVER_REPLY => decode_address(body).map(Packet::DiscoverReply),
        PUNCH_REQUEST => decode_punch(body).map(Packet::PunchRequest),
        PUNCH_COMMAND => decode_address(body).map(Packet::PunchCommand),
        RELAY_DELIVER | RELAY_DELIVER_DEST => {
            decode_deliver(body, kind == RELAY_DELIVER_DEST).map(Packet::Deliver)
        }
        SYNC => decode_sync(body).map(Packet::Sync),
        NOTIFY => fixed(body).map(|(&[kind], _)| Packet::Notify(kind)),
        unknown => Err(DecodeError::UnknownType(unknown)),
    }
}

#[inline]
fn decode_relay(body: &[u8]) -> Result<Relay<'_>, DecodeError> {
    let (&[s0, s1, s2, s3, d0, d1, d2, d3], payload) = fixed(body)?;
    Ok(Relay { sender: node([s0, s1, s2, s3])?, dest: node([d0, d1, d2, d3])?, payload })
}

#[inline]
fn decode_discover(body: &[u8], extended: bool) -> Result<Discover<'_>, DecodeError> {
    let (id, rest) = fixed(body)?;
    Ok(Discover { node: NodeId::new(u32::from_be_bytes(*id)), key: rest.first_chunk(), extended })
}

fn decode_punch(body: &[u8]) -> Result<PunchRequest, DecodeError> {
    let (&[r0, r1, r2, r3, t0, t1, t2, t3], rest) = fixed(body)?;
    let grant = rest.split_first_chunk::<8>().and_then(|(expiry, rest)| {
        let signature = *rest.first_chunk::<64>()?;
        Some(Grant { expiry: u64::from_be_bytes(*expiry), signature })
    });
    Ok(PunchRequest { requester: node([r0, r1, r2, r3])?, target: node([t0, t1, t2, t3])?, grant })
}

#[inline]
fn decode_deliver(body: &[u8], with_dest: bool) -> Result<Deliver<'_>, DecodeError> {
    if with_dest {
        let Relay { sender, dest, payload } = decode_relay(body)?;
        return Ok(Deliver { sender, dest: Some(dest), payload });
    }
    let (sender, payload) = fixed(body)?;
    Ok(Deliver { sender: node(*sender)?, dest: None, payload })
}

fn decode_sync(body: &[u8]) -> Result<Sync<'_>, DecodeError> {
    let (&[b0, b1, b2, b3, c0, c1], rest) = fixed(body)?;
    let length = usize::from(u16::from_be_bytes([c0, c1])) * 4;
    let ids = rest.get(..length).ok_or_else(|| truncated(6 + length, body))?;
    Ok(Sync { beacon: BeaconId(u32::from_be_bytes([b0, b1, b2, b3])), ids })
}

fn decode_address(body: &[u8]) -> Result<SocketAddr, DecodeError> {
    let (&length, rest) = body.split_first().ok_or_else(|| truncated(1, body))?;
    let need = 3 + usize::from(length);
    let (ip, port): (IpAddr, _) = match length {
        4 => {
            let (ip, rest) = rest.split_first_chunk::<4>().ok_or_else(|| truncated(need, body))?;
            ((*ip).into(), rest)
        }
        16 => {
            let (ip, rest) = rest.split_first_chunk::<16>().ok_or_else(|| truncated(need, body))?;
            ((*ip).into(), rest)
        }
        other => return Err(DecodeError::AddressLength(other)),
    };
    let port = port.first_chunk::<2>().ok_or_else(|| truncated(need, body))?;
    Ok(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

#[inline]
fn fixed<const N: usize>(body: &[u8]) -> Result<(&[u8; N], &[u8]), DecodeError> {
    body.split_first_chunk().ok_or_else(|| truncated(N, body))
}

#[inline]
fn truncated(need: usize, body: &[u8]) -> DecodeError {
    DecodeError::Truncated { need: need + 1, got: body.len() + 1 }
}

#[inline]
fn node(number: [u8; 4]) -> Result<NodeId, DecodeError> {
    NodeId::new(u32::from_be_bytes(number)).ok_or(DecodeError::ZeroId)
}

/// The header of a Relay packet (0x05).
#[must_use]
#[inline]
pub fn relay_header(sender: NodeId, dest: NodeId) -> [u8; RELAY_HEADER] {
    routed_header(RELAY, sender, dest)
}

/// The header of a RelayDeliverDest packet (0x09).
#[must_use]
#[inline]
pub fn deliver_dest_header(sender: NodeId, dest: NodeId) -> [u8; RELAY_HEADER] {
    routed_header(RELAY_DELIVER_DEST, sender, dest)
}

#[inline]
fn routed_header(kind: u8, sender: NodeId, dest: NodeId) -> [u8; RELAY_HEADER] {
    let [s0, s1, s2, s3] = sender.number().to_be_bytes();
    let [d0, d1, d2, d3] = dest.number().to_be_bytes();
    [kind, s0, s1, s2, s3, d0, d1, d2, d3]
}

/// The header of a RelayDeliver packet (0x06).
#[must_use]
#[inline]
pub fn deliver_header(sender: NodeId) -> [u8; DELIVER_HEADER] {
    let [s0, s1, s2, s3] = sender.number().to_be_bytes();
    [RELAY_DELIVER, s0, s1, s2, s3]
}

/// Appends a Relay packet (0x05).
#[inline]
pub fn encode_relay(sender: NodeId, dest: NodeId, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&relay_header(sender, dest));
    out.extend_from_slice(payload);
}

/// Appends a Discover packet (0x01), or a DiscoverEx (0x08) where `extended`.
pub fn encode_discover(node: NodeId, key: Option<&PublicKey>, extended: bool, out: &mut Vec<u8>) {
    out.push(if extended { DISCOVER_EX } else { DISCOVER });
    out.extend_from_slice(&node.number().to_be_bytes());
    if let Some(key) = key {
        out.extend_from_slice(&key.0);
    }
}

/// Appends a Discover of nobody: it asks for an address, and makes nobody known (SPEC §2.1).
pub fn encode_address_question(out: &mut Vec<u8>) {
    out.extend_from_slice(&[DISCOVER, 0, 0, 0, 0]);
}

/// Appends a DiscoverReply packet (0x02); an IPv4-mapped address goes out as IPv4.
pub fn encode_discover_reply(observed: SocketAddr, out: &mut Vec<u8>) {
    out.push(DISCOVER_REPLY);
    encode_address(observed, out);
}

/// Appends a PunchRequest packet (0x03).
pub fn encode_punch_request(request: &PunchRequest, out: &mut Vec<u8>) {
    out.push(PUNCH_REQUEST);
    out.extend_from_slice(&request.requester.number().to_be_bytes());
    out.extend_from_slice(&request.target.number().to_be_bytes());
    if let Some(grant) = &request.grant {
        out.extend_from_slice(&grant.expiry.to_be_bytes());
        out.extend_from_slice(&grant.signature);
    }
}

/// Appends a PunchCommand packet (0x04); an IPv4-mapped address goes out as IPv4.
pub fn encode_punch_command(towards: SocketAddr, out: &mut Vec<u8>) {
    out.push(PUNCH_COMMAND);
    encode_address(towards, out);
}

/// Appends a Notify packet (0x0a).
pub fn encode_notify(kind: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&[NOTIFY, kind]);
}

fn encode_address(address: SocketAddr, out: &mut Vec<u8>) {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(16);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&address.port().to_be_bytes());
}

/// Appends a Sync packet (0x07) of at most [`MAX_SYNC_NODES`] nodes; returns how many went in.
pub fn encode_sync(beacon: BeaconId, nodes: &[NodeId], out: &mut Vec<u8>) -> usize {
    let nodes = nodes.get(..MAX_SYNC_NODES).unwrap_or(nodes);
    out.push(SYNC);
    out.extend_from_slice(&beacon.0.to_be_bytes());
    let count = u16::try_from(nodes.len()).expect("MAX_SYNC_NODES fits in u16");
    out.extend_from_slice(&count.to_be_bytes());
    for node in nodes {
        out.extend_from_slice(&node.number().to_be_bytes());
    }
    nodes.len()
}

#[cfg(test)]
mod tests;

//! STUN, as far as a server needs it that tells clients their own address (RFC 8489): the
//! Binding request, and the two answers to it.
//!
//! A request without the magic cookie is of RFC 3489, which RFC 8489 has dropped: it is none here.

mod crc;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use crc::crc32;

/// Length of the header of all messages, in bytes (RFC 8489 §5).
pub const HEADER: usize = 20;

/// Longest answer in bytes, but for an error that lists more attributes than it has room for.
///
/// 52 = 20 (header) + 24 (XOR-MAPPED-ADDRESS of IPv6) + 8 (FINGERPRINT).
pub const MAX_SUCCESS: usize = 52;

/// What the first bytes behind type and length are.
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;

const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const FINGERPRINT: u16 = 0x8028;

/// Length of the attribute FINGERPRINT with its header.
const FINGERPRINT_LENGTH: usize = 8;

/// What the checksum of a fingerprint is masked with.
const FINGERPRINT_MASK: u32 = 0x5354_554e;

/// Attributes below this must be understood.
const OPTIONAL: u16 = 0x8000;

/// Attributes that RFC 8489 knows and that must be understood: where no client proves anything,
/// they mean nothing in a request, and are no reason to refuse it (§6.3).
const KNOWN: [u16; 12] = [
    0x0001, // MAPPED-ADDRESS
    0x0006, // USERNAME
    MESSAGE_INTEGRITY,
    ERROR_CODE,
    UNKNOWN_ATTRIBUTES,
    0x0014, // REALM
    0x0015, // NONCE
    MESSAGE_INTEGRITY_SHA256,
    0x001d, // PASSWORD-ALGORITHM
    0x001e, // USERHASH
    XOR_MAPPED_ADDRESS,
    0x0024, // PRIORITY, of ICE: clients ask with what they ask their peers with.
];

/// What tells the answers of one client apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Transaction(pub [u8; 12]);

/// A Binding request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    /// What its answer has to repeat.
    pub transaction: Transaction,
    /// It has a fingerprint, and so has its answer.
    pub has_fingerprint: bool,
    /// Attributes that must be understood and are not, in their order: then it is refused.
    pub unknown: Vec<u16>,
}

/// Why a datagram is no Binding request.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// It is no STUN message: its first bits, its length or its cookie are others.
    #[error("not a STUN message of RFC 8489")]
    NotStun,
    /// It is another message than a Binding request.
    #[error("a STUN message of the type {0:#06x}, which is no Binding request")]
    NoRequest(u16),
    /// An attribute ends behind the message, or one follows the fingerprint.
    #[error("its attributes do not fit it")]
    Attributes,
    /// The fingerprint is that of another message.
    #[error("its fingerprint is wrong")]
    Fingerprint,
}

impl Request {
    /// Reads a datagram.
    ///
    /// # Errors
    /// Why it is no Binding request; nobody is to be answered then.
    pub fn decode(datagram: &[u8]) -> Result<Self, DecodeError> {
        let (header, body) = datagram.split_first_chunk::<HEADER>().ok_or(DecodeError::NotStun)?;
        let [t0, t1, l0, l1, c0, c1, c2, c3, transaction @ ..] = *header;
        let kind = u16::from_be_bytes([t0, t1]);
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let is_stun = kind >> 14 == 0 && length == body.len() && length.is_multiple_of(4);
        if !is_stun || [c0, c1, c2, c3] != COOKIE {
            return Err(DecodeError::NotStun);
        }
        if kind != BINDING_REQUEST {
            return Err(DecodeError::NoRequest(kind));
        }
        let transaction = Transaction(transaction);
        let mut request = Self { transaction, has_fingerprint: false, unknown: Vec::new() };
        let mut is_sealed = false;
        let mut rest = body;
        while let Some((attribute, value, behind)) = attribute(rest)? {
            match attribute {
                FINGERPRINT => {
                    let before = datagram.len() - rest.len();
                    let covered = datagram.get(..before).ok_or(DecodeError::Attributes)?;
                    if !behind.is_empty() {
                        return Err(DecodeError::Attributes);
                    }
                    if value != (crc32(covered) ^ FINGERPRINT_MASK).to_be_bytes() {
                        return Err(DecodeError::Fingerprint);
                    }
                    request.has_fingerprint = true;
                }
                // What follows is not covered by the seal, and ignored (§14.5).
                MESSAGE_INTEGRITY | MESSAGE_INTEGRITY_SHA256 => is_sealed = true,
                other if other < OPTIONAL && !is_sealed && !KNOWN.contains(&other) => {
                    request.unknown.push(other);
                }
                _ => {}
            }
            rest = behind;
        }
        Ok(request)
    }

    /// Writes the answer: where the request came from, or which of its attributes are unknown.
    pub fn answer(&self, from: SocketAddr, out: &mut Vec<u8>) {
        out.clear();
        let kind = if self.unknown.is_empty() { BINDING_SUCCESS } else { BINDING_ERROR };
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&COOKIE);
        out.extend_from_slice(&self.transaction.0);
        if self.unknown.is_empty() {
            self.push_address(from, out);
        } else {
            // 420, without a phrase that nobody but people reads.
            push(ERROR_CODE, &[0, 0, 4, 20], out);
            let list: Vec<u8> = self.unknown.iter().flat_map(|kind| kind.to_be_bytes()).collect();
            push(UNKNOWN_ATTRIBUTES, &list, out);
        }
        if self.has_fingerprint {
            // The length covers it before it is there (§14.7).
            set_length(out, FINGERPRINT_LENGTH);
            let sum = crc32(out) ^ FINGERPRINT_MASK;
            push(FINGERPRINT, &sum.to_be_bytes(), out);
        } else {
            set_length(out, 0);
        }
    }

    fn push_address(&self, from: SocketAddr, out: &mut Vec<u8>) {
        const IPV4: u8 = 1;
        const IPV6: u8 = 2;
        let [c0, c1, c2, c3] = COOKIE;
        let port = from.port() ^ u16::from_be_bytes([c0, c1]);
        let [p0, p1] = port.to_be_bytes();
        match from.ip() {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                let value = [0, IPV4, p0, p1, a ^ c0, b ^ c1, c ^ c2, d ^ c3];
                push(XOR_MAPPED_ADDRESS, &value, out);
            }
            IpAddr::V6(ip) => {
                let mask = COOKIE.iter().chain(&self.transaction.0);
                let address = ip.octets().into_iter().zip(mask).map(|(byte, mask)| byte ^ mask);
                let value: Vec<u8> = [0, IPV6, p0, p1].into_iter().chain(address).collect();
                push(XOR_MAPPED_ADDRESS, &value, out);
            }
        }
    }
}

/// Writes how long the message is behind its header, with so many bytes that are still to come.
fn set_length(message: &mut [u8], to_come: usize) {
    let length = message.len() + to_come - HEADER;
    // An answer is no longer than the datagram that it answers, and a little.
    let length = u16::try_from(length).expect("a datagram has less than 65,536 bytes");
    let place = message.get_mut(2..4).expect("the header is there");
    place.copy_from_slice(&length.to_be_bytes());
}

/// Appends an attribute, filled up to four bytes.
fn push(kind: u16, value: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(value.len()).expect("a list is shorter than the datagram with it");
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// A type, a value, and what follows.
type Attribute<'a> = (u16, &'a [u8], &'a [u8]);

/// The first attribute of these bytes; nothing at their end.
fn attribute(bytes: &[u8]) -> Result<Option<Attribute<'_>>, DecodeError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (head, rest) = bytes.split_first_chunk::<4>().ok_or(DecodeError::Attributes)?;
    let [k0, k1, l0, l1] = *head;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    let value = rest.get(..length).ok_or(DecodeError::Attributes)?;
    let behind = rest.get(length.next_multiple_of(4)..).ok_or(DecodeError::Attributes)?;
    Ok(Some((u16::from_be_bytes([k0, k1]), value, behind)))
}

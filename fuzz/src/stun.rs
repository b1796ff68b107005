//! STUN: what is no request is nobody's to answer, and an answer is little longer than its request.

use std::net::SocketAddr;

use beacon_wire::stun::{HEADER, MAX_SUCCESS, Request};

/// Takes the input as a datagram, and answers it to both kinds of addresses.
///
/// # Panics
/// Where an answer has another transaction, another length than it says, or too many bytes.
pub fn run(input: &[u8]) {
    let Ok(request) = Request::decode(input) else { return };
    let mut out = Vec::new();
    let ipv4 = SocketAddr::from(([192, 0, 2, 1], 9));
    let ipv6 = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 9));
    for from in [ipv4, ipv6] {
        request.answer(from, &mut out);
        assert_eq!(out.get(4..HEADER), input.get(4..HEADER));
        let length = out.get(2..4).expect("a header");
        let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        assert_eq!(length, out.len() - HEADER);
        let most = if request.unknown.is_empty() { MAX_SUCCESS } else { input.len() + HEADER };
        assert!(out.len() <= most, "{} bytes for {}", out.len(), input.len());
    }
}

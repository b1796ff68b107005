//! What the dialler of a lane says first: which way packets go on it, and to which link it
//! belongs. Sans-IO.
//!
//! Its MAC is made with a secret that only the two ends of that one QUIC connection have, so a
//! lane cannot be attached to another link, nor to a later one of the same two relays.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Label of the TLS exporter of a link that its lanes are bound to.
pub(in crate::cluster::mesh) const EXPORTER_LABEL: &[u8] = b"beacon-cluster/1 lane";

/// Keeps the MAC apart from any other use of the secret.
const CONTEXT: &[u8] = b"beacon-cluster/1 lane hello";

/// Bytes of it: version u8, way u8, MAC.
pub(super) const HELLO_BYTES: usize = 2 + 32;

/// What is answered where the lane is taken.
pub(super) const TAKEN: u8 = 1;

const VERSION: u8 = 1;

/// Which way packets go on a lane.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(in crate::cluster::mesh) enum Way {
    /// From the relay that has dialled the link.
    Forth = 0,
    /// To it.
    Back = 1,
}

/// The secret of one link that its lanes are bound to.
#[derive(Clone)]
pub(in crate::cluster::mesh) struct LinkSecret(pub(in crate::cluster::mesh) [u8; 32]);

impl std::fmt::Debug for LinkSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LinkSecret(…)")
    }
}

/// Why bytes are no hello for this link.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub(in crate::cluster::mesh) enum HelloError {
    /// Another version, or no way.
    #[error("not the hello of a lane")]
    Malformed,
    /// Made for another link.
    #[error("not made for the link that is up")]
    WrongMac,
}

/// The hello of a lane.
pub(super) fn encode(way: Way, secret: &LinkSecret) -> [u8; HELLO_BYTES] {
    let mut bytes = [0; HELLO_BYTES];
    let (head, tag) = bytes.split_at_mut(2);
    head.copy_from_slice(&[VERSION, way as u8]);
    tag.copy_from_slice(&mac(head, secret).finalize().into_bytes());
    bytes
}

/// Reads the hello of a lane, which has to be for the link with this secret.
///
/// # Errors
/// It is not.
pub(super) fn decode(bytes: &[u8; HELLO_BYTES], secret: &LinkSecret) -> Result<Way, HelloError> {
    let (head, tag) = bytes.split_at(2);
    let way = match head {
        [VERSION, 0] => Way::Forth,
        [VERSION, 1] => Way::Back,
        _ => return Err(HelloError::Malformed),
    };
    mac(head, secret).verify_slice(tag).map_err(|_| HelloError::WrongMac)?;
    Ok(way)
}

fn mac(head: &[u8], secret: &LinkSecret) -> Hmac<Sha256> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(&secret.0).expect("HMAC takes a key of any length");
    mac.update(CONTEXT);
    mac.update(head);
    mac
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hello_round_trips_both_ways() {
        let secret = LinkSecret([3; 32]);
        for way in [Way::Forth, Way::Back] {
            assert_eq!(decode(&encode(way, &secret), &secret), Ok(way));
        }
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let secret = LinkSecret([3; 32]);
        let bytes = encode(Way::Forth, &secret);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped, &secret).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn hello_holds_for_its_own_link_only() {
        let bytes = encode(Way::Back, &LinkSecret([3; 32]));
        assert_eq!(decode(&bytes, &LinkSecret([4; 32])), Err(HelloError::WrongMac));
    }

    #[test]
    fn secret_is_not_printed() {
        assert_eq!(format!("{:?}", LinkSecret([3; 32])), "LinkSecret(…)");
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes: [u8; 32], version: bool, way in 0_u8..4) {
            let mut hello = [0; HELLO_BYTES];
            hello[..2].copy_from_slice(&[u8::from(version), way]);
            hello[2..].copy_from_slice(&bytes);
            prop_assert!(decode(&hello, &LinkSecret([3; 32])).is_err());
        }
    }
}

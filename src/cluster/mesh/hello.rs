//! The hello: the first thing that two relays say on a link, once each.
//!
//! It names the cluster and the run, and its MAC binds both to this one link: to the keys of
//! both sides, the direction, and a secret of the TLS session. So it is worth nothing on any
//! other link, and cannot be reflected. Sans-IO.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::cluster::{Boot, Reject};
use crate::ids::RelayId;
use crate::wire::cluster::VERSION;

/// Longest hello that is read, in bytes.
///
/// Ours has 561 at most: 1 (version) + 1 + 255 (name) + 16 (boot) + 1 + 255 (address) + 32
/// (MAC). Those of later versions, which are told apart by their first byte, may be longer.
pub(super) const MAX_HELLO: usize = 1_024;

/// Label of the TLS exporter that a link's secret comes from.
pub(super) const EXPORTER_LABEL: &[u8] = b"beacon-cluster/1";

/// Keeps the MAC apart from any other use of the secret.
const CONTEXT: &[u8] = b"beacon-cluster/1 hello";

const MAC_BYTES: usize = 32;

/// Which side of a link speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Role {
    /// The one that dialled.
    Dial = 0,
    /// The one that was dialled.
    Accept = 1,
}

impl Role {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Dial => Self::Accept,
            Self::Accept => Self::Dial,
        }
    }
}

/// One direction of one link: what a hello is bound to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way<'a> {
    /// Which side says the hello.
    pub(super) role: Role,
    /// Who says it.
    pub(super) from: RelayId,
    /// Who hears it.
    pub(super) to: RelayId,
    /// What the TLS session exports under [`EXPORTER_LABEL`].
    pub(super) exporter: &'a [u8; 32],
}

/// What a relay says of itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Hello {
    /// The name of its cluster.
    pub(super) cluster: String,
    /// Which run of it this is.
    pub(super) boot: Boot,
    /// Where it listens, as it knows it; for people to read.
    pub(super) address: String,
}

/// Why bytes are no hello for us.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub(super) enum HelloError {
    /// Too short, too long, or not the text that it should be.
    #[error("not a hello")]
    Malformed,
    /// Another version of the protocol.
    #[error("version {0} of the cluster protocol")]
    OtherVersion(u8),
    /// Another cluster's name.
    #[error("the hello of another cluster")]
    OtherCluster,
    /// Not made with our secret for this link, or one side has a secret and the other none.
    #[error("not made for this link with our secret")]
    WrongMac,
}

impl From<HelloError> for Reject {
    fn from(error: HelloError) -> Self {
        match error {
            HelloError::Malformed => Self::BadHello,
            HelloError::OtherVersion(_) | HelloError::OtherCluster => Self::OtherCluster,
            HelloError::WrongMac => Self::WrongSecret,
        }
    }
}

impl Hello {
    /// The bytes for one way, signed with the secret if there is one. Texts are cut at 255
    /// bytes.
    pub(super) fn encode(&self, secret: Option<&[u8]>, way: &Way<'_>) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        put_text(&self.cluster, &mut bytes);
        bytes.extend_from_slice(&self.boot);
        put_text(&self.address, &mut bytes);
        let mac = secret.map(|secret| mac(secret, &bytes, way).finalize().into_bytes().into());
        bytes.extend_from_slice(&mac.unwrap_or([0; MAC_BYTES]));
        bytes
    }

    /// Reads what came on one way, which has to be of our cluster and to bear the MAC of our
    /// secret, or zeros where we have none.
    ///
    /// # Errors
    /// Why it is none for us.
    pub(super) fn decode(
        bytes: &[u8],
        cluster: &str,
        secret: Option<&[u8]>,
        way: &Way<'_>,
    ) -> Result<Self, HelloError> {
        let (&version, rest) = bytes.split_first().ok_or(HelloError::Malformed)?;
        if version != VERSION {
            return Err(HelloError::OtherVersion(version));
        }
        let (name, rest) = take_text(rest).ok_or(HelloError::Malformed)?;
        let (boot, rest) = rest.split_first_chunk().ok_or(HelloError::Malformed)?;
        let (address, rest) = take_text(rest).ok_or(HelloError::Malformed)?;
        let found: &[u8; MAC_BYTES] = rest.try_into().map_err(|_| HelloError::Malformed)?;
        if name != cluster {
            return Err(HelloError::OtherCluster);
        }
        let (said, _) = bytes.split_at(bytes.len() - MAC_BYTES);
        let holds = match secret {
            Some(secret) => mac(secret, said, way).verify_slice(found).is_ok(),
            None => found == &[0; MAC_BYTES],
        };
        if !holds {
            return Err(HelloError::WrongMac);
        }
        Ok(Self { cluster: name.to_owned(), boot: *boot, address: address.to_owned() })
    }
}

/// HMAC-SHA256 over the context, the version, the role, the rest of what was said, both keys
/// and the exporter. Every part has a fixed length or its length in front.
fn mac(secret: &[u8], said: &[u8], way: &Way<'_>) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    let (version, rest) = said.split_at_checked(1).expect("a hello begins with its version");
    mac.update(CONTEXT);
    mac.update(version);
    mac.update(&[way.role as u8]);
    mac.update(rest);
    mac.update(&way.from.0.0);
    mac.update(&way.to.0.0);
    mac.update(way.exporter);
    mac
}

fn put_text(text: &str, to: &mut Vec<u8>) {
    let text = text.as_bytes();
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    to.push(length);
    to.extend_from_slice(text.get(..usize::from(length)).unwrap_or_default());
}

/// A text that is safe to print: visible ASCII, one byte of length in front.
fn take_text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    let (text, rest) = rest.split_at_checked(usize::from(length))?;
    let text = str::from_utf8(text).ok()?;
    text.bytes().all(|byte| byte.is_ascii_graphic()).then_some((text, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::PublicKey;

    const SECRET: Option<&[u8]> = Some(b"sixteen or more bytes");

    fn way(exporter: &[u8; 32]) -> Way<'_> {
        let [from, to] = [1, 2].map(|byte| RelayId(PublicKey([byte; 32])));
        Way { role: Role::Dial, from, to, exporter }
    }

    fn hello() -> Hello {
        Hello { cluster: "test".into(), boot: [7; 16], address: "192.0.2.1:9443".into() }
    }

    #[test]
    fn hello_round_trips_with_and_without_a_secret() {
        for secret in [SECRET, None] {
            let way = way(&[3; 32]);
            let bytes = hello().encode(secret, &way);
            assert_eq!(bytes.len(), 1 + 1 + 4 + 16 + 1 + 14 + 32);
            assert_eq!(Hello::decode(&bytes, "test", secret, &way), Ok(hello()));
        }
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let way = way(&[3; 32]);
        let bytes = hello().encode(SECRET, &way);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Hello::decode(&flipped, "test", SECRET, &way).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_cut_and_every_extension_is_refused() {
        let way = way(&[3; 32]);
        let mut bytes = hello().encode(None, &way);
        for length in 0..bytes.len() {
            let error = Hello::decode(&bytes[..length], "test", None, &way).unwrap_err();
            assert_eq!(error, HelloError::Malformed, "{length} bytes");
        }
        bytes.push(0);
        assert_eq!(Hello::decode(&bytes, "test", None, &way), Err(HelloError::Malformed));
    }

    #[test]
    fn hello_holds_on_its_own_way_only() {
        let exporter = [3; 32];
        let said = way(&exporter);
        let bytes = hello().encode(SECRET, &said);
        let other = RelayId(PublicKey([9; 32]));
        for way in [
            Way { role: Role::Accept, ..said },
            Way { from: other, ..said },
            Way { to: other, ..said },
            Way { from: said.to, to: said.from, ..said },
            Way { exporter: &[4; 32], ..said },
        ] {
            let error = Hello::decode(&bytes, "test", SECRET, &way).unwrap_err();
            assert_eq!(error, HelloError::WrongMac, "{way:?}");
        }
    }

    #[test]
    fn both_sides_need_the_same_secret_or_none() {
        let way = way(&[3; 32]);
        let wrong = Err(HelloError::WrongMac);
        for (ours, theirs) in [(SECRET, None), (None, SECRET), (SECRET, Some(&b"another"[..]))] {
            let bytes = hello().encode(theirs, &way);
            assert_eq!(Hello::decode(&bytes, "test", ours, &way), wrong);
        }
    }

    #[test]
    fn other_clusters_and_versions_are_named() {
        let way = way(&[3; 32]);
        let mut bytes = hello().encode(SECRET, &way);
        let decode = |bytes: &[u8], name: &str| Hello::decode(bytes, name, SECRET, &way);
        assert_eq!(decode(&bytes, "other"), Err(HelloError::OtherCluster));
        bytes[0] = VERSION + 1;
        assert_eq!(decode(&bytes, "test"), Err(HelloError::OtherVersion(VERSION + 1)));
    }

    #[test]
    fn address_that_a_terminal_would_obey_is_refused() {
        let way = way(&[3; 32]);
        let hello = Hello { address: "\u{1b}[2J".into(), ..hello() };
        let bytes = hello.encode(SECRET, &way);
        assert_eq!(Hello::decode(&bytes, "test", SECRET, &way), Err(HelloError::Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read_without_a_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 1..MAX_HELLO), ours: bool,
        ) {
            if ours {
                bytes[0] = VERSION;
            }
            prop_assert!(Hello::decode(&bytes, "test", SECRET, &way(&[3; 32])).is_err());
        }

        #[test]
        fn any_hello_round_trips(
            cluster in "[!-~]{0,255}", boot: Boot, address in "[!-~]{0,255}",
        ) {
            let (hello, way) = (Hello { cluster, boot, address }, way(&[3; 32]));
            let bytes = hello.encode(SECRET, &way);
            prop_assert!(bytes.len() < MAX_HELLO);
            let read = Hello::decode(&bytes, &hello.cluster, SECRET, &way);
            prop_assert_eq!(read, Ok(hello));
        }
    }
}

//! What goes through NATS. The first byte of a message says what follows: a batch of one
//! lane, a beat, or a goodbye.
//!
//! Who sent it is not in it: the subject says so, for which the server vouches.

use std::str;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::cluster::{Boot, Reject};
use crate::wire::cluster::{MAX_BATCH, VERSION};

/// In front of a batch of words.
pub(super) const WORDS: u8 = 0;

/// In front of a batch of packets.
pub(super) const PACKETS: u8 = 1;

/// In front of a [`Beat`].
const BEAT: u8 = 2;

/// In front of the last [`Beat`] of a run.
const GOODBYE: u8 = 3;

/// Longest address, in bytes.
const MAX_ADDRESS: usize = 255;

/// Bytes of a beat in front of the address: version u8, boot, term u64, seen u64, asks u8.
const BEAT_HEAD: usize = 1 + 16 + 8 + 8 + 1;

/// A sign of life. To all relays it is sent without terms, to a member with them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Beat {
    /// The sender's run.
    pub(super) boot: Boot,
    /// The sender's term for the receiver; 0 where it speaks to all.
    pub(super) term: u64,
    /// The receiver's term as the sender knows it; 0 where it does not.
    pub(super) seen: u64,
    /// Whether the sender asks the receiver for its terms.
    pub(super) asks: bool,
    /// Where the sender comes from, for people to read.
    pub(super) address: String,
}

/// A message, decoded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Message {
    Words(Bytes),
    Packets(Bytes),
    Beat(Beat),
    Goodbye(Beat),
}

impl Beat {
    /// The message that says it.
    pub(super) fn message(&self) -> Bytes {
        self.encode(BEAT)
    }

    /// The message that says it for the last time.
    pub(super) fn goodbye(&self) -> Bytes {
        self.encode(GOODBYE)
    }

    fn encode(&self, kind: u8) -> Bytes {
        let mut bytes = BytesMut::with_capacity(1 + BEAT_HEAD + self.address.len());
        bytes.put_u8(kind);
        bytes.put_u8(VERSION);
        bytes.put_slice(&self.boot);
        bytes.put_u64(self.term);
        bytes.put_u64(self.seen);
        bytes.put_u8(self.asks.into());
        bytes.put_slice(self.address.as_bytes());
        bytes.freeze()
    }

    fn decode(body: &[u8]) -> Result<Self, Reject> {
        let (&version, rest) = body.split_first().ok_or(Reject::BadHello)?;
        // What follows the version belongs to it.
        if version != VERSION {
            return Err(Reject::OtherCluster);
        }
        let (boot, rest) = rest.split_first_chunk().ok_or(Reject::BadHello)?;
        let (term, rest) = rest.split_first_chunk().ok_or(Reject::BadHello)?;
        let (seen, rest) = rest.split_first_chunk().ok_or(Reject::BadHello)?;
        let (asks, address) = rest.split_first().ok_or(Reject::BadHello)?;
        let address = str::from_utf8(address).map_err(|_| Reject::BadHello)?;
        // It goes to the log and to the member table.
        if address.len() > MAX_ADDRESS || address.contains(char::is_control) {
            return Err(Reject::BadHello);
        }
        Ok(Self {
            boot: *boot,
            term: u64::from_be_bytes(*term),
            seen: u64::from_be_bytes(*seen),
            asks: *asks != 0,
            address: address.to_owned(),
        })
    }
}

impl Message {
    /// Reads what came; a batch is not looked into.
    pub(super) fn decode(mut payload: Bytes) -> Result<Self, Reject> {
        let kind = *payload.first().ok_or(Reject::Malformed)?;
        payload.advance(1);
        match kind {
            BEAT => Beat::decode(&payload).map(Self::Beat),
            GOODBYE => Beat::decode(&payload).map(Self::Goodbye),
            WORDS | PACKETS if payload.len() > MAX_BATCH => Err(Reject::Oversized),
            WORDS => Ok(Self::Words(payload)),
            PACKETS => Ok(Self::Packets(payload)),
            _ => Err(Reject::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn beat(address: &str) -> Beat {
        Beat { boot: [7; 16], term: 1, seen: 515, asks: true, address: address.to_owned() }
    }

    #[test]
    fn beat_has_this_layout() {
        let message = beat("192.0.2.1").message();
        let expected = [
            &[2, VERSION][..],
            &[7; 16],
            &[0, 0, 0, 0, 0, 0, 0, 1],
            &[0, 0, 0, 0, 0, 0, 2, 3, 1],
            b"192.0.2.1",
        ];
        assert_eq!(message, expected.concat());
        assert_eq!(Message::decode(message), Ok(Message::Beat(beat("192.0.2.1"))));
        let goodbye = Message::decode(beat("").goodbye());
        assert_eq!(goodbye, Ok(Message::Goodbye(beat(""))));
    }

    #[test]
    fn what_is_no_message_is_refused_for_its_reason() {
        let mut other_version = beat("").message().to_vec();
        other_version[1] = VERSION + 1;
        let too_big = |kind| [&[kind][..], &vec![0; MAX_BATCH + 1]].concat();
        for (bytes, reason) in [
            (vec![], Reject::Malformed),
            (vec![9, 0], Reject::Malformed),
            (vec![BEAT], Reject::BadHello),
            (beat("").message()[..BEAT_HEAD].to_vec(), Reject::BadHello),
            (beat("a\nb").message().to_vec(), Reject::BadHello),
            (beat(&"a".repeat(256)).message().to_vec(), Reject::BadHello),
            ([&beat("").message()[..], b"\xff"].concat(), Reject::BadHello),
            (other_version, Reject::OtherCluster),
            (too_big(WORDS), Reject::Oversized),
            (too_big(PACKETS), Reject::Oversized),
        ] {
            assert_eq!(Message::decode(bytes.into()), Err(reason));
        }
    }

    proptest! {
        #[test]
        fn beats_round_trip(
            boot: [u8; 16], term: u64, seen: u64, asks: bool, address in "[ -~]{0,255}"
        ) {
            let beat = Beat { boot, term, seen, asks, address };
            prop_assert_eq!(Message::decode(beat.message()), Ok(Message::Beat(beat)));
        }

        #[test]
        fn decoding_never_panics(kind in 0..5_u8, body: Vec<u8>) {
            let _ = Message::decode([&[kind][..], &body].concat().into());
        }
    }
}

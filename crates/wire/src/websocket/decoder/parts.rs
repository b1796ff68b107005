//! Frames that are longer than what a caller buffers, taken in parts.
//!
//! A part is what a fragment is: it goes to the fragments of the message, and a header for the rest
//! of the frame takes its place in the buffer. So between two calls the decoder has nothing but
//! fragments, and the caller carries a header and the bytes behind it, as with every frame that is
//! not whole.

use super::{Decoder, Header, Message};
use crate::websocket::{MAX_HEADER, Opcode, Violation, apply_mask};

/// Longest payload of a frame that is given out where it is, in bytes: that of Pilot's longest
/// packet. A caller's buffer holds such a frame with its header.
pub const LONGEST_IN_PLACE: usize = 65_536;

/// Least bytes of a part, which nobody waits for within a frame: what a peer announces and does
/// not send costs nothing, and a trickle of bytes is no part.
const LEAST_PART: usize = 16_384;

/// The mask bit of a header's second byte.
const MASKED: u8 = 0x80;

impl Decoder {
    /// Takes what is there of the frame at `at`, which is checked and longer than what is given
    /// out in place; `None` where that is too little.
    #[cold]
    #[inline(never)]
    pub(super) fn part(
        &mut self,
        buffer: &mut [u8],
        at: &mut usize,
    ) -> Result<Option<Message>, Violation> {
        let end = buffer.len();
        let frame = buffer.get_mut(*at..).unwrap_or_default();
        let Some(header) = Header::decode(frame)? else { return Ok(None) };
        let payload = frame.get_mut(header.size..).unwrap_or_default();
        if payload.len() < LEAST_PART {
            return Ok(None);
        }
        if let Some(mask) = header.mask {
            apply_mask(payload, mask);
        }
        let taken = payload.len();
        let part = Header { fin: false, ..header };
        let message = self.message(part, payload, 0..0)?;

        let rest = Header {
            fin: header.fin,
            opcode: Opcode::Continuation,
            mask: header.mask.map(|mask| turned(mask, taken)),
            length: header.length - taken as u64,
            size: 0,
        };
        let (bytes, used) = encode(&rest);
        *at = end - used;
        let place = buffer.get_mut(*at..).expect("the part was longer than a header");
        place.copy_from_slice(bytes.get(..used).expect("a header has its length"));
        Ok(Some(message))
    }
}

/// The mask of what follows `taken` bytes that were masked with `mask`.
fn turned(mask: [u8; 4], taken: usize) -> [u8; 4] {
    let mut turned = mask;
    turned.rotate_left(taken % mask.len());
    turned
}

/// The bytes of a header, and how many count.
fn encode(header: &Header) -> ([u8; MAX_HEADER], usize) {
    let (unmasked, mut used) = crate::websocket::frame_header(
        header.opcode,
        usize::try_from(header.length).expect("a length that was one of the buffer's before"),
    );
    let mut bytes = [0; MAX_HEADER];
    let [first, second, ..] = unmasked;
    let (head, _) = bytes.split_at_mut(unmasked.len());
    head.copy_from_slice(&unmasked);
    bytes[0] = first & if header.fin { 0xff } else { 0x7f };
    if let Some(mask) = header.mask {
        bytes[1] = second | MASKED;
        bytes.get_mut(used..used + mask.len()).expect("a mask fits").copy_from_slice(&mask);
        used += mask.len();
    }
    (bytes, used)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::websocket::{Role, frame_header};

    const MASK: [u8; 4] = [0xa1, 0xb2, 0xc3, 0xd4];
    const LIMIT: usize = 1_048_576;

    fn payload(length: usize) -> Vec<u8> {
        (0..length).map(|at| b'a' + u8::try_from(at % 23).unwrap()).collect()
    }

    fn frame(role: Role, first: u8, payload: &[u8]) -> Vec<u8> {
        let (header, used) = frame_header(Opcode::Text, payload.len());
        let mut frame = header[..used].to_vec();
        frame[0] = first;
        let start = if role == Role::Server {
            frame[1] |= MASKED;
            frame.extend_from_slice(&MASK);
            frame.len()
        } else {
            frame.len()
        };
        frame.extend_from_slice(payload);
        if role == Role::Server {
            apply_mask(&mut frame[start..], MASK);
        }
        frame
    }

    /// Reads a stream as a session does: what is carried, and a read behind it.
    struct Reader {
        decoder: Decoder,
        carry: Vec<u8>,
        most_carried: usize,
        messages: Vec<Vec<u8>>,
    }

    impl Reader {
        fn new(role: Role) -> Self {
            let decoder = Decoder::new(role, LIMIT);
            Self { decoder, carry: Vec::new(), most_carried: 0, messages: Vec::new() }
        }

        fn read(&mut self, bytes: &[u8]) -> Result<(), Violation> {
            let mut buffer = std::mem::take(&mut self.carry);
            buffer.extend_from_slice(bytes);
            let mut at = 0;
            while let Some(message) = self.decoder.next(&mut buffer, &mut at)? {
                match message {
                    Message::Text(range) | Message::Ping(range) => {
                        self.messages.push(buffer[range].to_vec());
                    }
                    Message::FragmentedText(text) => {
                        assert!(text.capacity() <= LIMIT, "{} bytes reserved", text.capacity());
                        self.messages.push(text);
                    }
                    Message::Fragment => {}
                    other @ (Message::Binary(_)
                    | Message::FragmentedBinary(_)
                    | Message::Pong(_)
                    | Message::Close(_)) => panic!("{other:?}"),
                }
            }
            self.carry = buffer.split_off(at);
            self.most_carried = self.most_carried.max(self.carry.len());
            Ok(())
        }
    }

    #[test]
    fn longest_message_is_taken_in_reads_and_no_buffer_holds_it() {
        for role in [Role::Server, Role::Client] {
            let mut reader = Reader::new(role);
            let text = payload(LIMIT);
            for bytes in frame(role, 0x81, &text).chunks(65_536) {
                reader.read(bytes).unwrap();
            }
            assert!(reader.messages == [text], "{role:?}");
            assert!(reader.most_carried < LONGEST_IN_PLACE + MAX_HEADER);
        }
    }

    #[test]
    fn message_beyond_the_longest_is_refused_at_its_header_however_it_comes() {
        let mut reader = Reader::new(Role::Server);
        let whole = frame(Role::Server, 0x81, &payload(LIMIT + 1));
        assert_eq!(reader.read(&whole[..MAX_HEADER]), Err(Violation::TooLarge));

        let mut reader = Reader::new(Role::Server);
        reader.read(&frame(Role::Server, 0x01, &payload(100_000))).unwrap();
        let rest = frame(Role::Server, 0x80, &payload(LIMIT - 99_999));
        assert_eq!(reader.read(&rest[..MAX_HEADER]), Err(Violation::TooLarge));
    }

    #[test]
    fn what_is_announced_and_does_not_come_reserves_nothing() {
        let mut reader = Reader::new(Role::Server);
        let whole = frame(Role::Server, 0x81, &payload(LIMIT));
        reader.read(&whole[..=MAX_HEADER]).unwrap();
        assert!(reader.decoder.fragments.is_none());
        assert_eq!(reader.carry.len(), MAX_HEADER + 1);

        let so_far = 200_000;
        reader.read(&whole[MAX_HEADER + 1..so_far]).unwrap();
        let bytes = &reader.decoder.fragments.as_ref().unwrap().bytes;
        assert!(bytes.len() > 100_000 && bytes.capacity() <= 2 * so_far, "{}", bytes.capacity());
    }

    #[test]
    fn long_frame_within_another_message_is_refused() {
        let mut reader = Reader::new(Role::Server);
        reader.read(&frame(Role::Server, 0x01, b"one")).unwrap();
        let long = frame(Role::Server, 0x81, &payload(LIMIT - 3));
        assert_eq!(reader.read(&long[..100_000]), Err(Violation::Fragments));
    }

    #[test]
    fn long_text_that_is_not_utf_8_is_refused_unless_any_is_taken() {
        let mut text = payload(100_000);
        text[50_000] = 0xff;
        let whole = frame(Role::Server, 0x81, &text);
        let (first, second) = whole.split_at(90_000);

        let mut reader = Reader::new(Role::Server);
        reader.read(first).unwrap();
        assert_eq!(reader.read(second), Err(Violation::InvalidText));

        let mut reader = Reader::new(Role::Server);
        reader.decoder = reader.decoder.with_any_text();
        reader.read(first).unwrap();
        reader.read(second).unwrap();
        assert!(reader.messages == [text]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Short and long messages, some in fragments with pings between: the payloads that come
        /// out are those that went in, whatever the reads are.
        #[test]
        fn reads_of_any_length_give_out_what_was_sent(
            messages in proptest::collection::vec(
                (prop_oneof![0usize..300, 60_000usize..300_000], 1usize..4),
                1..5,
            ),
            reads in proptest::collection::vec(
                prop_oneof![1usize..64, 10_000usize..65_537],
                1..20,
            ),
            is_server in any::<bool>(),
        ) {
            let role = if is_server { Role::Server } else { Role::Client };
            let mut stream = Vec::new();
            let mut expected = Vec::new();
            for (length, frames) in messages {
                let text = payload(length);
                let size = text.len().div_ceil(frames).max(1);
                let last = text.chunks(size).count().max(1) - 1;
                let mut chunks: Vec<&[u8]> = text.chunks(size).collect();
                if chunks.is_empty() {
                    chunks.push(&[]);
                }
                for (index, chunk) in chunks.into_iter().enumerate() {
                    let opcode = if index == 0 { 1 } else { 0 };
                    let fin = if index == last { 0x80 } else { 0 };
                    stream.extend(frame(role, opcode | fin, chunk));
                    if index < last {
                        stream.extend(frame(role, 0x89, b"ping"));
                        expected.push(b"ping".to_vec());
                    }
                }
                expected.push(text);
            }
            let mut reader = Reader::new(role);
            let mut rest = &stream[..];
            for read in reads.iter().cycle() {
                let (now, later) = rest.split_at((*read).min(rest.len()));
                reader.read(now).unwrap();
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert!(reader.messages == expected);
            prop_assert!(reader.carry.is_empty());
            prop_assert!(reader.most_carried < LONGEST_IN_PLACE + MAX_HEADER);
        }
    }
}

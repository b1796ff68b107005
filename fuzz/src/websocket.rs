//! The WebSocket decoder beside a public implementation: both take the same payloads, see the
//! same closes, and refuse the same streams.
//!
//! Where the two differ on purpose, [`agree`] says why.

use std::io::{self, Read, Write};

use beacon_wire::websocket::{
    Decoder, LONGEST_IN_PLACE, MAX_CONTROL, Message, Role, Violation, apply_mask, close_code,
};
use tungstenite::protocol::{self, WebSocket, WebSocketConfig};
use tungstenite::{Error, error::ProtocolError};

/// What a decoder gave out.
#[derive(Debug, Eq, PartialEq)]
enum Item {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

/// Why a decoder gave out no more.
#[derive(Debug, Eq, PartialEq)]
enum End<V> {
    /// The stream ends within a frame, or between two.
    Waits,
    Closed(Option<u16>),
    Refused(V),
}

/// How the other implementation refuses a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Theirs {
    Protocol,
    Text,
    TooLarge,
}

type Ours = (Vec<Item>, End<Violation>, usize);

/// Length of the message that comes in front of some streams, at least, in bytes: one that the
/// decoder takes in parts.
const LONG: usize = LONGEST_IN_PLACE + 1;

/// Takes the end of the connection and a bound from the first byte, from the second where the
/// stream is torn in two, and the stream from the rest. Before some streams comes a frame that is
/// longer than what is given out in place, of a length and a mask that they say.
///
/// # Panics
/// Where the decoders disagree.
pub fn run(input: &[u8]) {
    let Some((&[setting, tear], stream)) = input.split_first_chunk::<2>() else { return };
    let role = if setting & 1 == 0 { Role::Server } else { Role::Client };
    let limit = if setting & 2 == 0 { 65_536 } else { MAX_CONTROL + usize::from(setting) };
    let (stream, limit) = if setting & 6 == 4 {
        (&*with_long_frame(role, stream), 1_048_576)
    } else {
        (stream, limit)
    };
    let ours = decode(stream, role, limit, stream.len());
    let tear = stream.len() * usize::from(tear) / 255;
    let torn = decode(stream, role, limit, tear);
    assert_eq!((&torn.0, &torn.1), (&ours.0, &ours.1), "torn at {tear}");
    if limit <= LONGEST_IN_PLACE {
        assert_eq!(torn.2, ours.2, "torn at {tear}, another frame is the last");
    }
    let theirs = decode_elsewhere(stream, role, limit);
    let rest = &stream[ours.2..];
    if let Err(why) = agree(&ours, &theirs, rest) {
        panic!("{why}: {:?}, {:?}; theirs {theirs:?}", ours.0, ours.1);
    }
}

/// The stream behind a frame of a long message, or of a fragment of one.
fn with_long_frame(role: Role, stream: &[u8]) -> Vec<u8> {
    let said: [u8; 8] = std::array::from_fn(|at| stream.get(at).copied().unwrap_or_default());
    let [first, long, longer, byte, mask @ ..] = said;
    let length = LONG + usize::from(u16::from_be_bytes([long, longer]));
    let mut frame = vec![first & 0x80 | if first & 1 == 0 { 1 } else { 2 }, 127];
    frame.extend_from_slice(&(length as u64).to_be_bytes());
    let mut payload = vec![byte & 0x7f; length];
    if role == Role::Server {
        frame[1] |= 0x80;
        frame.extend_from_slice(&mask);
        apply_mask(&mut payload, mask);
    }
    frame.append(&mut payload);
    frame.extend_from_slice(stream);
    frame
}

/// Decodes what comes in two pieces; says what was taken, and where the last frame begins.
fn decode(stream: &[u8], role: Role, limit: usize, tear: usize) -> Ours {
    let mut decoder = Decoder::new(role, limit);
    let (first, second) = stream.split_at(tear);
    let mut buffer = first.to_vec();
    let mut items = Vec::new();
    let mut at = 0;
    for piece in [&[], second] {
        buffer.extend_from_slice(piece);
        loop {
            let begin = at;
            match decoder.next(&mut buffer, &mut at) {
                Ok(None) => break,
                Ok(Some(message)) => {
                    let bytes = |range: std::ops::Range<usize>| buffer[range].to_vec();
                    items.push(match message {
                        Message::Fragment => continue,
                        Message::Close(range) => {
                            let code = close_code(&buffer[range]);
                            return (items, End::Closed(code), begin);
                        }
                        Message::Binary(range) => Item::Binary(bytes(range)),
                        Message::Text(range) => Item::Text(bytes(range)),
                        Message::FragmentedBinary(bytes) => Item::Binary(bytes),
                        Message::FragmentedText(bytes) => Item::Text(bytes),
                        Message::Ping(range) => Item::Ping(bytes(range)),
                        Message::Pong(range) => Item::Pong(bytes(range)),
                    });
                }
                Err(violation) => return (items, End::Refused(violation), begin),
            }
        }
    }
    (items, End::Waits, at)
}

/// A stream that ends, and takes all answers.
struct Stream<'a>(&'a [u8]);

impl Read for Stream<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.0.read(to)
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn decode_elsewhere(stream: &[u8], role: Role, limit: usize) -> (Vec<Item>, End<Theirs>) {
    let role = match role {
        Role::Server => protocol::Role::Server,
        Role::Client => protocol::Role::Client,
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(4_096)
        .max_frame_size(Some(limit))
        .max_message_size(Some(limit));
    let mut socket = WebSocket::from_raw_socket(Stream(stream), role, Some(config));
    let mut items = Vec::new();
    loop {
        items.push(match socket.read() {
            Ok(tungstenite::Message::Text(text)) => Item::Text(text.as_bytes().to_vec()),
            Ok(tungstenite::Message::Binary(bytes)) => Item::Binary(bytes.to_vec()),
            Ok(tungstenite::Message::Ping(bytes)) => Item::Ping(bytes.to_vec()),
            Ok(tungstenite::Message::Pong(bytes)) => Item::Pong(bytes.to_vec()),
            Ok(tungstenite::Message::Close(close)) => {
                return (items, End::Closed(close.map(|close| close.code.into())));
            }
            Ok(tungstenite::Message::Frame(_)) => unreachable!("only for writing"),
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
                return (items, End::Waits);
            }
            Err(Error::Utf8(_)) => return (items, End::Refused(Theirs::Text)),
            Err(Error::Capacity(_)) => return (items, End::Refused(Theirs::TooLarge)),
            Err(Error::Protocol(_)) => return (items, End::Refused(Theirs::Protocol)),
            Err(other) => panic!("{other:?}"),
        });
    }
}

/// Whether both say the same of a stream; `rest` begins with the frame where ours ended.
fn agree(
    (ours, our_end, _): &Ours,
    (theirs, their_end): &(Vec<Item>, End<Theirs>),
    rest: &[u8],
) -> Result<(), &'static str> {
    let unless = |wrong: bool, why| if wrong { Err(why) } else { Ok(()) };
    // They take a length in more bytes than it needs, of a control frame as well, and go on.
    let is_long = rest.get(1).is_some_and(|second| usize::from(second & 0x7f) > MAX_CONTROL);
    let is_long_form = match our_end {
        End::Refused(Violation::LengthForm) => true,
        End::Refused(Violation::ControlFrame) => is_long,
        End::Refused(_) | End::Waits | End::Closed(_) => false,
    };
    if is_long_form && theirs.starts_with(ours) {
        return Ok(());
    }
    // They read the text of a fragment before its message is whole; ours takes the control
    // frames that come before the last fragment.
    if *their_end == End::Refused(Theirs::Text) {
        unless(!ours.starts_with(theirs), "other items before a broken text")?;
        let more = &ours[theirs.len()..];
        let control = |item: &Item| matches!(item, Item::Ping(_) | Item::Pong(_));
        return unless(!more.iter().all(control), "a message after a broken text");
    }
    unless(ours != theirs, "other items")?;
    match (our_end, their_end) {
        (End::Waits, End::Waits) => Ok(()),
        // They know no code 1014, and give out what they answer to a code that is none.
        (
            End::Closed(Some(1014)) | End::Refused(Violation::CloseFrame),
            End::Closed(Some(1002)),
        ) => Ok(()),
        (End::Closed(ours), End::Closed(theirs)) => unless(ours != theirs, "another close code"),
        // Ours refuses what the beginning of a frame says, before the rest has come.
        (End::Refused(_), End::Waits) => {
            unless(is_whole(rest), "refused a whole frame that they wait for")
        }
        (End::Refused(Violation::InvalidText), End::Refused(_)) => {
            Err("a text that they refuse otherwise")
        }
        (
            End::Refused(Violation::Fragments | Violation::CloseFrame),
            End::Refused(Theirs::TooLarge),
        ) => Err("a message that they find too large"),
        (End::Refused(_), End::Refused(_)) => Ok(()),
        (End::Waits, _) => Err("ours waits"),
        (End::Closed(_), _) => Err("ours takes a close"),
        (End::Refused(_), End::Closed(_)) => Err("they take a close"),
    }
}

/// Whether a frame is there to its end, however broken its header is.
fn is_whole(rest: &[u8]) -> bool {
    let Some((&[_, second], after)) = rest.split_first_chunk::<2>() else { return false };
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let Some((extended_length, after)) = after.split_at_checked(extended) else { return false };
    let short = if extended == 0 { u64::from(second & 0x7f) } else { 0 };
    let length = extended_length.iter().fold(short, |sum, byte| sum << 8 | u64::from(*byte));
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    after.len().checked_sub(mask).is_some_and(|payload| payload as u64 >= length)
}

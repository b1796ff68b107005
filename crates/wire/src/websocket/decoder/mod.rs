//! Finds the frames in a buffer, unmasks them in place and reassembles fragments.
//!
//! A frame of up to [`LONGEST_IN_PLACE`] bytes is taken once it is whole in the caller's buffer. Of
//! a longer one the decoder takes what is there, in parts, as if the peer had sent fragments: so
//! no buffer has to hold it.

mod parts;

use std::ops::Range;

use super::{Header, Opcode, Role, Violation, apply_mask};
pub use parts::LONGEST_IN_PLACE;

/// What the decoder found; ranges are positions in the caller's buffer, unmasked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Message {
    /// A binary message that came in one frame.
    Binary(Range<usize>),
    /// A text message that came in one frame.
    Text(Range<usize>),
    /// A binary message that came in fragments.
    FragmentedBinary(Vec<u8>),
    /// A text message that came in fragments.
    FragmentedText(Vec<u8>),
    /// A fragment, or a part of a long frame, was taken in; its message is not whole.
    Fragment,
    /// A ping.
    Ping(Range<usize>),
    /// A pong.
    Pong(Range<usize>),
    /// The peer's end: the payload, whose code, where it gave one, [`close_code`] reads.
    Close(Range<usize>),
}

/// The state between frames: only the fragments of a message that is not whole.
#[derive(Debug)]
pub struct Decoder {
    role: Role,
    takes_any_text: bool,
    max_message: usize,
    fragments: Option<Box<Fragments>>,
}

#[derive(Debug)]
struct Fragments {
    text: bool,
    bytes: Vec<u8>,
}

impl Decoder {
    /// A decoder for this end, which takes messages of at most `max_message` bytes.
    #[must_use]
    #[inline]
    pub const fn new(role: Role, max_message: usize) -> Self {
        Self { role, takes_any_text: false, max_message, fragments: None }
    }

    /// The same, but text need not be UTF-8: whoever takes the messages looks.
    #[must_use]
    pub fn with_any_text(self) -> Self {
        Self { takes_any_text: true, ..self }
    }

    /// Changes the longest message that is taken from now on, in bytes.
    #[inline]
    pub const fn limit_messages(&mut self, max_message: usize) {
        self.max_message = max_message;
    }

    /// Takes the next frame from `buffer[*at..]` and moves `at` behind it.
    ///
    /// `None` means that the frame at `at` is not whole yet: the caller reads more.
    ///
    /// # Errors
    /// A violation ends the connection: the decoder must not be used afterwards.
    #[inline]
    pub fn next(
        &mut self,
        buffer: &mut [u8],
        at: &mut usize,
    ) -> Result<Option<Message>, Violation> {
        let bytes = buffer.get(*at..).unwrap_or_default();
        let Some(header) = Header::decode(bytes)? else { return Ok(None) };
        if header.mask.is_some() != (self.role == Role::Server) {
            return Err(Violation::Masking(header.opcode));
        }
        // The announced length is judged before the payload is there: nothing waits or grows
        // for a message that would be refused.
        let before = self.fragments.as_ref().map_or(0, |fragments| fragments.bytes.len());
        let length = usize::try_from(header.length).map_err(|_| Violation::TooLarge)?;
        if !header.opcode.is_control() && length.saturating_add(before) > self.max_message {
            return Err(Violation::TooLarge);
        }
        let start = *at + header.size;
        let Some(payload) = buffer.get_mut(start..start + length) else {
            return if length > LONGEST_IN_PLACE { self.part(buffer, at) } else { Ok(None) };
        };
        if let Some(mask) = header.mask {
            apply_mask(payload, mask);
        }
        *at = start + length;
        self.message(header, payload, start..start + length).map(Some)
    }

    #[inline]
    fn message(
        &mut self,
        header: Header,
        payload: &[u8],
        range: Range<usize>,
    ) -> Result<Message, Violation> {
        match header.opcode {
            Opcode::Ping => Ok(Message::Ping(range)),
            Opcode::Pong => Ok(Message::Pong(range)),
            Opcode::Close => check_close(payload).map(|()| Message::Close(range)),
            Opcode::Continuation => self.continuation(header.fin, payload),
            Opcode::Binary | Opcode::Text if self.fragments.is_some() => Err(Violation::Fragments),
            Opcode::Binary | Opcode::Text if !header.fin => {
                let text = header.opcode == Opcode::Text;
                self.fragments = Some(Box::new(Fragments { text, bytes: payload.to_vec() }));
                Ok(Message::Fragment)
            }
            Opcode::Binary => Ok(Message::Binary(range)),
            Opcode::Text => {
                self.check_text(payload)?;
                Ok(Message::Text(range))
            }
        }
    }

    fn continuation(&mut self, fin: bool, payload: &[u8]) -> Result<Message, Violation> {
        let most = self.max_message;
        let fragments = self.fragments.as_mut().ok_or(Violation::Fragments)?;
        fragments.take(payload, most);
        if !fin {
            return Ok(Message::Fragment);
        }
        let Fragments { text, bytes } = *self.fragments.take().ok_or(Violation::Fragments)?;
        if !text {
            return Ok(Message::FragmentedBinary(bytes));
        }
        self.check_text(&bytes)?;
        Ok(Message::FragmentedText(bytes))
    }

    fn check_text(&self, text: &[u8]) -> Result<(), Violation> {
        if !self.takes_any_text {
            std::str::from_utf8(text).map_err(|_| Violation::InvalidText)?;
        }
        Ok(())
    }
}

impl Fragments {
    /// Takes in what comes next of a message of at most `most` bytes, with room for no more.
    fn take(&mut self, payload: &[u8], most: usize) {
        let wanted = self.bytes.len() + payload.len();
        if wanted > self.bytes.capacity() {
            let room = (2 * self.bytes.len()).clamp(wanted, most.max(wanted));
            self.bytes.reserve_exact(room - self.bytes.len());
        }
        self.bytes.extend_from_slice(payload);
    }
}

/// The code in the payload of a Close frame, where there is one.
#[must_use]
pub fn close_code(payload: &[u8]) -> Option<u16> {
    payload.first_chunk().map(|code| u16::from_be_bytes(*code))
}

fn check_close(payload: &[u8]) -> Result<(), Violation> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(()) } else { Err(Violation::CloseFrame) };
    };
    let code = u16::from_be_bytes(*code);
    // RFC 6455 §7.4: 1004 to 1006 and 1015 never go over the wire, below 1000 and 1016 to
    // 2999 are not assigned.
    let valid = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    if !valid || std::str::from_utf8(reason).is_err() {
        return Err(Violation::CloseFrame);
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! Reads fields, one after the other.

use super::MAX_TEXT;

/// The bytes that are left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest<'a>(pub(super) &'a [u8]);

impl<'a> Rest<'a> {
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, behind) = self.0.split_first_chunk()?;
        self.0 = behind;
        Some(*array)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, behind) = self.0.split_at_checked(count)?;
        self.0 = behind;
        Some(bytes)
    }

    /// A text behind its length.
    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = usize::from(self.u16()?);
        if length > MAX_TEXT {
            return None;
        }
        str::from_utf8(self.bytes(length)?).ok()
    }

    /// A text that goes to the end.
    pub(super) fn last_text(&mut self) -> Option<&'a str> {
        let bytes = self.all();
        if bytes.len() > MAX_TEXT {
            return None;
        }
        str::from_utf8(bytes).ok()
    }

    pub(super) const fn all(&mut self) -> &'a [u8] {
        let bytes = self.0;
        self.0 = &[];
        bytes
    }
}

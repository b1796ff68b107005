//! Reads the fields of a frame, one after the other.

use super::{DecodeError, InvalidId, MAX_ID, Name, Ownership, Takeover};

/// The bytes that are left of a frame, or of a batch.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    pub(super) kind: u8,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(super) const fn new(kind: u8, bytes: &'a [u8]) -> Self {
        Self { kind, rest: bytes }
    }

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(super) const fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::TooLong { kind: self.kind }) }
    }

    #[inline]
    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let cut = self.rest.split_at_checked(count);
        let (bytes, rest) = cut.ok_or(DecodeError::Truncated { kind: self.kind })?;
        self.rest = rest;
        Ok(bytes)
    }

    /// All that is left.
    #[inline]
    pub(super) const fn take_rest(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.rest = &[];
        rest
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let bytes = self.bytes(N)?;
        bytes.try_into().map_err(|_| DecodeError::Truncated { kind: self.kind })
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_be_bytes)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    #[inline]
    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// An id; `None` where it is not known.
    pub(super) fn id<I: Name>(&mut self) -> Result<Option<I>, DecodeError> {
        let (realm, length) = (self.u8()?, usize::from(self.u8()?));
        let bytes = self.bytes(length)?;
        if length > MAX_ID {
            return Err(self.bad_field());
        }
        I::read(realm, bytes).map_err(|InvalidId| self.bad_field())
    }

    pub(super) fn ownership(&mut self) -> Result<Ownership, DecodeError> {
        match self.u8()? {
            0 => Ok(Ownership::Gateway),
            1 => Ok(Ownership::Endpoint),
            2 => Ok(Ownership::Session),
            _ => Err(self.bad_field()),
        }
    }

    pub(super) fn takeover(&mut self) -> Result<Takeover, DecodeError> {
        match self.u8()? {
            0 => Ok(Takeover::Always),
            1 => Ok(Takeover::SameCredential),
            2 => Ok(Takeover::Refuse),
            _ => Err(self.bad_field()),
        }
    }

    pub(super) fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.bad_field()),
        }
    }

    const fn bad_field(&self) -> DecodeError {
        DecodeError::BadField { kind: self.kind }
    }
}

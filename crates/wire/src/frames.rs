//! A batch of packets that lie in one buffer.

use std::ops::Range;

/// Why a place cannot be outside: whoever makes the frames has read them from the buffer.
const PLACE: &str = "a packet lies inside of its buffer";

/// Packets of one batch, in the order in which they came.
#[derive(Clone, Copy, Debug)]
pub struct Frames<'a> {
    buffer: &'a [u8],
    ranges: &'a [Range<usize>],
}

impl<'a> Frames<'a> {
    /// Packets at these places of a buffer.
    #[must_use]
    #[inline]
    pub const fn new(buffer: &'a [u8], ranges: &'a [Range<usize>]) -> Self {
        Self { buffer, ranges }
    }

    /// How many packets there are.
    #[must_use]
    #[inline]
    pub const fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there is none.
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The bytes of all packets together.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> usize {
        self.ranges.iter().map(ExactSizeIterator::len).sum()
    }

    /// The bytes of one packet.
    ///
    /// # Panics
    /// Beyond the last packet, or where a place is outside of the buffer.
    #[must_use]
    #[inline]
    pub fn packet(&self, index: usize) -> &'a [u8] {
        let range = self.ranges.get(index).expect("the index of a packet of this batch");
        self.buffer.get(range.clone()).expect(PLACE)
    }

    /// The packets.
    ///
    /// # Panics
    /// Where a place is outside of the buffer.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let buffer = self.buffer;
        self.ranges.iter().map(move |range| buffer.get(range.clone()).expect(PLACE))
    }
}

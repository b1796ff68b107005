//! Channels: what a door at one relay tells the same door at another, in order and whole.

/// Most bytes of a message in one part.
pub const MAX_PART: usize = 65_000;

/// Bytes that a part takes besides its own: the head of the frame, realm u8, number u64, seq u32 and
/// whether it is the last, u8.
pub const PART_COST: usize = super::FRAME_HEADER + 14;

/// Realms whose doors talk over channels.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ChannelRealms([u64; 4]);

impl ChannelRealms {
    /// Adds one.
    pub const fn insert(&mut self, realm: u8) {
        self.0[realm as usize / 64] |= 1 << (realm % 64);
    }

    /// Whether it is among them.
    #[must_use]
    pub const fn contains(self, realm: u8) -> bool {
        self.0[realm as usize / 64] & 1 << (realm % 64) != 0
    }

    /// In ascending order.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(move |realm| self.contains(*realm))
    }
}

impl FromIterator<u8> for ChannelRealms {
    fn from_iter<I: IntoIterator<Item = u8>>(realms: I) -> Self {
        let mut all = Self::default();
        realms.into_iter().for_each(|realm| all.insert(realm));
        all
    }
}

/// Something that is said of a channel, or over it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Channel<'a> {
    /// The realm of the door.
    pub realm: u8,
    /// Which channel: no other between the two relays has the number.
    pub number: u64,
    /// What is said.
    pub word: ChannelWord<'a>,
}

/// What is said of a channel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChannelWord<'a> {
    /// It begins, and takes the place of the one before. The relay with the lower id says so.
    Open,
    /// The other takes part.
    Accept,
    /// The other has missed something, or cannot go on: it wants a new one.
    Reset,
    /// A part of a message.
    Part {
        /// Its number, from 0 on.
        seq: u32,
        /// Whether the message ends with it.
        is_last: bool,
        /// Its bytes.
        bytes: &'a [u8],
    },
}

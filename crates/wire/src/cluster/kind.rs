//! The kinds of frames.

pub(super) const PACKETS: u8 = 0x01;
pub(super) const NACK: u8 = 0x02;
pub(super) const CLAIM: u8 = 0x10;
pub(super) const GRANTED: u8 = 0x11;
pub(super) const REFUSED: u8 = 0x12;
pub(super) const MOVED: u8 = 0x13;
pub(super) const LEAVE: u8 = 0x14;
pub(super) const LEFT: u8 = 0x15;
pub(super) const GONE: u8 = 0x16;
pub(super) const NOTED: u8 = 0x17;
pub(super) const FIND: u8 = 0x18;
pub(super) const FOUND: u8 = 0x19;
pub(super) const MISSING: u8 = 0x1a;
pub(super) const LOCATE: u8 = 0x1c;
pub(super) const WATCH: u8 = 0x1d;
pub(super) const HEARD: u8 = 0x1e;
pub(super) const ALIVE: u8 = 0x20;
pub(super) const DRAINING: u8 = 0x21;
pub(super) const CLOCK: u8 = 0x22;
pub(super) const TAKES_TCP: u8 = 0x23;
pub(super) const ABOUT: u8 = 0x24;
pub(super) const OPEN: u8 = 0x30;
pub(super) const ACCEPT: u8 = 0x31;
pub(super) const RESET: u8 = 0x32;
pub(super) const PART: u8 = 0x33;

//! What names a connection.

use std::fmt;

/// The name of a connection, as `rs/xid` makes them: a time, who made it, and a number.
///
/// It shows as 20 characters of base32 (RFC 4648 §7, in lower case).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Guid(pub [u8; Self::LENGTH]);

/// A text is no GUID.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a GUID: 20 characters of 0-9 and a-v, of which the last is 0 or g")]
pub struct InvalidGuid;

const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

impl Guid {
    /// Its length in bytes.
    pub const LENGTH: usize = 12;

    /// Its length as a text: five bits a character.
    pub const TEXT_LENGTH: usize = 20;

    /// The name of a connection that began at this second of Unix time. `maker` is different for
    /// each relay, `number` for each connection of one maker in one second; it counts modulo 2^24.
    #[must_use]
    pub const fn new(seconds: u32, maker: [u8; 5], number: u32) -> Self {
        let [t0, t1, t2, t3] = seconds.to_be_bytes();
        let [_, n0, n1, n2] = number.to_be_bytes();
        Self::of_maker(maker, [t0, t1, t2, t3, n0, n1, n2])
    }

    /// A name of this maker's, made of 7 other bytes.
    #[must_use]
    pub const fn of_maker(maker: [u8; 5], rest: [u8; 7]) -> Self {
        let [r0, r1, r2, r3, r4, r5, r6] = rest;
        let [m0, m1, m2, m3, m4] = maker;
        Self([r0, r1, r2, r3, m0, m1, m2, m3, m4, r4, r5, r6])
    }

    /// Who made it.
    #[must_use]
    pub const fn maker(&self) -> [u8; 5] {
        let [_, _, _, _, maker @ .., _, _, _] = self.0;
        maker
    }

    /// The text, as ASCII.
    #[must_use]
    pub fn text(&self) -> [u8; Self::TEXT_LENGTH] {
        // 100 = 20 * 5 bits, of which the last four are zero.
        let bits = self.0.iter().fold(0, |bits: u128, byte| bits << 8 | u128::from(*byte)) << 4;
        std::array::from_fn(|index| {
            let digit = bits >> (5 * (Self::TEXT_LENGTH - 1 - index)) & 31;
            DIGITS[usize::try_from(digit).expect("it is below 32")]
        })
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(str::from_utf8(&self.text()).expect("digits are ASCII"))
    }
}

impl std::str::FromStr for Guid {
    type Err = InvalidGuid;

    fn from_str(text: &str) -> Result<Self, InvalidGuid> {
        let digits: &[u8; Self::TEXT_LENGTH] =
            text.as_bytes().try_into().map_err(|_| InvalidGuid)?;
        let mut bits: u128 = 0;
        for digit in digits {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'v' => digit - b'a' + 10,
                _ => return Err(InvalidGuid),
            };
            bits = bits << 5 | u128::from(value);
        }
        if bits & 0xf != 0 {
            return Err(InvalidGuid);
        }
        let [_, _, _, _, bytes @ ..] = (bits >> 4).to_be_bytes();
        Ok(Self(bytes))
    }
}

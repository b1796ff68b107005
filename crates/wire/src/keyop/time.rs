//! Moments as RFC 3339 writes them.

use std::fmt::Write as _;

/// A moment in UTC, `nanos` behind so many seconds of Unix time, as Go writes it: up to nine digits
/// of a fraction, without the zeros at its end.
///
/// # Panics
/// Where `nanos` are a second or more.
#[must_use]
pub fn timestamp(seconds: u64, nanos: u32) -> String {
    assert!(nanos < 1_000_000_000, "a fraction of a second");
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if nanos > 0 {
        let _ = write!(text, ".{nanos:09}");
        text.truncate(text.trim_end_matches('0').len());
    }
    text.push('Z');
    text
}

/// The date of a day counted from 1970, in years that begin in March, so that a leap day is
/// the last of its year (Hinnant, `civil_from_days`).
const fn date(day: u64) -> (u64, u64, u64) {
    // Days from 0000-03-01 to 1970-01-01; 400 years have 146,097 days.
    let day = day + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (400 * era + year + next, month, day_of_month)
}

/// Whether a text is a moment, by the rules of Go's decoder: RFC 3339 with `T` and `Z` in upper
/// case, without leap seconds.
pub(super) fn is_timestamp(text: &str) -> bool {
    read(text.as_bytes()).is_some()
}

fn read(text: &[u8]) -> Option<()> {
    let (date, rest) = text.split_first_chunk::<10>()?;
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1] = *date else { return None };
    let year = number(&[y0, y1, y2, y3])?;
    let month = number(&[m0, m1])?;
    let day = number(&[d0, d1])?;
    if day == 0 || day > days(year, month)? {
        return None;
    }
    let (time, rest) = rest.split_first_chunk::<9>()?;
    let [b'T', h0, h1, b':', n0, n1, b':', s0, s1] = *time else { return None };
    within(&[h0, h1], 23)?;
    within(&[n0, n1], 59)?;
    within(&[s0, s1], 59)?;
    zone(fraction(rest)?)
}

/// What follows the fraction of a second, if there is one.
fn fraction(rest: &[u8]) -> Option<&[u8]> {
    let Some(digits) = rest.strip_prefix(b".") else { return Some(rest) };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 { None } else { digits.get(count..) }
}

fn zone(text: &[u8]) -> Option<()> {
    match *text {
        [b'Z'] => Some(()),
        [b'+' | b'-', h0, h1, b':', m0, m1] => {
            within(&[h0, h1], 23)?;
            within(&[m0, m1], 59)
        }
        _ => None,
    }
}

fn within(digits: &[u8], most: u32) -> Option<()> {
    (number(digits)? <= most).then_some(())
}

fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0'))
    })
}

/// How many days a month has.
const fn days(year: u32, month: u32) -> Option<u32> {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => Some(31),
        4 | 6 | 9 | 11 => Some(30),
        2 if is_leap => Some(29),
        2 => Some(28),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_with_go() {
        for (seconds, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_782_400, 500_000_000, "2000-02-29T00:00:00.5Z"),
            (951_868_800, 1, "2000-03-01T00:00:00.000000001Z"),
            (1_795_176_000, 123_456_780, "2026-11-20T12:00:00.12345678Z"),
            (1_795_176_000, 10, "2026-11-20T12:00:00.00000001Z"),
        ] {
            assert_eq!(timestamp(seconds, nanos), text);
            assert!(is_timestamp(text));
        }
    }

    #[test]
    fn moments_are_read_as_with_go() {
        for good in [
            "2026-03-31T14:22:01.123456789Z",
            "2026-03-31T14:22:01Z",
            "2026-03-31T14:22:01+02:00",
            "2024-02-29T23:59:59.0-23:59",
            "2026-03-31T14:22:01.1234567891234Z",
        ] {
            assert!(is_timestamp(good), "{good}");
        }
        for bad in [
            "",
            "yesterday",
            "2026-03-31",
            "2026-03-31 14:22:01Z",
            "2026-03-31T14:22:01",
            "2026-03-31T14:22:01z",
            "2026-03-31t14:22:01Z",
            "2026-03-31T14:22:01.Z",
            "2026-03-31T14:22:01,5Z",
            "2026-03-31T4:22:01Z",
            "2026-03-31T24:22:01Z",
            "2026-03-31T14:60:01Z",
            "2026-03-31T14:22:60Z",
            "2026-03-31T14:22:01+24:00",
            "2026-03-31T14:22:01+0200",
            "2026-03-31T14:22:01Zx",
            "2026-02-29T14:22:01Z",
            "2026-04-31T14:22:01Z",
            "2026-00-10T14:22:01Z",
            "2026-13-10T14:22:01Z",
            "2026-03-00T14:22:01Z",
        ] {
            assert!(!is_timestamp(bad), "{bad}");
        }
    }
}
